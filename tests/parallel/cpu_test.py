"""Test the assignment of parallel processes to cores."""

import os
import threading

from research.parallel import cpu


def test_shares_are_disjoint_if_there_are_enough_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 0, 7, 5, 1}, raising=False)
    assert cpu.shares(1) == [{0, 1, 3, 5, 7}]
    assert cpu.shares(2) == [{0, 3, 7}, {1, 5}]
    assert cpu.shares(6) == [{0, 1, 3, 5, 7}] * 6, "fewer cores than processes: each may use all"


def test_a_process_keeps_to_its_share():
    results = []

    def restrict():  # in a thread, because its affinity ends with it
        cores = os.sched_getaffinity(0)
        cpu.keep_to({min(cores)})
        results.append(os.sched_getaffinity(0) == {min(cores)})
        cpu.keep_to(set())
        results.append(os.sched_getaffinity(0) == {min(cores)})

    thread = threading.Thread(target=restrict)
    thread.start()
    thread.join()
    assert results == [True, True]
