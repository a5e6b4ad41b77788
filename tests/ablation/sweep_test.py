"""Lists of overrides."""

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


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="one length, not of 2, 3"):
        sweep.zip_(sweep.seeds(2), sweep.over("top_layers", [1, 2, 3]))
    with pytest.raises(InputError, match="sets seed twice"):
        sweep.product(sweep.seeds(2), sweep.seeds(2))


def test_a_sweep_holds_differences_and_each_run_starts_from_the_base():
    def base():
        return fields.base("trec", fields.words("smoke"))

    found = sweep.configs(base, [{"method": "lora", "lora.rank": 2}, {"method": "full"}])
    assert [config.lora.rank for _, config in found] == [2, 8]
    with pytest.raises(InputError, match="'lora.rnk' is not known; did you mean 'lora.rank'"):
        sweep.configs(base, [{"lora.rnk": 2}])


def test_a_file_without_its_two_functions_is_named(tmp_path):
    with pytest.raises(InputError, match="not there"):
        sweep.load(str(tmp_path / "none.py"))
    (tmp_path / "half.py").write_text("def base(words):\n    return words\n")
    with pytest.raises(InputError, match=r"no function sweep\(words\)"):
        sweep.load(str(tmp_path / "half.py"))
    (tmp_path / "storage.py").write_text("def base(words):\n    return words\n\n\ndef sweep(words):\n    return [words]\n")
    base, overrides = sweep.load(f"{tmp_path / 'storage.py'}:a,b")
    assert base() == "a,b" and overrides == ["a,b"]


def test_freezing_goes_from_everything_to_the_head_alone():
    depths = [(run["method"], run.get("top_layers")) for run in freezing.sweep("model=minilm,seeds=1")]
    assert depths == [("full", None), *(("top_k", k) for k in (6, 5, 4, 3, 2, 1)), ("linear_probe", None)]
    assert len(freezing.sweep("model=roberta-base,layers=12,seeds=2")) == 2 * 14 and len(freezing.sweep("smoke")) == 5 * 4
    with pytest.raises(InputError, match="how many layers 'roberta-base' has is not known here; add layers=N"):
        freezing.sweep("model=roberta-base")
