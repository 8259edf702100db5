"""The contract as a suite: one test a promise of `queuectl.store.base.Store`."""

from __future__ import annotations

from queuectl.testing.claims import ClaimContract
from queuectl.testing.dependencies import DependencyContract
from queuectl.testing.feeds import FeedContract
from queuectl.testing.jobs import JobContract
from queuectl.testing.keys import KeyContract
from queuectl.testing.members import MemberContract
from queuectl.testing.outputs import OutputContract
from queuectl.testing.queues import QueueContract
from queuectl.testing.totals import TotalsContract
from queuectl.testing.watching import WatchContract


class StoreContract(
    JobContract,
    ClaimContract,
    QueueContract,
    DependencyContract,
    KeyContract,
    MemberContract,
    OutputContract,
    WatchContract,
    FeedContract,
    TotalsContract,
):
    """Every store must pass this; a subclass provides the fixture `url`.

    It names a place where no store is yet: a path, or a URL for which an entry point is installed.
    The store is opened there as by several processes; what was opened is closed when the test ends,
    though some of it was before. Once it is closed, its members are dead. A store that is opened in
    another way has the fixtures `store`, a new, empty store, and `reopen`, a function that opens
    the same one again.
    """
