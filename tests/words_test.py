"""Test the words of the source: retired names stay away, and docstrings begin with a verb.

Some old names are ordinary words of the field in another sense (`kind`, `words`, `scores`, `begin`, `find`, `view`) and are not listed.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("research", "configs", "tests")
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
TEXTS = [*FILES, ROOT / "README.md", *(file for room in (*ROOMS, "launch") for file in (ROOT / room).rglob("*.md"))]
# Riddles: names that do not say of what. They are retired as names and as parts of names.
RIDDLES = set(
    "anew company fate fates found ghost ghosts kept meeting meetings mourn nudge ours own said settle spared theirs whole".split()
)
RENAMED = {  # old name -> new name
    "alike": "scalars",
    "anchors": "example_starts",
    "around": "grad_transform",
    "Baseline": "FromScratch",
    "begins_anew": "reinit",
    "Call": "group",
    "Cell": "RunSpec or PublishedCell",
    "claims": "freeze_rules",
    "Everybodys": "shared arrays",
    "findings": "calibrate",
    "gives": "provides",
    "got": "actual",
    "in_parts": "split_microbatches",
    "Joint": "lockstep",
    "lean": "norm, activations or embedding",
    "ledger": "published",
    "of_batch": "wrap_grad",
    "of_part": "wrap_microbatch_grad",
    "onto": "load_into",
    "penalty": "extra_loss",
    "plain": "canonical, original or what is left out",
    "Regulariser": "TrainingHook",
    "rematerialised": "rematerialize",
    "resident": "device_constants",
    "Running": "PhaseRunner",
    "Seat": "member",
    "settle_units": "resolve",
    "sites": "interceptors",
    "stepped": "step_done",
    "totals": "stats",
    "unlike": "known_deviation",
    "Untrained": "RandomInit",
    "verdict": "reproduction or outcome",
    "Verdict": "Outcome",
    "waits": "blocked_by",
    "Window": "MetricAccumulator",
    "writing": "atomic_write",
    "zero_after": "zero_dependent_on",
}
KEYS = {"anchors": "example_starts", "company": "fleet"}  # of batches and of `environment` in result.json
PROSE = re.compile(r"(?i)\b(anew|afresh|company|fates?|ghosts?|meetings?|mourn\w*|nudge\w*|ours|spared|theirs)\b")
QUOTED = {"configs/papers/mosbach2021_table1.py": {"Ours"}}  # the name of a row in the paper's table
QUESTIONS = set("How What When Where Whether Which Who Why".split())
NO_VERBS = QUESTIONS | set("A All An By Each Every It Its Of One Some That The These This Those Within".split())


def names(source: str) -> list[tuple[int, str]]:
    """Return (line, name) of all identifiers: variables, attributes, arguments, keywords, functions, classes, imports."""
    pairs = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.keyword | ast.FunctionDef | ast.ClassDef | ast.alias):
            name = getattr(node, {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg"}.get(type(node), "name"))
            pairs += [(node.lineno, name)] if name else []  # a keyword without a name is `**`
            pairs += [(node.lineno, node.asname)] if getattr(node, "asname", None) else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in KEYS:
            pairs.append((node.lineno, node.value))
    return pairs


def retired(name: str) -> bool:
    """Return whether a name is retired, or has a riddle in it. The names of tests are sentences: of their words only `ours` is checked."""
    parts = set(name.lower().split("_")) & RIDDLES
    return name.strip("_") in RENAMED | KEYS or bool(parts & {"ours", "theirs"} if name.startswith("test_") else parts)


def wordless(source: str) -> list[tuple[int, str]]:
    """Return (line, docstring's first line) of functions whose docstring begins with no verb, and of classes and files that ask."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            first = re.split(r"[\s,.:;]", text, maxsplit=1)[0]
            verb = re.fullmatch(r"[A-Z][a-z]*(?:[^s]|ss)", first) and first not in NO_VERBS  # an imperative has no s at its end
            if not verb if isinstance(node, ast.FunctionDef) else first in QUESTIONS:
                lines.append((getattr(node, "lineno", 1), text.splitlines()[0]))
    return lines


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f():\n    _said = g()",
        "x.kept = 1",
        "f(own=1)",
        "def whole(): pass",
        "class Fate: pass",
        "lambda got: 1",
        "from a import settle",
        "import a as theirs",
        "own_words = 1",
        "def test_that_ours_is_fast(): pass",
        'batch["anchors"]',
    ],
)
def test_a_retired_name_is_noticed(source):
    assert any(retired(name) for _, name in names(source))
    other = re.sub(r"found|_said|kept|own|whole|Fate|got|settle|theirs|own_words|ours|anchors", "other", source)
    assert not any(retired(name) for _, name in names(other))


def test_a_docstring_without_a_verb_is_noticed():
    for text in ("What it does.", "The sum.", "Returns the sum.", "`x` plus one.", "(a, b)."):
        assert wordless(f'def f():\n    """{text}"""')
    assert wordless('class A:\n    """What it is."""') and wordless('"""Whether it is."""')
    assert not wordless('"""The files."""\nclass A:\n    """A thing."""\n    def f(self):\n        """Pass a thing."""')


def test_no_retired_name_is_used():
    uses = [(file, line, name) for file in FILES if file != Path(__file__) for line, name in names(file.read_text()) if retired(name)]
    strays = [f"{file.relative_to(ROOT)}:{line}: {name}, now {(RENAMED | KEYS).get(name, 'the thing itself')}" for file, line, name in uses]
    assert not strays, "\n".join(strays)


def test_no_file_has_a_retired_name():
    assert not [str(path.relative_to(ROOT)) for path in FILES if retired(path.stem.removesuffix("_test"))]


def test_prose_has_no_riddles():
    strays = []
    for file in TEXTS:
        allowed = QUOTED.get(str(file.relative_to(ROOT)), set())
        words = {match for match in PROSE.findall(file.read_text())} - allowed
        strays += [f"{file.relative_to(ROOT)}: {', '.join(sorted(words))}"] if words and file != Path(__file__) else []
    assert not strays, "\n".join(strays)


def test_docstrings_begin_with_a_verb():
    strays = [(file.relative_to(ROOT), line, text) for file in FILES for line, text in wordless(file.read_text())]
    strays = [
        f"{file}:{line}: {text}" for file, line, text in strays if file.parts[0] != "configs" or line > 1
    ]  # a config asks its question
    assert not strays, "\n".join(strays)
