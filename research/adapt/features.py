"""Methods that leave the encoder as it is and say how its states are read: features (Peters et al. 2018; Devlin et al. 2019, table 7).

The states are computed once and kept on disk, as for `linear_probe`; each stage that is read takes as much room there as the last one
alone. What is read has not gone through the encoder's pooler: pool by mean, first or max. Joined with a method that trains parts of the
encoder (`full+chosen_layer`), they say how these are read; what is above the last stage that is read must be frozen then (`freeze`).
"""

from typing import Any

from research.adapt.base import Method
from research.adapt.freezing import NOTHING, Stages
from research.errors import InputError
from research.layers.precision import Precision
from research.models import readers


def chosen_layer(stages: Stages, config: Any) -> Method:
    """The head reads the states of one stage, `config.feature_layer`: 0 is the embeddings, 1 the first layer, -1 the last.

    Default -2, the second-to-last layer, Devlin et al.'s best single one (2019, table 7). Costs as `linear_probe`. Raises
    InputError when there is no such stage.
    """
    count, number = len(stages), config.feature_layer
    if not -count <= number < count:
        raise InputError(f"feature_layer={number}: the encoder has embeddings (0) and {count - 1} layers; use {-count} to {count - 1}")
    return _read_by(readers.OneStage(number % count))


def last4_concat(stages: Stages, config: Any) -> Method:
    """The head reads the last four layers' states joined, or all layers' where there are fewer (Devlin et al. 2019, table 7: the best
    of their features). Costs as `linear_probe`, and four times the room on disk."""
    return _read_by(readers.LastJoined(4))


def scalar_mix(stages: Stages, config: Any) -> Method:
    """The head reads a learnt weighted mean of all stages, scaled (Peters et al. 2018, equation 1, without layer normalisation).

    It begins as the plain mean. Costs as `linear_probe`, and as many times the room on disk as there are stages.
    """
    return _read_by(readers.ScalarMix())


def feature_bilstm(stages: Stages, config: Any) -> Method:
    """The head reads BiLSTMs over the last states, as in Devlin et al. 2019, section 5.3: two layers.

    Theirs have 768 units, `config.feature_bilstm.size` is 256 a direction: the whole costs about as much as half a layer of BERT-base,
    but its steps are one after the other. Raises InputError for a number under 1.
    """
    sizes = _sizes("feature_bilstm", config.feature_bilstm)
    return _read_by(readers.LstmOver(sizes["size"], sizes["layers"], Precision(config.precision)))


def feature_concat(stages: Stages, config: Any) -> Method:
    """The head reads the last states joined with those of a small encoder that is trained from scratch on the task: a word embedding
    of its own and a BiLSTM, as language-model states are joined with a tagger's own in TagLM (Peters et al. 2017).

    `config.feature_concat` has `embedding` 64 and `size` 64 a direction, ours: small, as the task's data are. Costs an embedding of
    the whole vocabulary to train, and the BiLSTM's steps. Raises InputError for a number under 1.
    """
    sizes = _sizes("feature_concat", config.feature_concat)
    return _read_by(readers.LstmBeside(sizes["embedding"], sizes["size"], Precision(config.precision)))


def _read_by(reader: readers.Reader) -> Method:
    return Method(phases=(NOTHING,), reader=reader)


def _sizes(option: str, values: Any) -> dict[str, int]:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{option}.{name}={value} must be at least 1")
    return dict(values)
