"""The store's folder: found upward, made for its owner alone, and refused if it is not."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Callable, List, NoReturn

import pytest

from queuectl import clock
from queuectl import job as rules
from queuectl.errors import (
    DamagedError,
    InvalidValueError,
    NoStoreError,
    RequestError,
    StoreError,
    StoreFullError,
)
from queuectl.store import recovery
from queuectl.store.base import Member
from queuectl.store.file import FileStore
from queuectl.store.folder import StoreFolder, find_folder
from queuectl.store.opening import locate, open_store
from queuectl.testing.common import NOW, add, claim_one, everything, new_job
from test_store_tools import NOBODY, Disk, in_child, needs_root

not_root_either = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")


def as_nobody(act: Callable[[], object]) -> None:
    """Do it as a user without privileges."""

    def child() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        act()

    in_child(child)


class TestTrust:
    """Commands run what the store says."""

    @needs_root
    def test_a_store_of_somebody_else_is_refused(self, disk: Disk) -> None:
        add(disk.open(), "a")
        disk.close()
        for uid, name in ((NOBODY, "nobody"), (54321, "user 54321")):
            os.chown(disk.path, uid, -1)
            for create in (True, False):
                with pytest.raises(StoreError, match=f"belongs to {name}: use your own"):
                    disk.open(create)

    @needs_root
    def test_an_empty_folder_of_somebody_else_is_refused(self, disk: Disk) -> None:
        disk.path.mkdir(mode=0o700)
        os.chown(disk.path, NOBODY, -1)
        with pytest.raises(StoreError, match="belongs to nobody"):
            disk.open()
        assert list(disk.path.iterdir()) == []

    @pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777, 0o2770])
    def test_a_store_that_others_can_write_is_refused(self, disk: Disk, mode: int) -> None:
        store = disk.open()
        add(store, "a")
        disk.path.chmod(mode)
        with pytest.raises(StoreError, match=f"can be written by others: chmod go-w {disk.path}"):
            disk.open()
        disk.path.chmod(0o755)
        assert len(everything(disk.open())) == 1

    def test_where_there_is_none_it_is_made_or_not(self, disk: Disk) -> None:
        with pytest.raises(NoStoreError) as caught:
            disk.open(create=False)
        assert caught.value.path == str(disk.path)
        assert not disk.path.exists()
        disk.open()
        assert disk.notices == [f"created store {disk.path}"]
        disk.open()
        disk.open(create=False)
        assert len(disk.notices) == 1

    def test_an_empty_folder_is_none(self, disk: Disk) -> None:
        disk.path.mkdir(mode=0o700)
        with pytest.raises(NoStoreError):
            disk.open(create=False)
        assert list(disk.path.iterdir()) == []
        disk.open()

    def test_what_is_no_folder_is_refused(self, disk: Disk) -> None:
        disk.path.write_text("x")
        with pytest.raises(StoreError, match="it is not a folder"):
            disk.open()
        with pytest.raises(StoreError, match="Not a directory"):
            FileStore(str(disk.path / "below"))
        disk.path.unlink()
        disk.path.symlink_to(disk.path.parent / "nowhere")
        for create in (True, False):
            with pytest.raises(StoreError):
                disk.open(create)
        assert not (disk.path.parent / "nowhere").exists()

    def test_a_link_leads_to_the_store(self, disk: Disk) -> None:
        add(disk.open(), "a")
        link = disk.path.parent / "link"
        link.symlink_to(disk.path)
        store = FileStore(str(link), create=False)
        assert len(everything(store)) == 1
        add(store, "b")
        store.close()
        assert len(everything(disk.open())) == 2

    @not_root_either
    def test_one_that_cannot_be_made_or_read_is_named(self, disk: Disk) -> None:
        disk.path.parent.chmod(0o755)

        def act() -> None:
            with pytest.raises(StoreError, match=f"cannot make the store {disk.path}: Permission"):
                FileStore(str(disk.path))

        as_nobody(act)
        assert not disk.path.exists()
        disk.open()
        disk.close()
        for file in [disk.path, *disk.path.iterdir()]:
            os.chown(file, NOBODY, NOBODY)

        def refused(mode: int, message: str) -> None:
            disk.path.chmod(mode)
            with pytest.raises(StoreError, match=message):
                FileStore(str(disk.path)).add([rules.enqueue("a", "true", NOW, max_retries=1)])

        as_nobody(lambda: refused(0o000, "Permission denied"))
        as_nobody(lambda: refused(0o600, "Permission denied"))
        disk.path.chmod(0o700)
        disk.jobs.chmod(0o000)
        as_nobody(lambda: refused(0o700, "cannot open .*jobs.jsonl: Permission denied"))
        disk.jobs.chmod(0o400)
        as_nobody(lambda: refused(0o700, "cannot write .*jobs.jsonl: Permission denied"))
        disk.jobs.write_bytes(disk.jobs.read_bytes() + b"half")
        as_nobody(lambda: refused(0o700, "cannot repair .*jobs.jsonl: Permission denied"))
        assert disk.torn == []
        disk.jobs.chmod(0o600)

    def test_a_settings_file_that_cannot_be_read_is_not_taken_for_none(self, disk: Disk) -> None:
        store = disk.open()
        settings = disk.path / "settings.json"
        settings.symlink_to(settings)
        for look in (store.settings, lambda: store.configure({"b": "2"})):
            with pytest.raises(StoreError, match=f"^cannot read {settings}: Too many levels"):
                look()

    def test_a_settings_file_that_does_not_parse_is_named(self, disk: Disk) -> None:
        store = disk.open()
        settings = disk.path / "settings.json"
        for text, offset in ((b"{", 1), (b"[]", 0), (b'{"a": 1}', 0), (b'{"a": "\xff"}', 7)):
            settings.write_bytes(text)
            for look in (store.settings, lambda: store.configure({"b": "2"})):
                with pytest.raises(DamagedError) as caught:
                    look()
                assert (caught.value.path, caught.value.offset) == (str(settings), offset)
            assert settings.read_bytes() == text
        settings.unlink()
        store.configure({"b": "2"})
        assert disk.open().settings() == {"b": "2"}


def use_everything(disk: Disk) -> None:
    """Make a file of every kind."""
    store = FileStore(str(disk.path))
    add(store, "a", "b", "c")
    store.configure({"max_retries": "5"})
    store.save([rules.complete(claim_one(store), NOW)])
    assert store.rewrite()
    dead = FileStore(str(disk.path))
    held = claim_one(dead)
    worker = Member("w1", "worker", "Worker-1", os.getpid(), "host", clock.to_iso(NOW), "s1")
    dead.enroll(worker._replace(job=held.id, run=held.runs))
    Path(dead.spool("w1")).write_text("output")
    dead.close()
    (lost,) = store.lost()
    store.bury(lost)
    store.enroll(worker._replace(id="s1", role="supervisor"))
    store.enroll(worker._replace(id="w2"))
    with disk.jobs.open("ab") as file:
        file.write(b"half")
    add(store, "d")
    disk.unsynced.touch()
    disk.boot.unlink()
    add(store, "e")
    recovery.mark_unsynced(store.folder)


def test_a_new_store_is_on_the_disk_with_all_the_folders_that_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: List[str] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    for path in (tmp_path / "new" / "deep" / "store", tmp_path / "other"):
        # Whoever made the folders may have died before the disk held them.
        path.parent.mkdir(parents=True, exist_ok=True)
        synced.clear()
        FileStore(str(path)).close()
        assert {str(above) for above in [path, *path.parents] if tmp_path in above.parents} <= {
            *synced
        }
        assert str(tmp_path) in synced


@pytest.mark.parametrize("name", ["jobs.jsonl", "settings.json"])
def test_a_file_that_others_can_write_or_own_is_refused(disk: Disk, name: str) -> None:
    store = disk.open()
    store.configure({"max_retries": "5"})
    disk.path.chmod(0o755)
    path = disk.path / name
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(StoreError, match=f"{name} can be written by others: chmod go-w "):
            disk.open().settings()
    path.chmod(0o644)
    assert disk.open().settings() == {"max_retries": "5"}
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
        with pytest.raises(StoreError, match=f"{name} belongs to nobody: use your own"):
            disk.open().settings()


def test_a_job_file_that_is_none_is_refused(disk: Disk) -> None:
    disk.open().close()
    disk.jobs.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(disk.jobs)
        with pytest.raises(StoreError, match="it is not a file"):
            disk.open()
        disk.jobs.rmdir() if disk.jobs.is_dir() else disk.jobs.unlink()


def test_a_job_whose_output_cannot_be_removed_stays(disk: Disk) -> None:
    """So that what is left of it can be found, and the removal tried again."""
    store = disk.open()
    jobs = add(store, "a", "b")
    kept = Path(store.kept_output("a", 1))
    kept.parent.parent.mkdir()
    kept.parent.write_text("no folder")
    with pytest.raises(StoreError, match=f"^cannot remove output in {kept.parent}: Not a dir"):
        store.remove(jobs)
    assert everything(store) == jobs[::-1]
    kept.parent.unlink()
    store.remove(jobs)
    assert everything(store) == []


def test_output_is_removed_before_its_job(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may make the room that the commit needs."""
    store = disk.open()
    (job,) = add(store, "a")
    kept = Path(store.kept_output("a", 1))
    kept.parent.mkdir(parents=True)
    kept.write_text("output")

    def append(*args: object) -> NoReturn:
        assert not kept.exists()
        raise StoreFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(store._file, "append", append)
        with pytest.raises(StoreFullError):
            store.remove([job])
    assert everything(store) == [job]


def test_a_new_job_does_not_show_the_output_of_an_old_one(disk: Disk) -> None:
    """As a purge left it that died between its commit and the end."""
    store = disk.open()
    add(store, "other")
    old, others = Path(store.kept_output("a", 12)), Path(store.kept_output("a.12", 1))
    for path in (old, others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    store.add([new_job("a")], ["a"])
    assert (old.exists(), others.exists()) == (False, True)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_is_its_owners_alone_whatever_the_umask(disk: Disk, umask: int) -> None:
    """And jobs inherit the umask as it was."""

    def act() -> None:
        os.umask(umask)
        use_everything(disk)
        kinds = set()
        for path in [disk.path, *disk.path.rglob("*")]:
            mode = path.stat().st_mode
            folder = stat.S_ISDIR(mode)
            # The output was written by the test.
            if path.suffix != ".log":
                assert stat.S_IMODE(mode) == (0o700 if folder else 0o600), path
            kinds.add(path.name[:5] if path.parent == disk.path else path.suffix)
        assert kinds >= {"jobs.", "setti", "histo", "torn-", "worke", "logs", "rewri"}
        assert kinds >= {".json", ".lock", ".wake", ".log"}
        assert os.umask(0) == umask

    in_child(act)


class TestMaking:
    """Where the folder comes to be."""

    def test_folders_above_it_are_made(self, disk: Disk) -> None:
        deep = disk.path / "a" / "b"
        store = FileStore(str(deep))
        assert stat.S_IMODE(deep.stat().st_mode) == 0o700
        store.close()

    def test_a_slash_behind_its_name_changes_nothing(self, disk: Disk) -> None:
        store = FileStore(f"{disk.path}//")
        assert store.url == str(disk.path)
        assert stat.S_IMODE(disk.path.stat().st_mode) == 0o700
        add(store, "a")
        store.close()
        assert len(everything(disk.open(create=False))) == 1

    def test_output_is_spread_over_folders(self, disk: Disk) -> None:
        folder = StoreFolder(str(disk.path))
        paths = [folder.log(f"job{number}", 3) for number in range(1000)]
        assert len(set(paths)) == 1000
        assert 200 < len({os.path.dirname(path) for path in paths}) <= 256
        assert all(path.startswith(f"{disk.path}/logs/") for path in paths)
        assert os.path.basename(folder.log("..", 1)) == "...1.log"


class TestFindFolder:
    """The nearest `queuectl_data` from the current folder upward."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / "home/project/src").mkdir(parents=True)
        return tmp_path / "home"

    def test_the_nearest_wins(self, home: Path) -> None:
        here = home / "project/src"
        for place in (home, home / "project", here):
            (place / "queuectl_data").mkdir()
            assert find_folder(str(here), str(home)) == str(place / "queuectl_data")

    def test_without_one_it_is_here(self, home: Path) -> None:
        here = home / "project/src"
        assert find_folder(str(here), str(home)) == str(here / "queuectl_data")
        (home / "project/queuectl_data").write_text("a file is none")
        assert find_folder(str(here), str(home)) == str(here / "queuectl_data")

    def test_the_search_ends_at_home(self, home: Path) -> None:
        (home.parent / "queuectl_data").mkdir()
        here = home / "project"
        assert find_folder(str(here), str(home)) == str(here / "queuectl_data")
        assert find_folder(str(home), str(home)) == str(home / "queuectl_data")
        link = home.parent / "link"
        link.symlink_to(home)
        assert find_folder(str(here), str(link)) == str(here / "queuectl_data")
        # Outside of it there is no such border.
        assert find_folder(str(here), "/nowhere") == str(home.parent / "queuectl_data")

    @needs_root
    def test_the_search_ends_at_a_folder_of_another_owner(self, home: Path) -> None:
        (home / "queuectl_data").mkdir()
        here = home / "project/src"
        assert find_folder(str(here), "/nowhere") == str(home / "queuectl_data")
        os.chown(home, NOBODY, -1)
        assert find_folder(str(here), "/nowhere") == str(here / "queuectl_data")

    @needs_root
    def test_the_search_ends_at_the_border_of_the_file_system(self, home: Path) -> None:
        (home / "queuectl_data").mkdir()
        here = home / "project"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", str(here)], stderr=subprocess.PIPE, check=False
        )
        if done.returncode != 0:
            pytest.skip("mounting is not permitted")
        try:
            assert find_folder(str(here), "/nowhere") == str(here / "queuectl_data")
        finally:
            subprocess.run(["umount", "-l", str(here)], check=True)

    def test_the_search_ends_at_the_root(self) -> None:
        assert find_folder("/", "/nowhere") == "/queuectl_data"


class TestLocate:
    """Which store a command means."""

    def test_what_was_asked_for_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "queuectl_data").mkdir()
        nearest = str(tmp_path / "queuectl_data")
        monkeypatch.delenv("QUEUECTL_STORE", raising=False)
        assert locate() == locate("") == nearest
        monkeypatch.setenv("QUEUECTL_STORE", "")
        assert locate() == nearest
        monkeypatch.setenv("QUEUECTL_STORE", "from/env")
        assert locate() == locate("") == str(tmp_path / "from/env")
        assert locate("here") == str(tmp_path / "here")
        assert locate("/abs/path") == "/abs/path"
        assert locate("redis://host/0") == "redis://host/0"

    def test_a_removed_current_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.delenv("QUEUECTL_STORE", raising=False)
        monkeypatch.chdir(gone)
        gone.rmdir()
        with pytest.raises(RequestError, match="current folder was deleted"):
            locate()
        with pytest.raises(RequestError, match="current folder was deleted"):
            locate("relative")
        assert locate(str(tmp_path)) == str(tmp_path)

    def test_a_kind_of_store_that_is_unknown(self) -> None:
        with pytest.raises(InvalidValueError, match="no store can be opened at nosuch:// URLs"):
            open_store("nosuch://host", True, print)
