"""The fields of every experiment's config, and the three ways to set them.

`FILE.py:WORDS` chooses the model, the data and the method, `--config.NAME=VALUE` sets a field, and the word `smoke` turns any
config into a run of two steps with a tiny model on the demo data. No config imports jax, so `--help` is instant.
"""

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import placeholder

from research.config import options, ranges, synonyms
from research.config.durations import DURATIONS, UNITS, resolve_units
from research.errors import InputError, nearest

AUTO = "auto"  # a value that the program chooses and reports
AUTO_FIELDS = ("pooling", "precision")  # fields that may have it; the config.json and result.json of a run hold the chosen values
check_ranges = ranges.check_ranges


def words(arg: str, **defaults: str) -> dict[str, str]:
    """Return the words of a config argument such as `model=minilm,data=files,smoke` as name -> value.

    `defaults` declares words and their default values. `demo` is short for `data=demo`, and `smoke` is always known. Raise InputError
    for an unknown word, naming the nearest known one.
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
        chosen["model"] = "minilm"  # the demo works offline, so its default model must too
    return chosen


def base(task: str, chosen: dict[str, str]) -> ConfigDict:
    """Return a config with the default of every field, for `task` and the chosen words."""
    c = ConfigDict()
    c.task = task  # name of the task: a row of research/tasks/catalog.py; see --list=tasks
    c.metric = ""  # dev metric that selects the checkpoint: accuracy | f1 | precision | recall | macro_f1 | ...; empty: the task's
    c.positive = ""  # class that f1, precision and recall are computed for; empty: the second of two classes, or the mean over more
    c.method = chosen["method"]  # fine-tuning method, one of --list=methods, or several joined by +
    c.model = chosen["model"]  # name of the model, one of --list=models: minilm, bert-base, bert-large, tiny, bilstm, textcnn, ...
    c.seed = 0  # random seed of initialisation, dropout and data order

    _inputs(c, chosen)

    c.max_length = 128  # maximum number of tokens of an example, special tokens included
    c.truncation = "head"  # part of a longer text that is kept: head | tail | head_tail
    c.truncation_head = 128  # tokens that head_tail keeps from the beginning; the others are the last ones (Sun et al. 2019)
    c.packing = "packed"  # batch layout: packed (several examples per row) | bucketed (rows of similar lengths) | padded
    c.batch_size = 32  # number of examples per optimizer update, in every batch layout
    c.eval_batch_tokens = 2048  # approximate number of tokens in an evaluation batch; use a larger number on accelerators
    c.accumulate = 1  # number of microbatches that a batch is split into to save memory (gradient accumulation)

    c.pooling = AUTO  # vector the classifier reads: auto (--mode=plan shows the choice) | pooler | first | last | mean | max
    c.dropout = 0.1  # dropout rate of hidden states, from the first trainable stage on
    c.attention_dropout = placeholder(float)  # dropout rate of attention weights; empty: as dropout; at 0, GPUs use fused attention
    c.label_smoothing = 0.0  # part of the target probability that is spread evenly over all classes

    options.add(c)
    c.freeze = ""  # further parameters to freeze: comma-separated patterns, for example embeddings/word

    c.prefix_cache_gb = 4.0  # disk limit (GB) for cached hidden states of frozen stages, for any method; 0: compute them in every step
    c.remat = False  # rematerialisation: layers are computed again in the backward pass instead of storing their activations

    c.optimizer = "adamw"  # name of the optimizer: adamw | adam | sgd | adafactor
    c.base_learning_rate = 5e-5  # learning rate of full fine-tuning; the default of every method is a multiple of it
    c.learning_rate = placeholder(float)  # peak learning rate; empty: base_learning_rate times the method's factor
    c.schedule = "linear"  # learning rate schedule after warm-up: linear | cosine | constant | slanted_triangular
    c.weight_decay = 0.01  # weight decay: decoupled for adamw and adafactor, an L2 term for adam and sgd
    c.no_decay = ConfigDict({"bias": "bias", "norm": ".*/(norm|.*_norm)/scale"})  # pattern of parameters without weight decay; empty: none
    c.clip_norm = 1.0  # maximum global norm of the gradient; 0: no clipping
    c.beta1, c.beta2, c.epsilon, c.momentum = 0.9, 0.999, 1e-8, 0.9  # optimizer constants: betas and epsilon of adam(w); momentum of sgd
    c.bias_correction = True  # bias correction of adam and adamw; False: as in BERT's AdamW (Devlin et al. 2019), with epsilon 1e-6 set too

    for duration in DURATIONS:  # one field per unit: _steps, _epochs, _examples or _percent (of the total)
        for unit, kind in UNITS.items():
            if (duration, unit) != ("total", "percent"):
                c[f"{duration}_{unit}"] = placeholder(kind)
    c.total_epochs = 3.0
    c.smoke = False  # mark of a smoke run, set by the word smoke: the total is at least one step per phase of the method
    c.warmup_percent = 10.0
    c.eval_epochs = 1.0
    c.checkpoint_epochs = 1.0
    c.log_steps = 10
    c.patience_epochs = 0.0
    c.phase_percent = 0.0

    c.precision = AUTO  # type of matrix products: auto (bfloat16 where the device multiplies it, else float32) | bfloat16 | float32
    c.parallel = "auto"  # device layout: auto | jit (one device) | pmap (all devices)
    return c


def _inputs(c: ConfigDict, chosen: dict[str, str]) -> None:
    """Add the fields that say where the model and the data come from."""
    c.weights = ConfigDict()
    c.weights.source = ""  # folder or hub id, "scratch" (random) or, for bilstm and textcnn, a file of word vectors; empty: the model's
    c.weights.sha256 = ""  # expected sha256 of the weights file; empty: the digest published for the model, if any
    c.weights.pickle = False  # permission to read pytorch_model.bin where there is no other file; needs PyTorch
    c.weights.head = False  # whether to start from the checkpoint's classifier, whose classes must be those of the task
    c.weights.adapter = ""  # folder in peft's format to start from: its delta and head are loaded

    c.data = ConfigDict()
    c.data.seed = placeholder(int)
    c.data.seed = 0  # random seed of the dev split, subsets and augmentation; independent of seed; empty: the value of seed
    c.data.source = chosen["data"]  # source of the data: tfds | files | demo
    c.data.path = ""  # folder of the data: for files, with train.tsv, test.tsv and optionally dev.tsv; for tfds, its data_dir
    c.data.train_examples = 0  # number of training examples, drawn in proportion to the labels; 0: all
    c.data.eval_examples = 0  # number of dev examples and of test examples, drawn in proportion to the labels; 0: all
    c.data.dev_fraction = 0.1  # fraction of train that becomes dev where there is no dev split, in proportion to the labels
    c.data.augment = ""  # change made in added copies of the training texts: deletion | swap | crop; empty: no copies
    c.data.augment_rate = 0.1  # fraction of the words of a text that is deleted, swapped or cropped
    c.data.augment_copies = 1  # number of changed copies of each training text


# Defaults of models trained from scratch, for every task (they have no layer norms), and their sizes in a smoke run.
FROM_NOTHING = {"base_learning_rate": 1e-3, "learning_rate": 1e-3, "dropout": 0.5, "total_epochs": 10.0, "no_decay.norm": ""}
SMALL = {
    "bilstm": {"bilstm.embedding": 16, "bilstm.size": 8},
    "textcnn": {"textcnn.embedding": 16, "textcnn.filters": 8},
}


def finish(c: ConfigDict, chosen: dict[str, str]) -> ConfigDict:
    """Apply the last changes of every `get_config`: the defaults of a model trained from scratch, and the word `smoke`."""
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
    """Set dotted fields of `c` in place and return `c`. A duration given in one unit clears its other units.

    Raise InputError for an unknown field, naming the nearest one, and for two units of one duration.
    """
    for name, value in changes.items():
        check_field(c, name)
        owner, _, field = name.rpartition(".")
        (c[owner] if owner else c)[field] = value
    resolve_units(c, changes)
    return c


def copied(c: ConfigDict, changes: dict[str, object]) -> ConfigDict:
    """Return a frozen copy of `c` with `changes` applied as by `override`."""
    return FrozenConfigDict(override(ConfigDict(c).copy_and_resolve_references(), changes))


def check_field(c: ConfigDict, name: str) -> None:
    """Raise InputError unless `name` is a dotted field of `c`."""
    fields = field_names(c)
    if name in fields:
        return
    if inner := [field for field in fields if field.startswith(f"{name}.")]:
        raise InputError(f"config field {name!r} is a group; set one of {', '.join(inner)}")
    near = synonyms.meaning(name) or nearest(name, fields, rest="--list=fields shows them all")
    raise InputError(f"config field {name!r} is not known; {near}")


def field_names(c: ConfigDict, prefix: str = "") -> list[str]:
    """Return the dotted names of all fields; a field inside a group is called group.field."""
    names = []
    for key in c:
        value = c[key]
        names += field_names(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else [prefix + key]
    return names
