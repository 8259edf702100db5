"""The store contract: what a place that keeps jobs must do, and nothing about how.

A store keeps jobs and hands them out atomically; every rule about them is in `job` and `manager`.
Each method that changes something is one commit: whole or absent, also after a crash. Methods that
acknowledge something to a user (`add`, `save` with `durable`, `remove`, `configure`) return only
once the disk holds it. All may raise StoreError, DamagedError and StoreLockedError.
`queuectl.testing` holds the suite that every store must pass.
"""

from __future__ import annotations

import abc
from typing import (
    Callable,
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from queuectl import clock
from queuectl.job import Job

Notice = Callable[[str], None]


class Counts(NamedTuple):
    """How many jobs the store holds in each state.

    `delayed` is the part of `pending` that has a `run_at`.
    """

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    delayed: int = 0

    @property
    def total(self) -> int:
        """All jobs in the store."""
        return sum(self) - self.delayed


class Member(NamedTuple):
    """A worker or supervisor that takes part in the store, and what it is running.

    Attributes:
        id: unique for good.
        role: `worker` or `supervisor`.
        name: what people see, such as `Worker-1`.
        pid: its process, on `host`.
        host: the machine's name.
        started_at: when it enrolled, as UTC text.
        supervisor: the id of the supervisor it belongs to; its own if it is one.
        job: the id of the job that it has claimed, if any.
        run: that job's run.
        group: the process group of the job's command, once spawned.
        born: when the leader of that group started, in the kernel's own terms.
        boot: which boot of the machine `born` belongs to.
        stopping: whether a supervisor was told to stop, and has told its workers.
        queues: the queues that a supervisor serves; none if it serves all. Of a worker, ask its
            supervisor.
        version: of the QueueCTL that it is.
    """

    id: str
    role: str
    name: str
    pid: int
    host: str
    started_at: str
    supervisor: str
    job: Optional[str] = None
    run: int = 0
    group: Optional[int] = None
    born: Optional[str] = None
    boot: Optional[str] = None
    stopping: bool = False
    queues: Optional[Sequence[str]] = None
    version: str = ""


class Node(NamedTuple):
    """A machine that works on the store.

    Attributes:
        host: its name.
        workers: how many live there.
        running: how many jobs they run.
        heard_at: when it was heard of last, as UTC text.
        version: of the QueueCTL there; of all of them, if there are several.
    """

    host: str
    workers: int
    running: int
    heard_at: str
    version: str


class Lost(NamedTuple):
    """A worker that died, and the job that it still holds, if it holds one."""

    member: Member
    job: Optional[Job]


class SharedOutput(NamedTuple):
    """What a run printed, as far as other machines can read it.

    Attributes:
        host: the machine that has the file.
        path: the file, there.
        size: how many bytes the run has printed in all.
        head: the first of them.
        tail: the last of them, if they are more than the first.
    """

    host: str
    path: str
    size: int
    head: bytes
    tail: bytes

    @property
    def missing(self) -> int:
        """How many bytes are left out between the head and the tail."""
        return self.size - len(self.head) - len(self.tail)


class Activity(NamedTuple):
    """What a store's jobs do at the moment.

    Attributes:
        running: the jobs that are processing, by when they were started.
        failures: those that failed or are dead and changed last, the newest first.
    """

    running: List[Job]
    failures: List[Job]


class Watch(abc.ABC):
    """Some jobs, for one who looks at them again and again; a context that closes it."""

    @abc.abstractmethod
    def look(self) -> Iterator[Tuple[str, Optional[Job]]]:
        """Yield the ids of those that changed since the last look, with the jobs as they stand now.

        At first it yields all. Nothing stands for a job that was purged or never was; another `seq`
        for one whose id was given to another. One that did not change may be among them. A look
        costs what was committed since, and takes no lock.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the store."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class JobChange(NamedTuple):
    """A change of a job.

    Attributes:
        id: whose.
        state: its state since then; nothing if it was purged.
        queue: its queue.
    """

    id: str
    state: Optional[str]
    queue: str


class Feed(abc.ABC):
    """All changes of all jobs, for one who looks again and again; a context that closes it."""

    @abc.abstractmethod
    def look(self, tell: Callable[[JobChange], None]) -> bool:
        """Tell of each change that was committed since the last look, in their order.

        Returns False if some may be missing between those of the last look and these. It waits for
        nothing; of what was just committed the next look may tell. If it raises, some may be
        missing too.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the store."""

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Store(abc.ABC):
    """Keeps jobs, settings, output and the list of those who work on them."""

    url: str
    """Where the store is, in a form that opens it again from anywhere; it may hold a password."""

    @property
    def shown(self) -> str:
        """The same for people to read: without what is secret in it."""
        return self.url

    longest_rest = 1.0
    """Seconds after which a worker that nobody wakes looks for jobs all the same.

    What nobody tells of, as a clock that was set, shows after that.
    """

    removes_at_once = 5000
    """How many jobs one `remove` should have at the most: all others wait for it."""

    shares_output = False
    """Whether what runs print must be shared, since not all who share the store see its files."""

    @property
    def claim_lasts(self) -> Optional[float]:
        """For how many seconds a claim holds that is not renewed; none for as long as its worker.

        It is renewed by `current`. Whoever runs a job counts from the moment before it asked for
        the last renewal that was acknowledged, the first of which is the claim, and ends the job
        once the time is over: from then on others may have it.
        """
        return None

    def now(self) -> float:
        """The time as all see it who share the store, in seconds since the epoch.

        It is cut to the millisecond, as `clock.now` is, and every rule about its jobs is given it:
        so machines whose clocks differ agree on what is due.
        """
        return clock.now()

    @abc.abstractmethod
    def add(
        self, jobs: Sequence[Job], given_ids: Sequence[str] = (), also: Sequence[Job] = ()
    ) -> List[Job]:
        """Add jobs and save others, all or none; return the new ones with their places.

        But for `seq` and `parents` they are kept as they are, in whatever state, as when a queue is
        moved here. `given_ids` are those that a user chose, so that a job may have one already; it
        costs a look at all jobs. `also` are changed jobs as for `save`: those for which new ones
        wait, and those that new ones replace. Whoever has others wait for it, new or not, counts
        them in `dependents`, or it keeps nobody waiting. Raises DuplicateIdError; KeyTakenError if
        the unique key of a new job would have two holders; and what `save` does.
        """

    @abc.abstractmethod
    def get(self, job_id: str) -> Optional[Job]:
        """Return the job of this id as it stands now, or nothing."""

    @abc.abstractmethod
    def find(self, prefix: str, limit: int) -> List[str]:
        """Return up to `limit` ids that begin with `prefix`."""

    @abc.abstractmethod
    def select(
        self, states: Sequence[str], limit: Optional[int] = None, before: Optional[int] = None
    ) -> Iterator[Job]:
        """Yield the jobs in these states from one consistent snapshot, newest first.

        At most `limit`, and only those whose `seq` is less than `before`; those behind that are not
        read.
        """

    @abc.abstractmethod
    def dump(self) -> Tuple[int, Iterator[Job]]:
        """Return how many jobs there are, and all of them, oldest first, from one snapshot."""

    @abc.abstractmethod
    def watch(self, job_ids: Collection[str]) -> Watch:
        """Begin to watch these jobs."""

    def feed(self) -> Optional[Feed]:
        """Begin to follow what becomes of all jobs from now on; nothing if none can tell.

        It must cost those who change jobs next to nothing.
        """
        return None

    @abc.abstractmethod
    def activity(self, failures: int) -> Activity:
        """Return what is running, and so many of the newest failures.

        The first call costs a look at all jobs, a later one what was committed since.
        """

    @abc.abstractmethod
    def enqueued(self) -> int:
        """Return how many jobs were ever added: also a purge does not take from it."""

    @abc.abstractmethod
    def totals(self) -> Dict[str, int]:
        """Return what is counted for good, as `queuectl.totals` names it.

        Neither a purge nor a restart takes from it; what is 0 may be missing. It costs no more than
        `counts`.
        """

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Return the counts, at a cost that does not depend on how many jobs there are."""

    @abc.abstractmethod
    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        """Claim the next job that is due and, in the same commit, save `done`.

        Next is the highest priority, then the oldest, in the `queues`, or in all. Nothing comes
        from a queue that the settings of the store say is paused, nor more than its concurrency
        allows to be processing. A job waits until those that it is to follow completed or, as asked
        for, ended. A failed job is due at its `run_at`, or if that lies more than `horizon` seconds
        ahead (twice its own `backoff_max` if it has one), as it does after the clock stepped back.
        `done` is not among those it chooses from. `wanted` is
        asked last, when nobody can get in between: if not, only `done` is saved. Raises
        ClaimLostError if the claim of `done` is over, ConflictError if the job changed since; then
        nothing was claimed.
        """

    @abc.abstractmethod
    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        """Save changed jobs, all or none.

        Raises ConflictError if one is not the successor of what the store holds.

        For a job that was processing, also its claim must be the one that the store holds: else
        ClaimLostError. KeyTakenError if one becomes pending whose unique key another has.
        """

    @abc.abstractmethod
    def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
        """Remove these jobs and their output, and save others, all or none.

        The output goes first, which makes room on a disk that is full; if it cannot be removed, the
        jobs stay. Raises ConflictError if one has changed, and what `save` does.
        """

    @abc.abstractmethod
    def next_due(self, queues: Optional[Collection[str]] = None) -> Optional[float]:
        """Return when the next retry or delayed job known since the last `claim` falls due."""

    @abc.abstractmethod
    def claimable(
        self, now: float, horizon: float, queues: Optional[Collection[str]] = None
    ) -> bool:
        """Tell whether `claim` would find a job."""

    @abc.abstractmethod
    def awaits_retry(self, queues: Optional[Collection[str]] = None) -> bool:
        """Tell whether, as of the last look, a failed job waits for nothing but its time and turn.

        In a queue that is paused none does.
        """

    @abc.abstractmethod
    def running(self) -> Dict[str, int]:
        """Return how many jobs of each queue are processing, at the cost of `counts`."""

    @abc.abstractmethod
    def bound(self) -> int:
        """Return how many waiting jobs were made to wait for others, at the cost of `counts`."""

    @abc.abstractmethod
    def tally(self) -> Dict[str, Counts]:
        """Return the counts of each queue that holds a job.

        The first call costs a look at all jobs, a later one what was committed since.
        """

    @abc.abstractmethod
    def oldest(self, now: float, horizon: float) -> Optional[Job]:
        """Return, of the jobs that wait for nothing but a worker, the one that was enqueued first.

        That is what `claim` could give out if no queue were paused or full. It costs what a claim
        does.
        """

    def home(self) -> Optional[str]:
        """Return the folder on this machine for what belongs to the store; nothing if none does.

        It is the caller's alone, and made if it is missing.
        """
        return None

    def size(self) -> Optional[int]:
        """Return how many bytes the jobs take, without their output; nothing if none can tell."""
        return None

    @abc.abstractmethod
    def children(self, parents: Sequence[Job]) -> List[Job]:
        """Return the waiting jobs that were made to wait for one of these, oldest first."""

    @abc.abstractmethod
    def holder(self, key: str) -> Optional[Job]:
        """Return the job with this unique key that is not over, or nothing."""

    @abc.abstractmethod
    def current(self, claimed: Job) -> Optional[Job]:
        """Return the job that this process claimed last, as it stands now, or nothing.

        At the cost of what was committed since the last look. Where claims expire it also renews
        this one, if it still holds, and takes a second at most, so that its end is noticed.
        """

    @abc.abstractmethod
    def listen(self) -> int:
        """Return a descriptor that is readable once there is something to `hear`.

        That is news of jobs that may have become claimable, or that a stop is asked for.

        Only an enrolled supervisor listens.
        """

    @abc.abstractmethod
    def hear(self) -> int:
        """Take in what made the descriptor of `listen` readable.

        Return how many jobs may have come.
        """

    @abc.abstractmethod
    def after_fork(self) -> None:
        """In a forked child: let go of what is the parent's, open what cannot be shared."""

    @abc.abstractmethod
    def enroll(self, member: Member) -> None:
        """Join: from now on this process counts as alive until it ends or leaves."""

    @abc.abstractmethod
    def note(self, member: Member) -> None:
        """Write down what an enrolled member is running now."""

    @abc.abstractmethod
    def leave(self, member_id: str) -> None:
        """Take an enrolled member of this process out again."""

    @abc.abstractmethod
    def members(self, role: str) -> List[Member]:
        """Return the living members of this role, oldest first."""

    def nodes(self) -> List[Node]:
        """Return the machines of the living members, by name.

        Where a lock tells that a member lives, it is heard of whenever anybody looks.
        """
        by_host: Dict[str, List[Member]] = {}
        for member in (*self.members("worker"), *self.members("supervisor")):
            by_host.setdefault(member.host, []).append(member)
        return [
            Node(
                host,
                sum(member.role == "worker" for member in members),
                sum(member.role == "worker" and member.job is not None for member in members),
                clock.to_iso(self.now()),
                ", ".join(sorted({member.version for member in members})),
            )
            for host, members in sorted(by_host.items())
        ]

    @abc.abstractmethod
    def lost(self, thorough: bool = False) -> List[Lost]:
        """Return workers that died; each is the caller's alone until it calls `bury` or ends.

        `thorough` also finds jobs whose worker left no trace, as after a power failure, at the cost
        of a full read if any job is processing.
        """

    @abc.abstractmethod
    def bury(self, lost: Lost) -> None:
        """Remove what a dead worker left behind, keeping the output of its last run."""

    @abc.abstractmethod
    def ask_to_stop(self, member_id: str, force: bool) -> bool:
        """Ask a supervisor to stop; returns whether it could be asked."""

    @abc.abstractmethod
    def stop_asked(self) -> Optional[bool]:
        """Return nothing while nobody asked this supervisor to stop, else whether by force."""

    @abc.abstractmethod
    def settings(self) -> Dict[str, str]:
        """Return the stored settings, by name, as text."""

    @abc.abstractmethod
    def configure(self, changes: Dict[str, Optional[str]]) -> None:
        """Store settings; nothing as a value takes one out.

        The rule of a queue is news to those who listen: it may have let jobs become claimable.
        """

    @abc.abstractmethod
    def spool(self, worker: str) -> str:
        """Return the path of the file into which a worker's current run writes its output."""

    @abc.abstractmethod
    def kept_output(self, job_id: str, run: int) -> str:
        """Return the path to which the output of an ended run is moved, if it has any."""

    @abc.abstractmethod
    def trim_output(self, limit: int, spared: Callable[[], Mapping[str, int]]) -> None:
        """Remove the oldest kept output until there is at most `limit` bytes of it in all.

        `spared` is asked only if some must go: it tells of which jobs, by id, and from which of
        their runs on, output stays whatever its size.
        """

    def share_output(self, job: Job, output: SharedOutput) -> None:
        """Let others see what a run has printed so far, in place of what they saw of it before.

        It is called about twice a second while the run prints, and once more before its result is
        saved; only where `shares_output` says so. It goes with the job, and with the file if
        `trim_output` removes that; nothing is kept of a job that is gone.
        """
        raise NotImplementedError

    def shared_output(self, job_id: str, run: int) -> Optional[SharedOutput]:
        """Return what was shared last of what a run printed; nothing if nothing was."""
        return None

    @abc.abstractmethod
    def age(self) -> float:
        """Return how many seconds ago the store was made."""

    @abc.abstractmethod
    def take_turn(self, interval: float) -> bool:
        """Tell whether nobody took a turn for so many seconds; if so, take it.

        For housekeeping that is costly, and that many starts, one after the other, would do.
        """

    @abc.abstractmethod
    def sync(self) -> None:
        """Return once the disk holds everything that was committed; raises OutcomeUnknownError."""

    @abc.abstractmethod
    def tend(self) -> None:
        """Do the housekeeping that takes no time; called a few times a second by every supervisor.

        Raises StoreGoneError if the store was removed.
        """

    @abc.abstractmethod
    def rewrite_due(self) -> bool:
        """Tell whether `rewrite` is worth its while."""

    @abc.abstractmethod
    def rewrite(self) -> bool:
        """Do the housekeeping that takes long, beside everybody else's work.

        Return whether there was any.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything this process holds of the store; again, it does nothing."""
