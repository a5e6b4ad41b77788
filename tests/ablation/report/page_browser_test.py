"""The page of a sweep of 100 runs in a browser: no console messages, all plots drawn, and nothing wider than the window."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from research.ablation.report import page
from tests.ablation import sweeps

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PLOTS = ("trainable", "tflop", "seconds", "dev", "loss", "strip", "best")
# A script that acts as a reader after all plots are drawn: it points at a mark, selects one setting, opens a run and searches runs. The
# results are written to attributes of <body>.
READER = """<script type="module">
const marks = () => document.querySelectorAll("#dev .mark-line path").length;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
while (!document.body.dataset.drawn) await wait(50);
const saw = document.body.dataset;
[saw.width, saw.window, saw.lines] = [document.documentElement.scrollWidth, innerWidth, marks()];
saw.hidden = document.querySelector(".wide").scrollWidth - document.querySelector(".wide").clientWidth;
if (location.hash) {
  document.querySelectorAll("#tflop .mark-symbol path")[5].dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
  await wait(100);
  saw.tip = document.getElementById("vg-tooltip-element")?.textContent;
  document.querySelectorAll("#legend button")[5].click();
  await wait(500);
  saw.chosen = marks();
  const run = document.querySelectorAll("details[data-run]")[7];
  run.open = true;
  await wait(100);
  saw.config = run.querySelector(".config").textContent;
  const find = document.getElementById("find");
  find.value = "lora seed=3";
  find.dispatchEvent(new Event("input"));
  saw.matches = document.getElementById("matches").textContent;
}
saw.read = "yes";
</script></body>"""


class Browser:
    """A page opened in headless Chromium without a network, `width` pixels wide; `act` runs all steps of READER."""

    def __init__(self, html: str, folder: Path, width: int = 1280, height: int = 2400, act: bool = False):
        path, shot = folder / "page.html", folder / f"{width}.png"
        path.write_text(html, encoding="utf8")
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--allow-file-access-from-files",
        )
        output = ("--enable-logging=stderr", "--v=0", "--dump-dom", f"--screenshot={shot}", f"--user-data-dir={folder / 'profile'}")
        size = (f"--window-size={width},{height}", "--virtual-time-budget=20000")
        address = path.as_uri() + ("#act" if act else "")
        done = subprocess.run([CHROMIUM, *flags, *output, *size, address], capture_output=True, text=True, timeout=120)
        self.console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        self.dom, self.seen = done.stdout, Body(done.stdout).seen
        self.pixels = image.imread(shot) if shot.exists() else np.zeros((1, 1, 3))


class Body(HTMLParser):
    """The data attributes of <body>, as `seen`."""

    def __init__(self, html: str):
        super().__init__()
        self.seen: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "body":
            self.seen = {name.removeprefix("data-"): value for name, value in attrs}


def blank(pixels: np.ndarray) -> bool:
    """Return whether the image [h, w, 3 or 4] has almost only its background colour."""
    return float((np.abs(pixels[..., :3] - pixels[0, 0, :3]).max(-1) > 0.1).mean()) < 0.005


def plots(dom: str) -> dict[str, int]:
    """Return plot -> number of marks."""
    parts = re.split(r'<div id="(\w+)"', dom)
    return {name: len(re.findall(r"<path[^>]*aria-roledescription", part)) for name, part in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    runs = sweeps.made_up(tmp_path_factory.mktemp("sweep"))
    made = page.html(runs, "How small may an addition be?", lambda run: f"python -m research.ablation --replay={run.id}")
    assert len(runs) == 100 and len(made.encode()) < 3e6
    before, _, after = made.rpartition("</body>")  # the last one: Vega's program contains another
    return before + READER + after


def test_a_hundred_runs_are_drawn_without_console_messages(html, tmp_path):
    window = Browser(html, tmp_path)
    assert window.console == [] and window.seen["drawn"] == str(len(PLOTS)) and window.seen["read"] == "yes"
    assert window.pixels.shape[:2] == (2400, 1280) and not blank(window.pixels)
    marks = plots(window.dom)
    assert all(marks.get(name, 0) >= 4 for name in PLOTS), marks
    assert marks["strip"] > 100, "one mark per seed"


@pytest.mark.parametrize("upto", [2, 20])
def test_single_seeds_and_runs_without_results_are_drawn_too(tmp_path, upto):
    runs = sweeps.made_up(tmp_path, seeds=1, steps=100, examples=60)[:upto]
    window = Browser(page.html(runs, "One seed", lambda run: run.id), tmp_path)
    assert window.console == [] and window.seen["drawn"] == str({2: 2, 20: len(PLOTS)}[upto])


@pytest.mark.parametrize("width", [800, 1280])
def test_nothing_is_wider_than_the_window(html, tmp_path, width):
    window = Browser(html, tmp_path, width)
    assert window.seen["window"] == window.seen["width"] == str(width)
    assert (window.seen["hidden"] == "0") == (width == 1280), "the table fits, or has a scroll bar"
    wide = Browser(html.replace("<h1>", '<h1 style="width: 1500px">'), tmp_path, width)
    assert int(wide.seen["width"]) >= 1500, "the check detects a wider page"


FRAME = """<body><iframe src="inner.html" style="width: 420px; height: 3000px; border: 0"></iframe><script type="module">
const inner = () => document.querySelector("iframe").contentDocument;
while (!inner()?.body?.dataset.drawn) await new Promise((done) => setTimeout(done, 50));
document.body.dataset.width = inner().documentElement.scrollWidth;
</script></body>"""


def test_nothing_is_wider_than_a_phone(html, tmp_path):
    (tmp_path / "inner.html").write_text(html, encoding="utf8")  # in a frame, because a Chromium window cannot be so narrow
    assert Browser(FRAME, tmp_path).seen["width"] == "420"
    (tmp_path / "inner.html").write_text(html.replace("<h1>", '<h1 style="width: 440px">'), encoding="utf8")
    assert int(Browser(FRAME, tmp_path).seen["width"]) > 440, "the check detects a wider page"


def test_a_reader_can_point_select_open_and_search(html, tmp_path):
    seen = Browser(html, tmp_path, act=True).seen
    assert "lora lora.rank=4" in seen["tip"] and "trainable parameters320" in seen["tip"] and "95% interval" in seen["tip"]
    assert seen["lines"] == "20" and seen["chosen"] == "1"
    assert "seed = 2" in seen["config"] and "method = linear_probe" in seen["config"] and "max_length = 32" in seen["config"]
    assert seen["matches"] == "4 of 100"


def test_the_checks_detect_errors(html, tmp_path):
    broken = Browser(html.replace('<script type="module">', '<script type="module">null.there;', 1), tmp_path)
    assert any("Uncaught TypeError" in line for line in broken.console) and "drawn" not in broken.seen
    calling = Browser(html.replace("</h1>", '</h1><img src="https://example.org/a.png">'), tmp_path)
    assert any("Content Security Policy" in line for line in calling.console), "the page's policy forbids all requests"
    empty = Browser("<p>a", tmp_path)
    assert blank(empty.pixels) and empty.console == [] and not any(plots(empty.dom).values())
