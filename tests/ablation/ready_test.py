"""The ready ablations: each varies only the fields of its question, and has the number of runs that its docstring says."""

import collections
import re

import pytest

from configs import ablations
from configs.ablations.methods import METHODS
from research.ablation import grouping, sweep
from research.adapt import methods
from research.config import fields
from research.data import augment, encode
from research.errors import InputError
from research.experiment import build as experiments
from research.models import heads
from research.params import plan as plans
from research.weights import hub
from tests import runs

FOLDER = runs.ROOT / "configs" / "ablations"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
VARIES = {
    "auto_pooling": {"method", "pooling"},
    "augmentation": {"data.train_examples", "data.augment", "data.augment_rate"},
    "few_shot": {"data.train_examples", "method"},
    "freezing": {"method", "top_layers"},
    "layerwise_decay": {"base_learning_rate", "llrd_decay"},
    "lora": {"method", "lora.rank", "lora.targets"},
    "methods": {"method"},
    "pooling": {"method", "pooling"},
    "precision": {"precision", "packing"},
    "rate_batch": {"base_learning_rate", "batch_size"},
    "rates": {"method", "base_learning_rate"},
    "scratch": {"data.train_examples", "weights.source", "model", "learning_rate", "dropout", "no_decay.norm", "total_steps"},
    "stability": {"warmup_percent", "bias_correction"},
    "truncation": {"max_length", "truncation", "truncation_head"},
    "unfreezing": {"method", "top_layers", "unfreeze_layers", "phase_percent", "schedule"},
}


def load(name, words=""):
    base, overrides = sweep.load(f"{FOLDER / name}.py:{words}")
    return base(), overrides


def configs(name, words=""):
    return [config for _, config in sweep.configs(*sweep.load(f"{FOLDER / name}.py:{words}"))]


def values(name, field, words=""):
    return list(dict.fromkeys(run[field] for run in load(name, words)[1] if field in run))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_fields_of_the_question_vary(name):
    _, overrides = load(name)
    assert {field for run in overrides for field in run} == VARIES[name] | {"seed"}
    for field in VARIES[name]:  # a field that takes one value in all runs belongs to the base
        assert len({run.get(field, "as in the base") for run in overrides}) > 1, field
    settings = collections.Counter(tuple((f, v) for f, v in run.items() if f != "seed") for run in overrides)
    assert set(settings.values()) == {len({run["seed"] for run in overrides})}


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_runs_is_as_documented_and_small_in_a_smoke_run(name):
    documented = re.search(r"^(\d+) runs", (FOLDER / f"{name}.py").read_text(), re.MULTILINE)
    count = len(load(name)[1])
    assert count == (int(documented[1]) if documented else {"freezing": 40, "methods": 108, "precision": 6}[name])
    assert len(load(name, "smoke,seeds=1")[1]) <= (len(methods.METHODS) if name == "methods" else 14)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_valid(name):
    for config in configs(name):
        assert config.truncation in encode.TRUNCATIONS and config.data.augment in ("", *augment.OPERATIONS)
        assert config.pooling in ("auto", *heads.POOLINGS) and config.model in (*hub.BASELINES, "minilm")
        experiments.resolve(config)  # raises if a value is not allowed


@pytest.mark.parametrize("name", NAMES)
def test_words_that_are_not_positive_numbers_are_an_error(name):
    for word, value in (
        ("seeds", "0"),
        ("seeds", "many"),
        *((("examples", "-3"), ("examples", "1.5")) if name not in ("auto_pooling", "precision") else ()),
    ):
        with pytest.raises(InputError, match=f"config argument {word}={value} must be a whole number from 1"):
            load(name, f"{word}={value}")
    assert len(load(name, "seeds=1")[1]) < len(load(name)[1])


@pytest.mark.parametrize("name", ["methods", "rate_batch", "pooling"])
def test_the_budget_is_the_same_for_a_model_from_scratch_whose_recipe_is_longer(name):
    budgets = [(c.total_examples, c.total_steps, c.total_epochs) for c in configs(name, "model=textcnn,seeds=1,examples=640")]
    assert set(budgets) == {(640, None, None)} and runs.config("trec", "model=textcnn").total_epochs == 10


def test_lora_is_compared_to_full_fine_tuning_at_one_alpha():
    _, overrides = load("lora", "seeds=1")
    assert overrides[0] == {"method": "full", "seed": 0} and {run["method"] for run in overrides[1:]} == {"lora"}
    assert len({(run["lora.rank"], run["lora.targets"]) for run in overrides[1:]}) == 16
    assert {config.lora.alpha for config in configs("lora")} == {16.0}


@pytest.mark.parametrize("model", ["minilm", "bert-large"])
def test_the_last_phase_of_every_schedule_starts_where_it_should(model):
    layers = ablations.LAYERS[model]
    stages = ("embeddings", *(f"layer_{i}" for i in range(layers)))
    ends = collections.defaultdict(list)
    for config in configs("unfreezing", f"model={model},seeds=1"):
        phases = max(len(part.phases) for part in methods.recipe(stages, config).parts)
        ends[config.method, config.unfreeze_layers].append(config.phase_percent * (phases - 1))
    for (method, at_once), percents in ends.items():
        assert percents == pytest.approx([0] if method in ("full", "top_k") else [25, 50, 75], abs=1.5), (method, at_once)
    assert len(ends) == 6 and ("gradual_unfreezing", layers + 1) in ends
    with pytest.raises(InputError, match="the number of layers of 'roberta-base' is not known; add layers=N"):
        load("unfreezing", "model=roberta-base")


def test_a_decay_of_one_is_full_fine_tuning_at_the_same_rates():
    decays = configs("layerwise_decay", "seeds=1")
    assert {config.method for config in decays} == {"llrd"} and len({(c.llrd_decay, c.base_learning_rate) for c in decays}) == 15
    assert {c.base_learning_rate for c in decays if c.llrd_decay == 1.0} == {5e-5, 1e-4, 2e-4}
    treatments, with_decay = (
        {entry.treatment for entry in plan.entries.values()} for plan in (runs.plan("llrd", llrd_decay=1.0), runs.plan("llrd"))
    )
    assert treatments == {plans.Treatment()} != with_decay


def test_all_batch_sizes_train_on_the_same_number_of_examples():
    grid = configs("rate_batch", "seeds=1")
    assert {config.total_examples for config in grid} == {8192} and len({(c.batch_size, c.base_learning_rate) for c in grid}) == 16
    for config in configs("rate_batch", "seeds=1,method=lora"):
        assert experiments.resolve(config).learning_rate == pytest.approx(40 * config.base_learning_rate)


def test_few_shot_runs_have_equal_steps_examples_by_seed_and_no_selection_on_dev():
    few_shot = configs("few_shot")
    assert {config.total_steps for config in few_shot} == {256} and {config.total_epochs for config in few_shot} == {None}
    assert {config.eval_percent for config in few_shot} == {100.0}
    for config in few_shot:
        assert experiments.resolve(config).data.seed == config.seed
    sizes = values("few_shot", "data.train_examples")
    assert sizes == [16, 32, 64, 128, 256, 512, 1024, 0] and values("few_shot", "method") == ["full", "linear_probe", "lora"]
    assert {config.total_steps for config in configs("few_shot", "examples=640")} == {20}


def test_only_runs_with_the_same_examples_train_together():
    for name, together in (("few_shot", False), ("pooling", True)):
        by_number = dict(enumerate(map(experiments.resolve, configs(name, "seeds=3"))))
        assert (max(map(len, grouping.groups(by_number))) > 1) == together


def test_with_head_tail_a_quarter_of_the_tokens_is_from_the_head():
    grid = configs("truncation", "seeds=1")
    assert {(c.max_length, c.truncation) for c in grid} == {(n, cut) for n in (64, 128, 256, 512) for cut in encode.TRUNCATIONS}
    assert all(4 * c.truncation_head == c.max_length for c in grid if c.truncation == "head_tail")
    assert all(config.max_length <= 32 for config in configs("truncation", "smoke"))


def test_augmentation_is_compared_to_none_at_each_size():
    _, overrides = load("augmentation", "seeds=1")
    first = [run["data.augment"] for run in overrides[::7]]
    assert first == ["", "", ""] and all(run["data.augment"] for i, run in enumerate(overrides) if i % 7)
    assert {run["data.augment"] for run in overrides} == {"", *augment.OPERATIONS}
    assert {config.data.seed for config in configs("augmentation")} == {0}


def test_methods_that_mix_layers_do_not_use_the_pooler():
    pairs = {(run["method"], run["pooling"]) for run in load("pooling")[1]}
    assert {pooling for method, pooling in pairs if method == "full"} == {"pooler", "first", "mean", "max"}
    assert {pooling for method, pooling in pairs if method == "scalar_mix"} == {"first", "mean", "max"}


def test_stability_has_the_optimizer_of_the_papers_in_all_four_combinations():
    grid = configs("stability")
    counts = collections.Counter((c.warmup_percent, c.bias_correction) for c in grid)
    assert counts == {(10.0, True): 25, (10.0, False): 25, (0.0, True): 25, (0.0, False): 25}
    assert {(c.task, c.epsilon, c.batch_size, c.optimizer) for c in grid} == {("mrpc", 1e-6, 16, "adamw")}


def test_models_from_scratch_have_a_longer_recipe_at_every_size():
    by_model = collections.defaultdict(list)
    for config in configs("scratch", "seeds=1"):
        by_model[config.model, config.weights.source].append(config)
    assert set(by_model) == {("minilm", ""), ("minilm", "scratch"), ("bilstm", ""), ("textcnn", "")}
    for (model, source), four in by_model.items():
        assert [config.data.train_examples for config in four] == [128, 512, 2048, 0]
        assert {config.total_steps for config in four} == {256 if (model, source) == ("minilm", "") else 1024}
    recipe = runs.config("trec", "model=textcnn")
    for baseline in (by_model["bilstm", ""], by_model["textcnn", ""]):
        for field in ("learning_rate", "dropout"):
            assert {config[field] for config in baseline} == {recipe[field]}
        assert {config.no_decay.norm for config in baseline} == {recipe.no_decay.norm} == {""}
    assert by_model["minilm", ""][0].learning_rate is None and by_model["minilm", ""][0].no_decay.norm
    small = configs("scratch", "smoke,seeds=1")
    assert {config.textcnn.filters for config in small} == {8} and fields.base("trec", fields.words("")).textcnn.filters == 100


def test_rates_are_half_the_default_the_default_and_its_double():
    assert values("rates", "method") == list(METHODS) and values("rates", "method", "method=lora") == ["lora"]
    chosen = map(experiments.resolve, configs("rates", "method=lora,seeds=1"))
    default = runs.config("trec", "method=lora,data=files").learning_rate
    assert [config.learning_rate / default for config in chosen] == [0.5, 1, 2]
