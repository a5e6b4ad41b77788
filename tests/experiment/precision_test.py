"""Test how `precision=auto` is resolved, and that a run keeps the resolved value on other machines."""

import json

import pytest
from rich.console import Console

from research.experiment import initialize, modes
from research.experiment import workdir as workdirs
from tests import runs

QUIET = Console(quiet=True)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes this machine one that multiplies bfloat16, or one that does not."""
    return lambda has_unit: monkeypatch.setattr(initialize, "multiplies_bfloat16", lambda: has_unit)


@pytest.mark.parametrize(("has_unit", "precision"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("method", ["full", "feature_bilstm"])
def test_auto_is_bfloat16_where_the_device_multiplies_it(machine, has_unit, precision, method):
    machine(has_unit)
    model = runs.build_model(runs.config(method=method, **{"feature_bilstm__size": 8}), ("a", "b"))
    assert model.config.precision == model.encoder.precision.name == precision
    assert method == "full" or model.head.reader.precision.name == precision
    assert f"precision: {precision}" in model.notes
    asked = runs.build_model(runs.config(precision="float32" if has_unit else "bfloat16"), ("a", "b"))
    assert asked.encoder.precision.name != precision


def test_a_run_keeps_its_precision_and_one_command_has_one_name_on_all_machines(tmp_path, machine):
    machine(False)
    c = runs.config()
    assert c.precision == "auto"
    names = workdirs.default(c), workdirs.config_hash(c)
    result = modes.run(c, tmp_path, QUIET)
    assert result["config"]["precision"] == json.loads((tmp_path / "config.json").read_text())["precision"] == "float32"
    machine(True)
    assert (workdirs.default(c), workdirs.config_hash(c)) == names and result["config_hash"] == names[1]
    assert modes.load_trained(c, tmp_path).encoder.precision.name == "float32"
    assert modes.run(c, tmp_path, QUIET) == result
