"""Combines methods joined by `+` into one plan, and raises InputError for methods that contradict each other."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from research.adapt.base import Delta, JoinedHooks, Method, TrainingHook, only_one
from research.errors import InputError
from research.params import plan as plans
from research.params import rules
from research.params.plan import FROZEN, Plan, Rules, Treatment
from research.params.tree import Tree, below, flatten

HEAD = {"head": ("head", Treatment())}  # the head always trains, whatever the method
Decided = dict[str, tuple[str, Treatment]]  # parameter name -> (name of the deciding rule, treatment)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The joined methods of a run, for an encoder with the given stages."""

    name: str
    parts: tuple[Method, ...]
    stages: tuple[str, ...]

    def __post_init__(self):
        only_one(self.name, self.parts, "rates", "how learning rates fall with depth")
        only_one(self.name, self.parts, "reader", "how features are read")
        for function, what in (
            ("eval_params", "which average of the parameters is saved"),
            ("wrap_microbatch_grad", "how the gradient of a microbatch is computed"),
        ):
            setters = [r.name for r in self.hooks if getattr(type(r), function) is not getattr(TrainingHook, function)]
            if len(setters) > 1:
                raise InputError(f"method={self.name}: {setters[0]} and {setters[1]} both set {what}; give one of them")
        self._check_anchors()
        self._check_passes()

    def _check_anchors(self) -> None:
        """Raise InputError for two anchored hooks, or for one joined with a method that changes the initial parameters."""
        anchored = [r.name for r in self.hooks if r.anchored]
        if len(anchored) > 1:
            raise InputError(
                f"method={self.name}: {anchored[0]} and {anchored[1]} both tie parameters to their initial values; give one of them"
            )
        changing = [r.name for r in self.hooks if type(r).init_params is not TrainingHook.init_params]
        if anchored and changing:
            raise InputError(
                f"method={self.name}: {anchored[0]} ties parameters to their pretrained values, but {changing[0]} changes these before "
                "training; give one of them"
            )

    def _check_passes(self) -> None:
        """Raise InputError for a penalty with additional passes joined with a method that perturbs the inputs: both passes of the penalty
        must have the same inputs."""
        comparing = [r.name for r in self.hooks if type(r).extra_loss is not TrainingHook.extra_loss and r.passes > 1]
        perturbing = [r.name for r in self.hooks if type(r).wrap_microbatch_grad is not TrainingHook.wrap_microbatch_grad]
        if comparing and perturbing:
            raise InputError(
                f"method={self.name}: {perturbing[0]} perturbs the inputs of a pass, and {comparing[0]} compares passes; give one of them"
            )

    @property
    def passes(self) -> float:
        """Return the number of passes of a step: those of the penalties added up, times those of each other hook."""
        penalties = sum(r.passes - 1 for r in self.hooks if type(r).extra_loss is not TrainingHook.extra_loss)
        others = [r.passes for r in self.hooks if type(r).extra_loss is TrainingHook.extra_loss]
        return (1 + penalties) * math.prod(others)

    @property
    def no_decay_pattern(self) -> dict[str, str]:
        """Return delta name -> pattern of the delta's parameters that neither weight decay nor L2-SP may pull to zero."""
        return {delta.name: f"delta/{delta.name}/.*/({delta.no_decay_pattern})" for delta in self.deltas if delta.no_decay_pattern}

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """Return the deltas of all methods. At a module that several change, the first is the outermost."""
        return tuple(delta for part in self.parts for delta in part.deltas)

    @property
    def hooks(self) -> tuple[TrainingHook, ...]:
        """Return the training hooks of all methods, in order."""
        return tuple(hook for part in self.parts for hook in part.hooks)

    @property
    def hook(self) -> JoinedHooks:
        """Return the training hooks of all methods as one."""
        return JoinedHooks(self.hooks)

    def is_reinitialized(self, name: str) -> bool:
        """Return whether a hook replaces the loaded value of the parameter `name` by a random one."""
        return any(r.reinit and rules.matches(r.reinit, name) for r in self.hooks)

    def additions(self) -> dict[str, tuple[Any, ...]]:
        """Return the deltas and the training hooks, by these two names."""
        return {"deltas": self.deltas, "hooks": self.hooks}

    @property
    def reader(self) -> nn.Module | None:
        """Return the module through which the head reads the encoder's states; None if the head reads the last states directly."""
        return only_one(self.name, self.parts, "reader", "how features are read")

    def plan(self, shapes: Tree, freeze: str, no_decay: Mapping[str, str]) -> Plan:
        """Return the plan for parameters of these shapes. `freeze` holds patterns, separated by commas, of further parameters to freeze.

        Raises InputError if a rule matches no parameter, or if one method trains a parameter that another freezes.
        """
        leaves = flatten(shapes)
        freeze_config = {f"freeze {pattern}": (pattern, FROZEN) for word in freeze.split(",") if (pattern := word.strip())}
        encoder = below(leaves, "encoder")
        rules_of_parts = [_phase_rules(part, encoder) for part in self.parts]
        _check_phases(self.name, self.parts)
        readers = {part.name for part in self.parts if part.reader}
        decide = functools.partial(_decide, self.name, freeze_config, leaves, readers)
        phases = [
            {part.name: r[min(number, len(r) - 1)] for part, r in zip(self.parts, rules_of_parts, strict=True) if r}
            for number in range(max(map(len, rules_of_parts)))
        ] or [{}]
        plan = plans.of_treatments(leaves, [self._scale_rates(decide(phase)) for phase in phases], {**no_decay, **self.no_decay_pattern})
        self._check_reader(plan)
        self._check_effect(phases, decide)
        if any(r.anchored for r in self.hooks) and not any(name.startswith("encoder/") for name in plan.trained):
            anchored = next(r.name for r in self.hooks if r.anchored)
            raise InputError(f"method={self.name}: {anchored} ties pretrained parameters to their initial values, but none of them trains")
        for r in self.hooks:
            if r.needs and not any(rules.matches(r.needs, name) for name in plan.trained):
                raise InputError(f"method={self.name}: {r.name} acts on parameters that match {r.needs}, but none of them trains")
            if r.needs_all and (frozen := [n for n in leaves if rules.matches(r.needs, n) and n not in plan.trained]):
                raise InputError(f"method={self.name}: {r.name} reinitialises {frozen[0]}, which does not train")
        return plan

    def _scale_rates(self, decided: Decided) -> Decided:
        """Return `decided` with each learning-rate multiplier times that of the first matching rule of `rates`."""
        rates = only_one(self.name, self.parts, "rates", "")
        scaled = {}
        for name, (rule, treatment) in decided.items():
            factor = next((m for pattern, m in rates.values() if rules.matches(pattern, name)), 1.0) if treatment.trained else 1.0
            scaled[name] = rule, dataclasses.replace(treatment, multiplier=treatment.multiplier * factor)
        return scaled

    def _check_reader(self, plan: Plan) -> None:
        """Raise InputError if a parameter trains in a stage above the last one that the head reads."""
        if self.reader is None:
            return
        read = self.reader.stages(len(self.stages))
        last, above = self.stages[max(read)], set(self.stages[max(read) + 1 :]) - set(self.stages[: max(read) + 1])
        if unread := next((name for name in plan.trained if above & set(name.split("/"))), None):
            raise InputError(f"method={self.name}: {unread} would train, but the head reads {last} and nothing above it")

    def _check_effect(self, phases: Sequence[Mapping[str, Rules]], decide: Callable[..., Decided]) -> None:
        """Raise InputError for a method that has no effect when joined with the others. `phases`: method -> rules, for each phase."""

        def trained(without: str = "") -> list[set[str]]:
            by_phase = [decide({name: phase[name] for name in phase if name != without}) for phase in phases]
            return [{n for n, (_, treatment) in decided.items() if treatment.trained and not n.startswith("head/")} for decided in by_phase]

        trained_by_all = trained()
        for part in self.parts:
            rest = [name for name in phases[0] if name != part.name]
            has_only_rules = not (part.deltas or part.hooks or part.reader or part.rates)
            if has_only_rules and rest and trained(part.name) == trained_by_all:
                raise InputError(f"method={self.name}: {part.name} adds nothing to {' and '.join(rest)}; leave it out")
            if part.rates and not any(trained_by_all):
                raise InputError(f"method={self.name}: {part.name} sets learning rates by depth, but nothing of the encoder trains")


def _phase_rules(part: Method, encoder: Mapping[str, Any]) -> tuple[Rules, ...]:
    """Return the rules of a method and its deltas over full names, for each phase; nothing for a method without rules."""
    delta_rules = {}
    for delta in part.deltas:
        delta_rules |= dict(delta.freeze_rules(encoder)) | {delta.name: (f"delta/{delta.name}", Treatment())}
    return tuple({**delta_rules, **phase} for phase in part.phases or (() if not delta_rules else ({},)))


def _check_phases(name: str, parts: Sequence[Method]) -> None:
    phased = [part.name for part in parts if len(part.phases) > 1]
    if len(phased) > 1:
        raise InputError(f"method={name}: {phased[0]} and {phased[1]} both have phases; give one of them")


def _decide(method: str, freeze_config: Rules, leaves: Mapping[str, Any], readers: set[str], method_rules: Mapping[str, Rules]) -> Decided:
    """Return (rule, treatment) for every parameter: by the rules of `config.freeze`, then of the head, then of the methods, then a default.

    `method_rules`: method -> rules. The methods `readers` set how states are read: their rules freeze only parameters that no other method
    has a rule for. Raises InputError for a rule without a match, and for a parameter that one method trains and another freezes."""
    for rules_of_one in (freeze_config, HEAD, *method_rules.values()):
        for rule, (pattern, _) in rules_of_one.items():
            rules.check_matches(rule, pattern, leaves)
    default = ("the rest", FROZEN) if method_rules else ("encoder", Treatment())
    result = {}
    for name in leaves:
        decisions = {}
        for source, rules_of_one in {"freeze": freeze_config, "head": HEAD, **method_rules}.items():
            matching = ((rule, treatment) for rule, (pattern, treatment) in rules_of_one.items() if rules.matches(pattern, name))
            if (decision := next(matching, None)) is not None:
                decisions[source] = decision
            if decisions and source in ("freeze", "head"):
                break
        decisions = {source: decision for source, decision in decisions.items() if source not in readers} or decisions
        source_of = {treatment.trained: source for source, (_, treatment) in decisions.items()}
        if len(source_of) > 1:
            raise InputError(f"method={method}: {source_of[True]} trains {name}, {source_of[False]} keeps it frozen; they cannot be joined")
        result[name] = next(iter(decisions.values()), default)
    return result
