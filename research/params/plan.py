"""The plan: what a run does to every parameter. Made from rules, printed at the start of every run."""

import dataclasses
from collections.abc import Mapping

from research.errors import InputError
from research.params import rules
from research.params.tree import Tree, flatten


@dataclasses.dataclass(frozen=True)
class Fate:
    """What a rule decides for the parameters it covers. A frozen parameter has no gradient and no optimizer state."""

    trained: bool = True
    multiplier: float = 1.0


FROZEN = Fate(trained=False, multiplier=0.0)
Rules = Mapping[str, tuple[str, Fate]]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter's line of the plan."""

    rule: str
    size: int
    fate: Fate
    decay: bool

    @property
    def group(self) -> str:
        """The optimizer group: parameters of one group are updated alike."""
        if not self.fate.trained:
            return "frozen"
        return f"x{self.fate.multiplier:g}" + ("" if self.decay else " no decay")


@dataclasses.dataclass(frozen=True)
class Plan:
    """name -> Entry, for every parameter of the model."""

    entries: Mapping[str, Entry]

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that train."""
        return tuple(name for name, entry in self.entries.items() if entry.fate.trained)

    @property
    def groups(self) -> dict[str, Entry]:
        """Optimizer group -> an entry of it, for the groups that train."""
        return {entry.group: entry for entry in self.entries.values() if entry.fate.trained}

    def frozen_stages(self, stages: tuple[str, ...]) -> int:
        """How many of the encoder's stages, from the bottom, are wholly frozen."""
        trained = {name.split("/")[1] for name in self.trained if name.startswith("encoder/")}
        return next((i for i, stage in enumerate(stages) if stage in trained), len(stages))

    def rows(self) -> list[tuple[str, ...]]:
        """The table: group, rule, leaves, parameters, multiplier, decay, opens; one row for each (rule, group)."""
        table: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries.values():
            table.setdefault((entry.group, entry.rule), []).append(entry)
        return [
            (
                group,
                rule,
                str(len(entries)),
                f"{sum(e.size for e in entries):,}",
                f"{entries[0].fate.multiplier:g}" if entries[0].fate.trained else "-",
                ("yes" if entries[0].decay else "no") if entries[0].fate.trained else "-",
                "step 0" if entries[0].fate.trained else "never",
            )
            for (group, rule), entries in sorted(table.items(), key=lambda item: (item[0][0] == "frozen", item[0]))
        ]

    def render(self) -> str:
        """The table as plain text, with a line of totals."""
        rows = [("group", "rule", "leaves", "parameters", "multiplier", "decay", "opens"), *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        total = sum(entry.size for entry in self.entries.values())
        trained = sum(entry.size for entry in self.entries.values() if entry.fate.trained)
        return "\n".join([*lines, f"trains {trained:,} of {total:,} parameters ({100 * trained / total:.2f}%)"]) + "\n"


def make(params: Tree, fates: Rules, no_decay: Mapping[str, str]) -> Plan:
    """The plan that `fates` (rule -> (pattern, Fate)) give for `params` (arrays or shapes).

    `no_decay` maps rule names to patterns of parameters that weight decay spares. Raises InputError as `rules.resolve` does,
    and where a rule freezes a parameter of the head.
    """
    leaves = flatten(params)
    for rule, pattern in no_decay.items():
        rules.check_matches(f"no_decay.{rule}", pattern, leaves)
    decided = rules.resolve(fates, leaves)
    for name, (rule, fate) in decided.items():
        if name.startswith("head/") and not fate.trained:
            raise InputError(f"rule {rule!r} freezes {name}, but the head always trains; use a pattern that begins with encoder/")
    return Plan(
        {
            name: Entry(
                rule=decided[name][0],
                size=int(leaf.size),
                fate=decided[name][1],
                decay=not any(rules.matches(pattern, name) for pattern in no_decay.values()),
            )
            for name, leaf in leaves.items()
        }
    )
