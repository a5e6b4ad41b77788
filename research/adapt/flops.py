"""What a step should cost, by arithmetic over the plan: to be printed before anything is compiled, and to hold XLA's own count against.

Letters: T tokens of a step, L places of a row, D hidden size, F width of the feed-forward layer, H attention heads.
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from typing import Any

from research.params.plan import Plan, Treatment

OPTIMIZER = 15  # operations an update spends on a parameter that trains: clipping, Adam's moments, decay
# Operations besides products in one layer, for each of T * D, T * F and T * H * L elements: as XLA counts them, forward alone (without
# dropout), and forward and backward (with it).
READER, MATRICES = "head/reader/", ("/kernel", "/recurrent")
READS_INPUT = re.compile(r".*/(query|key|value|input|window_\d+)/kernel")  # of a layer: what multiplies what enters it
ELEMENTWISE = {"forward": (22, 8, 6), "both": (100, 30, 60)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What of an encoder's shape decides the cost, beside its parameters."""

    stages: tuple[str, ...]
    hidden: int
    heads: int

    @classmethod
    def of(cls, encoder: Any) -> "Shape":
        """The shape of an encoder of `research/models`."""
        return cls(encoder.stages, encoder.config.hidden_size, encoder.config.num_attention_heads)


Added = Mapping[str, tuple[int, int]]  # path of a module -> elements of further matrices there, and how many of them train


def step(
    plan: Plan,
    sizes: Mapping[str, tuple[int, ...]],
    shape: Shape,
    tokens: int,
    length: int,
    cached: bool = False,
    added: Added = types.MappingProxyType({}),
) -> float:
    """Floating-point operations of one training step on `tokens` places in rows of `length`.

    `sizes`: name -> shape of every parameter. A product with a kernel of n elements costs 2 n T forward, as much again for the gradient
    of its input (from the first stage that trains upwards), and as much again for its own gradient if it trains. Attention costs 4 L D T
    forward and twice that backward. With `cached`, what lies below the first stage that trains is not computed. `added` are the
    matrices of deltas; those of a reader in the head always train.
    """
    start, total = plan.frozen_stages(shape.stages), 0.0
    for depth, stage in enumerate(shape.stages):
        kernels = {n: math.prod(size) for n, size in sizes.items() if n.startswith(f"encoder/{stage}/") and n.endswith(MATRICES)}
        further = [elements for path, elements in added.items() if stage in path.split("/")]
        attends = any("/attention/" in name for name in kernels)
        elements = tokens * shape.hidden, tokens * _width(sizes, stage), tokens * shape.heads * length
        if depth < start:
            if not cached:
                total += 2 * tokens * sum(kernels.values()) + attends * (4 * length * shape.hidden * tokens + _dot(elements, "forward"))
            continue
        trained = sum(n for name, n in kernels.items() if plan.entries[name].treatment.trained) + sum(n for _, n in further)
        total += tokens * (4 * (sum(kernels.values()) + sum(n for n, _ in further)) + 2 * trained)
        total += attends * (12 * length * shape.hidden * tokens + _dot(elements, "both"))
        if depth == start > 0:  # its input has no gradient
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
    """The cost of a step on `rows` of `length` places, and `extra` places that a method adds to each, as a part of that of full
    fine-tuning of the same model without what a method adds."""
    full = {
        n: dataclasses.replace(entry, treatment=Treatment()) for n, entry in plan.entries.items() if not n.startswith(("delta/", READER))
    }
    mine = step(plan, sizes, shape, rows * (length + extra), length + extra, cached, added)
    return mine / step(Plan(full), {name: sizes[name] for name in full}, shape, rows * length, length)


def _width(sizes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    return max((size[-1] for name, size in sizes.items() if name.startswith(f"encoder/{stage}/mlp/") and len(size) == 2), default=0)


def _dot(elements: tuple[int, ...], kind: str) -> float:
    return sum(n * weight for n, weight in zip(elements, ELEMENTWISE[kind], strict=True))
