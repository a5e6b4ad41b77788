"""What has to be decided before a process starts: how its memory is paged."""

import os
import sys

HUGE_PAGES = "glibc.malloc.hugetlb=1"


def prepare() -> None:
    """Starts this program again with huge pages for large allocations, where the C library is glibc and nobody has chosen.

    XLA's CPU backend takes the memory of a step anew for each step, and faulting it in page by page took a fifth of the step's
    time. The C library reads the setting only at start, hence the second one, before anything is imported.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
