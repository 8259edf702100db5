"""What is damaged is found, at its place; and a repair keeps what is whole, whenever it dies."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set
from zlib import crc32

import pytest

from queuectl.errors import StoreError
from queuectl.job import Job
from queuectl.store.base import Member
from queuectl.store.head import HEADS
from queuectl.store.journal import commit_line, parse_commit
from queuectl.store.repair import Repaired
from queuectl.testing.common import NOW, add, claim_one, everything, new_job, run_and_complete
from test_store_crash import KILLED, die_at
from test_store_tools import (
    NOBODY,
    Child,
    Disk,
    Sample,
    flip,
    needs_root,
    shown,
    zero,
)

EVERY = 11


@pytest.fixture
def rich(disk: Disk) -> Disk:
    """With a history, purged jobs in both files, settings, output, and a running job."""
    store = disk.open()
    add(store, "a", "b", "c", "d", "e", "f")
    done = [run_and_complete(store) for _ in range(3)]
    assert store.rewrite()
    found = store.get("f")
    assert found is not None
    store.remove([done[0], found])
    run_and_complete(store)
    claim_one(store)
    store.configure({"max_retries": "7"})
    disk.close()
    assert disk.damage() == []
    return disk


@pytest.fixture
def history(rich: Disk) -> Path:
    return rich.path / "history-1.jsonl"


def files(disk: Disk) -> Dict[str, bytes]:
    """What is in the folder, but for locks, which hold nothing."""
    return {
        str(path.relative_to(disk.path)): path.read_bytes()
        for path in disk.path.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def copied(disk: Disk, repaired: Repaired) -> Dict[str, bytes]:
    assert repaired.copy is not None
    copy = Path(repaired.copy)
    return {
        str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()
    }


def repaired_whole(disk: Disk, before: List[Job]) -> Repaired:
    """Repair, and see that every job is as it was unless it is named."""
    old = files(disk)
    repaired = disk.repair()
    assert repaired.left == []
    assert repaired.copy is not None
    assert copied(disk, repaired) == old
    now = {job.id: job for job in shown(disk)}
    named = {*repaired.lost, *repaired.reverted, *repaired.unchecked, *repaired.held}
    missing = changed = 0
    for job in before:
        if job.id in named:
            continue
        if job.id not in now:
            missing += 1
        elif now[job.id] != job:
            assert now[job.id].rev < job.rev
            changed += 1
    # Where the letters of an id are spoilt, that is lost which never was.
    assert missing <= repaired.unnamed + len(set(repaired.lost) - {job.id for job in before})
    assert changed <= repaired.unreadable
    disk.verify()
    assert [finding.level for finding in disk.examine()] == ["note"] * len(disk.examine())
    store = disk.open()
    (added,) = store.add([new_job("later")], ["later"])
    assert added.seq > max([0, *(job.seq for job in now.values())])
    while store.claim("w9", NOW + 99, 3600) is not None:
        pass
    store.rewrite()
    disk.verify()
    assert disk.repair().copy is None
    return repaired


def clear(disk: Disk) -> None:
    disk.close()
    for path in list(disk.path.iterdir()) if disk.path.exists() else []:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def lay(disk: Disk, data: bytes) -> None:
    clear(disk)
    disk.put(data)
    disk.path.chmod(0o700)


def last_meta(sample: Sample) -> Dict[str, Any]:
    """What the last commit line of the sample notes."""
    line = sample.data[sample.data.rindex(b'{"commit":') : -1]
    return parse_commit("", line, 0).meta


class TestJobFile:
    @pytest.mark.parametrize("first", range(4))
    def test_a_flipped_bit_anywhere(self, sample: Sample, disk: Disk, first: int) -> None:
        for at in range(first * EVERY, len(sample.data), 4 * EVERY):
            lay(disk, sample.data)
            flip(disk, at, at % 8)
            before = files(disk)
            damage = disk.damage()
            assert files(disk) == before
            if at >= sample.data.rindex(b'{"commit":') and not damage:
                # A last commit line that is none is that of an unfinished change.
                continue
            assert [(one.file, one.offset) for one in damage[:1]] == [
                (str(disk.jobs), sample.begin(at))
            ]
            repaired = repaired_whole(disk, sample.jobs[-1])
            told = HEADS.match(sample.data, sample.data.rfind(b"\n", 0, at) + 1)
            assert repaired.unnamed <= 1
            if told is not None and not repaired.unreadable:
                # Its head is whole, but perhaps the letter of the id.
                assert told[1].decode() in damage[0].ids or at == told.start(1)

    def test_every_job_of_a_flipped_line_is_told(self, sample: Sample, disk: Disk) -> None:
        """Its newest line spoilt, a job is back in its state before, or lost if it had none."""
        for job_id, expected in (
            ("a", "reverted"),
            ("b", "reverted"),
            ("d", "lost"),
            ("e", "lost"),
        ):
            lay(disk, sample.data)
            at = sample.data.rindex(b'{"id":"%s"' % job_id.encode())
            zero(disk, at + 40, at + 41)
            assert disk.damage()[0].ids[0] == job_id
            repaired = repaired_whole(disk, sample.jobs[-1])
            assert job_id in getattr(repaired, expected)
            assert repaired.unnamed == 0

    def test_an_older_line_that_is_spoilt_costs_nothing(self, sample: Sample, disk: Disk) -> None:
        lay(disk, sample.data)
        at = sample.data.index(b'{"id":"a"')
        zero(disk, at + 40, at + 41)
        repaired = repaired_whole(disk, sample.jobs[-1])
        assert (repaired.lost, repaired.reverted, repaired.unnamed) == ([], [], 0)
        assert (repaired.unchecked) == []

    def test_lines_that_are_lost_doubled_and_moved(self, sample: Sample, disk: Disk) -> None:
        lines = sample.data.splitlines(keepends=True)
        for at in range(1, len(lines) - 2):
            start = sum(map(len, lines[:at]))
            doubled = [*lines[:at], lines[at], *lines[at:]]
            moved = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
            for changed in ([*lines[:at], *lines[at + 1 :]], doubled, moved):
                lay(disk, b"".join(changed))
                damage = disk.damage()
                assert damage
                assert damage[0].file == str(disk.jobs)
                assert sample.begin(start) <= (damage[0].offset or 0) <= start + len(lines[at])
                repaired = repaired_whole(disk, sample.jobs[-1])
                if changed is doubled or changed is moved:
                    assert {job.id for job in sample.jobs[-1]} < {job.id for job in shown(disk)}
                    assert repaired.lost == []

    def test_an_old_line_that_turns_up_again_is_not_believed(
        self, sample: Sample, disk: Disk
    ) -> None:
        line = sample.data[sample.data.index(b'{"id":"a"') :].partition(b"\n")[0] + b"\n"
        for at in (sample.data.rindex(b'{"id":"d"'), sample.data.rindex(b'{"id":"b"')):
            lay(disk, sample.data[:at] + line + sample.data[at:])
            assert disk.damage()
            held = disk.repair().held
            assert [job for job in shown(disk) if job.id not in held] == [
                job for job in sample.jobs[-1] if job.id not in held
            ]
            assert set(held) <= {"d", "e"}

    def test_a_hole(self, sample: Sample, disk: Disk) -> None:
        for size in (1, 300, 1500):
            for at in range(0, len(sample.data) - size - 400, 333):
                lay(disk, sample.data)
                zero(disk, at, at + size)
                assert disk.damage()[0].offset == sample.begin(at)
                repaired_whole(disk, sample.jobs[-1])

    def test_two_places(self, sample: Sample, disk: Disk) -> None:
        lay(disk, sample.data)
        places = [sample.ends[1] + 30, sample.ends[4] + 30]
        for at in places:
            flip(disk, at, 0)
        assert [one.offset for one in disk.damage()] == [sample.ends[1], sample.ends[4]]
        repaired_whole(disk, sample.jobs[-1])

    def test_nothing_but_garbage(self, sample: Sample, disk: Disk) -> None:
        for data in (b"", b"\n", b"hello\n", b"\0" * 9000, os.urandom(9000)):
            lay(disk, data)
            assert disk.damage()[0].offset == 0
            repaired_whole(disk, [])

    def test_a_commit_that_was_acknowledged_is_missed(self, sample: Sample, disk: Disk) -> None:
        lay(disk, sample.data)
        disk.boot.write_text(disk.boot.read_text()[:37] + f"{6:016d}\n")
        assert disk.damage() == []
        for end in (sample.last, sample.last + 30, len(sample.data) - 1):
            lay(disk, sample.data[:end])
            disk.boot.write_text(disk.boot.read_text()[:37] + f"{6:016d}\n")
            (damage,) = disk.damage()
            assert (damage.offset, damage.message) == (
                sample.last,
                "what follows up to commit 6 is missing",
            )
            # Of what was cut short something is left.
            assert repaired_whole(disk, sample.jobs[-2]).missing == (end == sample.last)
        lay(disk, sample.data[: sample.ends[1]])
        disk.boot.write_text(disk.boot.read_text()[:37] + f"{6:016d}\n")
        assert repaired_whole(disk, sample.jobs[1]).missing == 5

    def test_commits_that_are_cut_out_are_counted(self, sample: Sample, disk: Disk) -> None:
        lay(disk, sample.data[: sample.ends[1]] + sample.data[sample.ends[3] :])
        assert disk.damage()[0].message == "commits 2 to 4 are damaged"
        assert disk.repair().missing == 2
        lay(disk, sample.data)
        flip(disk, sample.ends[3] - 20, 1)
        flip(disk, sample.ends[2] - 20, 1)
        assert disk.repair().missing == 0
        lay(disk, b"")
        disk.boot.write_text(disk.boot.read_text()[:37] + f"{6:016d}\n")
        assert disk.repair().missing == 7

    def test_what_the_next_writer_cuts_is_no_damage(self, sample: Sample, disk: Disk) -> None:
        lay(disk, sample.data + b'{"id":"half')
        (note,) = [one for one in disk.examine() if one.offset is not None]
        assert (note.level, note.offset) == ("note", len(sample.data))
        assert disk.repair().lost == []
        lay(disk, sample.data)
        disk.reboot()
        zero(disk, sample.ends[2] + 5, sample.ends[3] + 5)
        (note,) = [one for one in disk.examine() if one.offset is not None]
        assert (note.level, note.offset) == ("note", sample.ends[2])

    def test_commits_that_say_what_the_lines_do_not(self, sample: Sample, disk: Disk) -> None:
        """Their checksums are right, so nothing but counting shows it."""
        body = sample.data[: sample.data.rindex(b'{"commit":')]
        meta = last_meta(sample)
        good = body + commit_line(6, meta, crc32(body))
        assert good == sample.data
        wrong = {**meta, "counts": {**sample.counts[-1]._asdict(), "dead": 1}}
        more = ({"seq": 6}, {"purged": 1}, {"lines": 8}, {"running": {"q": 1}}, {"bound": 1})
        for spoilt in (wrong, *({**meta, **values} for values in more)):
            lay(disk, body + commit_line(6, spoilt, crc32(body)))
            damage, *_ = disk.damage()
            assert damage.offset == len(body)
            assert damage.message.startswith("the commit says ")
            disk.repair()
            assert shown(disk) == sample.jobs[-1]
            disk.verify()

    def test_records_that_cannot_be_worked_with(self, sample: Sample, disk: Disk) -> None:
        for old, new in (
            (b'"max_retries":3', b'"max_retries":"3"'),
            (b'"cwd":"/"', b'"cdw":"/"'),
            (b'"created_at":"2', b'"created_at":"x'),
        ):
            at = sample.data.rindex(b'{"id":"e"')
            line, _, _ = sample.data[at:].partition(b"\n")
            body = sample.data[:at] + line.replace(old, new) + b"\n"
            meta = last_meta(sample)
            lay(disk, body + commit_line(6, meta, crc32(body)))
            (damage,) = disk.damage()
            assert (damage.offset, damage.ids) == (at, ("e",))
            assert repaired_whole(disk, sample.jobs[-1]).lost == ["e"]

    def test_an_id_twice(self, sample: Sample, disk: Disk) -> None:
        at = sample.data.rindex(b'{"id":"e"')
        line, _, _ = sample.data[at:].partition(b"\n")
        body = sample.data[:at] + line.replace(b'"id":"e"', b'"id":"d"') + b"\n"
        meta = last_meta(sample)
        lay(disk, body + commit_line(6, meta, crc32(body)))
        assert any("another job has the id d" in one.message for one in disk.damage())
        disk.repair()
        assert [job.id for job in shown(disk)].count("d") == 1
        disk.verify()

    def test_a_missing_one_is_made_of_the_history(self, rich: Disk) -> None:
        before = shown(rich)
        rich.jobs.unlink()
        assert rich.damage()[0].message == "the job file is missing"
        rich.repair()
        assert {job.id for job in shown(rich)} == {"a", "b", "c"}
        assert [job for job in before if job.id in "bc"] == [
            job for job in shown(rich) if job.id in "bc"
        ]
        rich.verify()

    def test_a_damaged_header_keeps_the_history(self, rich: Disk) -> None:
        before = shown(rich)
        whole = files(rich)
        for at in range(0, whole["jobs.jsonl"].index(b"\n") + 1, 5):
            clear(rich)
            for name, data in whole.items():
                (rich.path / name).write_bytes(data)
            flip(rich, at, at % 7)
            assert rich.damage()[0].offset == 0
            repaired_whole(rich, before)
            assert {job.id for job in before} <= {job.id for job in shown(rich)}


class TestHistory:
    def test_a_flipped_bit_anywhere(self, rich: Disk, history: Path) -> None:
        before, whole = shown(rich), files(rich)
        for at in range(0, len(whole[history.name]), 17):
            clear(rich)
            for name, data in whole.items():
                (rich.path / name).write_bytes(data)
            data = bytearray(whole[history.name])
            data[at] ^= 1 << at % 8
            history.write_bytes(data)
            damage = rich.damage()
            assert damage[0].file == str(history)
            assert (damage[0].offset or 0) <= at
            repaired_whole(rich, before)

    def test_a_short_and_a_missing_one(self, rich: Disk, history: Path) -> None:
        before, whole = shown(rich), files(rich)
        for length in (None, 0, 100, len(whole[history.name]) - 1):
            clear(rich)
            for name, data in whole.items():
                (rich.path / name).write_bytes(data)
            if length is None:
                history.unlink()
            else:
                history.write_bytes(whole[history.name][:length])
            damage, *_ = rich.damage()
            assert (damage.file, damage.offset) == (str(history), length or 0)
            repaired_whole(rich, before)

    def test_a_whole_one_stays(self, rich: Disk, history: Path) -> None:
        before = history.read_bytes()
        jobs = rich.jobs.read_bytes()
        rich.jobs.write_bytes(jobs.replace(b'"id":"e"', b'"id":"E"'))
        assert rich.repair().left == []
        assert history.read_bytes() == before
        rich.verify()

    def test_what_does_not_count_is_noted(self, rich: Disk, history: Path) -> None:
        size = history.stat().st_size
        with history.open("ab") as file:
            file.write(b"more")
        (rich.path / "history-7.jsonl").write_bytes(b"")
        found = {Path(one.file).name: one for one in rich.examine()}
        assert (found["history-1.jsonl"].level, found["history-1.jsonl"].offset) == ("note", size)
        assert found["history-7.jsonl"].level == "note"


class Beside(NamedTuple):
    """Something beside the job file: how it comes about, what is said of it, and how loud."""

    make: Callable[[Disk], object]
    file: str
    says: str
    level: str


def unreadable_settings(disk: Disk) -> None:
    (disk.path / "settings.json").write_text('{"max_retries": ')


def bad_setting(disk: Disk) -> None:
    (disk.path / "settings.json").write_text('{"max_retries": "x", "shell": "/bin/sh"}')


def output_of_nobody(disk: Disk) -> None:
    (disk.path / "logs").mkdir(mode=0o700)
    (disk.path / "logs" / "0a").mkdir(mode=0o700)
    path = disk.path / "logs" / "0a" / "gone.1.log"
    path.write_text("hello")
    os.utime(path, (NOW, NOW))


def stranger(disk: Disk) -> None:
    (disk.path / "workers").mkdir(mode=0o700, exist_ok=True)
    (disk.path / "workers" / "evil.sh").write_text("x")


def dead_worker(disk: Disk) -> None:
    (disk.path / "workers").mkdir(mode=0o700, exist_ok=True)
    (disk.path / "workers" / "w7.lock").write_text("")


BESIDE = {
    "settings": Beside(unreadable_settings, "settings.json", "it is not JSON", "damage"),
    "a setting": Beside(bad_setting, "settings.json", "bad value for max_retries", "damage"),
    "folder": Beside(lambda disk: disk.path.chmod(0o770), "", "written by others", "damage"),
    "file": Beside(lambda disk: disk.jobs.chmod(0o606), "jobs.jsonl", "written by ot", "damage"),
    "to read": Beside(lambda disk: disk.jobs.chmod(0o640), "jobs.jsonl", "read by others", "note"),
    "stranger": Beside(stranger, "workers/evil.sh", "no file of a worker", "damage"),
    "dead": Beside(dead_worker, "workers", "the next start clears", "note"),
    "output": Beside(output_of_nobody, "logs", "1 file of output of jobs that are no", "note"),
    "unsynced": Beside(
        lambda disk: disk.unsynced.touch(0o600), "jobs.unsynced", "did not confirm", "note"
    ),
    "torn": Beside(
        lambda disk: (disk.path / "torn-2.jsonl").touch(0o600), "torn-2.jsonl", "kept", "note"
    ),
    "unfinished": Beside(
        lambda disk: (disk.path / "jobs.jsonl.new").touch(0o600), "jobs.jsonl.new", "end", "note"
    ),
}


@pytest.mark.parametrize("case", BESIDE.values(), ids=BESIDE)
def test_what_lies_beside(case: Beside, rich: Disk) -> None:
    before = shown(rich)
    old = {(one.file, one.message) for one in rich.examine()}
    case.make(rich)
    found = [one for one in rich.examine() if (one.file, one.message) not in old]
    (finding,) = [one for one in found if case.says in one.message]
    assert finding.file == str(rich.path / case.file).rstrip("/")
    assert finding.level == case.level
    was = files(rich)
    repaired = rich.repair()
    assert (repaired.copy is not None) == (case.level == "damage" or case.file == "jobs.jsonl")
    assert rich.damage() == list(repaired.left) == []
    assert shown(rich) == before
    assert rich.jobs.read_bytes() == was["jobs.jsonl"]
    if "settings" in case.file:
        assert rich.open().settings() == ({"shell": "/bin/sh"} if case.make is bad_setting else {})
        assert repaired.copy is not None
        assert (Path(repaired.copy) / "settings.json").read_bytes() == was["settings.json"]
    if case.make is output_of_nobody:
        assert (rich.path / "logs" / "0a" / "gone.1.log").exists()


@needs_root
def test_a_store_of_somebody_else_is_not_repaired(rich: Disk) -> None:
    os.chown(rich.path, NOBODY, -1)
    assert any("belongs to" in one.message for one in rich.damage())
    with pytest.raises(StoreError, match="belongs to"):
        rich.repair()
    os.chown(rich.path, 0, -1)


@needs_root
def test_a_store_that_can_only_be_read(rich: Disk) -> None:
    flip(rich, 30, 1)
    for path in [rich.path, *rich.path.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o500 if path.is_dir() else 0o400)
    rich.path.parent.chmod(0o711)
    before = files(rich)

    def act() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert [one.offset for one in rich.damage() if one.offset is not None] == [0]
        with pytest.raises(StoreError, match=r"ermission denied: chmod u\+rwx "):
            rich.repair()

    Child(act).finish()
    assert files(rich) == before
    os.chown(rich.path, 0, 0)


def test_a_running_job_of_a_dead_worker_is_noted(rich: Disk) -> None:
    (note,) = [one for one in rich.examine() if "dead workers" in one.message]
    assert (note.level, note.ids) == ("note", ("e",))


def test_nobody_is_repaired_under_a_worker(rich: Disk) -> None:
    store = rich.open()
    store.enroll(Member("s1", "supervisor", "start", os.getpid(), "host", "2025", "s1"))
    assert not any("dead workers" in one.message for one in rich.examine())
    flip(rich, 30, 1)
    before = files(rich)

    def act() -> None:
        with pytest.raises(StoreError, match="queuectl stop"):
            rich.repair()

    child = Child(act)
    child.finish()
    assert files(rich) == before
    store.leave("s1")


DAMAGES: Dict[str, Callable[[Disk], object]] = {
    "job file": lambda disk: flip(disk, disk.jobs.read_bytes().index(b'"id":"e"') + 6, 1),
    "header": lambda disk: flip(disk, 30, 1),
    "history": lambda disk: (disk.path / "history-1.jsonl").write_bytes(b"{"),
    "no job file": lambda disk: disk.jobs.unlink(),
    "settings": unreadable_settings,
    "stranger": stranger,
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", DAMAGES.values(), ids=DAMAGES)
def test_a_repair_that_dies_leaves_the_store_as_it_was_or_repaired(
    spoil: Callable[[Disk], object], rich: Disk
) -> None:
    spoil(rich)
    spoilt = files(rich)
    results: List[str] = []
    after: Optional[List[Job]] = None
    for step in range(1000):
        clear(rich)
        for name, data in spoilt.items():
            (rich.path / name).parent.mkdir(mode=0o700, exist_ok=True)
            (rich.path / name).write_bytes(data)
            (rich.path / name).chmod(0o600)

        def act(step: int = step) -> None:
            die_at(step)
            rich.repair()
            os._exit(0)

        child = Child(act)
        code = os.WEXITSTATUS(os.waitpid(child.pid, 0)[1])
        os.close(child._failure)
        assert code in (0, KILLED)
        copies = [path for path in rich.path.glob("before-repair-*") if path.suffix != ".part"]
        damage = rich.damage()
        if damage:
            # Whatever was changed already is in the copy; of the rest every byte is there.
            now = files(rich)
            for name in spoilt:
                assert now.get(name) == spoilt[name] or copies
            results.append("as before")
            rich.repair()
        else:
            assert len(copies) == 1
            assert (copies[0] / "jobs.boot").read_bytes() == spoilt["jobs.boot"]
            results.append("repaired")
        rich.verify()
        jobs = shown(rich)
        assert after is None or jobs == after
        after = jobs
        if code == 0:
            break
    assert re.fullmatch("(as before,)+(repaired,)+", "".join(f"{one}," for one in results))


def test_ids_of_a_store_with_gaps(disk: Disk) -> None:
    """Numbers far apart cost nothing, and the counts are still those of the lines."""
    store = disk.open()
    for number in range(40):
        jobs = add(store, *(f"j{number}.{each}" for each in range(300)))
        store.remove(jobs[:-1])
    assert store.rewrite()
    disk.verify()
    kept: Set[str] = {job.id for job in everything(store)}
    assert len(kept) == 40
    before = shown(disk)
    flip(disk, disk.jobs.stat().st_size // 2, 0)
    repaired_whole(disk, before)


def test_what_was_changed_in_a_commit_of_one_line_is_not_kept(disk: Disk) -> None:
    """Its commit line is right, and so is the one before it: then the job line is what is wrong."""
    for job_id in ("a", "b", "c"):
        add(disk.open(), job_id)
    disk.close()
    disk.jobs.write_bytes(disk.jobs.read_bytes().replace(b'"id":"b"', b'"id":"x"'))
    assert disk.repair().unchecked == []
    assert sorted(job.id for job in shown(disk)) == ["a", "c"]


def test_a_repair_writes_through_no_link(disk: Disk, tmp_path: Path) -> None:
    """Where others could write, they may have left one."""
    add(disk.open(), "a", "b")
    disk.close()
    disk.jobs.write_bytes(disk.jobs.read_bytes().replace(b'"id":"b"', b'"id":"x"'))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (disk.path / "jobs.jsonl.new").symlink_to(victim)
    disk.repair()
    assert victim.read_text() == "precious"
    assert not disk.jobs.is_symlink()
