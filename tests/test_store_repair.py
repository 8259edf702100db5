"""What is mended unaided, and what is kept beside the job file: loss of power, and the history."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import List
from zlib import crc32

import pytest

from queuectl import job as rules
from queuectl.errors import DamagedError
from queuectl.store.base import Counts
from queuectl.testing.common import HORIZON, NOW, add, claim_one, everything, ids, new_job
from test_store_tools import Disk, Sample, refused_by_all, shown, zero


class TestReboot:
    """Loss of power may leave holes in what was not synced: the first writer after it looks."""

    @pytest.mark.parametrize("spoilt", ["zeros", "garbage", "cut"])
    def test_from_the_first_bad_byte_on_it_is_a_torn_tail(
        self, sample: Sample, disk: Disk, spoilt: str
    ) -> None:
        for commit in range(1, len(sample.ends)):
            begin, end = sample.ends[commit - 1], sample.ends[commit]
            for at in (begin, begin + 20, end - 8):
                hole = {"zeros": b"\0" * 8, "garbage": os.urandom(7) + b"\n", "cut": b""}[spoilt]
                data = sample.data[:at] + hole + sample.data[at + 8 :]
                if spoilt == "cut":
                    data = data[:at]
                disk.put(data)
                disk.reboot()
                store = disk.open()
                (added,) = store.add([new_job("x")])
                before = sample.jobs[commit - 1]
                assert everything(store) == shown(disk) == [added, *before]
                assert disk.torn == ([data[begin:]] if begin < len(data) else [])
                assert len(disk.notices) == len(disk.torn)
                disk.verify()

    def test_zeros_behind_the_last_commit_are_a_torn_tail(self, sample: Sample, disk: Disk) -> None:
        for size in (1, 4096, 1 << 20):
            disk.put(sample.data + b"\0" * size)
            disk.reboot()
            assert shown(disk) == sample.jobs[-1]
            disk.open().add([new_job("x")])
            assert disk.torn == [b"\0" * size]
            disk.verify()

    def test_one_who_only_reads_gets_an_answer_too(self, sample: Sample, disk: Disk) -> None:
        before = sample.jobs[2]
        looks = [
            (everything, before),
            (lambda store: store.get("b"), before[1]),
            (lambda store: sorted(store.find("", 9)), ["a", "b", "c"]),
            (lambda store: store.claimable(NOW, HORIZON), True),
            (lambda store: store.rewrite(), False),
        ]
        for look, expected in looks:
            disk.put(sample.data)
            disk.reboot()
            zero(disk, sample.ends[2] + 5, sample.ends[3] + 5)
            tail = disk.jobs.read_bytes()[sample.ends[2] :]
            assert look(disk.open()) == expected
            assert disk.torn == [tail]
            disk.verify()

    def test_it_is_checked_once(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        disk.reboot()
        disk.open().add([new_job("x")])
        assert disk.torn == []
        zero(disk, sample.ends[2] + 5, sample.ends[2] + 6)
        refused_by_all(disk, sample.ends[2], sample.ends[2] + 5)

    def test_what_was_acknowledged_is_no_torn_tail(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a", "b")
        add(store, "c")
        data = disk.jobs.read_bytes()
        for at in (data.index(b'"b"'), data.index(b'"c"'), len(data) - 9):
            disk.jobs.write_bytes(data[:at] + b"X" + data[at + 1 :])
            disk.reboot()
            for act in (everything, lambda store: store.add([new_job("x")])):
                with pytest.raises(DamagedError):
                    act(disk.open())
            assert disk.torn == []
            assert disk.jobs.stat().st_size == len(data)

    def test_what_was_acknowledged_and_is_cut_off_is_missed(self, disk: Disk) -> None:
        """Also at the end of a commit, and whether or not the machine was booted since."""
        store = disk.open()
        add(store, "a")
        end = disk.jobs.stat().st_size
        add(store, "b")
        disk.close()
        note = disk.boot.read_bytes()
        data = disk.jobs.read_bytes()
        for length in (end, end + 9):
            for has_booted in (False, True):
                disk.jobs.write_bytes(data[:length])
                disk.boot.write_bytes(note)
                if has_booted:
                    disk.reboot()
                for act in (
                    lambda store: store.add([new_job("x")]),
                    lambda store: store.add([new_job("x")], ["x"]),
                    lambda store: store.claim("w", NOW, HORIZON),
                ):
                    with pytest.raises(DamagedError) as caught:
                        act(disk.open())
                    assert caught.value.offset == end
                assert disk.jobs.read_bytes() == data[:length]
                assert disk.torn == []
        disk.repair()
        add(disk.open(), "c")
        assert ids(shown(disk)) == ["c", "a"]

    def test_nor_is_it_cut_because_a_disk_failed_since(self, disk: Disk) -> None:
        add(disk.open(), "a", "b")
        data = disk.jobs.read_bytes()
        at = data.index(b'"b"')
        disk.jobs.write_bytes(data[:at] + b"X" + data[at + 1 :])
        disk.unsynced.touch()
        with pytest.raises(DamagedError):
            disk.open().add([new_job("x")])
        assert (disk.torn, disk.jobs.stat().st_size) == ([], len(data))

    def test_a_torn_tail_is_cut_once_the_disk_holds_its_copy_and_the_name(
        self, sample: Sample, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: List[str] = []
        fsync, ftruncate = os.fsync, os.ftruncate

        def note_sync(fd: int) -> None:
            fsync(fd)
            is_folder = os.path.samestat(os.fstat(fd), os.stat(disk.path))
            done.append("folder" if is_folder else "copy")

        def note_cut(fd: int, length: int) -> None:
            ftruncate(fd, length)
            done.append("cut")

        disk.put(sample.data + b"half")
        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(os, "ftruncate", note_cut)
        disk.open().claim("w", NOW, HORIZON)
        assert done == ["copy", "folder", "cut"]

    def test_behind_what_was_acknowledged_it_is(self, disk: Disk) -> None:
        store = disk.open()
        add(store, "a")
        acknowledged = disk.jobs.stat().st_size
        claim_one(store)
        zero(disk, acknowledged + 5, acknowledged + 6)
        disk.reboot()
        assert [job.state for job in everything(disk.open())] == ["pending"]
        assert len(disk.torn) == 1

    def test_without_a_note_of_the_boot_only_an_unfinished_commit_is_a_torn_tail(
        self, sample: Sample, disk: Disk
    ) -> None:
        disk.put(sample.data + b"half")
        disk.boot.unlink()
        disk.open().add([new_job("x")])
        assert disk.torn == [b"half"]
        assert disk.boot.read_text() != ""
        disk.put(sample.data)
        disk.boot.unlink()
        zero(disk, sample.ends[2] + 5, sample.ends[2] + 6)
        refused_by_all(disk, sample.ends[2], sample.ends[2] + 5)

    @pytest.mark.parametrize("note", [b"\0" * 54, b"x 1", b"x " + b"9" * 5000, b""])
    def test_a_spoiled_note_is_none(self, sample: Sample, disk: Disk, note: bytes) -> None:
        """What it might have vouched for must not be cut for want of it."""
        disk.put(sample.data)
        disk.boot.write_bytes(note)
        zero(disk, sample.ends[2] + 5, sample.ends[2] + 6)
        refused_by_all(disk, sample.ends[2], sample.ends[2] + 5)
        assert disk.torn == []
        disk.put(sample.data + b'{"id":"half')
        disk.boot.write_bytes(note)
        disk.open().add([new_job("x")])
        assert len(disk.torn) == 1

    def test_the_first_commit_cannot_be_a_torn_tail(self, sample: Sample, disk: Disk) -> None:
        """It was synced before the file got its name."""
        header_end = sample.data.index(b"\n") + 1
        for at in (3, header_end + 3):
            disk.put(sample.data)
            disk.reboot()
            zero(disk, at, at + 4)
            with pytest.raises(DamagedError):
                disk.open().add([new_job("x")])
            assert disk.torn == []
            assert disk.jobs.stat().st_size == len(sample.data)

    def test_a_process_of_each_kind_at_once(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        disk.reboot()
        zero(disk, sample.ends[2] + 5, sample.ends[3] + 5)
        stores = [disk.open() for _ in range(3)]
        stores[0].counts()
        added = [
            store.add([new_job(f"x{number}")], ["y"])[0] for number, store in enumerate(stores)
        ]
        for store in stores:
            assert everything(store) == [*added[::-1], *sample.jobs[2]]
        assert len(disk.torn) == 1
        disk.verify()


class TestHistory:
    """Finished jobs that were moved out of the job file are checked like those in it."""

    @pytest.fixture
    def history(self, disk: Disk) -> Path:
        store = disk.open()
        add(store, "a", "b", "c")
        done = [rules.complete(claim_one(store), NOW) for _ in range(2)]
        store.save(done)
        assert store.rewrite()
        disk.close()
        return disk.path / "history-1.jsonl"

    def test_it_holds_the_completed_jobs(self, disk: Disk, history: Path) -> None:
        assert [json.loads(line)["id"] for line in history.read_bytes().splitlines()] == ["a", "b"]
        header, *lines = [json.loads(line) for line in disk.jobs.read_bytes().splitlines()]
        assert [line.get("id") for line in lines] == ["c", None]
        assert header["history"] == {
            "generation": 1,
            "file": "history-1.jsonl",
            "length": history.stat().st_size,
            "crc": f"{crc32(history.read_bytes()):08x}",
            "counts": {"completed": 2},
        }
        assert ids(shown(disk)) == ["c", "b", "a"]

    def test_damage_in_it_stops_whoever_reads_it(self, disk: Disk, history: Path) -> None:
        whole = history.read_bytes()
        for at in range(0, len(whole), 7):
            history.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            store = disk.open()
            for look in (everything, lambda store: store.get("a"), lambda store: add(store, "x")):
                with pytest.raises(DamagedError) as caught:
                    look(store)
                assert caught.value.path == str(history)
            assert store.counts() == Counts(pending=1, completed=2)
        history.write_bytes(whole)
        assert ids(shown(disk)) == ["c", "b", "a"]

    def test_a_shorter_one_is_damaged(self, disk: Disk, history: Path) -> None:
        whole = history.read_bytes()
        for length in (0, 1, len(whole) - 1):
            history.write_bytes(whole[:length])
            with pytest.raises(DamagedError) as caught:
                everything(disk.open())
            assert (caught.value.path, caught.value.offset) == (str(history), length)

    def test_a_missing_one_is_damage(self, disk: Disk, history: Path) -> None:
        history.unlink()
        with pytest.raises(DamagedError) as caught:
            everything(disk.open())
        assert caught.value.path == str(history)
        with pytest.raises(DamagedError):
            disk.open().rewrite()

    def test_what_a_rewrite_that_did_not_end_added_counts_for_nothing(
        self, disk: Disk, history: Path
    ) -> None:
        whole = history.read_bytes()
        more = b'{"id":"z","seq":9,"state":"completed","run_at":null}\n'
        history.write_bytes(whole + more * 100 + more[:20])
        store = disk.open()
        assert ids(everything(store)) == ["c", "b", "a"]
        store.save([rules.complete(claim_one(store), NOW)])
        assert store.rewrite()
        assert history.read_bytes()[: len(whole)] == whole
        assert ids(shown(disk)) == ["c", "b", "a"]
        assert history.read_bytes().count(b"\n") == 3
        assert b'"z"' not in history.read_bytes()

    def test_one_that_is_replaced_while_it_is_opened_is_no_damage(
        self, disk: Disk, history: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, other = disk.open(), disk.open()
        found = other.get("a")
        assert found is not None
        real, pending = os.open, [other]

        def purge_before(path: str, *args: int) -> int:
            if str(path) == str(history) and pending:
                store = pending.pop()
                store.remove([found])
                assert store.rewrite()
            return real(path, *args)

        monkeypatch.setattr(os, "open", purge_before)
        assert ids(everything(reader)) == ["c", "b"]
        assert not history.exists()
        assert disk.notices == [f"created store {disk.path}"]

    def test_a_purge_begins_the_next_one(self, disk: Disk, history: Path) -> None:
        store, reader = disk.open(), disk.open()
        reading = reader.select(["completed"])
        found = store.get("a")
        assert found is not None
        store.remove([found])
        assert store.rewrite()
        assert not history.exists()
        (line,) = (disk.path / "history-2.jsonl").read_bytes().splitlines()
        assert json.loads(line)["id"] == "b"
        assert ids(list(reading)) == ["b", "a"]
        assert ids(everything(reader)) == ids(shown(disk)) == ["c", "b"]
        header = json.loads(disk.jobs.read_bytes().splitlines()[0])
        assert header["totals"] == {"enqueued": 3, "purged": 1}
        assert not store.rewrite_due()
