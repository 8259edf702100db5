"""The suite's part about what runs print, where not all who share the store see its files."""

from __future__ import annotations

import os
from typing import Callable

import pytest

from queuectl import job as rules
from queuectl.job import Job
from queuectl.store.base import SharedOutput, Store
from queuectl.testing.common import NOW, Fixtures, add, claim_one

Reopen = Callable[[], Store]


def output(head: bytes, tail: bytes = b"", size: int = 0) -> SharedOutput:
    """What a run printed."""
    return SharedOutput("host", "/path/é", size or len(head) + len(tail), head, tail)


def shared(store: Store, text: bytes = b"out") -> Job:
    """Have the next job run and print this; return it as it is over."""
    claimed = claim_one(store)
    store.share_output(claimed, output(text))
    done = rules.complete(claimed, NOW)
    store.save([done])
    return done


class OutputContract(Fixtures):
    """What a store promises of output that is shared."""

    @pytest.fixture
    def sharing(self, store: Store) -> Store:
        """The store, if it shares output."""
        return store if store.shares_output else pytest.skip("this store shares no output")

    def test_what_is_shared_is_seen_by_others(self, sharing: Store, reopen: Reopen) -> None:
        """As it was printed, whatever it is: what was shared last, of each run apart."""
        add(sharing, "a", "b")
        first = claim_one(sharing)
        other = reopen()
        assert other.shared_output("a", 1) is None
        every = bytes(range(256))
        for seen in (output(b"one"), output(every, every[::-1] * 300, 10**12)):
            sharing.share_output(first, seen)
            assert other.shared_output("a", 1) == sharing.shared_output("a", 1) == seen
        sharing.save([rules.release(first, NOW)])
        second = claim_one(sharing)
        assert (second.id, second.runs) == ("a", 2)
        assert other.shared_output("a", 2) is None
        sharing.share_output(second, output(b"two"))
        assert other.shared_output("a", 1) == seen
        assert other.shared_output("a", 2) == output(b"two")
        assert other.shared_output("b", 1) is other.shared_output("none", 1) is None

    def test_what_is_shared_goes_with_its_job(self, sharing: Store) -> None:
        """Also from one who is late, and when another job gets the id."""
        add(sharing, "a", "b")
        done = shared(sharing)
        kept = shared(sharing)
        sharing.remove([done])
        sharing.share_output(done, output(b"late"))
        assert sharing.shared_output("a", 1) is None
        add(sharing, "a")
        assert sharing.shared_output("a", 1) is None
        sharing.share_output(done, output(b"late"))
        assert sharing.shared_output("a", 1) is None
        assert sharing.shared_output(kept.id, 1) == output(b"out")

    def test_what_is_shared_goes_with_its_file(self, sharing: Store) -> None:
        """When room is made."""
        add(sharing, "a", "b")
        for number, job in enumerate([shared(sharing), shared(sharing)]):
            path = sharing.kept_output(job.id, 1)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(b"out")
            os.utime(path, (NOW + number, NOW + number))
        sharing.trim_output(3, dict)
        assert sharing.shared_output("a", 1) is None
        assert sharing.shared_output("b", 1) == output(b"out")
