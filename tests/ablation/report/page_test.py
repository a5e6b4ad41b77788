"""The page of a sweep as a file: what it must contain and what it must not contain."""

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
from ml_collections import ConfigDict

from research.ablation import sweep
from research.ablation.report import page, plots, statistics, tables
from research.ablation.run import Run
from research.config import recorded
from research.tracking import writer
from tests import runs as small
from tests.ablation import sweeps


class Outline(HTMLParser):
    """The elements of a page in order: tag, attributes and inner text, including that of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in ("meta", "input"):
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag: str, **attributes: str) -> list[str]:
        """Return the text of each element with this tag and these attributes."""
        matches = [text for name, values, text in self.elements if name == tag and attributes.items() <= values.items()]
        return [" ".join("".join(text).split()) for text in matches]


def loads(html: str) -> list[str]:
    """Return the addresses in elements and styles that a browser would fetch for the page."""
    elements = [values for tag, values, _ in Outline(html).elements if tag != "a"]  # a browser does not fetch links by itself
    addresses = [values[name] for values in elements for name in ("src", "href", "srcset", "data", "action") if name in values]
    return addresses + re.findall(r"@import[^;]*|url\([^)]*\)", " ".join(Outline(html).all("style")))


def made(runs, title: str = "How small?") -> tuple[str, Outline]:
    html = page.html(runs, title, lambda run: f"python -m research.ablation --replay={run.id} --only='<b>'")
    return html, Outline(html)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    return sweeps.made_up(tmp_path_factory.mktemp("sweep"), steps=200, examples=60)


@pytest.fixture(scope="module")
def rendered(hundred):
    return made(hundred)


def data(outline: Outline) -> dict:
    return json.loads(outline.all("script", id="data")[0])


def test_the_page_is_one_small_file_that_loads_nothing(rendered):
    html, outline = rendered
    assert len(html.encode()) < 3e6 and loads(html) == []
    metas = [values for tag, values, _ in outline.elements if tag == "meta"]
    (policy,) = [values["content"] for values in metas if "content" in values and "http-equiv" in values]
    assert policy.startswith("default-src 'none';") and "http" not in policy
    assert len(outline.all("script")) == 3 and not outline.open, "Vega's program contains no tag that ends the script"
    assert loads('<link href="https://x.org/a.css"><script src="b.js"></script><style>a{background:url(c)}</style>'), "the check works"


def test_the_header_summarises_the_runs(rendered, hundred):
    text = rendered[1].all("header")[0]
    assert "How small? · trec · tiny 100 runs of 20 settings 96 finished 2 failed 1 unfinished 1 not run" in text
    assert rendered[1].all("dd") == ["trec", "tiny", "demo", "bfloat16", "3.12.0", "0.10.2", "cpu"]
    assert re.search(r"\d+ \w+ 20\d\d", text)
    assert "failed" not in made(hundred[5:20])[1].all("header")[0]


def test_the_table_is_that_of_the_report(rendered, hundred):
    header, *body = tables.rows(hundred)
    cells = rendered[1].all("td")
    assert rendered[1].all("th") == ["setting", *header[5:]]
    assert cells == [cell for name, line in zip(plots.labels(tables.settings(hundred)), body, strict=True) for cell in (name, *line[5:])]
    notes = rendered[1].all("p", **{"class": "note"})
    assert "lora lora.rank=2" in cells and any(note.startswith("Scores are in percent") for note in notes)


def test_the_best_setting_is_bold_and_a_failed_run_shows_its_error():
    scores = {"full": (0.5, 0.51, 0.52), "lora": (0.801, 0.83, 0.81)}
    cells = [(name, seed, score) for name, of in scores.items() for seed, score in enumerate(of)]
    runs = [Run(f"{name}{i}", {"method": name, "seed": i}, ConfigDict(), Path("nowhere"), sweeps.result(x)) for name, i, x in cells]
    failed = Run("x", {"method": "<i>", "seed": 0}, ConfigDict(), Path("nowhere"), error="broke & died")
    html, outline = made([*runs, failed])
    assert outline.all("strong") == ["81.4 ± 1.5"] and "<i>" in outline.all("td") and "&lt;i&gt;" in html
    assert outline.all("td", colspan="10") == ["failed: broke & died"] and outline.all("pre", **{"class": "error"}) == ["broke & died"]
    assert made(runs[:3])[1].all("strong") == []


def test_each_run_has_its_config_its_command_and_its_error(rendered, hundred):
    outline = rendered[1]
    shared, differing = data(outline)["shared"], data(outline)["differing"]
    for run, fields in zip(hundred, differing, strict=True):
        config = {name: value if isinstance(value, str) else repr(value) for name, value in recorded.flat(run.config.to_dict()).items()}
        assert shared | fields == config and not shared.keys() & fields.keys()
        assert fields["seed"] == str(run.overrides["seed"]) and len(fields) < 12 < 100 < len(shared)
    assert outline.all("pre", **{"class": "command"}) == [f"python -m research.ablation --replay={run.id} --only='<b>'" for run in hundred]
    assert outline.all("pre", **{"class": "error"}) == [" ".join(run.error.split()) for run in hundred if run.error]
    assert outline.all("span", **{"class": "status failed"}) == ["2 failed", "failed", "failed"]
    assert outline.all("span", **{"class": "status unfinished"}) == ["1 unfinished", "unfinished"]


def test_a_run_has_links_to_its_files(rendered, hundred):
    links = [values["href"] for tag, values, _ in rendered[1].elements if tag == "a"]
    assert f"{hundred[5].folder.name}/predictions/test.jsonl" in links and f"{hundred[5].folder.name}/metrics.jsonl" in links
    assert f"{hundred[0].folder.name}/metrics.jsonl" not in links, "this run never started"
    assert all((hundred[0].folder.parent / link).is_file() for link in links)


def test_the_page_shows_the_question_of_the_sweep(hundred):
    html = page.html(hundred[:5], "methods", lambda run: "", question="Which <way> is best?")
    assert "Which <way> is best?" in Outline(html).all("header")[0] and "<title>methods · trec · tiny</title>" in html
    assert sweep.question("configs/ablations/methods.py:smoke").endswith((".", "?"))


def check_escaped(hundred) -> None:
    odd, runs = "</script><script>alert(1)</script>", []
    for run in hundred[-3:]:
        config = small.config("trec", "smoke", **{"data.path": odd, "seed": run.overrides["seed"]})
        runs.append(dataclasses.replace(run, overrides={**run.overrides, "data.path": odd}, config=config))
    html, outline = made(runs, title=odd)
    assert len(outline.all("script")) == 3 and odd not in html
    assert outline.all("h1") == [f"{odd} · trec · tiny"] and data(outline)["shared"]["data.path"] == odd
    assert all(odd in text for text in outline.all("summary")) and "document.title = 1" in outline.all("pre", **{"class": "error"})[0]


def test_texts_from_runs_are_escaped(hundred, monkeypatch):
    check_escaped(hundred)
    original = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **settings: original(**settings | {"autoescape": False}))
    with pytest.raises(AssertionError):
        check_escaped(hundred)


def test_scores_and_costs_are_those_of_the_table(hundred):
    settings = tables.settings(hundred)
    rows = {row["setting"]: row for row in plots.scores(settings)}
    assert len(rows) == 20 and rows["full"]["n"] == 3 == len(rows["full"]["seeds"])
    interval = statistics.interval(list(settings[5].scores("test").values()))
    row = rows["lora lora.rank=4"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((interval.mean, interval.low, interval.high), rel=1e-4)
    assert (row["trainable"], row["tflop"], row["seconds"]) == (320, 12.0, 6.0)
    alone = plots.scores(tables.settings(hundred[5:6]))
    assert alone[0]["n"] == 1 and "low" not in alone[0], "a single seed has no interval"
    assert plots.scores(tables.settings(hundred[:2])) == []


def test_curves_are_means_over_seeds_with_their_spread(hundred):
    settings = tables.settings(hundred)
    dev, loss = (plots.curves(settings)[kind] for kind in ("dev", "loss"))
    logs = [writer.read_metrics(run.folder) for run in settings[4].runs]
    last = [100 * log[-1]["dev/accuracy"] for log in logs]
    assert dev[4]["setting"] == "lora lora.rank=2" and dev[4]["step"] == list(range(20, 201, 20))
    assert (dev[4]["mean"][-1], dev[4]["sd"][-1]) == pytest.approx(statistics.mean_and_sd(last), rel=1e-3)
    assert len(loss[4]["step"]) == plots.POINTS and loss[4]["step"][:2] == [1.5, 3.5]
    pairs = [np.mean([line["train/loss"] for line in log if line["step"] in (1, 2) and "train/loss" in line]) for log in logs]
    assert (loss[4]["mean"][0], loss[4]["sd"][0]) == pytest.approx(statistics.mean_and_sd(pairs), rel=1e-3)


def test_a_failed_run_is_in_the_curves_up_to_its_last_logged_step(hundred):
    curves = plots.curves(tables.settings(hundred[1:2]))
    assert curves["dev"][0]["step"] == list(range(20, 101, 20)) and set(curves["dev"][0]["sd"]) == {None}
    assert curves["loss"][0]["mean"][-1] is None and curves["loss"][0]["mean"][-2] is not None, "the last loss is NaN"
    assert plots.curves(tables.settings(hundred[:1])) == {"dev": [], "loss": []}, "this run never started"


def test_the_expected_best_is_over_settings_of_a_method(hundred):
    settings = tables.settings(hundred)
    rows = plots.expected_best(settings)
    assert sorted({row["method"] for row in rows}) == ["dora", "houlsby", "lora", "vera"] and len(rows) == 16
    means = [np.mean(list(setting.scores("dev").values())) for setting in settings[4:8]]
    best = {row["trials"]: row["best"] for row in rows if row["method"] == "lora"}
    assert (best[1], best[4]) == pytest.approx((np.mean(means), statistics.expected_maximum(means, 4)), rel=1e-4) and best[4] < max(means)
    assert plots.expected_best(settings[:6]) == [], "one or two settings of a method are no search"


@pytest.mark.parametrize("upto", [1, 2])
def test_a_sweep_without_results_has_a_page(hundred, upto):
    html, outline = made(hundred[:upto])
    assert outline.all("div", id="trainable") == [] and len(outline.all("div", id="dev")) == upto - 1
    assert len(outline.all("details")) == upto and "NaN" not in outline.all("script", id="data")[0]


def test_a_label_has_the_fields_that_differ():
    def labels(*values):
        return plots.labels([tables.Setting(value, ()) for value in values])

    assert labels({"top_layers": 1}, {"top_layers": 2}) == ["1", "2"]
    assert labels({"method": "full"}, {"method": "lora", "lora.rank": 2}) == ["full", "lora lora.rank=2"]
    assert labels({"batch_size": 8, "schedule": "linear"}, {}) == ["batch_size=8 schedule=linear", "base config"]
    assert labels({"method": "lora", "lora.rank": 2}, {"method": "lora", "lora.rank": 4}) == ["2", "4"], "shared fields are left out"
    assert labels({"method": "lora", "lora.rank": 2}) == ["lora lora.rank=2"], "a single setting has all fields"


def test_the_page_imports_no_jax_and_loads_libraries_late():
    code = "import sys, research.ablation.report.page; names = ('jax', 'jinja2', 'vl_convert', 'json')"
    code += "; print([name for name in names if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=small.ROOT, env=small.environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "['json']\n"
