"""Test the feature cache: the same numbers with fewer FLOPs, never outdated, never over the budget."""

import jax
import numpy as np
import pytest

from research import storage
from research.errors import InputError
from research.experiment import build as experiments
from research.train import feature_cache, trainers
from research.train.step import init_state, split_microbatches
from tests import runs


@pytest.fixture(autouse=True)
def private_prefixes(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEARCH_CACHE", str(tmp_path))


def losses_and_flops(method: str, **changes) -> tuple[np.ndarray, float]:
    e = experiments.build(runs.config(arg=f"smoke,method={method}", total_epochs=3.0, learning_rate=0.01, **changes))
    state, step, values = init_state(e.model.trainable, e.tx), trainers.train_program(e), []
    for _, batch in zip(range(e.total_steps), e.train.stream(), strict=False):
        state, stats = step(state, e.model.frozen, split_microbatches(batch, 1, e.layout), e.dropout_key, e.scalars(int(state.step)))
        values.append(float(stats["loss"] / stats["weight"]))
    return np.array(values), step.flops


def files() -> list:
    return sorted(storage.folder("prefix").iterdir())


@pytest.mark.parametrize("method", ["linear_probe", "top_k"])
def test_a_cached_prefix_gives_the_same_losses_for_less_work(method):
    cached, cheap = losses_and_flops(method, precision="float32")
    assert len(files()) == 2  # train and dev
    fresh, dear = losses_and_flops(method, precision="float32", prefix_cache_gb=0.0)
    np.testing.assert_allclose(cached, fresh, atol=1e-6)
    assert np.ptp(fresh) > 1e-4  # there was something to compare
    assert cheap < 0.8 * dear


def test_in_bfloat16_it_is_kept_in_bfloat16_and_stays_close():
    cached, _ = losses_and_flops("linear_probe", precision="bfloat16")
    assert {path.suffix for path in files()} == {".bfloat16"}
    np.testing.assert_allclose(cached, losses_and_flops("linear_probe", precision="bfloat16", prefix_cache_gb=0.0)[0], atol=5e-3)


def test_nothing_is_kept_when_nothing_is_frozen_or_nothing_comes_round_again():
    losses_and_flops("full")
    experiments.build(runs.config(arg="smoke,method=linear_probe", total_steps=2))
    assert files() == []


def test_seeds_heads_and_methods_share_a_prefix_and_other_stages_do_not():
    def build(**changes):
        return experiments.build(runs.config(total_epochs=2.0, data__train_examples=0, data__eval_examples=0, **changes))

    build(method="linear_probe")
    first = files()
    build(method="linear_probe", seed=3, pooling="mean", learning_rate=1e-3)
    assert files() == first
    build(method="top_k")
    assert len(files()) == 4


def test_the_key_follows_parameters_tokens_and_depth():
    e = experiments.build(runs.config(arg="smoke,method=linear_probe", prefix_cache_gb=0.0))
    key = feature_cache.key(e.model, e.train.tokens, 3)
    assert key == feature_cache.key(e.model, e.train.tokens, 3)
    assert key != feature_cache.key(e.model, e.train.tokens, 2)
    assert key != feature_cache.key(e.model, e.dev.tokens, 3)
    other = experiments.build(runs.config(arg="smoke,method=linear_probe", prefix_cache_gb=0.0, weights__source="scratch"))
    assert key != feature_cache.key(other.model, e.train.tokens, 3)


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: data[: len(data) // 2], lambda data: data + b"x"])
def test_damaged_states_are_noticed_and_computed_again(capsys, damage):
    build = lambda: experiments.build(runs.config(arg="smoke,method=linear_probe", total_epochs=2.0))  # noqa: E731
    before = np.array(build().train.columns["hidden"].values)
    intact = {path: path.read_bytes() for path in files()}
    path = files()[0]
    path.write_bytes(damage(intact[path]))
    after = build()
    assert f"{path} is damaged; it is made again" in capsys.readouterr().err
    assert np.array_equal(after.train.columns["hidden"].values, before) and np.abs(before.astype(np.float32)).max() > 0
    assert {path: path.read_bytes() for path in files()} == intact
    build()
    assert "damaged" not in capsys.readouterr().err


def test_over_the_budget_is_refused_in_one_line_before_anything_is_written():
    with pytest.raises(InputError, match="over prefix_cache_gb=1e-06.*set it to 0") as error:
        experiments.build(runs.config(arg="smoke,method=linear_probe", total_epochs=2.0, prefix_cache_gb=1e-6))
    assert "\n" not in str(error.value) and files() == []


def test_states_stand_where_their_tokens_do():
    e = experiments.build(runs.config(arg="smoke,method=linear_probe", total_epochs=2.0, precision="float32"))
    batch = next(e.dev.epoch(0))
    wanted = e.model.encoder.apply({"params": e.model.frozen["encoder"]}, {k: v for k, v in batch.items() if k != "hidden"}).last
    real = batch["segments"] > 0
    np.testing.assert_allclose(batch["hidden"][real], np.asarray(wanted)[real], atol=1e-5)
    assert not jax.numpy.allclose(batch["hidden"][real], np.asarray(wanted)[real][::-1], atol=1e-2)
