"""The fields every experiment has, and the three ways to change them.

`FILE.py:WORDS` chooses structure (which model, which data), `--config.NAME=VALUE` changes a value, and the word `smoke` turns
any config into a run of two steps with a tiny model on made-up data. No config imports jax, so `--help` is instant.
"""

import copy

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from research.config import options, ranges, synonyms
from research.config.durations import DURATIONS, UNITS, resolve_units
from research.errors import InputError, nearest

AUTO = "auto"  # a value that the program decides, and says
check_ranges = ranges.check_ranges


def words(arg: str, **defaults: str) -> dict[str, str]:
    """The words of a config argument: `model=minilm,data=files,smoke`.

    `defaults` declares the words with a value; `demo` is short for `data=demo`, and `smoke` is always known. Raises InputError
    naming the nearest known word.
    """
    known = {"data": "", "model": "", "method": "full", **defaults}
    chosen, given = {**known, "smoke": ""}, set()
    for word in filter(None, arg.split(",")):
        name, _, value = word.partition("=")
        if word in ("smoke", "demo"):
            name, value = ("smoke", "yes") if word == "smoke" else ("data", "demo")
        elif name not in known or not value:
            options = ["smoke", "demo", *(f"{k}=..." for k in known)]
            near = f"did you mean {word + '=...'!r}?" if word in known else nearest(f"{name}=..." if "=" in word else word, options)
            raise InputError(f"config argument {word!r} is not known; {near}; known: {', '.join(options)}")
        chosen[name] = value
        given.add(name)
    if chosen["data"] == "demo" and "model" not in given:
        chosen["model"] = "minilm"  # the demo needs no network, so its model must not either
    return chosen


def base(task: str, chosen: dict[str, str]) -> ConfigDict:
    """Every field with its default, for `task` and the chosen words."""
    c = ConfigDict()
    c.task = task  # a row of research/tasks/catalog.py; --list=tasks
    c.metric = ""  # which dev score selects what is kept: accuracy | f1 | precision | recall | macro_f1 | ...; empty: the task's
    c.positive = ""  # the class that f1, precision and recall are of; empty: the second of two, the mean over classes above two
    c.method = chosen["method"]  # one of --list=methods, or several joined by +
    c.model = chosen["model"]  # a name of weights/hub.py: minilm, bert-base, bert-large, tiny; bilstm, textcnn; --list=models
    c.seed = 0  # of everything that is left to chance

    _inputs(c, chosen)

    c.max_length = 128  # tokens of an example, special ones included
    c.truncation = "head"  # what is left of a longer text: its head | tail | head_tail
    c.truncation_head = 128  # head_tail: tokens that are left of the beginning; the others are the last ones (Sun et al. 2019)
    c.packing = "packed"  # packed | bucketed | padded
    c.batch_size = 32  # examples of an update, however they are laid out
    c.eval_batch_tokens = 2048  # an evaluation batch is as many examples as have about so many; on accelerators, raise it
    c.accumulate = 1  # parts a batch is computed in, one after the other, to save memory

    c.pooling = (
        AUTO  # auto | pooler (the family's own) | first | last | mean | max; auto: as research/experiment/pooling.py decides; the plan says
    )
    c.dropout = 0.1  # of hidden states, from the first stage that trains
    c.attention_dropout = placeholder(float)  # of attention weights; empty: as `dropout`; at 0, GPUs train with fused attention
    c.label_smoothing = 0.0  # part of the target that is spread over all classes

    options.add(c)
    c.freeze = ""  # further parameters to freeze: patterns apart by commas, for example embeddings/word

    c.prefix_cache_gb = 4.0  # most to keep on disk of what frozen stages give; 0: compute it again in every step
    c.remat = False  # compute layers again in the backward pass instead of keeping what is inside them

    c.optimizer = "adamw"  # adamw | adam | sgd | adafactor
    c.base_learning_rate = 5e-5  # what suits full fine-tuning
    c.learning_rate = placeholder(float)  # empty: what suits the method, a multiple of the above
    c.schedule = "linear"  # linear | cosine | constant | slanted_triangular, after the warm-up
    c.weight_decay = 0.01  # decoupled for adamw and adafactor, an L2 term for adam and sgd
    c.no_decay = ConfigDict({"bias": "bias", "norm": ".*/(norm|.*_norm)/scale"})  # patterns of what decay spares; an empty one: nothing
    c.clip_norm = 1.0  # 0: no clipping
    c.beta1, c.beta2, c.epsilon, c.momentum = 0.9, 0.999, 1e-8, 0.9  # of the optimizer
    c.bias_correction = True  # of the moments of adam and adamw; False is BERT's own AdamW (Devlin et al. 2019), with epsilon 1e-6

    for duration in DURATIONS:  # each in one unit: _steps, _epochs, _examples or _percent of the total
        for unit, kind in UNITS.items():
            if (duration, unit) != ("total", "percent"):
                c[f"{duration}_{unit}"] = placeholder(kind)
    c.total_epochs = 3.0
    c.smoke = False  # set by the word smoke: the total is at least a step for each phase of the method
    c.warmup_percent = 10.0
    c.eval_epochs = 1.0
    c.checkpoint_epochs = 1.0
    c.log_steps = 10
    c.patience_epochs = 0.0
    c.phase_percent = 0.0

    c.precision = "bfloat16"  # bfloat16 (float32 parameters, norms and losses) | float32
    c.parallel = "auto"  # auto | jit | pmap
    return c


def _inputs(c: ConfigDict, chosen: dict[str, str]) -> None:
    """Where the model and the data come from."""
    c.weights = ConfigDict()
    c.weights.source = ""  # empty: the model's own; a folder; hub id; "scratch": random parameters; bilstm, textcnn: a file of word vectors
    c.weights.sha256 = ""  # empty: what is pinned for the model, if anything
    c.weights.pickle = False  # whether pytorch_model.bin may be read, where there is nothing else; PyTorch must be installed
    c.weights.head = False  # begin with the checkpoint's own classifier, whose classes must be the task's
    c.weights.adapter = ""  # begin with the delta and the head of this folder in peft's format

    c.data = ConfigDict()
    c.data.seed = placeholder(int)
    c.data.seed = 0  # of the dev split, of subsets and of augmentation: other seeds of a run see the same examples; empty: the run's own
    c.data.source = chosen["data"]  # tfds | files | demo
    c.data.path = ""  # files: the folder with train.tsv, test.tsv and perhaps dev.tsv; tfds: its data_dir
    c.data.train_examples = 0  # 0 is all; fewer are drawn by label
    c.data.eval_examples = 0  # the same for dev and for test
    c.data.dev_fraction = 0.1  # cut from train, by label, where there is no dev split
    c.data.augment = ""  # deletion | swap | crop: changed copies of the training texts stand beside them; empty: none
    c.data.augment_rate = 0.1  # the part of a text's words that is deleted, swapped or cropped
    c.data.augment_copies = 1  # of each training text


# What suits models that nobody has trained before, whatever the task (they have no norms), and how small they are in a smoke run.
FROM_NOTHING = {"base_learning_rate": 1e-3, "learning_rate": 1e-3, "dropout": 0.5, "total_epochs": 10.0, "no_decay.norm": ""}
SMALL = {
    "bilstm": {"bilstm.embedding": 16, "bilstm.size": 8},
    "textcnn": {"textcnn.embedding": 16, "textcnn.filters": 8},
}


def finish(c: ConfigDict, chosen: dict[str, str]) -> ConfigDict:
    """The last word of every `get_config`: what suits a model from nothing, and the smoke run where it was asked for."""
    if c.model in SMALL:
        override(c, FROM_NOTHING)
    if chosen["smoke"]:
        override(c, SMALL.get(c.model) or {"model": "tiny"})
        override(c, {"data.source": "demo", "data.train_examples": 32, "data.eval_examples": 16, "total_steps": 2, "smoke": True})
        override(c, {"max_length": 32, "batch_size": 8, "eval_batch_tokens": 256, "log_steps": 1})
        override(c, {"top_layers": 1, "feature_bilstm.size": 16})
        override(c, {"eval_epochs": 1.0, "checkpoint_epochs": 1.0, "warmup_percent": 0.0})
    return c


def override(c: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    """Sets dotted fields in place. A duration given in one unit displaces the unit the config had it in.

    Raises InputError on an unknown field (nearest named) and on two units for one duration.
    """
    for name, value in changes.items():
        check_field(c, name)
        owner, _, field = name.rpartition(".")
        (c[owner] if owner else c)[field] = value
    resolve_units(c, changes)
    return c


def copied(c: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    """Return a copy with these changes, made as by `override`."""
    return override(copy.deepcopy(c), changes)


def check_field(c: ConfigDict, name: str) -> None:
    """Raises InputError unless `name` is a dotted field of `c`."""
    fields = field_names(c)
    if name in fields:
        return
    if inner := [field for field in fields if field.startswith(f"{name}.")]:
        raise InputError(f"config field {name!r} is a group; set one of {', '.join(inner)}")
    near = synonyms.meaning(name) or nearest(name, fields, rest="--list=fields shows them all")
    raise InputError(f"config field {name!r} is not known; {near}")


def field_names(c: ConfigDict, prefix: str = "") -> list[str]:
    """All dotted field names, inner ones in full."""
    names = []
    for key in c:
        value = c[key]
        names += field_names(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else [prefix + key]
    return names
