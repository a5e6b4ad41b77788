"""Process settings for the CPU: malloc with huge pages, UTF-8 mode, and the assignment of processes to cores."""

import locale
import os
import sys

HUGE_PAGES = "glibc.malloc.hugetlb=1"


def prepare() -> None:
    """Restart this program with environment variables that only take effect at startup, unless they are set already.

    `PYTHONUTF8` makes Python read and write UTF-8 where the locale has another encoding. `GLIBC_TUNABLES` makes glibc use huge pages
    for large allocations on Linux. XLA's CPU backend allocates the memory of every step again. With small pages, page faults took a
    fifth of the step's time.
    """
    wanted = {"GLIBC_TUNABLES": HUGE_PAGES} if sys.platform == "linux" else {}
    if locale.getencoding().lower() not in ("utf-8", "utf8"):
        wanted["PYTHONUTF8"] = "1"
    if missing := {name: value for name, value in wanted.items() if name not in os.environ}:
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(count: int) -> list[set[int]]:
    """Return a set of cores for each of `count` parallel processes: disjoint parts of the cores this process may use.

    With fewer cores than processes, each set has all cores. The sets are empty where the platform cannot assign cores. XLA's threads
    wait in busy loops: two programs that share all cores take half as long again as two programs on half the cores each.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * count
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[i::count]) for i in range(count)] if count <= len(cores) else [set(cores)] * count


def keep_to(cores: set[int]) -> None:
    """Restrict the calling thread, and the threads and processes it starts later, to `cores`. Do nothing if the set is empty."""
    if cores:
        os.sched_setaffinity(0, cores)
