"""The job file's bytes, what crashes and bad disks make of them, and what is then shown."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import List, Tuple
from zlib import crc32

import pytest

from queuectl import job as rules
from queuectl.errors import DamagedError, StoreError
from queuectl.store.base import Counts
from queuectl.store.file import FileStore
from queuectl.store.journal import Journal, lines_between
from queuectl.testing.common import HORIZON, NOW, claim_one, everything, ids, new_job
from test_store_tools import Disk, Sample, flip, refused_by_all, shown


def with_sum(text: str) -> bytes:
    """Write a header or commit line as the format has it, whatever it says."""
    body = text[:-1].encode("ascii")
    return body + b',"sum":"%08x"}\n' % crc32(body)


class TestFormat:
    """The three kinds of line, which jq and other programs read."""

    def test_every_line_is_json(self, sample: Sample) -> None:
        lines = [json.loads(line) for line in sample.data.splitlines()]
        kinds = [
            "header" if "queuectl" in line else "commit" if "commit" in line else "job"
            for line in lines
        ]
        assert " ".join(kinds) == (
            "header commit job commit job job commit job commit "
            "job job commit job commit job job commit"
        )
        assert lines[0]["queuectl"] == 1
        assert lines[0]["requires"] == []
        assert lines[0]["totals"] == {"enqueued": 0, "purged": 0}
        jobs = {line["id"]: line for line in lines if "id" in line}
        assert [job["state"] for job in jobs.values()] == ["completed", "failed"] + ["pending"] * 3

    def test_a_job_line_begins_with_what_scheduling_needs(self, sample: Sample) -> None:
        begin = re.compile(
            rb'\{"id":"[a-f]","seq":\d+,"state":"[a-z]+","run_at":(null|"[^"]{24}"),"command":'
        )
        jobs = [line for line in sample.data.splitlines() if b'"id":' in line]
        assert len(jobs) == 9
        assert all(begin.match(line) for line in jobs)

    def test_a_commit_line_tells_the_state_of_the_whole_store(self, sample: Sample) -> None:
        commits = [json.loads(line) for line in sample.data.splitlines() if b'"commit"' in line]
        assert [commit["commit"] for commit in commits] == list(range(7))
        assert [commit["seq"] for commit in commits] == [0, 1, 3, 3, 3, 3, 5]
        assert [Counts(**commit["counts"]) for commit in commits] == sample.counts
        assert [commit["lines"] for commit in commits] == [0, 1, 3, 4, 6, 7, 9]

    def test_the_checksum_of_a_commit_covers_every_byte_before_it(self, sample: Sample) -> None:
        for end in sample.ends:
            line = sample.data[:end].splitlines(keepends=True)[-1]
            assert int(json.loads(line)["crc"], 16) == crc32(sample.data[: end - len(line)])


def places(data: bytes, start: int, step: int) -> List[int]:
    """Places from `start` to the end: all around line ends, of what is alike in a line a part."""
    ends = {at for at, byte in enumerate(data) if byte == ord("\n")}
    return [
        at
        for at in range(start, len(data) + 1)
        if (at - start) % step == 0 or not ends.isdisjoint(range(at - 3, at + 4))
    ]


class TestTornTail:
    """Bytes behind the last commit line: a write that did not end."""

    @pytest.mark.slow
    def test_at_every_length_a_whole_prefix_shows_and_the_rest_is_kept(
        self, sample: Sample, disk: Disk
    ) -> None:
        for length in places(sample.data, sample.last, 2)[:-1]:
            disk.put(sample.data[:length])
            assert shown(disk) == sample.jobs[-2]
            assert disk.jobs.stat().st_size == length
            store = disk.open()
            assert store.counts() == sample.counts[-2]
            (added,) = store.add([new_job("x")])
            assert everything(store) == shown(disk) == [added, *sample.jobs[-2]]
            cut = sample.data[sample.last : length]
            if cut:
                assert disk.torn == [cut]
                (kept,) = disk.path.glob("torn-*")
                assert disk.notices == [
                    f"cut an unfinished change, {len(cut)} bytes, off {disk.jobs}; kept in {kept}"
                ]
            else:
                assert disk.torn == disk.notices == []
            disk.verify()

    @pytest.mark.slow
    def test_at_every_length_of_the_file_a_whole_prefix_shows(
        self, sample: Sample, disk: Disk
    ) -> None:
        for length in places(sample.data, sample.ends[0], 4):
            disk.put(sample.data[:length])
            commits = sum(end <= length for end in sample.ends)
            store = disk.open()
            assert everything(store) == sample.jobs[commits - 1]
            assert store.counts() == sample.counts[commits - 1]
            assert store.claimable(NOW, HORIZON) == bool(commits > 1)

    def test_a_file_that_ends_before_its_first_commit_is_damaged(
        self, sample: Sample, disk: Disk
    ) -> None:
        for length in range(sample.ends[0]):
            disk.put(sample.data[:length])
            for create in (True, False):
                with pytest.raises(DamagedError) as caught:
                    disk.open(create).counts()
                assert (caught.value.path, caught.value.offset) == (str(disk.jobs), 0)
                with pytest.raises(DamagedError):
                    disk.open(create).claimable(NOW, HORIZON)
            assert disk.jobs.read_bytes() == sample.data[:length]

    def test_every_kind_of_writer_cuts_it(self, sample: Sample, disk: Disk) -> None:
        tail = b'{"id":"half","seq":7,"state":"pen'
        writers = [
            lambda store: store.add([new_job("x")], ["x"]),
            lambda store: claim_one(store),
            lambda store: store.save([rules.cancel(sample.jobs[-1][0], NOW)]),
            lambda store: store.remove([sample.jobs[-1][0]]),
            lambda store: store.rewrite(),
        ]
        for write in writers:
            disk.put(sample.data + tail)
            write(disk.open())
            assert disk.torn == [tail]
            disk.verify()

    def test_a_long_tail_does_not_hide_the_last_commit(self, sample: Sample, disk: Disk) -> None:
        for tail in (b"x" * 300_000, b"x\n" * 150_000, b'\n{"commit":' + b"9" * 100_000):
            disk.put(sample.data + tail)
            assert shown(disk) == sample.jobs[-1]
            assert disk.open().counts() == sample.counts[-1]
            disk.open().add([new_job("x")])
            assert disk.torn == [tail]
            disk.verify()

    def test_two_tails_are_kept_in_two_files(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        for number in range(5):
            with disk.jobs.open("ab") as file:
                file.write(b"%d" % number)
            disk.open().add([new_job(f"x{number}")])
        assert sorted(disk.torn) == [b"0", b"1", b"2", b"3", b"4"]

    def test_a_process_that_has_read_the_file_cuts_it_too(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        store, other = disk.open(), disk.open()
        assert store.claimable(NOW, HORIZON)
        with disk.jobs.open("ab") as file:
            file.write(sample.data[sample.last : -1])
        assert everything(other) == sample.jobs[-1]
        claim_one(store)
        claim_one(other)
        assert disk.torn == [sample.data[sample.last : -1]]
        disk.verify()


class TestDamage:
    """Bytes that no crash can leave: nothing is shown, and nothing is changed."""

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_no_flipped_bit_shows_other_data(self, sample: Sample, disk: Disk) -> None:
        # Every bit of the last commit line; one of each byte of the header, and of every second of
        # the other bytes.
        header_end = sample.data.index(b"\n") + 1
        line = sample.data.rindex(b'\n{"commit":')
        others = (at for at in places(sample.data, header_end, 2) if at < line)
        flips = [(at, at // 2 % 8) for at in [*range(header_end), *others]]
        flips += [(at, bit) for at in range(line, len(sample.data)) for bit in range(8)]
        disk.put(sample.data)
        torn = 0
        for at, bit in flips:
            flip(disk, at, bit)
            torn += self.shows_nothing_else(sample, disk, at)
            flip(disk, at, bit)
        assert shown(disk) == sample.jobs[-1]
        # Like a torn tail look: the last commit line's beginning, and the line ends around it.
        assert torn == 8 * (len('\n{"commit":') + len("\n"))

    def shows_nothing_else(self, sample: Sample, disk: Disk, at: int) -> bool:
        """Whether the file acts as if its last commit had not ended; else it must be refused."""
        try:
            store = FileStore(str(disk.path), create=False)
        except DamagedError as error:
            refused = error
            in_use = False
        else:
            in_use = True
            try:
                jobs, counts = everything(store), store.counts()
            except DamagedError as error:
                refused = error
            else:
                assert at >= sample.last
                assert (jobs, counts) == (sample.jobs[-2], sample.counts[-2])
                assert store.claimable(NOW, HORIZON)
                return True
            finally:
                store.close()
        assert refused.path == str(disk.jobs)
        assert sample.begin(at) <= refused.offset <= at
        assert in_use or at <= sample.data.index(b"\n")
        if in_use:
            self.does_not_claim(sample, disk, at)
        return False

    def does_not_claim(self, sample: Sample, disk: Disk, at: int) -> None:
        """Whoever follows the file refuses it too; the counts are in its last line alone."""
        store = FileStore(str(disk.path), create=False)
        with pytest.raises(DamagedError) as caught:
            store.claimable(NOW, HORIZON)
        assert sample.begin(at) <= caught.value.offset <= at
        if at < sample.last:
            assert store.counts() == sample.counts[-1]
        store.close()

    def test_a_lost_line_is_damage(self, sample: Sample, disk: Disk) -> None:
        lines = sample.data.splitlines(keepends=True)
        # Without its commit line, the last commit is a torn tail.
        for lost in range(1, len(lines) - 1):
            disk.put(b"".join(lines[:lost] + lines[lost + 1 :]))
            refused_by_all(disk)
        disk.put(b"".join(lines[1:]))
        with pytest.raises(DamagedError):
            disk.open()
        disk.put(b"".join(lines[:-1]))
        assert shown(disk) == sample.jobs[-2]

    def test_a_doubled_line_is_damage(self, sample: Sample, disk: Disk) -> None:
        lines = sample.data.splitlines(keepends=True)
        for doubled in range(len(lines)):
            disk.put(b"".join([*lines[:doubled], lines[doubled], *lines[doubled:]]))
            refused_by_all(disk)

    def test_a_moved_line_is_damage(self, sample: Sample, disk: Disk) -> None:
        lines = sample.data.splitlines(keepends=True)
        for moved in range(1, len(lines) - 1):
            rest = lines[:moved] + lines[moved + 1 :]
            for to in {moved - 1, moved + 1, len(rest) - 1, len(rest)} - {0, moved}:
                data = b"".join([*rest[:to], lines[moved], *rest[to:]])
                if data != sample.data and not data.startswith(sample.data[: sample.last]):
                    disk.put(data)
                    refused_by_all(disk)

    def test_a_lost_or_doubled_commit_is_damage(self, sample: Sample, disk: Disk) -> None:
        bounds = list(zip([0, *sample.ends], sample.ends))
        for start, end in bounds[1:-1]:
            disk.put(sample.data[:start] + sample.data[end:])
            refused_by_all(disk, start)
        for start, end in bounds[1:]:
            disk.put(sample.data[:end] + sample.data[start:])
            refused_by_all(disk, start)

    def test_damage_is_found_by_who_has_read_what_is_before_it(
        self, sample: Sample, disk: Disk
    ) -> None:
        for at in (sample.last + 9, len(sample.data) - 12):
            disk.put(sample.data[: sample.last])
            stores = [disk.open(), disk.open()]
            for store in stores:
                assert store.claimable(NOW, HORIZON)
            with disk.jobs.open("ab") as file:
                file.write(sample.data[sample.last :])
            flip(disk, at, 0)
            with pytest.raises(DamagedError) as caught:
                stores[0].claimable(NOW, HORIZON)
            assert sample.last <= caught.value.offset <= at
            with pytest.raises(DamagedError):
                stores[1].add([new_job("x")])
            assert len(sample.data) == disk.jobs.stat().st_size

    def test_a_file_that_became_shorter_is_damage(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        store = disk.open()
        assert store.claimable(NOW, HORIZON)
        for size in (len(sample.data) - 1, sample.ends[3]):
            os.truncate(disk.jobs, size)
            with pytest.raises(DamagedError, match="shorter"):
                store.add([new_job("x")])
            assert disk.jobs.read_bytes() == sample.data[:size]

    def test_a_line_longer_than_what_is_read_at_once(self, disk: Disk) -> None:
        store, other = disk.open(), disk.open()
        assert not other.claimable(NOW, HORIZON)
        jobs = store.add([new_job(f"job{number}") for number in range(12)])
        long = [
            rules.cancel(rules.fail(claim_one(store), NOW, "\udcff" * n, 9), NOW)
            for n in (300_000, 900_000)
        ]
        store.save([replace(job, rev=job.rev - 1) for job in long])
        assert disk.jobs.stat().st_size > 7_000_000
        assert ids([claim_one(other) for _ in jobs[2:]]) == ids(jobs[2:])
        assert len(shown(disk)) == 12
        disk.verify()


class TestHeader:
    """What the first line says."""

    def test_a_newer_format_is_refused(self, sample: Sample, disk: Disk) -> None:
        header, rest = sample.data.split(b"\n", 1)
        for what, number in (('"queuectl":2', "format 2"), ('"queuectl":1', "feature zip, 7")):
            text = header.decode().replace('"queuectl":1', what)
            if what == '"queuectl":1':
                text = text.replace('"requires":[]', '"requires":["zip",7]')
            disk.put(with_sum(text[: text.index(',"sum"')] + "}") + rest)
            before = disk.jobs.read_bytes()
            for create in (True, False):
                with pytest.raises(StoreError, match=f"has {number}, which this queuectl does not"):
                    disk.open(create)
            assert disk.jobs.read_bytes() == before

    @pytest.mark.parametrize("data", [b"", b"\n", b"\0" * 4096, b"{}\n", b"[1]\n", b"hello\n"])
    def test_a_file_without_a_header_is_damaged(self, disk: Disk, data: bytes) -> None:
        for content in (data, with_sum(data.decode().strip()) if data.strip(b"\n\0") else data):
            disk.put(content)
            for create in (True, False):
                with pytest.raises(DamagedError) as caught:
                    disk.open(create)
                assert (caught.value.path, caught.value.offset) == (str(disk.jobs), 0)
            assert disk.jobs.read_bytes() == content

    def test_a_file_that_is_nothing_but_a_header_is_damaged(
        self, sample: Sample, disk: Disk
    ) -> None:
        disk.put(sample.data.splitlines(keepends=True)[0])
        refused_by_all(disk)

    @pytest.mark.parametrize(
        "beside", ["settings.json", "workers/", "logs/", "jobs.boot", "history-1.jsonl"]
    )
    def test_a_missing_job_file_is_damage_not_an_empty_store(self, disk: Disk, beside: str) -> None:
        disk.path.mkdir(mode=0o700)
        if beside.endswith("/"):
            (disk.path / beside).mkdir()
        else:
            (disk.path / beside).write_text("x")
        for create in (True, False):
            with pytest.raises(DamagedError) as caught:
                disk.open(create)
            assert caught.value.path == str(disk.jobs)
            assert f"missing beside {beside.strip('/')}" in str(caught.value)
        assert not disk.jobs.exists()

    def test_a_lock_and_what_a_crash_leaves_are_no_store_yet(self, disk: Disk) -> None:
        disk.path.mkdir(mode=0o700)
        for name in ("jobs.lock", "jobs.jsonl.new", "notes.txt"):
            (disk.path / name).write_text("x")
        assert disk.open().counts() == Counts()
        assert disk.notices == [f"created store {disk.path}"]


class TestJournal:
    """The file alone, which knows nothing of jobs."""

    def test_a_reader_sees_each_commit_once(self, sample: Sample, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        path.write_bytes(sample.data[: sample.ends[0]])
        reader = Journal(str(path))
        seen: List[bytes] = []
        for end in range(sample.ends[0], len(sample.data) + 1, 13):
            path.write_bytes(sample.data[:end])
            left = reader.follow(lambda offset, block: seen.extend(lines_between(block)))
            assert reader.end + left == end
            commits = sum(each <= end for each in sample.ends)
            assert reader.end == sample.ends[commits - 1]
            assert reader.number == commits - 1
        reader.close()
        jobs = [line for line in sample.data.splitlines(keepends=True) if line.startswith(b'{"id"')]
        assert seen == jobs[: len(seen)]
        assert len(seen) >= 7

    def test_a_reader_is_given_whole_lines_and_where_they_are(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        path = tmp_path / "journal"
        path.write_bytes(sample.data[: sample.ends[0]])
        reader, passer, writer = (Journal(str(path)) for _ in range(3))
        for journal in (reader, passer, writer):
            journal.follow()
        lines = [b'{"id":"%d","text":"%s"}' % (n, b"x" * 999 * n) for n in range(90)]
        for _ in range(2):
            writer.append(lines, writer.meta)
        blocks: List[Tuple[int, bytes]] = []
        assert reader.follow(lambda offset, block: blocks.append((offset, block))) == 0
        assert passer.follow() == 0
        assert reader.end == passer.end == path.stat().st_size
        data, at = path.read_bytes(), sample.ends[0]
        assert len(blocks) > 5
        for offset, block in blocks:
            assert offset == at
            assert block == data[at : at + len(block)]
            assert not block or block.endswith(b"\n")
            at += len(block)
        assert at == len(data)
        for journal in (reader, passer, writer):
            journal.close()

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Journal(str(tmp_path / "none"))

    def test_a_file_that_may_only_be_read_can_be_read(self, sample: Sample, disk: Disk) -> None:
        disk.put(sample.data)
        shutil.rmtree(disk.path / "workers", ignore_errors=True)
        disk.jobs.chmod(0o400)
        assert shown(disk) == sample.jobs[-1]
