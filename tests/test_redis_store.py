"""What the store on Redis promises beyond the contract: of large batches, and of lost answers."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from queuectl import job as rules
from queuectl.errors import (
    ClaimLostError,
    DuplicateIdError,
    KeyTakenError,
    OutcomeUnknownError,
    StoreAwayError,
    StoreGoneError,
)
from queuectl.job import Job, JobState
from queuectl.store.base import Counts, Lost, Store
from queuectl.store.opening import open_store
from queuectl.store.redis import RedisStore, local
from queuectl.testing.common import (
    HORIZON,
    NOW,
    add,
    claim,
    claim_all,
    claim_one,
    current,
    ids,
    new_job,
    run_and_fail,
)
from queuectl.testing.members import is_readable, member, names
from servers import Cable, Server, client, new_store
from support import wait_until

Open = Callable[..., RedisStore]


@pytest.fixture
def opened(redis_url: str) -> Iterator[Open]:
    """Opens the test's store, or another one."""
    stores: List[RedisStore] = []

    def opened(url: str = redis_url) -> RedisStore:
        stores.append(RedisStore(url))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Open) -> RedisStore:
    return opened()


@pytest.fixture
def cable(own_server: Server) -> Iterator[Cable]:
    cable = Cable(own_server.port)
    yield cable
    cable.close()


def in_child(act: Callable[[], Any]) -> int:
    """Do something in a forked process; returns what it ended with."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(70)
    return os.WEXITSTATUS(os.waitpid(pid, 0)[1])


def die(*args: Any, **options: Any) -> Any:
    os._exit(9)


def many(number: int, prefix: str = "job", **values: Any) -> List[Job]:
    return [new_job(f"{prefix}{at}", **values) for at in range(number)]


def run_all(store: Store, now: float = NOW) -> List[str]:
    """Claim and complete whatever can be claimed; return the ids in that order."""
    done: Optional[Job] = None
    found: List[str] = []
    while True:
        job = claim(store, now, done=done)
        if job is None:
            return found
        found.append(job.id)
        done = rules.complete(job, now)


def prefix_of(store: RedisStore) -> str:
    return store.url.partition("prefix=")[2]


def test_a_plain_job_takes_less_than_650_bytes(own_server: Server) -> None:
    redis = own_server.client()
    store = RedisStore(own_server.url)
    number = 5000
    before = redis.info("memory")["used_memory"]
    store.add(
        [
            rules.enqueue(f"{at:08}-0000-4000-8000-000000000000", f"make target{at}", NOW,
                          max_retries=3, cwd="/home/user/project")
            for at in range(number)
        ]
    )  # fmt: skip
    assert (redis.info("memory")["used_memory"] - before) / number < 650
    store.close()


def test_no_key_has_a_time_to_live(store: RedisStore, redis_server: str) -> None:
    """Whatever happens, a server never forgets a job by itself."""
    store.enroll(member("s1", "supervisor"))
    store.add(many(1500, "batch"))
    add(store, "a", unique="k", max_retries=1)
    add(store, "later", run_at=NOW + 5)
    store.configure({"queue.q.paused": "yes"})
    store.tend()
    claim_one(store)
    redis = client(redis_server)
    keys = redis.keys(f"{{{prefix_of(store)}}}:*")
    assert len(keys) > 8
    assert {redis.ttl(key) for key in keys} == {-1}
    store.leave("s1")


def test_a_large_batch_is_added_in_parts(store: RedisStore, opened: Open) -> None:
    """In its order, with those that wait for others of it, whichever part these are in."""
    jobs = many(3000)
    jobs[0] = new_job("job0", after=("job2500",), after_any=("there", "job2999"))
    jobs[1] = new_job("job1", after=("job2500",))
    jobs[2500] = new_job("job2500", dependents=2)
    jobs[2999] = new_job("job2999", dependents=1, unique="k")
    (there,) = add(store, "there")
    added = store.add(jobs, [job.id for job in jobs], [rules.awaited(there, NOW, 1)])
    assert [job.seq for job in added] == list(range(2, 3002))
    assert added[0].parents == (2502, -1, -3001)
    other = opened()
    assert list(other.select(JobState.ALL))[:-1] == added[::-1]
    assert other.counts() == Counts(pending=3001)
    assert other.enqueued() == 3001
    assert ids([other.holder("k")]) == ["job2999"]
    with pytest.raises(DuplicateIdError):
        other.add([*many(1200, "x"), new_job("job7")], ["job7"])
    with pytest.raises(KeyTakenError):
        other.add([*many(1200, "x"), new_job("y", unique="k")])
    assert other.enqueued() == 3001
    held = claim_one(store)
    assert held.id == "there"
    assert claim_one(store).id == "job2"
    begun = [rules.claim(added[at], "w2", NOW) for at in (2500, 2999)]
    store.save(begun)
    store.save([rules.complete(job, NOW) for job in [held, *begun[:1]]])
    assert claim_one(store).id == "job1"
    store.save([rules.complete(begun[1], NOW)])
    assert claim_one(store).id == "job0"


@pytest.mark.parametrize("held", ["cancelled", "kept"])
def test_a_large_batch_may_take_anothers_key(store: RedisStore, held: str) -> None:
    (old,) = add(store, "old", unique="k")
    jobs = [*many(1100), new_job("new", unique="k")]
    if held == "kept":
        with pytest.raises(KeyTakenError):
            store.add(jobs, [], [rules.awaited(old, NOW, 1)])
        assert ids([store.holder("k")]) == ["old"]
        return
    store.add(jobs, [], [rules.cancel(old, NOW)])
    assert ids([store.holder("k")]) == ["new"]


def test_nothing_is_added_of_a_batch_whose_adder_died_before_its_commit(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are free again before long; a running start also removes what is left of it."""
    names = [f"job{at}" for at in range(2500)]

    def act() -> None:
        adder = opened()
        change = adder._change
        monkeypatch.setattr(
            adder, "_change", lambda name, *a: die() if name == "begin" else change(name, *a)
        )
        adder.add(many(2500), names)

    assert in_child(act) == 9
    assert store.counts() == Counts()
    assert claim(store) is None
    with pytest.raises(DuplicateIdError):
        add(store, "job5")
    redis = client(store.url)
    tag = f"{{{prefix_of(store)}}}:"
    (batch,) = redis.zrange(f"{tag}stages", 0, -1)
    # As if that were so long ago.
    redis.zincrby(f"{tag}stages", -6000, batch)
    assert [job.seq for job in add(store, "job5")] == [1]
    store.enroll(member("s1", "supervisor"))

    def is_clean() -> bool:
        store._people._beat_at = 0.0
        store.tend()
        return not redis.keys(f"{tag}stage*") and not redis.exists(f"{tag}reserved")

    wait_until(is_clean)
    assert len(store.add(many(2500, "new"), [])) == 2500
    store.leave("s1")


def test_a_slow_adder_whose_ids_were_given_to_others_is_refused(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = store._change

    def slow(name: str, *args: Any) -> List[Any]:
        if name == "begin":
            key = f"{{{prefix_of(store)}}}:stages"
            client(store.url).zincrby(key, -6000, args[0])
            add(opened(), "job5")
        return change(name, *args)

    monkeypatch.setattr(store, "_change", slow)
    with pytest.raises(Exception, match="took too long: try again"):
        store.add(many(2500), [f"job{at}" for at in range(2500)])
    assert store.counts() == Counts(pending=1)


def test_all_is_added_of_a_batch_whose_adder_died_after_its_commit(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever comes next; until then nobody else gets its ids, and nobody runs too early."""
    jobs = many(3500)
    jobs[0] = new_job("job0", after=("job3400",))
    jobs[3400] = new_job("job3400", dependents=1)
    names = [job.id for job in jobs]
    add(store, "first")
    first = claim_one(store)

    def act() -> None:
        monkeypatch.setattr(RedisStore, "_settle", die)
        opened().add(jobs, names)

    assert in_child(act) == 9
    assert store.enqueued() == 3501
    with pytest.raises(DuplicateIdError):
        add(store, "job3499")
    # Who claims is one who comes; who opens is another.
    assert claim_one(store, done=rules.complete(first, NOW)).id == "job1"
    assert opened().counts() == Counts(pending=3499, processing=1, completed=1)
    assert [job.seq for job in add(store, "last")] == [3502]
    assert sorted(run_all(store)) == sorted([*names[2:], "job0", "last"])


def test_a_supervisor_goes_on_with_what_the_dead_left_to_do(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.enroll(member("s1", "supervisor"))

    def act() -> None:
        monkeypatch.setattr(RedisStore, "_settle", die)
        opened().add(many(3500))

    assert in_child(act) == 9

    def is_whole() -> bool:
        store._people._beat_at = 0.0
        store.tend()
        return store.counts() == Counts(pending=3500)

    wait_until(is_whole)
    store.leave("s1")


def test_a_retry_that_is_due_is_listed_once(store: RedisStore) -> None:
    """Wherever it stands."""
    add(store, "a", "b")
    failed = run_and_fail(store, NOW + 1)
    assert store.claimable(NOW + 1, HORIZON)
    assert store.claimable(NOW + 1, HORIZON, ["default"])
    pending = store.get("b")
    assert list(store.select(JobState.ALL)) == [pending, failed]
    assert list(store.select(["failed"])) == [failed]
    assert list(store.select(["pending"])) == [pending]


def test_many_dependents_are_freed_in_parts(store: RedisStore) -> None:
    """No script frees more than a thousand; whoever comes goes on, and drains see what is left."""
    (parent,) = add(store, "parent")
    children = [new_job(f"child{at}", after=("parent",)) for at in range(5000)]
    store.add(children, [], [rules.awaited(parent, NOW, 5000)])
    held = claim_one(store)
    assert claim(store) is None
    assert not store.claimable(NOW, HORIZON)
    store.save([rules.complete(held, NOW)])
    redis, tag = client(store.url), f"{{{prefix_of(store)}}}:"
    assert redis.zcard(f"{tag}lane:default:0") == 1000
    assert redis.zcard(f"{tag}unsettled") == 1
    assert store.claimable(NOW, HORIZON)
    assert redis.zcard(f"{tag}lane:default:0") == 2000
    assert ids([claim(store, queues=["none"])]) == [None]
    assert redis.zcard(f"{tag}lane:default:0") == 5000
    assert not redis.exists(f"{tag}unsettled", f"{tag}held")
    assert ids([claim(store), claim(store)]) == ["child0", "child1"]


def test_who_was_not_placed_anew_yet_is_not_claimed(store: RedisStore) -> None:
    """A parent that begins anew keeps all its children at once, wherever they still stand."""
    (parent,) = add(store, "parent", max_retries=1)
    children = [new_job(f"child{at}", after_any=("parent",)) for at in range(6000)]
    store.add(children, [], [rules.awaited(parent, NOW, 6000)])
    dead = rules.fail(claim_one(store), NOW, "Exit code 1", 0)
    store.save([dead])
    redis, lane = client(store.url), f"{{{prefix_of(store)}}}:lane:default:0"
    assert not store.claimable(NOW, HORIZON, ["none"])
    assert redis.zcard(lane) == 6000
    store.save([rules.retry(dead, NOW)])
    assert redis.zcard(lane) == 5001
    assert claim_all(store) == ["parent"]
    assert not store.claimable(NOW, HORIZON)
    store.save([rules.complete(current(store, "parent"), NOW)])
    assert not store.claimable(NOW, HORIZON, ["none"])
    assert redis.zcard(lane) == 6000


def test_a_parent_that_is_removed_leaves_nothing(store: RedisStore) -> None:
    (parent,) = add(store, "parent")
    children = [new_job(f"child{at}", after=("parent",)) for at in range(1500)]
    store.add(children, [], [rules.awaited(parent, NOW, 1500)])
    store.remove([current(store, "parent")])
    assert claim_one(store).id == "child0"
    store.remove(list(store.select(JobState.ALL)))
    redis, tag = client(store.url), f"{{{prefix_of(store)}}}:"
    left = {key.decode()[len(tag) :] for key in redis.keys(f"{tag}*")}
    assert left - {"lanes"} == {"meta", "totals"}
    assert store.counts() == Counts()


def test_many_fall_due_in_parts(store: RedisStore) -> None:
    store.add(many(2500, run_at=NOW + 5))
    add(store, "urgent", run_at=NOW + 5, priority=1)
    assert claim(store) is None
    assert store.next_due() == NOW + 5
    assert run_all(store, NOW + 5) == ["urgent", *(f"job{at}" for at in range(2500))]


def test_what_many_read_is_whole_and_in_order(store: RedisStore) -> None:
    """In several parts, and of several states and queues."""
    jobs = store.add(
        [new_job(f"job{at}", queue=f"q{at % 3}", priority=at % 2) for at in range(5000)]
    )
    store.save([rules.cancel(job, NOW) for job in jobs[1000:4000:2]])
    cancelled = {job.id for job in jobs[1000:4000:2]}
    assert ids(list(store.select(JobState.ALL))) == ids(jobs[::-1])
    assert ids(list(store.select(["cancelled"]))) == [j.id for j in jobs[::-1] if j.id in cancelled]
    assert len(list(store.select(["pending"], 3333))) == 3333
    count, reading = store.dump()
    assert (count, ids(list(reading))) == (5000, ids(jobs))
    with store.watch([job.id for job in jobs]) as watch:
        assert len(list(watch.look())) == 5000
        claim_one(store)
        assert len(list(watch.look())) == 1


def test_a_store_that_was_flushed_is_gone(own_server: Server) -> None:
    """Whoever had it open is told so, also if another was made in its place."""
    store = RedisStore(own_server.url)
    add(store, "a")
    held = claim_one(store)
    own_server.client().flushdb()
    acts: Dict[str, Callable[[], Any]] = {
        "read": lambda: store.get("a"),
        "counts": store.counts,
        "claim": lambda: claim(store),
        "done": lambda: claim(store, done=rules.complete(held, NOW)),
        "save": lambda: store.save([rules.complete(held, NOW)]),
        "add": lambda: add(store, "b"),
        "settings": store.settings,
        "configure": lambda: store.configure({"max_retries": "3"}),
        "current": lambda: store.current(held),
        "select": lambda: list(store.select(JobState.ALL)),
        "enroll": lambda: store.enroll(member("w1")),
    }
    for _ in range(2):
        for act in acts.values():
            with pytest.raises(StoreGoneError, match=r"store redis://.* was removed$"):
                act()
        assert own_server.client().keys("*hash*") == []
        other = RedisStore(own_server.url)
        assert other.counts() == Counts()
        other.close()
    store.close()


def test_a_claim_whose_answer_was_lost_is_made_once(own_server: Server, cable: Cable) -> None:
    """Who asks again gets the job that it holds already; what it had done is saved once."""
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    add(store, "a", "b", "c")
    done = rules.complete(claim_one(store), NOW)
    cable.swallows = True
    with pytest.raises(StoreAwayError):
        claim(store, done=done)
    assert store.counts() == Counts(pending=1, processing=1, completed=1)
    assert ids([claim(store, done=done)]) == ["b"]
    assert ids([claim(store)]) == ["c"]
    assert store.totals()["completed"] == 1
    with pytest.raises(ClaimLostError):
        claim(store, done=done)
    store.close()


def test_a_claim_whose_answer_was_lost_is_found_also_by_an_idle_worker(
    own_server: Server, cable: Cable
) -> None:
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    add(store, "a")
    calls = []

    def wanted() -> bool:
        # Asked just before the claim.
        cable.swallows = not calls
        calls.append(1)
        return True

    with pytest.raises(StoreAwayError):
        store.claim("w1", NOW, HORIZON, None, wanted)
    assert ids([claim(store)]) == ["a"]
    store.close()


def test_a_worker_that_leaves_with_a_claim_it_never_heard_of_is_rescued(
    own_server: Server, cable: Cable
) -> None:
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    other = RedisStore(own_server.url)
    store.enroll(member("w1"))
    other.enroll(member("s2", "supervisor"))
    add(other, "a", "b")
    done = rules.complete(claim_one(store), NOW)
    cable.swallows = True
    with pytest.raises(StoreAwayError):
        claim(store, done=done)
    store.save([done])
    store.leave("w1")
    other.tend()
    assert names(other.lost()) == [("w1", "b")]
    other.leave("s2")
    for each in (store, other):
        each.close()


def test_an_add_whose_answer_was_lost_says_so(own_server: Server, cable: Cable) -> None:
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    add(store, "first")
    cable.swallows = True
    with pytest.raises(OutcomeUnknownError, match="its outcome is unknown: cannot reach redis://"):
        add(store, "a")
    assert ids([store.get("a")]) == ["a"]
    store.close()


def test_a_connection_that_was_closed_meanwhile_is_opened_again(own_server: Server) -> None:
    """Nothing was asked on it, so nothing can be lost."""
    store = RedisStore(own_server.url)
    own_server.client().client_kill_filter(_type="normal")
    store._link._used_at -= 2
    assert len(add(store, "a")) == 1
    store.close()


def test_connections_may_break_as_often_as_they_do(own_server: Server) -> None:
    store = RedisStore(own_server.url)
    for _ in range(150):
        store._link.close()
        assert store.counts() == Counts()
    store.close()


def other_machine(opened: Open, monkeypatch: pytest.MonkeyPatch, folder: Path) -> RedisStore:
    """Open the store as from another machine, whose locks nobody here can see."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        return opened()


def end_leases(store: RedisStore) -> None:
    """As if those who are enrolled had not been heard of for long."""
    redis, key = client(store.url), f"{{{prefix_of(store)}}}:leases"
    for name in redis.zrange(key, 0, -1):
        redis.zadd(key, {name: 0})


def test_the_dead_of_another_machine_are_found_by_their_lease(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By one rescuer at a time; a late result of theirs is refused."""
    far = other_machine(opened, monkeypatch, tmp_path / "far")
    far.enroll(member("w1", host="far"))
    add(store, "a")
    held = claim_one(far)
    store.enroll(member("s1", "supervisor"))
    store.tend()
    assert store.lost() == store.lost(thorough=True) == []
    (seen,) = store.members("worker")
    assert (seen.host, seen.job, seen.run) == ("far", "a", 1)
    end_leases(store)
    assert store.members("worker") == []
    wait_until(lambda: store.tend() is None and store._people._are_lost)
    (lost,) = store.lost()
    assert (lost.member.id, lost.job) == ("w1", held)
    assert store.lost(thorough=True) == opened().lost(thorough=True) == []
    store.save([rules.rescue(held, NOW, 0)])
    store.bury(lost)
    with pytest.raises(ClaimLostError):
        far.save([rules.complete(held, NOW)])
    assert store.lost(thorough=True) == []
    store.leave("s1")


def test_a_lease_is_renewed_while_its_job_runs_and_by_its_supervisor(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also of members that others had taken for dead."""
    far = other_machine(opened, monkeypatch, tmp_path / "far")
    far.enroll(member("s1", "supervisor"))
    far.enroll(member("w1"))
    add(store, "a")
    held = claim_one(far)
    end_leases(store)
    assert far.current(held) == held
    assert ids(store.members("worker")) == ["w1"]
    end_leases(store)
    add(store, "b")
    held = claim_one(far, done=rules.complete(held, NOW))
    assert ids(store.members("worker")) == ["w1"]
    end_leases(store)
    far._people._renewed_at = far._people._beat_at = 0.0
    far.tend()
    assert ids(store.members("worker")) == ["w1"]
    for lost in store.members("worker"):
        store._people.bury(lost.id)
    far._people._renewed_at = far._people._beat_at = 0.0
    far.tend()
    assert ids(store.members("worker")) == ["w1"]


def test_a_supervisor_of_another_machine_is_asked_to_stop(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It wakes up for that; and finds it at its next beat if it missed it."""
    far = other_machine(opened, monkeypatch, tmp_path / "far")
    far.enroll(member("s1", "supervisor", host="far"))
    assert store.ask_to_stop("s1", force=False)
    assert is_readable(far.listen(), 10)
    assert far.hear() == 0
    assert far.stop_asked() is False
    client(store.url).client_kill_filter(_type="pubsub")
    assert store.ask_to_stop("s1", force=True)
    far.hear()
    wait_until(lambda: far.tend() is None and far.stop_asked() is True)
    far.leave("s1")
    assert not store.ask_to_stop("s1", force=False)


def test_news_that_did_not_arrive_wakes_a_supervisor_all_the_same(
    store: RedisStore, opened: Open
) -> None:
    """Within a second or so; and the next arrives at once again."""
    store.enroll(member("s1", "supervisor"))
    store.tend()
    client(store.url).client_kill_filter(_type="pubsub")
    add(opened(), "a", "b")

    def heard() -> bool:
        store.tend()
        return is_readable(store.listen(), 0) and store.hear() > 0

    wait_until(heard, timeout=3)
    store.hear()
    add(opened(), "c")
    assert is_readable(store.listen(), 0.5)
    assert store.hear() == 1
    store.leave("s1")


def test_a_supervisor_that_hears_nothing_any_more_listens_anew(
    own_server: Server, cable: Cable
) -> None:
    """As where the other side of a connection is gone, and nobody could tell."""
    store = RedisStore(f"redis://127.0.0.1:{cable.port}/0")
    other = RedisStore(own_server.url)
    store.enroll(member("s1", "supervisor"))
    store.tend()
    cable.mute_newest()
    for name in ("a", "b"):
        add(other, name)
        wait_until(lambda: store.tend() is None and is_readable(store.listen(), 0))
        assert store.hear() == 1
    add(other, "c")
    assert is_readable(store.listen(), 5)
    assert store.hear() == 1
    store.leave("s1")
    for each in (store, other):
        each.close()


def test_a_worker_that_others_took_for_dead_joins_again_before_it_claims(
    store: RedisStore, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else whoever looks for claims of workers that nobody knows would take its job from it."""
    far = other_machine(opened, monkeypatch, tmp_path / "far")
    far.enroll(member("w1"))
    add(store, "a", "b")
    store.bury(Lost(member("w1"), None))
    assert store.members("worker") == []
    assert claim_one(far).id == "a"
    assert ids(store.members("worker")) == ["w1"]
    assert store.lost(thorough=True) == []
    # Its burial was under way when it claimed.
    store.bury(Lost(member("w1"), None))
    assert ids(store.members("worker")) == ["w1"]
    assert store.lost(thorough=True) == []


def test_nobody_claims_under_a_supervisor_that_has_stopped(store: RedisStore) -> None:
    """Not even one who asked whether it should just before."""
    supervisor = member("s1", "supervisor")
    store.enroll(supervisor)
    add(store, "a")
    store.note(supervisor._replace(stopping=True))
    assert claim(store) is None
    store.leave("s1")
    assert ids([claim(store)]) == ["a"]


def test_a_member_goes_by_new_settings_within_a_second(store: RedisStore, opened: Open) -> None:
    """Without asking the server at each claim; a claim tells at once that they changed."""
    store.enroll(member("w1"))
    before = store.settings()
    add(store, "a", "b")
    claim_one(store)
    assert store.settings() is not None
    opened().configure({"lease": "9s"})
    claim_one(store)
    assert store.settings() == {**before, "lease": "9s"}
    assert store.claim_lasts == 9
    opened().configure({"lease": "8s"})
    wait_until(lambda: store.settings() == {"lease": "8s"}, timeout=3)
    store.leave("w1")


def test_the_time_is_that_of_the_server(store: RedisStore) -> None:
    seconds, microseconds = client(store.url).time()
    assert abs(store.now() - (seconds + microseconds / 1e6)) < 0.5
    assert store.now() == round(store.now(), 3)
    assert 0 <= store.age() < 30


def test_the_time_is_never_ahead_of_that_of_the_server(store: RedisStore) -> None:
    redis = client(store.url)
    for _ in range(300):
        store._clock_at = -math.inf
        store.now()
        # At another part of a millisecond each time.
        time.sleep(0.0003)
        now = store.now()
        seconds, microseconds = redis.time()
        assert now <= seconds + microseconds / 1e6


def test_machines_that_share_a_home_do_not_look_at_each_others_locks(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where each may hold a lock that no other sees."""
    here = opened()
    with monkeypatch.context() as patch:
        patch.setattr(local, "host", lambda: "far/away")
        there = opened()
    there.enroll(member("w1"))
    folders = {os.path.dirname(os.path.dirname(store.spool("w1"))) for store in (here, there)}
    assert [folder for folder in sorted(folders) if folder.endswith("@far%2Faway")]
    assert len(folders) == 2
    assert [each.id for each in here.members("worker")] == ["w1"]
    assert here.lost(thorough=True) == []
    there.leave("w1")


def test_prefixes_are_stores_of_their_own(redis_server: str, opened: Open) -> None:
    first, second = opened(new_store(redis_server)), opened(new_store(redis_server))
    add(first, "a")
    assert second.counts() == Counts()
    assert ids([claim(second), claim(first)]) == [None, "a"]


def test_it_is_opened_by_its_url(redis_url: str) -> None:
    store: Store = open_store(redis_url, True, lambda text: None)
    assert store.url == redis_url
    assert isinstance(store, RedisStore)
    store.close()


def test_an_output_left_by_another_job_of_that_id_is_not_taken_for_its_own(
    store: RedisStore,
) -> None:
    """As that of one that was purged on another machine."""
    kept = Path(store.kept_output("a", 1))
    kept.parent.mkdir(parents=True)
    kept.write_text("stale")
    add(store, "a")
    claim_one(store)
    assert not kept.exists()


def test_an_idle_store_asks_for_little(own_server: Server) -> None:
    """A supervisor that looks four times a second sends one command in each."""
    store = RedisStore(own_server.url)
    store.enroll(member("s1", "supervisor"))
    store.settings()
    redis = own_server.client()
    before = redis.info("stats")["total_commands_processed"]
    began = time.monotonic()
    while time.monotonic() < began + 2.2:
        store.tend()
        store.lost()
        time.sleep(0.05)
    counted = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert counted <= 6
    assert redis.info("stats")["total_commands_processed"] > before
    store.leave("s1")
    store.close()
