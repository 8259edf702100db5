"""Who works on the store: on this machine by locks, on others by leases.

A member is in both: in this machine's folder, where its lock tells the moment it dies, and on the
server, where its lease tells others. What a worker runs is noted in the folder alone, for that is
where its processes would be looked for; others learn of it from its claim.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from queuectl import clock
from queuectl.errors import StoreAwayError, StoreError
from queuectl.job import Job
from queuectl.store.base import Lost, Member
from queuectl.store.compact import encode
from queuectl.store.disk import failure
from queuectl.store.folder import StoreFolder
from queuectl.store.lock import StoreLock
from queuectl.store.members import Members
from queuectl.store.redis.link import Link
from queuectl.store.redis.listening import Listener
from queuectl.store.redis.packed import quoted, unpack, unquoted

Call = Callable[..., List[Any]]

_BEAT = 1.0  # seconds between two looks of a supervisor at what the server knows
_RENEWALS = 5  # in the time of a lease
_RESCUE = 60_000  # milliseconds for which the dead of another machine are one rescuer's


class People:
    """The members of one store, and those of this process among them.

    Args:
        link: the server.
        call: runs a script on the store.
        channel: where news is told.
        folder: this machine's folder of the store.
        lease: tells for how many seconds a claim holds, and how much later it may be rescued.
    """

    def __init__(
        self,
        link: Link,
        call: Call,
        channel: str,
        folder: StoreFolder,
        lease: Callable[[], float],
    ) -> None:
        self._link = link
        self._call = call
        self._channel = channel
        self._folder = folder
        self._lock = StoreLock(folder.lock)
        self._lease = lease
        self._local = Members(folder.workers)
        self._mine: Dict[str, Member] = {}
        self._listener: Optional[Listener] = None
        self._stop: Optional[bool] = None
        self._beat_at = 0.0
        self._renewed_at = 0.0
        self._told: Optional[int] = None
        self._heard_any = True
        self._missed = False
        self._are_lost = False

    @property
    def supervisor(self) -> str:
        """The supervisor of this process's member; empty if there is none."""
        return next((member.supervisor for member in self._mine.values()), "")

    @property
    def take_part(self) -> bool:
        """Whether this process has a member."""
        return bool(self._mine)

    def has_joined(self, member_id: str) -> bool:
        """Whether this is a member of this process."""
        return member_id in self._mine

    def holds_for(self) -> int:
        """For how many milliseconds a member counts as alive that is not heard of."""
        return round(self._lease() * 1000)

    def join(self, member: Member) -> None:
        """Add a member of this process."""
        self._folder.make()
        self._folder.check_trust()
        try:
            with self._lock:
                self._local.join(member)
        except OSError as error:
            raise failure("join", self._folder.workers, error) from error
        try:
            self._tell(member)
            if member.role == "supervisor":
                self._listener = Listener(
                    self._link, self._channel, quoted(member.id), self._local.listen()
                )
                self._listener.connect()
        except BaseException:
            with self._lock:
                self._local.leave(member.id)
            raise
        self._mine[member.id] = member

    def join_again(self) -> None:
        """Let the members of this process be known again, which others took for dead."""
        for member in self._mine.values():
            self._tell(member)

    def note(self, member: Member) -> None:
        """Write down what a member of this process is running."""
        try:
            self._local.note(member)
        except OSError as error:
            raise failure("write to", self._folder.workers, error) from error
        self._mine[member.id] = member
        if member.role == "supervisor":
            self._tell(member)

    def leave(self, member_id: str) -> None:
        """Take a member of this process out."""
        self._mine.pop(member_id, None)
        with self._lock:
            self._local.leave(member_id)
        try:
            self._call("leave", quoted(member_id), 0)
        except StoreAwayError:
            # Its lease ends by itself.
            pass

    def living(self, role: str) -> List[Member]:
        """The members of this role that live, oldest first."""
        here = {member.id: member for member in self._local.living()}
        found = []
        for record, _, job_id, run in _fours(self._call("members")):
            member = _read(record)
            if member.role == role and self._local.has_trace(member.id):
                if member.id in here:
                    found.append(here[member.id])
            elif member.role == role:
                held = {"job": job_id.decode(), "run": int(run)} if job_id else {}
                found.append(member._replace(**held))
        return sorted(found, key=lambda member: (member.started_at, member.name, member.id))

    def heard_at(self) -> Dict[str, float]:
        """When each machine was heard of last, in seconds since the epoch."""
        heard: Dict[str, float] = {}
        for record, until, _, _ in _fours(self._call("members")):
            host = _read(record).host
            heard[host] = max(heard.get(host, 0.0), float(until) / 1000 - self._lease())
        return heard

    def lost(self, thorough: bool) -> List[Lost]:
        """The dead who are the caller's to rescue, with what they hold."""
        dead: List[str] = []
        if self._local.has_dead():
            with self._lock:
                dead = list(self._local.take_dead())
        if not (dead or thorough or self._are_lost):
            return []
        try:
            parts = self._call("lost", int(thorough), _RESCUE, *map(quoted, dead))
            self._are_lost = False
            return list(self._found(parts, dead))
        except StoreAwayError:
            if not dead:
                raise
            # What they left running must end all the same. A job that was held is somebody's to
            # rescue once the lease is over.
            return [Lost(self._local.read(each) or _unknown(each), None) for each in dead]
        except BaseException:
            # Whoever looks next must find them.
            self._local.release_dead(dead)
            raise

    def _found(self, parts: List[Any], dead: List[str]) -> List[Lost]:
        found = []
        for name, record, job_id, value in _fours(parts):
            member_id = unquoted(name)
            job: Optional[Job] = unpack(job_id.decode(), value) if job_id else None
            if member_id in dead:
                member = self._local.read(member_id)
            elif self._local.has_trace(member_id):
                # It lives here, or is another's here to rescue.
                continue
            else:
                member = _read(record) if record else None
            found.append(Lost(member or _unknown(member_id), job))
        return found

    def bury(self, member_id: str) -> None:
        """Forget a dead member."""
        self._call("leave", quoted(member_id), 1)
        if self._local.has_trace(member_id):
            with self._lock:
                self._local.drop_dead(member_id)

    def ask_to_stop(self, member_id: str, force: bool) -> bool:
        """Ask a supervisor to stop; tell whether it could be asked."""
        if self._local.has_trace(member_id):
            return self._local.ask_to_stop(member_id, force)
        return bool(self._call("ask", quoted(member_id), "f" if force else "s")[0])

    @property
    def stop_asked(self) -> Optional[bool]:
        """Nothing while nobody asked this process's supervisor to stop, else whether by force."""
        asked = [each for each in (self._stop, self._local.stop_asked) if each is not None]
        return any(asked) if asked else None

    def listen(self) -> int:
        """The descriptor that is readable once there is something to hear."""
        assert self._listener is not None
        return self._listener.descriptor()

    def hear(self) -> int:
        """Take in what was said; return how many jobs came."""
        assert self._listener is not None
        heard = self._listener.hear()
        if self._told is not None:
            self._told += heard.jobs
        self._heard_any = self._heard_any or heard.jobs > 0
        self._ask(heard.stop)
        return heard.jobs + self._local.hear()

    def beat(self, now: float) -> Optional[List[Any]]:
        """Look at what the server knows, and renew leases, if it is time for that.

        Returns:
            The server's time, and how the settings were changed last; nothing if it was not time.
        """
        is_early = now < self._beat_at + _BEAT and not self._link.is_down
        if is_early or not self._mine:
            return None
        supervisor = self.supervisor
        renewed: Dict[str, Member] = {}
        if now >= self._renewed_at + self._lease() / _RENEWALS:
            renewed = {m.id: m for m in self._local.living() if m.supervisor == supervisor}
        names = map(quoted, renewed)
        reply = self._call("beat", self.holds_for(), quoted(supervisor), *names, quick=True)
        # Not before: what failed is tried again at once.
        self._beat_at = now
        if renewed:
            self._renewed_at = now
        time, configured, stop, over, told, unknown = reply
        self._are_lost = self._are_lost or over > 0
        self._ask(stop == b"f" if stop else None)
        for name in unknown:
            self._tell(renewed[unquoted(name)])
        self._catch_up(int(told))
        return [time, configured]

    def _catch_up(self, told: int) -> None:
        """See to it that what was told, but not heard, wakes us all the same."""
        if self._listener is None:
            return
        # Of what was missed now a part may just be on its way.
        missed = 0 if self._told is None else max(told - self._told, 0)
        is_deaf = missed > 0 and self._missed and not self._heard_any
        self._told, self._missed, self._heard_any = told, missed > 0, False
        if missed:
            self._local.tell_news(missed)
        try:
            self._listener.connect(anew=is_deaf)
        except StoreError:
            # The next beat tries again; until then, this is how we hear.
            pass

    def forget(self) -> None:
        """Let go of everything; in a forked process, of what is the parent's."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._mine.clear()
        self._local.forget()
        self._lock.close()

    def _tell(self, member: Member) -> None:
        stops = member.role == "supervisor" and member.stopping
        name, record = quoted(member.id), encode(member._asdict())
        self._call("join", name, record, self.holds_for(), int(stops))

    def _ask(self, force: Optional[bool]) -> None:
        if force is not None:
            self._stop = force or bool(self._stop)


def _fours(parts: List[Any]) -> Iterator[Tuple[Any, Any, Any, Any]]:
    return zip(*(iter(parts),) * 4)


def _read(record: bytes) -> Member:
    return Member(**json.loads(record))


def _unknown(worker: str) -> Member:
    return Member(worker, "worker", worker, 0, "", clock.to_iso(0), "")
