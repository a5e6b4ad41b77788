"""The plan of a run: for every parameter, whether it is trained, its learning rate multiplier and its weight decay.

The plan is made from rules and printed at the start of every run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.errors import InputError
from research.params import rules
from research.params.tree import Tree, flatten


@dataclasses.dataclass(frozen=True)
class Treatment:
    """A rule's decision for the parameters it covers. `multiplier` scales the learning rate.

    A frozen parameter (`trained` is False) has no gradient and no optimizer state.
    """

    trained: bool = True
    multiplier: float = 1.0


FROZEN = Treatment(trained=False, multiplier=0.0)
Rules = Mapping[str, tuple[str, Treatment]]


@dataclasses.dataclass(frozen=True)
class Entry:
    """The plan's entry for one parameter. `opens` is the index of the phase from which it is trained without a break."""

    rule: str
    size: int
    treatment: Treatment
    decay: bool
    opens: int = 0

    @property
    def group(self) -> str:
        """Return the optimizer group. Parameters of one group share the multiplier, weight decay and first trained phase."""
        if not self.treatment.trained:
            return "frozen"
        return f"x{self.treatment.multiplier:g}" + ("" if self.decay else " no decay") + (f" phase {self.opens + 1}" if self.opens else "")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A mapping name -> Entry for every parameter of the model.

    With several training phases, `phases` holds one plan per phase, and `entries` counts a parameter as trained if any phase trains it.
    """

    entries: Mapping[str, Entry]
    phases: tuple["Plan", ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the names of the trainable parameters."""
        return tuple(name for name, entry in self.entries.items() if entry.treatment.trained)

    @property
    def groups(self) -> dict[str, Entry]:
        """Return a mapping from each trainable optimizer group to one of its entries."""
        return {entry.group: entry for entry in self.entries.values() if entry.treatment.trained}

    def frozen_stages(self, stages: tuple[str, ...]) -> int:
        """Return how many of the encoder's stages, counted from the bottom, have neither trainable parameters nor deltas, frozen or not."""
        deltas = [name for name in self.entries if name.startswith("delta/")]
        changed = {part for name in (*self.trained, *deltas) if not name.startswith("head/") for part in name.split("/")[1:]}
        return next((i for i, stage in enumerate(stages) if stage in changed), len(stages))

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's rows, one for each (group, rule).

        The columns are group, rule, leaves, parameters, multiplier, decay and opens. Frozen groups are last.
        """
        table: dict[tuple[str, str], list[str]] = {}
        for name, entry in self.entries.items():
            table.setdefault((entry.group, entry.rule), []).append(name)
        rows = []
        for (group, rule), names in sorted(table.items(), key=lambda item: (item[0][0] == "frozen", item[0])):
            entry, size = self.entries[names[0]], sum(self.entries[name].size for name in names)
            trained_cells = (
                (f"{entry.treatment.multiplier:g}", "yes" if entry.decay else "no", self._opens(names[0]))
                if entry.treatment.trained
                else None
            )
            rows.append((group, rule, str(len(names)), f"{size:,}", *(trained_cells or ("-", "-", "never"))))
        return rows

    def _opens(self, name: str) -> str:
        if not self.phases:
            return "step 0"
        open_in = [i + 1 for i, phase in enumerate(self.phases) if phase.entries[name].treatment.trained]
        to_the_end = open_in == list(range(open_in[0], len(self.phases) + 1))
        return f"phase {open_in[0]}" if to_the_end else f"phases {', '.join(map(str, open_in))}"

    def render(self) -> str:
        """Return the table as plain text, with a final line of totals."""
        rows = [("group", "rule", "leaves", "parameters", "multiplier", "decay", "opens"), *self.rows()]
        total = sum(entry.size for entry in self.entries.values())
        trained = sum(entry.size for entry in self.entries.values() if entry.treatment.trained)
        return "\n".join([*columns(rows), f"trains {trained:,} of {total:,} parameters ({100 * trained / total:.2f}%)"]) + "\n"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line of text for each row, with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def make(params: Tree, treatments: Rules, no_decay: Mapping[str, str]) -> Plan:
    """Return the plan for `params` (arrays or shapes) under `treatments` (rule -> (pattern, Treatment)).

    `no_decay` maps rule names to patterns of parameters without weight decay. An empty pattern matches nothing. Raise InputError as
    `rules.resolve` does, for a `no_decay` pattern that matches no parameter, and for a rule that freezes a parameter of the head.
    """
    leaves = flatten(params)
    return of_treatments(leaves, [rules.resolve(treatments, leaves)], no_decay)


def of_treatments(leaves: Mapping[str, Any], phases: Sequence[Mapping[str, tuple[str, Treatment]]], no_decay: Mapping[str, str]) -> Plan:
    """Return the plan of a run in `phases`, each a mapping name -> (rule, Treatment) with every name of `leaves`.

    Raise InputError for a `no_decay` pattern that matches no parameter and for a rule that freezes a parameter of the head.
    """
    for rule, pattern in no_decay.items():
        if pattern:
            rules.check_matches(f"no_decay.{rule}", pattern, leaves)
    plans, opened = [], dict.fromkeys(leaves, 0)
    for number, decisions in enumerate(phases):
        entries = {}
        for name, leaf in leaves.items():
            rule, treatment = decisions[name]
            if name.startswith("head/") and not treatment.trained:
                raise InputError(f"rule {rule!r} freezes {name}, but the head always trains; use a pattern that begins with encoder/")
            trained_before = number and plans[-1].entries[name].treatment.trained
            opened[name] = opened[name] if trained_before else number
            decay = not any(rules.matches(pattern, name) for pattern in no_decay.values())
            entries[name] = Entry(rule, int(leaf.size), treatment, decay, opened[name])
        plans.append(Plan(entries))
    if len(plans) == 1:
        return plans[0]
    combined = {}
    for name in leaves:
        by_phase = [plan.entries[name] for plan in plans]
        combined[name] = next((entry for entry in by_phase if entry.treatment.trained), by_phase[-1])
    return Plan(combined, tuple(plans))
