"""On which cores processes side by side run."""

import os
import threading

from research.parallel import cpu


def test_cores_are_dealt_and_none_is_in_two_shares(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 0, 7, 5, 1}, raising=False)
    assert cpu.shares(1) == [{0, 1, 3, 5, 7}]
    assert cpu.shares(2) == [{0, 3, 7}, {1, 5}]
    assert cpu.shares(6) == [{0, 1, 3, 5, 7}] * 6, "fewer cores than processes: each may use all"


def test_a_process_keeps_to_its_share():
    found = []

    def in_a_thread_of_its_own():  # what it is kept to ends with it
        everything = os.sched_getaffinity(0)
        cpu.keep_to({min(everything)})
        found.append(os.sched_getaffinity(0) == {min(everything)})
        cpu.keep_to(set())
        found.append(os.sched_getaffinity(0) == {min(everything)})

    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start()
    thread.join()
    assert found == [True, True]
