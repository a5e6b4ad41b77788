"""How fast a run is: steps, examples and real tokens a second, padding, waiting for data, memory, FLOPs."""

import resource
import time

import jax
import numpy as np

# Dense bfloat16 peak in FLOP/s by the device's own name, from the vendors' data sheets; others have no MFU.
PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


class Meter:
    """Counts work and time. A step that compiles is timed apart, the first of a process by itself; evaluation is not training time."""

    def __init__(self, before: dict[str, float] | None = None):
        self.first_step_s = self.busy_s = self.waiting_s = self.step_flops = self.train_flops = 0.0
        self.steps = self.examples = self.tokens = self.places = 0
        for name, value in (before or {}).items():
            setattr(self, name, value)
        self._start = self._mark = time.perf_counter()
        self._first = True

    def counts(self) -> dict[str, float]:
        """All that a later process needs to count on."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def batch_ready(self, batch: dict[str, np.ndarray]) -> None:
        """A batch has arrived: the time since the last mark was spent waiting for it."""
        self._arrived = time.perf_counter()
        self._batch = int((batch["weights"] > 0).sum()), int((batch["segments"] > 0).sum()), batch["segments"].size

    def step_done(self, flops: float, compiled: bool) -> None:
        """The step on that batch, of so many FLOPs, is done or has been handed over; `compiled` beforehand, it is not timed."""
        now = time.perf_counter()
        self.step_flops, self.train_flops = flops, self.train_flops + flops
        if self._first:
            self._first, self.first_step_s = False, now - self._start
        elif not compiled:
            self.steps += 1
            self.waiting_s += self._arrived - self._mark
            self.busy_s += now - self._mark
            self.examples, self.tokens, self.places = (
                total + new for total, new in zip((self.examples, self.tokens, self.places), self._batch, strict=True)
            )
        self._mark = now

    def exclude(self) -> None:
        """The time since the last mark was not training."""
        self._mark = time.perf_counter()

    def report(self, compilations: int, sharers: int = 1) -> dict[str, float | None]:
        """The `speed` part of result.json: seconds, rates per second, fractions, bytes. Of the time that several runs had in common,
        each has its equal share."""
        seconds = self.busy_s / sharers or float("nan")
        rate = {
            name: _finite(x / seconds) for name, x in (("steps", self.steps), ("examples", self.examples), ("real_tokens", self.tokens))
        }
        peak = next((value for name, value in PEAKS.items() if jax.devices()[0].device_kind.startswith(name)), None)
        padding = 1 - self.tokens / self.places if self.places else None
        useful = self.step_flops * (rate["steps"] or 0.0) * (1 - (padding or 0.0))
        return {
            "first_step_s": round(self.first_step_s, 3),
            **{f"{name}_per_s": value for name, value in rate.items()},
            "padding_fraction": None if padding is None else round(padding, 4),
            "waiting_fraction": _finite(self.waiting_s / sharers / seconds),
            "train_s": round(self.busy_s / sharers, 3),
            "step_flops": self.step_flops,
            "train_flops": self.train_flops,
            "compilations": compilations,
            "peak_memory_bytes": peak_memory(),
            "mfu": useful / peak if peak else None,
        }


def peak_memory() -> int:
    """Most bytes in use so far: the device's own count where it keeps one, else the process's resident set."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", 0)) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _finite(x: float) -> float | None:
    return round(x, 4) if np.isfinite(x) else None
