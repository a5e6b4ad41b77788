"""The page of a sweep, read as a file: what is in it, and what must not be."""

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
from research.ablation.runs import Run
from research.config import recorded
from research.tracking import writer
from tests import runs as small
from tests.ablation import sweeps


class Outline(HTMLParser):
    """Elements by name with their attributes, and the text inside each (of scripts and styles too), in order."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in ("meta", "input"):
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag: str, **attributes: str) -> list[str]:
        """The text of each such element."""
        fits = [text for name, had, text in self.found if name == tag and attributes.items() <= had.items()]
        return [" ".join("".join(text).split()) for text in fits]


def loads(html: str) -> list[str]:
    """What a browser would fetch for the page: addresses in elements and styles."""
    elements = [(tag, had) for tag, had, _ in Outline(html).found if tag != "a"]  # a link is followed by the reader alone
    found = [had[name] for _, had in elements for name in ("src", "href", "srcset", "data", "action") if name in had]
    return found + re.findall(r"@import[^;]*|url\([^)]*\)", " ".join(Outline(html).all("style")))


def made(runs, title: str = "How small?") -> tuple[str, Outline]:
    html = page.html(runs, title, lambda run: f"python -m research.ablation --replay={run.id} --only='<b>'")
    return html, Outline(html)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    return sweeps.made_up(tmp_path_factory.mktemp("sweep"), steps=200, examples=60)


@pytest.fixture(scope="module")
def whole(hundred):
    return made(hundred)


def data(outline: Outline) -> dict:
    return json.loads(outline.all("script", id="data")[0])


def test_it_is_one_small_file_that_loads_nothing(whole):
    html, outline = whole
    assert len(html.encode()) < 3e6 and loads(html) == []
    (policy,) = [had["content"] for tag, had, _ in outline.found if tag == "meta" and "content" in had and "http-equiv" in had]
    assert policy.startswith("default-src 'none';") and "http" not in policy
    assert len(outline.all("script")) == 3 and not outline.open, "the program has no tag of its own that ends it"
    assert loads('<link href="https://x.org/a.css"><script src="b.js"></script><style>a{background:url(c)}</style>'), "this check can fail"


def test_the_head_says_what_ran_and_what_came_of_it(whole, hundred):
    text = whole[1].all("header")[0]
    assert "How small? · trec · tiny 100 runs of 20 settings 96 finished 2 failed 1 unfinished 1 not run" in text
    assert whole[1].all("dd") == ["trec", "tiny", "demo", "bfloat16", "3.12.0", "0.10.2", "cpu"]
    assert re.search(r"\d+ \w+ 20\d\d", text)
    assert "failed" not in made(hundred[5:20])[1].all("header")[0]


def test_the_table_is_the_reports(whole, hundred):
    header, *body = tables.rows(hundred)
    cells = whole[1].all("td")
    assert whole[1].all("th") == ["setting", *header[5:]]
    assert cells == [cell for name, line in zip(plots.labels(tables.settings(hundred)), body, strict=True) for cell in (name, *line[5:])]
    assert "lora lora.rank=2" in cells and any(note.startswith("Scores are in percent") for note in whole[1].all("p", **{"class": "note"}))


def test_the_best_is_bold_and_what_failed_says_so():
    scores = {"full": (0.5, 0.51, 0.52), "lora": (0.801, 0.83, 0.81)}
    cells = [(name, seed, score) for name, of in scores.items() for seed, score in enumerate(of)]
    runs = [Run(f"{name}{i}", {"method": name, "seed": i}, ConfigDict(), Path("nowhere"), sweeps.result(x)) for name, i, x in cells]
    failed = Run("x", {"method": "<i>", "seed": 0}, ConfigDict(), Path("nowhere"), error="broke & died")
    html, outline = made([*runs, failed])
    assert outline.all("strong") == ["81.4 ± 1.5"] and "<i>" in outline.all("td") and "&lt;i&gt;" in html
    assert outline.all("td", colspan="10") == ["failed: broke & died"] and outline.all("pre", **{"class": "error"}) == ["broke & died"]
    assert made(runs[:3])[1].all("strong") == []


def test_each_run_has_its_config_its_command_and_its_error(whole, hundred):
    outline = whole[1]
    found = data(outline)
    for run, own in zip(hundred, found["own"], strict=True):
        known = {name: value if isinstance(value, str) else repr(value) for name, value in recorded.flat(run.config.to_dict()).items()}
        assert found["shared"] | own == known and not found["shared"].keys() & own.keys()
        assert own["seed"] == str(run.overrides["seed"]) and len(own) < 12 < 100 < len(found["shared"])
    assert outline.all("pre", **{"class": "command"}) == [f"python -m research.ablation --replay={run.id} --only='<b>'" for run in hundred]
    assert outline.all("pre", **{"class": "error"}) == [" ".join(run.error.split()) for run in hundred if run.error]
    assert outline.all("span", **{"class": "status failed"}) == ["2 failed", "failed", "failed"]
    assert outline.all("span", **{"class": "status unfinished"}) == ["1 unfinished", "unfinished"]


def test_a_run_links_to_what_it_left(whole, hundred):
    links = [had["href"] for tag, had, _ in whole[1].found if tag == "a"]
    assert f"{hundred[5].folder.name}/predictions/test.jsonl" in links and f"{hundred[5].folder.name}/metrics.jsonl" in links
    assert f"{hundred[0].folder.name}/metrics.jsonl" not in links, "it never began"
    assert all((hundred[0].folder.parent / link).is_file() for link in links)


def test_the_page_says_what_its_question_is(hundred):
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


def test_what_a_run_says_is_text_and_never_markup(hundred, monkeypatch):
    check_escaped(hundred)
    plain = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **settings: plain(**settings | {"autoescape": False}))
    with pytest.raises(AssertionError):
        check_escaped(hundred)


def test_scores_and_costs_are_those_of_the_table(hundred):
    every = tables.settings(hundred)
    found = {one["setting"]: one for one in plots.scores(every)}
    assert len(found) == 20 and found["full"]["n"] == 3 == len(found["full"]["seeds"])
    known = statistics.interval(list(every[5].scores("test").values()))
    one = found["lora lora.rank=4"]
    assert (one["mean"], one["low"], one["high"]) == pytest.approx((known.mean, known.low, known.high), rel=1e-4)
    assert (one["trainable"], one["tflop"], one["seconds"]) == (320, 12.0, 6.0)
    alone = plots.scores(tables.settings(hundred[5:6]))
    assert alone[0]["n"] == 1 and "low" not in alone[0], "a single seed has no interval"
    assert plots.scores(tables.settings(hundred[:2])) == []


def test_curves_are_means_over_seeds_with_their_spread(hundred):
    every = tables.settings(hundred)
    dev, loss = (plots.curves(every)[kind] for kind in ("dev", "loss"))
    lines = [writer.read_metrics(run.folder) for run in every[4].runs]
    last = [100 * of[-1]["dev/accuracy"] for of in lines]
    assert dev[4]["setting"] == "lora lora.rank=2" and dev[4]["step"] == list(range(20, 201, 20))
    assert (dev[4]["mean"][-1], dev[4]["sd"][-1]) == pytest.approx(statistics.mean_and_sd(last), rel=1e-3)
    assert len(loss[4]["step"]) == plots.POINTS and loss[4]["step"][:2] == [1.5, 3.5]
    pairs = [np.mean([line["train/loss"] for line in of if line["step"] in (1, 2) and "train/loss" in line]) for of in lines]
    assert (loss[4]["mean"][0], loss[4]["sd"][0]) == pytest.approx(statistics.mean_and_sd(pairs), rel=1e-3)


def test_a_run_that_broke_is_in_the_curves_as_far_as_it_came(hundred):
    one = plots.curves(tables.settings(hundred[1:2]))
    assert one["dev"][0]["step"] == list(range(20, 101, 20)) and set(one["dev"][0]["sd"]) == {None}
    assert one["loss"][0]["mean"][-1] is None and one["loss"][0]["mean"][-2] is not None, "a loss that is no number"
    assert plots.curves(tables.settings(hundred[:1])) == {"dev": [], "loss": []}, "nothing is left of what never began"


def test_the_expected_best_is_over_settings_of_a_method(hundred):
    every = tables.settings(hundred)
    found = plots.expected_best(every)
    assert sorted({row["method"] for row in found}) == ["dora", "houlsby", "lora", "vera"] and len(found) == 16
    means = [np.mean(list(one.scores("dev").values())) for one in every[4:8]]
    best = {row["trials"]: row["best"] for row in found if row["method"] == "lora"}
    assert (best[1], best[4]) == pytest.approx((np.mean(means), statistics.expected_maximum(means, 4)), rel=1e-4) and best[4] < max(means)
    assert plots.expected_best(every[:6]) == [], "single methods, and two settings, are no search"


@pytest.mark.parametrize("upto", [1, 2])
def test_a_sweep_without_results_has_a_page(hundred, upto):
    html, outline = made(hundred[:upto])
    assert outline.all("div", id="trainable") == [] and len(outline.all("div", id="dev")) == upto - 1
    assert len(outline.all("details")) == upto and "NaN" not in outline.all("script", id="data")[0]


def test_a_label_says_what_differs():
    def labels(*values):
        return plots.labels([tables.Setting(value, ()) for value in values])

    assert labels({"top_layers": 1}, {"top_layers": 2}) == ["1", "2"]
    assert labels({"method": "full"}, {"method": "lora", "lora.rank": 2}) == ["full", "lora lora.rank=2"]
    assert labels({"batch_size": 8, "schedule": "linear"}, {}) == ["batch_size=8 schedule=linear", "as it is"]
    assert labels({"method": "lora", "lora.rank": 2}, {"method": "lora", "lora.rank": 4}) == ["2", "4"], "what all share is no name"
    assert labels({"method": "lora", "lora.rank": 2}) == ["lora lora.rank=2"], "but of one setting it is all there is"


def test_the_page_needs_no_jax_and_is_loaded_late():
    code = "import sys, research.ablation.page; print([name for name in ('jax', 'jinja2', 'vl_convert', 'json') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=small.ROOT, env=small.environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "['json']\n"
