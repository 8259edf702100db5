"""What lies where the store has a file of its own, but is none, or may not be worked with."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Callable, Dict, Tuple

import pytest

from queuectl.errors import DamagedError, StoreError
from queuectl.store.base import Member
from queuectl.testing.common import add, run_and_complete
from support import Cli
from test_cli_support import complaint, queue_of
from test_store_tools import NOBODY, Child, Disk, flip, needs_root, shown


@pytest.fixture
def whole(disk: Disk) -> Disk:
    """With a history, settings, and a file of everything else."""
    store = disk.open()
    add(store, "a", "b")
    run_and_complete(store)
    assert store.rewrite()
    store.configure({"max_retries": "7"})
    disk.close()
    assert disk.examine() == []
    return disk


def clear(path: Path) -> None:
    """Make room for something else of this name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def make_socket(path: Path) -> None:
    # Not by binding it: its name may be too long for that.
    os.mknod(path, stat.S_IFSOCK | 0o600)


ODD: Dict[str, Tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda path: os.mkfifo(path, 0o600), "it is a named pipe, not a file"),
    "folder": (lambda path: path.mkdir(mode=0o700), "it is a folder, not a file"),
    "socket": (make_socket, "it is a socket, not a file"),
    "link": (lambda path: path.symlink_to("nowhere"), "it is a link to what is not there"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["settings.json", "jobs.boot", "jobs.unsynced", "jobs.jsonl.copy"])
def test_what_is_no_file_is_named_and_moved_aside(name: str, kind: str, whole: Disk) -> None:
    make, says = ODD[kind]
    path = whole.path / name
    clear(path)
    make(path)
    mode = path.lstat().st_mode
    assert [(one.file, one.message) for one in whole.damage()] == [(str(path), says)]
    repaired = whole.repair()
    assert (repaired.left, repaired.lost) == ([], [])
    assert repaired.copy is not None
    assert (Path(repaired.copy) / name).lstat().st_mode == mode
    assert not os.path.lexists(path)
    whole.verify()
    assert [job.id for job in shown(whole)] == ["b", "a"]
    add(whole.open(), "c")


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
@pytest.mark.parametrize("name", ["jobs.jsonl", "history-1.jsonl"])
def test_what_holds_jobs_but_is_no_file_counts_as_missing(
    name: str, kind: str, whole: Disk
) -> None:
    make, says = ODD[kind]
    path = whole.path / name
    clear(path)
    make(path)
    found = [(one.file, one.message) for one in whole.damage()]
    assert (str(path), says) in found
    assert any("is missing" in message for _, message in found)
    repaired = whole.repair()
    assert repaired.left == []
    assert [job.id for job in shown(whole)] == (["a"] if name == "jobs.jsonl" else ["b"])


@pytest.mark.parametrize("name", ["jobs.jsonl", "history-1.jsonl"])
def test_a_link_to_jobs_that_are_elsewhere_is_not_given_up(name: str, whole: Disk) -> None:
    """As when a disk is not mounted."""
    before = shown(whole)
    path, elsewhere = whole.path / name, whole.path.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    (note,) = whole.examine()
    assert (note.level, note.message) == ("note", f"it is a link to {os.path.realpath(elsewhere)}")
    elsewhere.rename(whole.path.parent / "away")
    assert any(one.message == ODD["link"][1] for one in whole.damage())
    with pytest.raises(StoreError, match=r"is a link to .*, which is not there: bring that back"):
        whole.repair()
    with pytest.raises(DamagedError):
        shown(whole)
    assert sorted(whole.path.glob("before-repair-*")) == []
    (whole.path.parent / "away").rename(elsewhere)
    assert shown(whole) == before


def test_a_new_store_is_not_put_in_the_place_of_a_link_to_nothing(disk: Disk) -> None:
    disk.path.mkdir(mode=0o700)
    disk.jobs.symlink_to("nowhere")
    with pytest.raises(DamagedError, match="it is a link to what is not there"):
        disk.open()
    assert disk.jobs.is_symlink()


def test_the_copy_holds_what_a_link_leads_to(whole: Disk) -> None:
    flip(whole, whole.jobs.read_bytes().index(b'"id":"b"') + 6, 1)
    data, elsewhere = whole.jobs.read_bytes(), whole.path.parent / "elsewhere"
    whole.jobs.rename(elsewhere)
    whole.jobs.symlink_to(elsewhere)
    (whole.path / "torn").symlink_to(elsewhere)
    repaired = whole.repair()
    assert repaired.copy is not None
    assert (Path(repaired.copy) / "jobs.jsonl").read_bytes() == data
    assert not (Path(repaired.copy) / "torn").exists()
    assert elsewhere.read_bytes() == data
    assert not whole.jobs.is_symlink()
    whole.verify()


def test_a_link_to_what_others_can_write_is_damage(whole: Disk) -> None:
    elsewhere = whole.path.parent / "elsewhere"
    whole.jobs.rename(elsewhere)
    whole.jobs.symlink_to(elsewhere)
    elsewhere.chmod(0o622)
    (damage,) = whole.damage()
    assert damage.message.endswith("elsewhere, which others can write")


@pytest.mark.parametrize("name", ["workers", "logs"])
def test_a_file_in_the_place_of_a_folder(name: str, whole: Disk) -> None:
    (whole.path / name).touch(0o600)
    assert [one.message for one in whole.damage()] == ["it is a file, not a folder"]
    assert whole.repair().left == []
    assert not (whole.path / name).exists()


def test_a_pipe_in_the_place_of_a_workers_file(whole: Disk) -> None:
    store = whole.open()
    store.enroll(Member("w1", "worker", "Worker-1", os.getpid(), "host", "2025", "s1"))
    path = whole.path / "workers" / "w1.json"
    path.unlink()
    os.mkfifo(path, 0o600)
    assert [one.message for one in whole.damage()] == ["it is no file of a worker"]
    with pytest.raises(StoreError, match=r"w1\.json: it is not a file"):
        whole.open().members("worker")
    store.leave("w1")


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["settings.json", "jobs.boot", "history-1.jsonl", "jobs.jsonl"])
def test_no_command_waits_for_what_is_no_file(name: str, kind: str, cli: Cli) -> None:
    with queue_of(cli) as queue:
        queue.enqueue("true", id="a", cwd="/")
        run_and_complete(queue.store)
        assert queue.store.rewrite()
        queue.configure("max_retries", "7")
    path = cli.store / name
    path.unlink()
    ODD[kind][0](path)
    # What a link leads to is missed, but for the note of the boot, of which there need be none.
    code = 3 if kind != "link" else 0 if name == "jobs.boot" else 4
    for words in (["list"], ["enqueue", "--id", "b", "true"]):
        done = cli.run(*words, timeout=10.0)
        is_unread = words[0] == "list" and name in ("settings.json", "jobs.boot") and code == 3
        assert done.returncode == (0 if is_unread else code), (words, done.stderr)
        if done.returncode:
            said = complaint(done.stderr)
            assert str(path) in said
            assert "it is not a file" in said or code == 4
    assert cli.run("doctor", timeout=10.0).returncode == (4 if code else 0)


NARROW = {
    "": (0o500, "rwx"),
    "jobs.jsonl": (0o400, "rw"),
    "jobs.boot": (0o400, "rw"),
    "jobs.lock": (0o200, "rw"),
    "history-1.jsonl": (0o400, "rw"),
    "settings.json": (0o200, "r"),
    "workers": (0o600, "rwx"),
    "logs": (0o500, "rwx"),
    "logs/0a": (0o500, "rwx"),
}


@needs_root
@pytest.mark.parametrize("name", NARROW)
def test_a_mode_that_is_too_narrow_for_the_owner(name: str, whole: Disk) -> None:
    mode, bits = NARROW[name]
    (whole.path / "logs" / "0a").mkdir(parents=True)
    (whole.path / "workers").mkdir()
    for path in [whole.path, *whole.path.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    path = whole.path / name
    path.chmod(mode)
    advice = f"chmod u+{bits} {path}".rstrip("/")
    (note,) = whole.examine()
    assert (note.level, note.file) == ("note", str(path))
    assert note.message == f"its owner cannot work with it: {advice}"
    for each in [whole.path, *whole.path.rglob("*")]:
        os.chown(each, NOBODY, NOBODY)
    whole.path.parent.chmod(0o711)

    def act() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        (damage,) = whole.damage()
        assert (damage.file, damage.message) == (note.file, note.message)
        with pytest.raises(StoreError) as caught:
            whole.repair()
        assert str(caught.value).endswith(f": Permission denied: {advice}")
        path.chmod(0o700 if path.is_dir() else 0o600)
        assert whole.examine() == []

    Child(act).finish()
    os.chown(whole.path, 0, 0)


@needs_root
@pytest.mark.parametrize("name", ["", "jobs.jsonl", "jobs.boot", "history-1.jsonl"])
def test_what_cannot_even_be_read(name: str, whole: Disk) -> None:
    path = whole.path / name
    path.chmod(0)
    for each in [whole.path, *whole.path.rglob("*")]:
        os.chown(each, NOBODY, NOBODY)
    whole.path.parent.chmod(0o711)

    def act() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with pytest.raises(StoreError, match=r"Permission denied: chmod u\+rwx? /"):
            whole.examine()

    Child(act).finish()
    os.chown(whole.path, 0, 0)
