"""What a method is made of: which parameters train and when, what is added, how far they may go, how the features are read.

`+` joins methods: what they say is put together, and refused where it does not go together.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import optax

from research.errors import InputError
from research.params.plan import Rules
from research.params.tree import Tree

Gradient = Callable[..., tuple[Tree, dict[str, jax.Array]]]  # (trainable, frozen, batch, key) -> (gradients, totals)
Interceptor = Callable[..., Any]  # (the intercepted method, *its arguments) -> what it gives


@dataclasses.dataclass(frozen=True)
class Delta:
    """A small tree of parameters that changes what an encoder computes without touching the encoder's own.

    Its parameters are named `delta/NAME/` and the path of the module they change: `delta/lora/layer_0/attention/query/a`.
    `no_decay_pattern` is a regular expression over the last part of these names. Weight decay, which pulls towards zero, leaves the
    parameters that match alone, because zero is not the value at which they change nothing.
    """

    name = "delta"
    no_decay_pattern = ""
    extra_tokens = 0  # places that it adds after each example's first token
    first_position = 0  # of each example's first token: what it puts before it has the positions below

    def init(self, key: jax.Array, encoder: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Fresh parameters: path below `delta/NAME/` -> array. `encoder`: path below `encoder/` -> array or shape.

        Raises InputError where there is nothing that it could change.
        """
        raise NotImplementedError

    def interceptors(
        self, own: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], batch: Any, key: Any, precision: Any
    ) -> dict[str, Interceptor]:
        """Module path (with `.METHOD` where it is not `__call__`) -> what is done there instead of the plain call.

        `own` and `encoder` are flat, as in `init`. `key` is None when nothing is dropped.
        """
        raise NotImplementedError

    def freeze_rules(self, encoder: Mapping[str, Any]) -> Rules:
        """Rules that come before "delta/NAME trains": what must stay frozen for this to make sense, of the encoder or of its own."""
        return {}

    def matrices(self, own: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
        """For predicting cost: path of a module -> elements of the matrices that each of its tokens is multiplied with on account of
        this, and how many of these train. `own` and `encoder` are flat, of arrays or shapes. Its matrices, unless overridden."""
        found: dict[str, tuple[int, int]] = {}
        for name, leaf in own.items():
            if len(leaf.shape) == 2:
                path = name.rpartition("/")[0]
                elements = math.prod(leaf.shape) + found.get(path, (0, 0))[0]
                found[path] = elements, elements
        return found

    def merged(self, own: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The encoder that gives the same outputs without the delta. Raises InputError where there is none."""
        raise InputError(f"{self.name} cannot be merged into the encoder's own parameters")


@dataclasses.dataclass(frozen=True)
class TrainingHook:
    """What holds training back, as functions on parameters, loss, gradients or updates. Each does nothing unless overridden.

    `passes` is how often a step goes forward and backward, for predicting its cost. With `anchored`, the values that the trainable
    parameters began with are found in `frozen["anchor"]`. `needs` is a pattern: at least one parameter that it covers must train, or all
    with `needs_all`. `reinit` is a pattern: the parameters of which `begin` wants random values.
    """

    name = "regulariser"
    passes = 1.0
    anchored = False
    reinit = ""
    needs = ""
    needs_all = False

    def init_params(self, params: Tree, fresh: Tree, key: jax.Array) -> Tree:
        """The parameters to start from. `fresh` is the tree that `params` were grafted on: random where they are `reinit`."""
        return params

    def calibrate(self, gradients: Iterator[Tree]) -> Tree:
        """What must be known of the training data before training: found in `frozen[name]` from then on, where it is not empty.

        `gradients` are those of the mean loss of one batch after the other, where training begins, without dropout. Each costs a
        step's work when it is taken.
        """
        return {}

    def effective_params(self, trainable: Tree, frozen: Tree, key: jax.Array) -> Tree:
        """The trainable parameters as the loss sees them."""
        return trainable

    def extra_loss(self, model: Any, trainable: Tree, frozen: Tree, batch: Any, key: jax.Array, logits: jax.Array) -> Any:
        """What is added to the sum of a part's losses (`batch["weights"].sum()` examples)."""
        return 0.0

    def wrap_microbatch_grad(self, model: Any, gradient: Gradient) -> Gradient:
        """The gradient of the sum of the losses of one part of a batch, on one device."""
        return gradient

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        """The mean gradient over a whole batch, all devices included."""
        return gradient

    def optimizer(self, tx: optax.GradientTransformation, config: Any, total: int) -> optax.GradientTransformation:
        """The optimizer of the trainable half; `total` is the number of steps."""
        return tx

    def eval_params(self, trainable: Tree, opt_state: Any) -> Tree:
        """The parameters that are evaluated and kept, of a state."""
        return trainable


@dataclasses.dataclass(frozen=True)
class Method:
    """What one word of `config.method`, or several joined by `+`, does.

    `phases`: for each phase of training, which parameters of the encoder train (rules over full names); what no method claims is
    frozen, or trains where no method claims anything. `rates`: rule -> (pattern, learning-rate multiplier) over what trains.
    `reader` is a `research.models.families.readers.Reader`.
    """

    name: str = ""
    phases: tuple[Rules, ...] = ()
    rates: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    deltas: tuple[Delta, ...] = ()
    hooks: tuple[TrainingHook, ...] = ()
    reader: nn.Module | None = None


def only_one(name: str, parts: Iterable[Method], field: str, what: str) -> Any:
    """The one value of `field` among `parts`, or the field's empty value. Raises InputError where two of them have one."""
    parts = list(parts)
    having = [part for part in parts if getattr(part, field)]
    if len(having) > 1:
        raise InputError(f"method={name}: {having[0].name} and {having[1].name} both say {what}; give one of them")
    return getattr((having or parts)[0], field)
