"""A store on Redis or Valkey, which any number of machines share.

Every change is one script, which the server runs alone: whole or not at all. The scripts keep the
promises of the contract, `common.lua` tells how; this module puts them behind it. What a script
decides by is what the server holds at that moment: whether the job is the one that a change follows
from, whether a queue is paused or full, whether a parent keeps a job. A claim holds while its
worker lives and renews it, by the server's clock; a result is accepted if the job did not change
since its claim.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from queuectl import clock
from queuectl import job as rules
from queuectl.config import MAX_WORKERS, Settings
from queuectl.errors import (
    ClaimLostError,
    ConflictError,
    DuplicateIdError,
    KeyTakenError,
    OutcomeUnknownError,
    StoreAwayError,
    StoreError,
)
from queuectl.job import Job, JobState
from queuectl.queues import is_rule, read_rules, rule_changes
from queuectl.store.base import (
    Activity,
    Counts,
    Feed,
    Lost,
    Member,
    Node,
    Notice,
    SharedOutput,
    Store,
    Watch,
)
from queuectl.store.kept import keep_spool, trim
from queuectl.store.redis import reading
from queuectl.store.redis.address import parse_address
from queuectl.store.redis.keys import Keys
from queuectl.store.redis.link import Link
from queuectl.store.redis.local import state_folder
from queuectl.store.redis.opening import open_on
from queuectl.store.redis.outputs import pack_output, unpack_output
from queuectl.store.redis.packed import (
    milliseconds,
    pack,
    pack_new,
    quoted,
    unpack,
    unquoted,
)
from queuectl.store.redis.people import People
from queuectl.values import DEFAULT_QUEUE

_AT_ONCE = 1000  # jobs that one script adds
_FRESH = 1.0  # seconds for which who works on the store goes by the settings that it has read
_CLOCK = 10.0  # seconds after which the server is asked for the time again
_JOIN_AGAIN = 2  # what `claim` says to a worker that others took for dead
_MARGIN = 1.0  # seconds beyond lease and kill_grace before a claim may be rescued


class RedisStore(Store):
    """A store on a server.

    Args:
        url: where; see `address`.
        create: whether to make the store where there is none.
        notice: told, in one line each, what a user should know.

    Raises:
        InvalidValueError: the URL can never be right.
        NoStoreError: there is none, and none is to be made.
        StoreError: it cannot be used, or its server is none to trust with jobs.
    """

    longest_rest = 30.0
    removes_at_once = 1000
    shares_output = True

    def __init__(self, url: str, create: bool = True, notice: Notice = lambda text: None) -> None:
        address = parse_address(url)
        self.url = address.url
        self._address = address
        self._keys = Keys(address.prefix)
        self._link = Link(address, self._keys.jobs, self._keys.nothing)
        opened = open_on(self._link, address.shown, create, notice)
        self._identity = opened.identity
        self._made_at = opened.made_at
        self._folder = state_folder(opened.name)
        self._people = People(
            self._link, self._call, self._keys.news, self._folder, self._rescued_after
        )
        self._settings: Dict[str, str] = {}
        self._configured: Any = None
        self._settings_at = -_FRESH
        self._parsed: Optional[Tuple[Dict[str, str], Settings]] = None
        self._asked: Optional[Tuple[float, float]] = None
        self._due: Optional[Tuple[Optional[Tuple[str, ...]], Optional[float]]] = None
        self._set_clock(opened.server_time)
        if opened.unsettled:
            self._settle()

    def close(self) -> None:
        self._people.forget()
        self._link.close()

    def after_fork(self) -> None:
        self._link.after_fork()
        self._people.forget()

    @property
    def shown(self) -> str:
        return self._address.shown

    @property
    def claim_lasts(self) -> Optional[float]:
        # By the settings that were read last: whoever asks may be cut off.
        return float(self._known_settings()["lease"])

    def now(self) -> float:
        if not self._people.take_part and time.monotonic() > self._clock_at + _CLOCK:
            (said,) = self._link.run(("TIME",))
            self._set_clock(int(said[0]) * 1000 + int(said[1]) // 1000)
        return (int(time.monotonic() * 1000) + self._ahead) / 1000

    def add(
        self, jobs: Sequence[Job], given_ids: Sequence[str] = (), also: Sequence[Job] = ()
    ) -> List[Job]:
        if not (jobs or also):
            return []
        seq_of = {job.id: job.seq for job in also}
        ties = any(job.after or job.after_any for job in jobs)
        place_of = {job.id: at for at, job in enumerate(jobs)} if ties else {}
        try:
            if len(jobs) > _AT_ONCE:
                first = self._add_batch(jobs, set(given_ids), also, seq_of, place_of)
            else:
                new = (part for j in jobs for part in (j.id, pack_new(j, seq_of, place_of)))
                counts = (len(also), len(jobs), 0)
                first = self._commit(counts, [*_packed(also), *new], again=False)
        except StoreAwayError as error:
            raise self._unconfirmed(error) from error
        seq_of.update((job_id, first + at) for job_id, at in place_of.items())
        return [rules.placed(job, first + at, seq_of) for at, job in enumerate(jobs)]

    def get(self, job_id: str) -> Optional[Job]:
        if not job_id.isascii():
            return None
        value = self._read("HGET", self._keys.jobs, job_id)
        return None if value is None else unpack(job_id, value)

    def find(self, prefix: str, limit: int) -> List[str]:
        return reading.find(self._call, prefix, limit)

    def select(
        self, states: Sequence[str], limit: Optional[int] = None, before: Optional[int] = None
    ) -> Iterator[Job]:
        """As in the contract, but of more than a few thousand jobs some are read a moment later.

        Each of them is there once, as it stood then.
        """
        found = reading.pages(self._call, states, True, limit, before)
        # The first now, the others once they are wanted.
        first = next(found, [])
        return (job for part in _chain(first, found) for job in reading.jobs_of(part))

    def dump(self) -> Tuple[int, Iterator[Job]]:
        found = list(reading.pages(self._call, JobState.ALL, False, None))
        number = sum(len(part) for part in found) // 2
        return number, (job for part in found for job in reading.jobs_of(part))

    def watch(self, job_ids: Collection[str]) -> Watch:
        return reading.RedisWatch(self._call, job_ids)

    def feed(self) -> Optional[Feed]:
        from queuectl.store.redis.feed import RedisFeed

        return RedisFeed(self._link, self._keys.changes)

    def activity(self, failures: int) -> Activity:
        return reading.activity(self._call, failures)

    def enqueued(self) -> int:
        return int(self._of_meta("seq"))

    def totals(self) -> Dict[str, int]:
        said = self._read("HGETALL", self._keys.totals)
        return {name.decode(): int(number) for name, number in zip(said[::2], said[1::2])}

    def counts(self) -> Counts:
        return reading.total(self.tally())

    def running(self) -> Dict[str, int]:
        return reading.running(self.tally(), DEFAULT_QUEUE)

    def bound(self) -> int:
        return int(self._of_meta("bound"))

    def tally(self) -> Dict[str, Counts]:
        counted = self._read("HGETALL", self._keys.tally)
        return reading.tally(dict(zip(counted[::2], counted[1::2])))

    def oldest(self, now: float, horizon: float) -> Optional[Job]:
        while True:
            more, *found = self._call("oldest", repr(now), repr(horizon))
            if not more:
                return next(reading.jobs_of(found), None)

    def children(self, parents: Sequence[Job]) -> List[Job]:
        found: Dict[int, Job] = {}
        for parent in parents:
            if parent.dependents:
                for job in self._waiting(self._read("ZRANGE", self._keys.kids(parent.seq), 0, -1)):
                    found[job.seq] = job
        return [found[seq] for seq in sorted(found)]

    def holder(self, key: str) -> Optional[Job]:
        job_id = self._read("HGET", self._keys.unique, quoted(key))
        return None if job_id is None else self.get(job_id.decode())

    def current(self, claimed: Job) -> Optional[Job]:
        worker, lasts = quoted(claimed.worker or ""), self._people.holds_for()
        parts = self._call("current", claimed.id, worker, lasts, quick=True)
        said, configured, value = parts
        self._set_clock(said)
        self._heed(configured)
        job = unpack(claimed.id, value) if value else None
        return job if job is not None and job.seq == claimed.seq else None

    def claim(
        self,
        worker: str,
        now: float,
        horizon: float,
        done: Optional[Job] = None,
        wanted: Callable[[], bool] = lambda: True,
        queues: Optional[Collection[str]] = None,
    ) -> Optional[Job]:
        self._asked = (now, horizon)
        # One that is held already, by an answer that never came, is not claimable.
        if done is None and not self._link.unsure and not self.claimable(now, horizon, queues):
            return None
        # The script is the next to be run: it refuses who is under a supervisor that has stopped.
        if not wanted():
            if done is not None:
                self.save([done], durable=False)
            return None
        who = (quoted(worker), quoted(self._people.supervisor))
        when = (repr(now), repr(horizon), milliseconds(now))
        again = int(self._link.unsure)
        while True:
            saved = ("", "") if done is None else (done.id, pack(done))
            holds = (self._people.holds_for(), int(self._people.has_joined(worker)))
            rest = (*saved, *holds, *_named(queues))
            reply = self._change("claim", again, *who, *when, *rest)
            configured, said, more, due, *found = reply
            self._set_clock(said)
            self._heed(configured)
            if found:
                return self._begin(unpack(found[0].decode(), found[1]))
            if not more:
                self._due = (_served(queues), float(due) if due else None)
                return None
            if more == _JOIN_AGAIN:
                self._people.join_again()
            done = None

    def save(self, jobs: Sequence[Job], durable: bool = True) -> None:
        try:
            self._commit((len(jobs), 0, 0), _packed(jobs), again=self._link.unsure)
        except StoreAwayError as error:
            if not durable:
                raise
            raise self._unconfirmed(error) from error

    def remove(self, jobs: Sequence[Job], also: Sequence[Job] = ()) -> None:
        gone = (part for j in jobs for part in (j.id, j.seq, j.rev + 1, j.runs))
        try:
            self._commit((len(also), 0, len(jobs)), [*_packed(also), *gone], again=False)
        except StoreAwayError as error:
            raise self._unconfirmed(error) from error
        # Not before: those that have changed meanwhile keep their output.
        self._folder.drop_logs(job.id for job in jobs)

    def next_due(self, queues: Optional[Collection[str]] = None) -> Optional[float]:
        if self._due is None or self._due[0] != _served(queues):
            self.claimable(*(self._asked or (self.now(), clock.MAX_DURATION)), queues)
        return None if self._due is None else self._due[1]

    def claimable(
        self, now: float, horizon: float, queues: Optional[Collection[str]] = None
    ) -> bool:
        self._asked = (now, horizon)
        while True:
            more, found, due = self._call("look", repr(now), repr(horizon), *_named(queues))
            if not more:
                self._due = (_served(queues), float(due) if due else None)
                return bool(found)

    def awaits_retry(self, queues: Optional[Collection[str]] = None) -> bool:
        counted, rules_set, identity = self._link.run(
            ("HGETALL", self._keys.awaited),
            # Not `settings`, which a worker may know from a moment ago.
            ("HGETALL", self._keys.rules),
            ("HGET", self._keys.meta, "id"),
        )
        self._require(identity)
        rules_of = dict(zip(rules_set[::2], rules_set[1::2]))
        return any(
            int(number) > 0 and rules_of.get(queue) != b"paused"
            for queue, number in zip(counted[::2], counted[1::2])
            if queues is None or queue.decode() in queues
        )

    def listen(self) -> int:
        return self._people.listen()

    def hear(self) -> int:
        return self._people.hear()

    def enroll(self, member: Member) -> None:
        self._people.join(member)

    def note(self, member: Member) -> None:
        self._people.note(member)

    def leave(self, member_id: str) -> None:
        self._people.leave(member_id)

    def members(self, role: str) -> List[Member]:
        return self._people.living(role)

    def nodes(self) -> List[Node]:
        heard = self._people.heard_at()
        return [
            node._replace(heard_at=clock.to_iso(heard.get(node.host, self.now())))
            for node in super().nodes()
        ]

    def lost(self, thorough: bool = False) -> List[Lost]:
        return self._people.lost(thorough)

    def bury(self, lost: Lost) -> None:
        member = lost.member
        if member.job is not None:
            kept = self.kept_output(member.job, member.run)
            keep_spool(self._folder, self.spool(member.id), kept)
        self._people.bury(member.id)

    def ask_to_stop(self, member_id: str, force: bool) -> bool:
        return self._people.ask_to_stop(member_id, force)

    def stop_asked(self) -> Optional[bool]:
        return self._people.stop_asked

    def settings(self) -> Dict[str, str]:
        # Whoever takes part asks again and again, and is told meanwhile if they were changed.
        if self._people.take_part and time.monotonic() < self._settings_at + _FRESH:
            return self._settings
        asked_at = time.monotonic()
        self._configured, said = self._call("settings")
        texts = [text.decode("utf-8", "surrogatepass") for text in said]
        stored = dict(zip(texts[::2], texts[1::2]))
        if stored != self._settings:
            self._settings = stored
        self._settings_at = asked_at
        return self._settings

    def configure(self, changes: Dict[str, Optional[str]]) -> None:
        args: List[Any] = [len(changes)]
        for name, text in changes.items():
            args += [name, int(text is not None), (text or "").encode("utf-8", "surrogatepass")]
        touched = [name for name in changes if is_rule(name)]
        for queue in read_rules(dict.fromkeys(touched, "1")):
            args += [queue, *rule_changes(queue, {"concurrency": None, "paused": False})]
        self._call("configure", *args, MAX_WORKERS if touched else 0)
        self._settings_at = -_FRESH

    def spool(self, worker: str) -> str:
        return os.path.join(self._folder.workers, f"{worker}.out")

    def kept_output(self, job_id: str, run: int) -> str:
        return self._folder.log(job_id, run)

    def trim_output(self, limit: int, spared: Callable[[], Mapping[str, int]]) -> None:
        for log in trim(self._folder, limit, spared):
            self._call("shared", log.job_id, log.run, 1)

    def share_output(self, job: Job, output: SharedOutput) -> None:
        self._call("share", job.id, job.seq, job.runs, pack_output(output))

    def shared_output(self, job_id: str, run: int) -> Optional[SharedOutput]:
        (said,) = self._call("shared", job_id, run, 0)
        return unpack_output(said) if said else None

    def home(self) -> Optional[str]:
        self._folder.make()
        self._folder.check_trust()
        return self._folder.path

    def age(self) -> float:
        return max(self.now() - self._made_at, 0.0)

    def take_turn(self, interval: float) -> bool:
        return bool(self._call("turn", milliseconds(interval))[0])

    def sync(self) -> None:
        pass

    def tend(self) -> None:
        said = self._people.beat(time.monotonic())
        if said is not None:
            self._set_clock(said[0])
            self._heed(said[1])

    def rewrite_due(self) -> bool:
        return False

    def rewrite(self) -> bool:
        return False

    def _begin(self, claimed: Job) -> Job:
        """Remove what is kept as the output of this run: it is of a job that had the id before."""
        stale = self.kept_output(claimed.id, claimed.runs)
        if os.path.exists(stale):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stale)
        return claimed

    def _add_batch(
        self,
        jobs: Sequence[Job],
        given: Collection[str],
        also: Sequence[Job],
        seq_of: Mapping[str, int],
        place_of: Mapping[str, int],
    ) -> int:
        """Add more jobs than one script should; return the place of the first.

        They are taken in part by part, where nobody sees them; one small commit then makes sure
        that all are placed, by us or, if we die, by whoever comes.
        """
        seen = set()
        for job in jobs:
            if job.id in seen:
                raise DuplicateIdError(job.id)
            seen.add(job.id)
        batch = uuid.uuid4().hex
        for start in range(0, len(jobs), _AT_ONCE):
            part = jobs[start : start + _AT_ONCE]
            values = ((j.id, int(j.id in given), pack_new(j, seq_of, place_of)) for j in part)
            self._change("stage", batch, *(each for value in values for each in value))
        ties = int(any(job.dependents for job in jobs))
        (first,) = self._change("begin", batch, len(jobs), ties, *_packed(also))
        self._settle()
        return int(first)

    def _settle(self) -> None:
        """Do what was left to be done by those who died."""
        while self._call("settle")[0]:
            pass

    def _commit(self, counts: Tuple[int, int, int], changes: Sequence[Any], again: bool) -> int:
        if not changes:
            return 0
        (first,) = self._change("commit", int(again), *counts, *changes)
        return int(first)

    def _change(self, name: str, *args: Any) -> List[Any]:
        """Run a script that changes jobs; raises what it has against that."""
        self._due = None
        said, *rest = self._link.call(name, self._identity, *args, changes=True)
        if said == b"ok":
            self._link.unsure = False
            return rest
        names = [each.decode() for each in rest]
        if said == b"taken":
            raise KeyTakenError(unquoted(rest[0]), names[1])
        if said == b"exists":
            raise DuplicateIdError(names[0])
        if said == b"unstaged":
            raise StoreError(f"adding to {self.shown} took too long: try again")
        raise (ClaimLostError if said == b"lost" else ConflictError)(names[0])

    def _call(self, name: str, *args: Any, quick: bool = False) -> List[Any]:
        """Run a script that has nothing against it; return what it says behind `ok`."""
        return self._link.call(name, self._identity, *args, quick=quick)[1:]

    def _read(self, *command: Any) -> Any:
        """Read something, if the store is still there."""
        said, identity = self._link.run(command, ("HGET", self._keys.meta, "id"))
        self._require(identity)
        return said

    def _of_meta(self, field: str) -> Any:
        return self._read("HGET", self._keys.meta, field)

    def _require(self, identity: Any) -> None:
        if identity != self._identity.encode():
            raise self._link.gone()

    def _waiting(self, ids: Sequence[bytes]) -> Iterator[Job]:
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            values = self._read("HMGET", self._keys.jobs, *part)
            for job_id, value in zip(part, values):
                job = None if value is None else unpack(job_id.decode(), value)
                if job is not None and job.waits:
                    yield job

    def _heed(self, configured: Any) -> None:
        """Take note of how the settings were changed last: those that were read may still hold."""
        self._settings_at = time.monotonic() if configured == self._configured else -_FRESH

    def _known_settings(self) -> Settings:
        """The settings as they were read last."""
        if self._parsed is None or self._parsed[0] is not self._settings:
            self._parsed = (self._settings, Settings(self._settings))
        return self._parsed[1]

    def _rescued_after(self) -> float:
        """So many seconds after its last renewal a claim may be rescued."""
        settings = self._known_settings()
        return float(settings["lease"] + settings["kill_grace"] + _MARGIN)

    def _set_clock(self, server_time: int) -> None:
        self._clock_at = time.monotonic()
        # Rounded so that nobody is ever ahead of the server.
        self._ahead = server_time - math.ceil(self._clock_at * 1000)

    def _unconfirmed(self, error: StoreAwayError) -> StoreError:
        if not self._link.unsure:
            return error
        return OutcomeUnknownError(
            f"the change was not confirmed, so its outcome is unknown: {error}"
        )


def _packed(jobs: Sequence[Job]) -> List[str]:
    return [part for job in jobs for part in (job.id, pack(job))]


def _named(queues: Optional[Collection[str]]) -> Tuple[Any, ...]:
    return (-1,) if queues is None else (len(queues), *queues)


def _served(queues: Optional[Collection[str]]) -> Optional[Tuple[str, ...]]:
    return None if queues is None else tuple(sorted(queues))


def _chain(first: List[Any], rest: Iterator[List[Any]]) -> Iterator[List[Any]]:
    yield first
    yield from rest
