"""The plan: what a run does to every parameter. Made from rules, printed at the start of every run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.errors import InputError
from research.params import rules
from research.params.tree import Tree, flatten


@dataclasses.dataclass(frozen=True)
class Treatment:
    """What a rule decides for the parameters it covers. A frozen parameter has no gradient and no optimizer state."""

    trained: bool = True
    multiplier: float = 1.0


FROZEN = Treatment(trained=False, multiplier=0.0)
Rules = Mapping[str, tuple[str, Treatment]]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter's line of the plan. `opens` is the phase from which it trains without a break."""

    rule: str
    size: int
    treatment: Treatment
    decay: bool
    opens: int = 0

    @property
    def group(self) -> str:
        """The optimizer group: parameters of one group are updated alike, from the same step on."""
        if not self.treatment.trained:
            return "frozen"
        return f"x{self.treatment.multiplier:g}" + ("" if self.decay else " no decay") + (f" phase {self.opens + 1}" if self.opens else "")


@dataclasses.dataclass(frozen=True)
class Plan:
    """name -> Entry, for every parameter of the model.

    `phases` are the plans of the phases of training, where there are several: this plan then says what trains at some time.
    """

    entries: Mapping[str, Entry]
    phases: tuple["Plan", ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that train."""
        return tuple(name for name, entry in self.entries.items() if entry.treatment.trained)

    @property
    def groups(self) -> dict[str, Entry]:
        """Optimizer group -> an entry of it, for the groups that train."""
        return {entry.group: entry for entry in self.entries.values() if entry.treatment.trained}

    def frozen_stages(self, stages: tuple[str, ...]) -> int:
        """How many of the encoder's stages, from the bottom, are wholly frozen: nothing of them trains, and no delta in them."""
        trained = {part for name in self.trained if not name.startswith("head/") for part in name.split("/")[1:]}
        return next((i for i, stage in enumerate(stages) if stage in trained), len(stages))

    def rows(self) -> list[tuple[str, ...]]:
        """The table: group, rule, leaves, parameters, multiplier, decay, opens; one row for each (rule, group)."""
        table: dict[tuple[str, str], list[str]] = {}
        for name, entry in self.entries.items():
            table.setdefault((entry.group, entry.rule), []).append(name)
        rows = []
        for (group, rule), names in sorted(table.items(), key=lambda item: (item[0][0] == "frozen", item[0])):
            entry, size = self.entries[names[0]], sum(self.entries[name].size for name in names)
            trains = (
                (f"{entry.treatment.multiplier:g}", "yes" if entry.decay else "no", self._opens(names[0]))
                if entry.treatment.trained
                else None
            )
            rows.append((group, rule, str(len(names)), f"{size:,}", *(trains or ("-", "-", "never"))))
        return rows

    def _opens(self, name: str) -> str:
        if not self.phases:
            return "step 0"
        open_in = [i + 1 for i, phase in enumerate(self.phases) if phase.entries[name].treatment.trained]
        whole = open_in == list(range(open_in[0], len(self.phases) + 1))
        return f"phase {open_in[0]}" if whole else f"phases {', '.join(map(str, open_in))}"

    def render(self) -> str:
        """The table as plain text, with a line of totals."""
        rows = [("group", "rule", "leaves", "parameters", "multiplier", "decay", "opens"), *self.rows()]
        total = sum(entry.size for entry in self.entries.values())
        trained = sum(entry.size for entry in self.entries.values() if entry.treatment.trained)
        return "\n".join([*columns(rows), f"trains {trained:,} of {total:,} parameters ({100 * trained / total:.2f}%)"]) + "\n"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, cells of a column under each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def make(params: Tree, fates: Rules, no_decay: Mapping[str, str]) -> Plan:
    """The plan that `fates` (rule -> (pattern, Fate)) give for `params` (arrays or shapes).

    `no_decay` maps rule names to patterns of parameters that weight decay spares, an empty one none. Raises InputError as `rules.resolve`
    does, and where a rule freezes a parameter of the head.
    """
    leaves = flatten(params)
    return of_fates(leaves, [rules.resolve(fates, leaves)], no_decay)


def of_fates(leaves: Mapping[str, Any], phases: Sequence[Mapping[str, tuple[str, Treatment]]], no_decay: Mapping[str, str]) -> Plan:
    """The plan in which each phase decides (rule, Fate) for every name of `leaves`. Raises InputError as `make` does."""
    for rule, pattern in no_decay.items():
        if pattern:
            rules.check_matches(f"no_decay.{rule}", pattern, leaves)
    plans, opened = [], dict.fromkeys(leaves, 0)
    for number, decided in enumerate(phases):
        entries = {}
        for name, leaf in leaves.items():
            rule, treatment = decided[name]
            if name.startswith("head/") and not treatment.trained:
                raise InputError(f"rule {rule!r} freezes {name}, but the head always trains; use a pattern that begins with encoder/")
            before = number and plans[-1].entries[name].treatment.trained
            opened[name] = opened[name] if before else number
            decay = not any(rules.matches(pattern, name) for pattern in no_decay.values())
            entries[name] = Entry(rule, int(leaf.size), treatment, decay, opened[name])
        plans.append(Plan(entries))
    if len(plans) == 1:
        return plans[0]
    ever = {}
    for name in leaves:
        lives = [plan.entries[name] for plan in plans]
        ever[name] = next((entry for entry in lives if entry.treatment.trained), lives[-1])
    return Plan(ever, tuple(plans))
