"""The contract as a suite: one test a promise of `queuectl.store.base.Store`."""

from __future__ import annotations

from queuectl.testing.claims import ClaimContract
from queuectl.testing.dependencies import DependencyContract
from queuectl.testing.jobs import JobContract
from queuectl.testing.keys import KeyContract
from queuectl.testing.members import MemberContract
from queuectl.testing.outputs import OutputContract
from queuectl.testing.queues import QueueContract
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
):
    """Every store must pass this; a subclass provides the fixtures `store` and `reopen`.

    `store` gives a new, empty store; `reopen` a function that opens the same one again, as another
    process would, so that what one does is seen by the other. Stores that cannot be opened twice
    leave `reopen` out: the tests that need it are skipped. What was opened is closed by whoever
    opened it; once it is, its members are dead.
    """
