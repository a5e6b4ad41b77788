"""Throughput of a run: steps, examples and real tokens per second, padding, time waiting for data, memory, FLOPs."""

import resource
import time

import jax
import numpy as np

# Peak dense bfloat16 FLOP/s by `device_kind`, from the vendors' data sheets. Other devices report no MFU.
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
    """Counts training work and time. The first step of a process is timed separately; later compilations and evaluation are not timed."""

    def __init__(self, saved: dict[str, float] | None = None):
        self.first_step_s = self.busy_s = self.waiting_s = self.step_flops = self.train_flops = 0.0
        self.steps = self.examples = self.tokens = self.places = 0
        for name, value in (saved or {}).items():
            setattr(self, name, value)
        self._start = self._mark = time.perf_counter()
        self._first = True

    def counts(self) -> dict[str, float]:
        """Return the counters that a resumed run starts from."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def batch_ready(self, batch: dict[str, np.ndarray]) -> None:
        """Record that a batch has arrived: the time since the last mark was spent waiting for data."""
        self._arrived = time.perf_counter()
        self._batch = int((batch["weights"] > 0).sum()), int((batch["segments"] > 0).sum()), batch["segments"].size

    def step_done(self, flops: float, compiled: bool) -> None:
        """Record that the step on this batch, of `flops` FLOPs, was run or dispatched. A step that `compiled` its program is not timed."""
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
        """Exclude the time since the last mark from the training time."""
        self._mark = time.perf_counter()

    def report(self, compilations: int, members: int = 1) -> dict[str, float | None]:
        """Return the `speed` part of result.json: seconds, rates per second, fractions, bytes.

        The time is divided equally among the `members`, the runs that were trained together in one program."""
        seconds = self.busy_s / members or float("nan")
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
            "waiting_fraction": _finite(self.waiting_s / members / seconds),
            "train_s": round(self.busy_s / members, 3),
            "step_flops": self.step_flops,
            "train_flops": self.train_flops,
            "compilations": compilations,
            "peak_memory_bytes": peak_memory(),
            "mfu": useful / peak if peak else None,
        }


def peak_memory() -> int:
    """Return the peak memory in bytes: that of the device if it reports one, else the resident set of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", 0)) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _finite(x: float) -> float | None:
    return round(x, 4) if np.isfinite(x) else None
