"""Sweeps: lists of config overrides, and the files that define them."""

import pytest

from configs.ablations import freezing
from research.ablation import sweep
from research.config import fields
from research.errors import InputError


def test_products_zips_and_chains():
    a, b = sweep.over("method", ["full", "lora"]), sweep.seeds(2)
    assert sweep.product(a, b) == [{"method": m, "seed": s} for m in ("full", "lora") for s in (0, 1)]
    assert sweep.zip_(a, b) == [{"method": "full", "seed": 0}, {"method": "lora", "seed": 1}]
    assert sweep.chain(a, b) == [*a, *b] and sweep.chain(a, b)[0] is not a[0]


def test_incompatible_sweeps_are_an_error():
    with pytest.raises(InputError, match="same length, not of 2, 3"):
        sweep.zip_(sweep.seeds(2), sweep.over("top_layers", [1, 2, 3]))
    with pytest.raises(InputError, match="sets seed twice"):
        sweep.product(sweep.seeds(2), sweep.seeds(2))


def test_each_run_is_the_base_config_with_its_overrides():
    def base():
        return fields.base("trec", fields.words("smoke"))

    configs = sweep.configs(base, [{"method": "lora", "lora.rank": 2}, {"method": "full"}])
    assert [config.lora.rank for _, config in configs] == [2, 8]
    with pytest.raises(InputError, match="'lora.rnk' is not known; did you mean 'lora.rank'"):
        sweep.configs(base, [{"lora.rnk": 2}])


def test_a_missing_file_or_function_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        sweep.load(str(tmp_path / "none.py"))
    (tmp_path / "half.py").write_text("def base(words):\n    return words\n")
    with pytest.raises(InputError, match=r"function sweep\(words\) is missing"):
        sweep.load(str(tmp_path / "half.py"))
    (tmp_path / "complete.py").write_text("def base(words):\n    return words\n\n\ndef sweep(words):\n    return [words]\n")
    base, overrides = sweep.load(f"{tmp_path / 'complete.py'}:a,b")
    assert base() == "a,b" and overrides == ["a,b"]


def test_freezing_goes_from_full_fine_tuning_to_the_head_only():
    depths = [(run["method"], run.get("top_layers")) for run in freezing.sweep("model=minilm,seeds=1")]
    assert depths == [("full", None), *(("top_k", k) for k in (6, 5, 4, 3, 2, 1)), ("linear_probe", None)]
    assert len(freezing.sweep("model=roberta-base,layers=12,seeds=2")) == 2 * 14 and len(freezing.sweep("smoke")) == 5 * 4
    with pytest.raises(InputError, match="the number of layers of 'roberta-base' is not known; add layers=N"):
        freezing.sweep("model=roberta-base")
