"""What has to be decided before a process starts: how its memory is paged, and on which cores it runs."""

import locale
import os
import sys

HUGE_PAGES = "glibc.malloc.hugetlb=1"


def prepare() -> None:
    """Starts this program again with what only a program's start can set: Python's UTF-8 mode, where the locale has another encoding, so
    that files are UTF-8 everywhere; and huge pages for large allocations, where the C library is glibc and nobody has chosen.

    XLA's CPU backend takes the memory of a step anew for each step, and faulting it in page by page took a fifth of the step's time.
    """
    wanted = {"GLIBC_TUNABLES": HUGE_PAGES} if sys.platform == "linux" else {}
    if locale.getencoding().lower() not in ("utf-8", "utf8"):
        wanted["PYTHONUTF8"] = "1"
    if missing := {name: value for name, value in wanted.items() if name not in os.environ}:
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(count: int) -> list[set[int]]:
    """The cores that this process may use, dealt to `count` processes side by side; where there are fewer cores than processes, each
    gets all. XLA's threads wait in loops: two programs with as many threads as cores each take half as long again as on half the cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * count
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[i::count]) for i in range(count)] if count <= len(cores) else [set(cores)] * count


def keep_to(cores: set[int]) -> None:
    """Keeps this process, and those that it starts from now on, to `cores`; to an empty set, to nothing in particular."""
    if cores:
        os.sched_setaffinity(0, cores)
