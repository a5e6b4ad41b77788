"""The parts of a fine-tuning method: rules for trainable parameters, learning-rate multipliers, deltas, training hooks and a reader.

`config.method` joins methods by `+`. `recipe.py` combines their parts and refuses methods that contradict each other.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import optax

from research.errors import InputError
from research.params.plan import Rules
from research.params.tree import Tree

Gradient = Callable[..., tuple[Tree, dict[str, jax.Array]]]  # (trainable, frozen, batch, key) -> (gradients, stats)
Interceptor = Callable[..., Any]  # (the intercepted bound method, *its arguments) -> the output that replaces the method's


@dataclasses.dataclass(frozen=True)
class Delta:
    """A small tree of added parameters that changes the output of an encoder and leaves the encoder's parameters as they are.

    A delta's parameters are named `delta/NAME/` and the path of the module they change: `delta/lora/layer_0/attention/query/a`.
    `no_decay_pattern` is a regular expression over the last part of these names. Weight decay pulls towards zero, so it skips the
    matching parameters: they have no effect at another value than zero.
    """

    name = "delta"
    no_decay_pattern = ""
    extra_tokens = 0  # tokens that the delta inserts after the first token of each example
    first_position = 0  # position of each example's first token: lower positions belong to vectors before the text

    def init(self, key: jax.Array, encoder: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Return initial parameters: path below `delta/NAME/` -> array. `encoder`: path below `encoder/` -> array or shape.

        Raises InputError for options that the encoder does not allow, or if the encoder has no module to change.
        """
        raise NotImplementedError

    def interceptors(
        self, delta_params: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], batch: Any, key: Any, precision: Any
    ) -> dict[str, Interceptor]:
        """Return an interceptor for each module to change, by module path (with `.METHOD` for a method other than `__call__`).

        `delta_params` and `encoder` are flat, as in `init`. `key` is the dropout key, None without dropout.
        """
        raise NotImplementedError

    def freeze_rules(self, encoder: Mapping[str, Any]) -> Rules:
        """Return rules for parameters of the encoder or the delta that must stay frozen. They precede "delta/NAME trains"."""
        return {}

    def matrices(self, delta_params: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
        """Return, for predicting FLOPs, module path -> (elements of the matrices that the delta multiplies each token with, how many
        of these elements train). Both arguments are flat, of arrays or shapes. By default all matrices of the delta count, as trainable."""
        sizes: dict[str, tuple[int, int]] = {}
        for name, leaf in delta_params.items():
            if len(leaf.shape) == 2:
                path = name.rpartition("/")[0]
                elements = math.prod(leaf.shape) + sizes.get(path, (0, 0))[0]
                sizes[path] = elements, elements
        return sizes

    def merged(self, delta_params: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Return encoder parameters that give the same outputs without the delta. Raises InputError if there are none."""
        raise InputError(f"{self.name} cannot be merged into the encoder's parameters")


@dataclasses.dataclass(frozen=True)
class TrainingHook:
    """Functions that a method applies to parameters, loss, gradients or updates. Each has no effect unless overridden.

    Random values are derived from the key and the number of the example: all microbatches and devices get the same key.
    `passes` is the number of forward and backward passes of a step, for predicting its cost. With `anchored`, `frozen["anchor"]` holds
    the initial values of the trainable parameters. At least one parameter that the pattern `needs` matches must train, or all of them
    with `needs_all`. `reinit` is the pattern of the parameters that `init_params` replaces by random values.
    """

    name = "hook"
    passes = 1.0
    anchored = False
    reinit = ""
    needs = ""
    needs_all = False

    def init_params(self, params: Tree, fresh: Tree, key: jax.Array) -> Tree:
        """Return the initial parameters. `params` holds the loaded values; `fresh` is the tree before loading, in which the `reinit`
        parameters have random values."""
        return params

    def calibrate(self, gradients: Callable[[], Iterator[Tree]]) -> Tree:
        """Return statistics of the training data, computed before training. If not empty, `frozen[name]` holds them during training.

        `gradients()` yields the gradient of the mean loss of one batch after the other, at the initial parameters, without dropout. Each
        one is computed when it is taken and costs as much as a step.
        """
        return {}

    def effective_params(self, trainable: Tree, frozen: Tree, key: jax.Array) -> Tree:
        """Return the values that the loss uses for the trainable parameters."""
        return trainable

    def extra_loss(self, model: Any, trainable: Tree, frozen: Tree, batch: Any, key: jax.Array, logits: jax.Array) -> Any:
        """Return a term to add to the summed loss of a microbatch. The sum is divided by the weight that `model.task.loss` returns."""
        return 0.0

    def wrap_microbatch_grad(self, model: Any, gradient: Gradient) -> Gradient:
        """Return a replacement for `gradient`: the gradient of the summed loss of one microbatch on one device."""
        return gradient

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        """Return a replacement for `gradient`: the mean gradient of a whole batch, over all devices."""
        return gradient

    def optimizer(self, tx: optax.GradientTransformation, config: Any, total: int) -> optax.GradientTransformation:
        """Return a replacement for `tx`, the optimizer of the trainable parameters. `total` is the number of steps."""
        return tx

    def eval_params(self, trainable: Tree, opt_state: Any) -> Tree:
        """Return the parameters to evaluate and to save as the best, from the parameters and optimizer state of a training state."""
        return trainable


@dataclasses.dataclass(frozen=True)
class JoinedHooks(TrainingHook):
    """Several training hooks as one, applied in order. `calibrate` returns the statistics of each by its name."""

    hooks: tuple[TrainingHook, ...]

    @property
    def anchored(self) -> bool:
        """Return whether any hook is anchored."""
        return any(hook.anchored for hook in self.hooks)

    def init_params(self, params: Tree, fresh: Tree, key: jax.Array) -> Tree:
        return functools.reduce(lambda params, hook: hook.init_params(params, fresh, key), self.hooks, params)

    def calibrate(self, gradients: Callable[[], Iterator[Tree]]) -> Tree:
        statistics = {hook.name: hook.calibrate(gradients) for hook in self.hooks}
        return {name: tree for name, tree in statistics.items() if tree}

    def effective_params(self, trainable: Tree, frozen: Tree, key: jax.Array) -> Tree:
        return functools.reduce(lambda params, hook: hook.effective_params(params, frozen, key), self.hooks, trainable)

    def extra_loss(self, model: Any, trainable: Tree, frozen: Tree, batch: Any, key: jax.Array, logits: jax.Array) -> Any:
        return sum(hook.extra_loss(model, trainable, frozen, batch, key, logits) for hook in self.hooks)

    def wrap_microbatch_grad(self, model: Any, gradient: Gradient) -> Gradient:
        return functools.reduce(lambda wrapped, hook: hook.wrap_microbatch_grad(model, wrapped), self.hooks, gradient)

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        return functools.reduce(lambda wrapped, hook: hook.wrap_grad(wrapped), self.hooks, gradient)

    def optimizer(self, tx: optax.GradientTransformation, config: Any, total: int) -> optax.GradientTransformation:
        return functools.reduce(lambda tx, hook: hook.optimizer(tx, config, total), self.hooks, tx)

    def eval_params(self, trainable: Tree, opt_state: Any) -> Tree:
        return functools.reduce(lambda params, hook: hook.eval_params(params, opt_state), self.hooks, trainable)


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of `METHODS`: the effect of one word of `config.method`.

    `phases`: for each phase of training, rules over full names for the encoder's parameters. Parameters that no rule of any joined
    method matches are frozen; without any rules, the whole encoder trains. `rates`: rule -> (pattern, learning-rate multiplier) for
    trainable parameters. `reader` is a `research.models.readers.Reader`.
    """

    name: str = ""
    phases: tuple[Rules, ...] = ()
    rates: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    deltas: tuple[Delta, ...] = ()
    hooks: tuple[TrainingHook, ...] = ()
    reader: nn.Module | None = None


def only_one(name: str, parts: Iterable[Method], field: str, what: str) -> Any:
    """Return the value of `field` in the one method of `parts` that sets it, or the empty value. Raises InputError if two set it.

    `name` is `config.method` and `what` describes the field, both for the error.
    """
    parts = list(parts)
    setters = [part for part in parts if getattr(part, field)]
    if len(setters) > 1:
        raise InputError(f"method={name}: {setters[0].name} and {setters[1].name} both set {what}; give one of them")
    return getattr((setters or parts)[0], field)
