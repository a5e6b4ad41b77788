"""Predicted floating-point operations of a training step, computed from the plan without compiling anything.

The prediction is printed before a run, and tests compare it with XLA's count.

Letters: T tokens of a step, L length of a row, D hidden size, F width of the feed-forward layer, H attention heads.
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from typing import Any

from research.params.plan import Plan, Treatment

OPTIMIZER = 15  # operations of an update for each trainable parameter: clipping, Adam's moments, weight decay
READER, MATRICES = "head/reader/", ("/kernel", "/recurrent")
READS_INPUT = re.compile(r".*/(query|key|value|input|window_\d+)/kernel")  # the kernels that multiply the input of a layer
# Operations of a layer that are not matrix products, for each of T * D, T * F and T * H * L elements, as XLA counts them: a forward pass
# without dropout, and a forward and backward pass with dropout.
ELEMENTWISE = {"forward": (22, 8, 6), "both": (100, 30, 60)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """The properties of an encoder that determine the cost, beside the shapes of its parameters."""

    stages: tuple[str, ...]
    hidden: int
    heads: int

    @classmethod
    def of(cls, encoder: Any) -> "Shape":
        """Return the shape of an encoder of `research/models`."""
        return cls(encoder.stages, encoder.config.hidden_size, encoder.config.num_attention_heads)


Added = Mapping[str, tuple[int, int]]  # module path -> (elements of matrices added there, how many of them train)


def step(
    plan: Plan,
    sizes: Mapping[str, tuple[int, ...]],
    shape: Shape,
    tokens: int,
    length: int,
    cached: bool = False,
    added: Added = types.MappingProxyType({}),
) -> float:
    """Return the floating-point operations of one training step on `tokens` tokens (padding included) in rows of `length`.

    `sizes`: name -> shape of every parameter. A product with a kernel of n elements costs 2 n T forward, as much again for the gradient
    of its input (from the first stage with trainable parameters upwards), and as much again for the gradient of a trainable kernel.
    Attention costs 4 L D T forward and twice that backward. With `cached`, the frozen stages at the bottom are not computed. `added` are
    the matrices of deltas. The matrices of a reader in the head always train.
    """
    start, total = plan.frozen_stages(shape.stages), 0.0
    for depth, stage in enumerate(shape.stages):
        kernels = {n: math.prod(size) for n, size in sizes.items() if n.startswith(f"encoder/{stage}/") and n.endswith(MATRICES)}
        of_deltas = [elements for path, elements in added.items() if stage in path.split("/")]
        attends = any("/attention/" in name for name in kernels)
        elements = tokens * shape.hidden, tokens * _width(sizes, stage), tokens * shape.heads * length
        if depth < start:
            if not cached:
                attention = 4 * length * shape.hidden * tokens
                total += 2 * tokens * sum(kernels.values()) + attends * (attention + _elementwise(elements, "forward"))
            continue
        trained = sum(n for name, n in kernels.items() if plan.entries[name].treatment.trained) + sum(n for _, n in of_deltas)
        total += tokens * (4 * (sum(kernels.values()) + sum(n for n, _ in of_deltas)) + 2 * trained)
        total += attends * (12 * length * shape.hidden * tokens + _elementwise(elements, "both"))
        if depth == start > 0:  # the input of the first trainable stage needs no gradient
            total -= 2 * tokens * sum(n for name, n in kernels.items() if READS_INPUT.fullmatch(name))
    total += 6 * tokens * sum(math.prod(size) for name, size in sizes.items() if name.startswith(READER) and name.endswith(MATRICES))
    return total + OPTIMIZER * sum(entry.size for entry in plan.entries.values() if entry.treatment.trained)


def relative(
    plan: Plan,
    sizes: Mapping[str, tuple[int, ...]],
    shape: Shape,
    rows: int,
    length: int,
    cached: bool = False,
    added: Added = types.MappingProxyType({}),
    extra: int = 0,
) -> float:
    """Return the cost of a step on `rows` rows of `length` tokens, as a fraction of full fine-tuning without additions.

    `extra` is the number of tokens that the method inserts into each row.
    """
    full = {
        n: dataclasses.replace(entry, treatment=Treatment()) for n, entry in plan.entries.items() if not n.startswith(("delta/", READER))
    }
    cost = step(plan, sizes, shape, rows * (length + extra), length + extra, cached, added)
    return cost / step(Plan(full), {name: sizes[name] for name in full}, shape, rows * length, length)


def _width(sizes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    return max((size[-1] for name, size in sizes.items() if name.startswith(f"encoder/{stage}/mlp/") and len(size) == 2), default=0)


def _elementwise(elements: tuple[int, ...], passes: str) -> float:
    return sum(n * weight for n, weight in zip(elements, ELEMENTWISE[passes], strict=True))
