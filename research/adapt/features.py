"""Feature-based methods: the head reads chosen hidden states of a frozen encoder (Peters et al. 2018; Devlin et al. 2019, table 7).

The hidden states are computed once and cached on disk, as for `linear_probe`. Each stage that the head reads takes as much disk space as
the last stage alone. The hidden states do not pass through the encoder's pooler: use pooling=mean, first or max. These methods can be
joined with one that trains the encoder (`full+chosen_layer`); stages above the last one that the head reads must then be frozen (`freeze`).
"""

from typing import Any

from research.adapt.base import Method
from research.adapt.freezing import NOTHING, Stages
from research.errors import InputError
from research.layers.precision import Precision
from research.models import readers


def chosen_layer(stages: Stages, config: Any) -> Method:
    """Read the hidden states of one stage, `config.feature_layer`: 0 is the embeddings, 1 the first layer, -1 the last.

    The default is -2, the second-to-last layer, the best single layer of Devlin et al. (2019, table 7). The cost is that of
    `linear_probe`. Raises InputError if the encoder has no such stage.
    """
    count, number = len(stages), config.feature_layer
    if not -count <= number < count:
        raise InputError(f"feature_layer={number}: the encoder has embeddings (0) and {count - 1} layers; use {-count} to {count - 1}")
    return _read_by(readers.OneStage(number % count))


def last4_concat(stages: Stages, config: Any) -> Method:
    """Read the concatenated hidden states of the last four layers, or of all layers if there are fewer (Devlin et al. 2019, table 7:
    their best features). The cost is that of `linear_probe`, with four times the disk space."""
    return _read_by(readers.LastJoined(4))


def scalar_mix(stages: Stages, config: Any) -> Method:
    """Read a learnt, scaled weighted mean of all stages (Peters et al. 2018, equation 1, without layer normalisation).

    The initial weights are equal. The cost is that of `linear_probe`, with the disk space times the number of stages.
    """
    return _read_by(readers.ScalarMix())


def feature_bilstm(stages: Stages, config: Any) -> Method:
    """Read the last hidden states through a two-layer BiLSTM, as in Devlin et al. 2019, section 5.3.

    The paper's BiLSTM has 768 units; `config.feature_bilstm.size` is 256 for each direction. The BiLSTM costs about as much as half a
    layer of BERT-base, but its steps run one after the other. Raises InputError for a number under 1.
    """
    sizes = _sizes("feature_bilstm", config.feature_bilstm)
    return _read_by(readers.LstmOver(sizes["size"], sizes["layers"], Precision(config.precision)))


def feature_concat(stages: Stages, config: Any) -> Method:
    """Read the last hidden states concatenated with those of a small encoder that is trained from scratch on the task: a word embedding
    and a BiLSTM. TagLM concatenates the states of a language model and of a tagger in the same way (Peters et al. 2017).

    `config.feature_concat` has `embedding` 64 and `size` 64 for each direction. These numbers are not from the paper: they are small
    because the task's data are. Costs the training of an embedding of the whole vocabulary, and the BiLSTM's steps. Raises InputError for
    a number under 1.
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
