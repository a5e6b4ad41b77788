"""Test the harness of the benchmarks: its help, its table, its page, its workers. No benchmark is measured here."""

import subprocess
import sys

import pytest

from tests import runs
from tests.benchmarks import compare, fleet, freezing, memory, results, workloads
from tests.benchmarks.protocol import Worker

FACTS = {"machine": "a processor, 2 cores", "versions": "jax 1.0"}
ORDER = ("train", "epoch", "probe")


def answers(*seconds, work=4, memory=2**20, note=""):
    return [{"seconds": s, "work": work, "peak_memory_bytes": memory, "note": note} for s in seconds]


def page(**rows):
    return results.compose(FACTS, "today, `command`", rows, ORDER)


def worker(body):
    """Return a worker whose `serve` is called with `body`, an expression in k."""
    return Worker(
        "toy", [sys.executable, "-c", f"from tests.benchmarks.protocol import serve\nserve(lambda k: {body})"], runs.environment()
    )


def complaint(*flags):
    command = [sys.executable, "-m", "tests.benchmarks.compare", *flags]
    done = subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


def test_the_help_names_the_workloads_and_the_options():
    command = [sys.executable, "-m", "tests.benchmarks.compare", "--help"]
    done = subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in workloads.WORKLOADS)
    assert all(option in done.stdout for option in ("--rounds", "--only", "--data", "--output", "--peer-env", "--tiny"))


def test_mistakes_are_one_line(tmp_path):
    assert "matches no workload; they are: train BERT-base" in complaint("--only=nothing")
    assert "at least one round" in complaint("--rounds=0")
    assert "NAME=VALUE" in complaint("--peer-env=OMP_WAIT_POLICY")
    assert f"{tmp_path}/sst2: no train.tsv" in complaint("--only=epoch SST", f"--data={tmp_path}", f"--output={tmp_path}/R.md")


def test_what_saving_memory_costs_is_beside_the_first_setting():
    measured = {"plain": answers(8, 12, 10, memory=2**31), "remat": answers(12, 16, 14, memory=2**30)}
    assert memory.lines(measured)[2:] == [
        "| plain | 2.50 (2.00-3.00) | 1.00 | 2,048 MiB | 1.00 |",
        "| remat | 3.50 (3.00-4.00) | 1.40 | 1,024 MiB | 0.50 |",
    ]


def test_what_freezing_saves_is_beside_the_first_depth():
    measurements = [
        ("everything", 4e9, 4.1e9, [2.0, 4.0, 3.0]),
        ("half", 2e9, 2.55e9, [3.9, 3.9, 3.9]),
        ("the head", 1e9, 1e9, [0.75, 1.5, 0.9]),
    ]
    assert freezing.rows("model", measurements) == [
        "| model | everything | 4.0 | 4.1 | 1.025 | 1.000 | 3.000 (2.000) | 1.000 | 3.000 | 1.00 (1.00) |",
        "| model | half | 2.0 | 2.5 | 1.275 | 0.500 | 3.900 (3.900) | 1.300 | 1.950 | 2.00 (2.84) |",
        "| model | the head | 1.0 | 1.0 | 1.000 | 0.250 | 0.900 (0.750) | 0.300 | 0.900 | 1.00 (1.00) |",
    ]


def test_a_row_has_medians_ranges_and_the_ratio_of_neighbouring_rounds():
    line = results.row("train", "s/step", answers(4, 8, 12, memory=2**30), answers(12, 16, 12, memory=2**31, note="why"), "2020-02-02")
    assert (
        line
        == "| train | 2.00 s/step (1.00-3.00) | 3.00 s/step (3.00-4.00) | 2.00 (1.00-3.00) | 1,024 / 2,048 MiB, 0.50 | 2020-02-02 | why |"
    )


def test_for_a_rate_more_is_better_and_the_ratio_still_says_how_much_faster_flax_is():
    line = results.row("epoch", "examples/s", answers(2, work=4000), answers(4, work=4000), "2020-02-02")
    assert line.startswith("| epoch | 2,000 examples/s | 1,000 examples/s | 2.00 |")


def test_a_row_that_would_break_the_table_is_refused():
    with pytest.raises(ValueError, match="a bar or a line break"):
        results.row("a|b", "s", answers(1), answers(1), "2020-02-02")


def test_a_page_gives_back_its_rows_and_takes_new_ones_in_order():
    before = page(probe="| probe | 1 |", train="| train | 1 |", old="| old | 1 |")
    rows = results.rows_of(before)
    assert list(rows) == ["train", "probe", "old"]
    after = page(**rows | {"epoch": "| epoch | 2 |", "probe": "| probe | 2 |"})
    lines = [line for line in after.splitlines() if line.startswith("|")]
    assert lines == [*results.HEAD, "| train | 1 |", "| epoch | 2 |", "| probe | 2 |", "| old | 1 |"]
    assert results.rows_of("") == {}


def test_rows_of_another_table_or_machine_are_not_mixed_with_new_ones(tmp_path):
    with pytest.raises(ValueError, match="other columns"):
        results.rows_of("| a | b |\n|---|---|\n| 1 | 2 |\n")
    results.check_conditions(page(), FACTS)
    with pytest.raises(ValueError, match=r"another machine: a processor, 2 cores \(now a processor, 4 cores\)"):
        results.check_conditions(page(), FACTS | {"machine": "a processor, 4 cores"})
    path = tmp_path / "RESULTS.md"
    path.write_text(page(train="| train | 1 |"))
    assert list(compare.rows_of_page(path, FACTS)) == ["train"]
    with pytest.raises(ValueError, match="RESULTS.md: its rows were measured under another versions"):
        compare.rows_of_page(path, FACTS | {"versions": "jax 2.0"})


@pytest.mark.parametrize("workload", workloads.WORKLOADS.values(), ids=list(workloads.WORKLOADS))
def test_a_workload_survives_the_way_to_its_worker(workload):
    assert workloads.load(workloads.dump(workload)) == workload
    assert workloads.tiny(workload).name == workload.name


def test_examples_are_drawn_once_and_the_same_each_time(tmp_path):
    for split, count in (("train", 50), ("test", 80)):
        rows = [f"{split} {i}\t{'ab'[i % 2]}" for i in range(count)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    for name in ("one", "two"):
        workloads.draw(tmp_path, tmp_path / name, 20)
    drawn = workloads.read(tmp_path / "one", "train")
    assert len(set(drawn)) == len(drawn) == 20 and set(drawn) < set(workloads.read(tmp_path, "train"))
    assert drawn != workloads.read(tmp_path, "train")[:20]
    assert drawn == workloads.read(tmp_path / "two", "train")


def test_a_worker_answers_with_time_and_memory_whatever_is_printed():
    with worker("print('chatter') or {'work': k}") as toy:
        first, second = toy.round(3), toy.round(4)
    assert (first["work"], second["work"]) == (3, 4)
    assert 0 <= first["seconds"] < 5 and first["peak_memory_bytes"] > 2**20


def test_a_worker_that_dies_is_an_error_that_names_it():
    with worker("exit(3)") as toy, pytest.raises(RuntimeError, match="toy: the worker ended with exit code 3"):
        toy.round(0)


def test_the_test_command_collects_nothing_of_the_benchmarks():
    assert not list((runs.ROOT / "tests" / "benchmarks").rglob("*_test.py"))


def test_a_machine_has_one_section_of_what_a_fleet_saves_and_leaves_those_of_others():
    page = ""
    for heading, body in (("4 runs: a", "old"), ("4 runs: ab", "other"), ("4 runs: a", "new")):
        page = fleet.with_section(page, heading, f"{body}\n")
    assert page.startswith(fleet.TITLE) and page.count("# What a fleet saves") == 1
    assert page.split("\n## ")[1:] == ["4 runs: a\n\nnew\n", "4 runs: ab\n\nother\n"]
