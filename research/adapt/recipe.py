"""What methods joined by `+` amount to: one plan, and an error where they do not go together."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from research.adapt.base import Delta, Method, TrainingHook, only_one
from research.errors import InputError
from research.params import plan as plans
from research.params import rules
from research.params.plan import FROZEN, Plan, Rules, Treatment
from research.params.tree import Tree, flatten

HEAD = {"head": ("head", Treatment())}  # the head always trains, whatever the method
Decided = dict[str, tuple[str, Treatment]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The methods of a run, for an encoder of these stages."""

    name: str
    parts: tuple[Method, ...]
    stages: tuple[str, ...]

    def __post_init__(self):
        only_one(self.name, self.parts, "rates", "how learning rates fall with depth")
        only_one(self.name, self.parts, "reader", "how features are read")
        for hook, what in (
            ("eval_params", "which average of the parameters is kept"),
            ("wrap_microbatch_grad", "how a part's gradient is taken"),
        ):
            having = [r.name for r in self.hooks if getattr(type(r), hook) is not getattr(TrainingHook, hook)]
            if len(having) > 1:
                raise InputError(f"method={self.name}: {having[0]} and {having[1]} both say {what}; give one of them")
        self._check_anchors()
        self._check_passes()

    def _check_anchors(self) -> None:
        """What holds parameters where they began: one of it, and they must begin with what was pretrained."""
        anchored = [r.name for r in self.hooks if r.anchored]
        if len(anchored) > 1:
            raise InputError(f"method={self.name}: {anchored[0]} and {anchored[1]} both hold parameters where they began; give one of them")
        moved = [r.name for r in self.hooks if type(r).init_params is not TrainingHook.init_params]
        if anchored and moved:
            raise InputError(f"method={self.name}: {anchored[0]} holds what was pretrained, but {moved[0]} changes it before training")

    def _check_passes(self) -> None:
        """Further passes of a penalty are over the same inputs as the step's own: not where another method moves these."""
        further = [r.name for r in self.hooks if type(r).extra_loss is not TrainingHook.extra_loss and r.passes > 1]
        moving = [r.name for r in self.hooks if type(r).wrap_microbatch_grad is not TrainingHook.wrap_microbatch_grad]
        if further and moving:
            raise InputError(
                f"method={self.name}: {moving[0]} moves the inputs of a pass, and {further[0]} compares passes; give one of them"
            )

    @property
    def passes(self) -> float:
        """How often a step goes forward and backward: the penalties' passes are added up, and taken again in each of the others'."""
        penalties = sum(r.passes - 1 for r in self.hooks if type(r).extra_loss is not TrainingHook.extra_loss)
        others = [r.passes for r in self.hooks if type(r).extra_loss is TrainingHook.extra_loss]
        return (1 + penalties) * math.prod(others)

    @property
    def no_decay_pattern(self) -> dict[str, str]:
        """Delta -> pattern of those of its parameters that nothing may pull to zero."""
        return {delta.name: f"delta/{delta.name}/.*/({delta.no_decay_pattern})" for delta in self.deltas if delta.no_decay_pattern}

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """What is added to the encoder, the first outermost."""
        return tuple(delta for part in self.parts for delta in part.deltas)

    @property
    def hooks(self) -> tuple[TrainingHook, ...]:
        """What holds training back, in order."""
        return tuple(hook for part in self.parts for hook in part.hooks)

    def is_reinitialized(self, name: str) -> bool:
        """Whether the parameter `name` begins with a random value, whatever was read for it."""
        return any(r.reinit and rules.matches(r.reinit, name) for r in self.hooks)

    def additions(self) -> dict[str, tuple[Any, ...]]:
        """What there is beside the choice of parameters, by kind."""
        return {"deltas": self.deltas, "hooks": self.hooks}

    @property
    def reader(self) -> nn.Module | None:
        """How the head reads the encoder's states, where that is not its last ones alone."""
        return only_one(self.name, self.parts, "reader", "how features are read")

    def plan(self, shapes: Tree, freeze: str, no_decay: Mapping[str, str]) -> Plan:
        """The plan for parameters of these shapes. `freeze` holds patterns, apart by commas, of what else is frozen.

        Raises InputError where a rule matches nothing, or where two methods want different things of one parameter.
        """
        leaves = flatten(shapes)
        asked = {f"freeze {pattern}": (pattern, FROZEN) for word in freeze.split(",") if (pattern := word.strip())}
        encoder = {name.removeprefix("encoder/"): leaf for name, leaf in leaves.items() if name.startswith("encoder/")}
        freeze_rules = [_freeze_rules(part, encoder) for part in self.parts]
        _check_phases(self.name, self.parts)
        readers = {part.name for part in self.parts if part.reader}
        decide = functools.partial(_decide, self.name, asked, leaves, readers)
        asks = [
            {part.name: claim[min(number, len(claim) - 1)] for part, claim in zip(self.parts, freeze_rules, strict=True) if claim}
            for number in range(max(map(len, freeze_rules)))
        ] or [{}]
        plan = plans.of_fates(leaves, [self._at_rates(decide(now)) for now in asks], {**no_decay, **self.no_decay_pattern})
        self._check_read(plan)
        self._check_worth(asks, decide)
        if any(r.anchored for r in self.hooks) and not any(name.startswith("encoder/") for name in plan.trained):
            anchored = next(r.name for r in self.hooks if r.anchored)
            raise InputError(f"method={self.name}: {anchored} holds pretrained parameters where they began, but none of them trains")
        for r in self.hooks:
            if r.needs and not any(rules.matches(r.needs, name) for name in plan.trained):
                raise InputError(f"method={self.name}: {r.name} is about {r.needs}, but nothing of that trains")
            if r.needs_all and (idle := [n for n in leaves if rules.matches(r.needs, n) and n not in plan.trained]):
                raise InputError(f"method={self.name}: {r.name} reinitialises {idle[0]}, which does not train")
        return plan

    def _at_rates(self, decided: Decided) -> Decided:
        """The same with each multiplier times its rule of rates."""
        rates = only_one(self.name, self.parts, "rates", "")
        found = {}
        for name, (rule, treatment) in decided.items():
            factor = next((m for pattern, m in rates.values() if rules.matches(pattern, name)), 1.0) if treatment.trained else 1.0
            found[name] = rule, dataclasses.replace(treatment, multiplier=treatment.multiplier * factor)
        return found

    def _check_read(self, plan: Plan) -> None:
        """Raises InputError where something trains in a stage above all that the head reads."""
        if self.reader is None:
            return
        read = self.reader.stages(len(self.stages))
        last, above = self.stages[max(read)], set(self.stages[max(read) + 1 :]) - set(self.stages[: max(read) + 1])
        if idle := next((name for name in plan.trained if above & set(name.split("/"))), None):
            raise InputError(f"method={self.name}: {idle} would train, but the head reads {last} and nothing above it")

    def _check_worth(self, asks: Sequence[Mapping[str, Rules]], decide: Callable[..., Decided]) -> None:
        """Raises InputError for a method that changes nothing beside the others, in any phase."""

        def trained(without: str = "") -> list[set[str]]:
            phases = [decide({name: claim for name, claim in now.items() if name != without}) for now in asks]
            return [{n for n, (_, treatment) in decided.items() if treatment.trained and not n.startswith("head/")} for decided in phases]

        every = trained()
        for part in self.parts:
            rest = [name for name in asks[0] if name != part.name]
            plain = not (part.deltas or part.hooks or part.reader or part.rates)
            if plain and rest and trained(part.name) == every:
                raise InputError(f"method={self.name}: {part.name} adds nothing to {' and '.join(rest)}; leave it out")
            if part.rates and not any(every):
                raise InputError(f"method={self.name}: {part.name} sets rates by depth, but nothing of the encoder trains")


def _freeze_rules(part: Method, encoder: Mapping[str, Any]) -> tuple[Rules, ...]:
    """What a method says of parameters, by full names, phase by phase."""
    of_deltas = {}
    for delta in part.deltas:
        of_deltas |= dict(delta.freeze_rules(encoder)) | {delta.name: (f"delta/{delta.name}", Treatment())}
    return tuple({**of_deltas, **phase} for phase in part.phases or (() if not of_deltas else ({},)))


def _check_phases(name: str, parts: Sequence[Method]) -> None:
    several = [part.name for part in parts if len(part.phases) > 1]
    if len(several) > 1:
        raise InputError(f"method={name}: {several[0]} and {several[1]} both have phases; give one of them")


def _decide(method: str, asked: Rules, leaves: Mapping[str, Any], readers: set[str], freeze_rules: Mapping[str, Rules]) -> Decided:
    """(rule, fate) of every parameter: what was asked for, the head, then what the methods say, then the rest.

    The methods of `readers` freeze only what no other one speaks of: they are about how states are read."""
    for of_method in (asked, HEAD, *freeze_rules.values()):
        for rule, (pattern, _) in of_method.items():
            rules.check_matches(rule, pattern, leaves)
    rest = ("the rest", FROZEN) if freeze_rules else ("encoder", Treatment())
    found = {}
    for name in leaves:
        said = {}
        for speaker, of_method in {"freeze": asked, "head": HEAD, **freeze_rules}.items():
            matching = ((rule, treatment) for rule, (pattern, treatment) in of_method.items() if rules.matches(pattern, name))
            if (decided := next(matching, None)) is not None:
                said[speaker] = decided
            if said and speaker in ("freeze", "head"):
                break
        said = {speaker: decided for speaker, decided in said.items() if speaker not in readers} or said
        fates = {treatment.trained: speaker for speaker, (_, treatment) in said.items()}
        if len(fates) > 1:
            raise InputError(f"method={method}: {fates[True]} trains {name}, {fates[False]} keeps it frozen; they do not go together")
        found[name] = next(iter(said.values()), rest)
    return found
