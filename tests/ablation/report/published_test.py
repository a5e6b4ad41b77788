"""Published tables: every cell has a source and selects one setting of its sweep, and every table is valid."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs import papers
from research.ablation import runs as sweep_runs
from research.ablation import sweep
from research.ablation.report import published
from research.adapt import methods
from research.config import durations, resolve
from research.errors import InputError
from research.tasks import catalog
from tests import runs

FILES = sorted(str(path) for path in (runs.ROOT / "configs" / "papers").glob("*_*.py") if path.stem != "__init__")
TABLES = {Path(file).stem: published.read(file) for file in FILES}
RUNNING = [file for file in FILES if any(cell.config for cell in TABLES[Path(file).stem].cells)]

FILE = """
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table
from research.config import fields


def base(arg=""):
    return fields.base("trec", fields.words(arg))


def sweep(arg=""):
    return sweeps.product([dict(method="full"), dict(method="top_k", top_layers=1), dict(method="top_k", top_layers=2)], sweeps.seeds(2))


def published():
    return Table("A. Author 2020", "A title.", "table 1", "accuracy", 0.5, ({cells}), blocked_by={blocked_by})
"""
FULL = 'PublishedCell("all", 90.0, "Table 1, all", dict(method="full")),'


def read(folder: Path, cells: str, blocked_by: tuple = ()) -> published.Table:
    (folder / "paper.py").write_text(FILE.format(cells=cells, blocked_by=blocked_by))
    return published.read(str(folder / "paper.py"))


def test_the_expected_tables_exist():
    sun, howard = ({f"{name}_table{i}" for i in numbers} for name, numbers in (("sun2019", (2, 3, 4)), ("howard2018", (6, 7))))
    others = {"devlin2019_table7", "houlsby2019_table1", "houlsby2019_sizes", "hu2022_table2", "mosbach2021_table1"}
    assert sun | howard | others <= set(TABLES)
    assert len(RUNNING) == 6


@pytest.mark.parametrize("file", FILES)
def test_every_table_is_valid(file):
    table = TABLES[Path(file).stem]
    assert table.paper and table.title and 0 < table.margin <= 2 and table.cells
    assert len({(cell.row, cell.source) for cell in table.cells}) == len(table.cells), "each number is given once"
    for cell in table.cells:
        assert 0 < cell.value < 100 and bool(cell.config) != bool(table.waiting(cell))
        if c := cell.config:
            assert c.learning_rate and c.pooling != "auto", "must be the paper's, not a default"
            assert c.data.source == "tfds" and c.model in ("bert-base", "bert-large", "roberta-base")
            assert cell.split in ("dev", "test") and set(table.examples[c.task]) <= {"train", "dev", "test"}
            assert ("dev" in catalog.get(c.task).tfds.splits) == ("dev" in table.examples[c.task])
            for duration in durations.DURATIONS:
                durations.steps(c, duration, batch_size=c.batch_size, epoch_steps=10, total=30)


@pytest.mark.parametrize("file", RUNNING)
def test_every_run_of_a_sweep_belongs_to_a_cell_also_in_a_smoke_run(file):
    full = sweep_runs.identify(sweep.configs(*sweep.load(file)))
    seeds = {overrides["seed"] for overrides, _ in full.values()}
    assert len(seeds) == (25 if "mosbach" in file else 5) and len(full) % len(seeds) == 0
    table = TABLES[Path(file).stem]
    used = [run_id for run_id, (o, _) in full.items() if any(c.config and published.of_setting(c.setting, o) for c in table.cells)]
    assert used == list(full), "every run has a published number"
    small = sweep_runs.identify(sweep.configs(*sweep.load(f"{file}:smoke,seeds=1")))
    assert len(small) <= len(full) / len(seeds)
    for overrides, c in small.values():
        assert (c.model, c.data.source, c.total_steps, c.total_epochs, c.max_length) == ("tiny", "demo", 2, None, 32)
        assert any(cell.config and published.of_setting(cell.setting, overrides) for cell in table.cells)
        changes = {name.replace(".", "__"): value for name, value in overrides.items() if name != "method"}
        assert runs.plan(c.method, **changes, pooling=c.pooling).trained


@pytest.mark.parametrize("file", RUNNING)
def test_files_of_several_tasks_are_read_from_folders_named_after_the_tasks(file):
    specs = sweep.configs(*sweep.load(f"{file}:data=files,path=there,seeds=1"))
    several = len({c.task for _, c in specs}) > 1
    assert {c.data.path for _, c in specs} == ({f"there/{c.task}" for _, c in specs} if several else {"there"})
    with pytest.raises(InputError, match="config argument seeds=none must be a whole number from 1"):
        sweep.load(f"{file}:seeds=none")


def test_the_papers_config_is_the_base_with_the_setting(tmp_path):
    two = 'PublishedCell("two", 91.5, "Table 1, two", dict(top_layers=2), sd=0.5, n=5),'
    table = read(tmp_path, FULL + two + 'PublishedCell("x", 1, "T", blocked_by=("a task",))')
    full, two, waiting = table.cells
    assert (full.config.method, two.config.method, two.config.top_layers, waiting.config) == ("full", "top_k", 2, None)
    assert table.waiting(waiting) == ("a task",) and not table.waiting(full)
    (tmp_path / "plain.py").write_text("def base(arg):\n    pass\n\n\ndef sweep(arg):\n    return []\n")
    assert published.read(str(tmp_path / "plain.py")) is None


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ('PublishedCell("all", 90.0, " ", dict(method="full")),', "the cell 'all' has no source; give the table"),
        (
            'PublishedCell("all", 90.0, "T", blocked_by=("x",)), PublishedCell("more", 90.0, "", blocked_by=("x",))',
            "the cell 'more' has no source",
        ),
        (
            'PublishedCell("all", 90.0, "T", dict(method="lora")),',
            "the cell 'all' must select one setting, but {'method': 'lora'} matches no setting of the sweep",
        ),
        ('PublishedCell("some", 90.0, "T", dict(method="top_k")),', "the cell 'some' must select one setting, but .* matches 2 settings"),
        (FULL + 'PublishedCell("again", 90.0, "T", dict(method="full")),', "'all' and 'again' have the same setting, {'method': 'full'}"),
        ('PublishedCell("all", 90.0, "T", dict(method="full"), sd=0.5),', "the cell 'all' has a standard deviation sd, but no number of"),
        ('PublishedCell("all", 90.0, "T", dict(method="full"), metric="f2"),', "the metric 'f2' of 'all' is not known; did you mean 'f1'"),
        ('PublishedCell("all", 90.0, "T", dict(method="full"), blocked_by=("x",)),', "the cell 'all' is blocked by x, but has a setting"),
    ],
)
def test_an_invalid_cell_is_an_error_of_one_line(tmp_path, cells, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, cells)
    assert str(caught.value).startswith(str(tmp_path / "paper.py")) and "\n" not in str(caught.value)


def test_one_setting_may_have_a_cell_for_each_metric_and_split(tmp_path):
    more = 'PublishedCell("all, F1", 90.0, "T", dict(method="full"), metric="f1"),'
    more += 'PublishedCell("all, dev", 90.0, "T", dict(method="full"), split="dev"),'
    assert len(read(tmp_path, FULL + more).cells) == 3


def test_a_blocked_table_needs_no_sweep_and_names_the_missing_feature(tmp_path):
    without = FILE[: FILE.index("def base")] + FILE[FILE.index("def published") :]
    (tmp_path / "paper.py").write_text(without.format(cells='PublishedCell("a", 1.0, "T"),', blocked_by=("a task",)))
    path = str(tmp_path / "paper.py")
    assert published.read(path).blocked_by == ("a task",)
    with pytest.raises(InputError, match="no cell of this table can be run yet; the project lacks a task"):
        sweep.load(path)


def test_the_overview_has_every_table_with_runnable_and_blocked_cells(tmp_path):
    lines = published.overview([*FILES, str(runs.ROOT / "configs" / "ablations" / "methods.py")]).splitlines()
    assert len(lines) == 2 + len(FILES)
    (lora,) = [line for line in lines if "hu2022" in line]
    assert lora.split("|")[2:5] == [" Hu et al. 2022, table 2, LoRA on GLUE ", " 4 ", " 12 "] and "CoLA; the task QNLI" in lora
    (ner,) = [line for line in lines if "devlin2019" in line]
    assert ner.split("|")[3:] == [" 0 ", " 10 ", " token classification (CoNLL-2003) ", ""]


def test_reading_all_tables_imports_no_jax():
    code = "import sys; from research.ablation.report import published, reproduction; published.overview(sys.argv[1:])"
    code += "; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *FILES], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_methods_and_sizes_are_known():
    used = {cell.config.method for table in TABLES.values() for cell in table.cells if cell.config}
    assert used and all(resolve.method_names(method, methods.METHODS) for method in used)
    assert set(papers.EXAMPLES) <= set(catalog.TASKS)
