"""A disk that loses power: what a process did to it is recorded, and what may be left is laid out.

A Recorder passes on the calls that change files, and notes them. It knows those that the store
makes: one that it missed shows when what it noted is compared with the folder. A Medium takes what
was noted, one event after the other, and knows what the disk holds for certain, and what besides it
may hold:

- Bytes are certain once their file was synced. Of those that were not, any may be missing: from a
  length on, with nothing or zeros in their place, or any sector alone. A sector that existed before
  is there as it was or as it is, never half.
- Names are certain once their folder was synced; syncing the file does not do it. The changes of a
  folder that was not may be undone from the last one back, as where the file system has a journal,
  and where it has none any of them alone. A rename happens as a whole or not at all.
- A sync that fails drops what was not synced: the kernel takes it for written, and goes on showing
  it, but no later sync brings it to the disk.

All of this is stricter than most file systems are: the store must not depend on one.
"""

from __future__ import annotations

import ast
import os
import sys
from itertools import product
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

import pytest

import queuectl.store

T = TypeVar("T")

Tree = Tuple[Tuple[str, Optional[bytes]], ...]
"""Paths, each behind that of its folder, with the bytes of files and nothing for folders."""

ROOT = 0
_SECTOR = 512
_PAGE = 4096
_STORE = Path(queuectl.store.__file__).parent

# What these call is how to sync; where they are called is what might be forgotten.
_SYNCING = ("sync", "sync_data", "sync_folder", "sync_names", "_sync_name")
_HOW = (("disk", "sync_data"), ("disk", "sync_folder"))

# Up to so many states are laid out in full at one point, and of more those that differ from nothing
# and from everything in one respect.
_MANY = 60


class Write(NamedTuple):
    """Bytes given to a file."""

    node: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    """A file cut."""

    node: int
    size: int


class Change(NamedTuple):
    """Names changed in a folder: all at once, or not at all.

    Attributes:
        folder: whose.
        removed: the name that is gone, if there is one.
        name: the name that is there now, if there is one.
        node: what it names.
        is_folder: whether that is a folder.
    """

    folder: int
    removed: Optional[str]
    name: Optional[str]
    node: int
    is_folder: bool = False


class Sync(NamedTuple):
    """A file or folder that was synced.

    Attributes:
        node: which.
        sites: the lines of the store that asked for it, each on behalf of the next.
        failed: whether the disk refused.
    """

    node: int
    sites: FrozenSet[str]
    failed: bool


class Done(NamedTuple):
    """The next step of what was recorded is over."""


Event = Union[Write, Resize, Change, Sync, Done]


class Recorder:
    """Notes what this process does to the files below a folder, until the block ends.

    Args:
        root: the folder; what is in it now is on the disk.

    Attributes:
        events: what was noted.
        start: what was there before.
    """

    def __init__(self, root: Path) -> None:
        self.events: List[Event] = []
        self.start = read_tree(root)
        self._root = str(root)
        self._nodes = {"": ROOT, **{path: at for at, (path, _) in enumerate(self.start, 1)}}
        self._fds: Dict[int, int] = {}
        self._last = len(self.start)
        self._at_sync: Dict[str, Callable[[], object]] = {}
        self._paused = False
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Recorder:
        # So that on macOS too it is fsync that is called.
        self._patch.delattr("fcntl.F_FULLFSYNC", raising=False)
        for name in ("open", "close", "write", "pwrite", "ftruncate", "truncate"):
            self._wrap(name, getattr(self, f"_{name}"))
        for name in ("rename", "unlink", "mkdir"):
            self._wrap(name, getattr(self, f"_{name}"))
        for name in ("fsync", "fdatasync"):
            if hasattr(os, name):
                self._wrap(name, self._sync)
        return self

    def __exit__(self, *exc: object) -> None:
        self._patch.undo()

    def at_next_sync(self, path: str, act: Callable[[], object]) -> None:
        """Do something before a file or folder is synced the next time.

        Args:
            path: which, below the root.
            act: what to do; an OSError of it is the answer of the disk.
        """
        self._at_sync[path] = act

    def unnoticed(self, act: Callable[[], T]) -> T:
        """Do something that changes nothing, and is not noted."""
        self._paused = True
        try:
            return act()
        finally:
            self._paused = False

    def _wrap(self, name: str, note: Callable[..., Any]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            return real(*args, **options) if self._paused else note(real, *args, **options)

        self._patch.setattr(os, name, call)

    def _inside(self, path: str) -> Optional[str]:
        path = os.path.abspath(path)
        inside = path == self._root or path.startswith(self._root + "/")
        return path[len(self._root) + 1 :] if inside else None

    def _new(self, path: str, is_folder: bool = False) -> None:
        folder, name = os.path.split(path)
        self._last += 1
        self._nodes[path] = self._last
        self.events.append(Change(self._nodes[folder], None, name, self._last, is_folder))

    def _open(self, real: Callable[..., int], path: str, flags: int, *args: int) -> int:
        fd = real(path, flags, *args)
        inside = self._inside(path)
        if inside is not None:
            if inside not in self._nodes and flags & os.O_CREAT:
                self._new(inside)
            elif flags & os.O_TRUNC:
                self.events.append(Resize(self._nodes[inside], 0))
            if inside in self._nodes:
                self._fds[fd] = self._nodes[inside]
        return fd

    def _close(self, real: Callable[..., None], fd: int) -> None:
        self._fds.pop(fd, None)
        real(fd)

    def _write(self, real: Callable[..., int], fd: int, data: bytes) -> int:
        offset = os.lseek(fd, 0, os.SEEK_CUR) if fd in self._fds else 0
        return self._written(fd, offset, data, real(fd, data))

    def _pwrite(self, real: Callable[..., int], fd: int, data: bytes, offset: int) -> int:
        return self._written(fd, offset, data, real(fd, data, offset))

    def _written(self, fd: int, offset: int, data: bytes, count: int) -> int:
        if fd in self._fds:
            self.events.append(Write(self._fds[fd], offset, bytes(data[:count])))
        return count

    def _ftruncate(self, real: Callable[..., None], fd: int, size: int) -> None:
        real(fd, size)
        if fd in self._fds:
            self.events.append(Resize(self._fds[fd], size))

    def _truncate(self, real: Callable[..., None], path: str, size: int) -> None:
        real(path, size)
        inside = self._inside(path)
        if inside is not None:
            self.events.append(Resize(self._nodes[inside], size))

    def _rename(self, real: Callable[..., None], old: str, new: str) -> None:
        real(old, new)
        source, target = self._inside(old), self._inside(new)
        if source is None or target is None:
            raise AssertionError("renamed across the border of what is recorded")
        folder = os.path.dirname(source)
        if folder != os.path.dirname(target):
            raise AssertionError("the model knows no rename from folder to folder")
        node = self._nodes[target] = self._nodes.pop(source)
        for path in [path for path in self._nodes if path.startswith(source + "/")]:
            self._nodes[target + path[len(source) :]] = self._nodes.pop(path)
        names = os.path.basename(source), os.path.basename(target)
        self.events.append(Change(self._nodes[folder], *names, node, os.path.isdir(new)))

    def _unlink(self, real: Callable[..., None], path: str) -> None:
        real(path)
        inside = self._inside(path)
        if inside in self._nodes:
            folder, name = os.path.split(inside)
            node = self._nodes.pop(inside)
            self.events.append(Change(self._nodes[folder], name, None, node))

    def _mkdir(self, real: Callable[..., None], path: str, *args: int) -> None:
        real(path, *args)
        inside = self._inside(path)
        if inside is not None:
            self._new(inside, is_folder=True)

    def _sync(self, real: Callable[..., None], fd: int) -> None:
        node = self._fds.get(fd)
        if node is None:
            return
        sites = _sites(sys._getframe(2))
        path = next((path for path, each in self._nodes.items() if each == node), "")
        try:
            self._at_sync.pop(path, lambda: None)()
        except OSError:
            self.events.append(Sync(node, sites, failed=True))
            raise
        self.events.append(Sync(node, sites, failed=False))


class Medium:
    """The disk: what it holds for certain, and what it may hold besides.

    Args:
        start: what it holds in the beginning.
    """

    def __init__(self, start: Tree) -> None:
        nodes = {"": ROOT, **{path: at for at, (path, _) in enumerate(start, 1)}}
        self._bytes: Dict[int, bytes] = {}
        self._writes: Dict[int, List[Union[Write, Resize]]] = {}
        self._names: Dict[int, Dict[str, int]] = {ROOT: {}}
        self._changes: Dict[int, List[Change]] = {}
        for path, data in start:
            folder, name = os.path.split(path)
            self._names[nodes[folder]][name] = nodes[path]
            if data is None:
                self._names[nodes[path]] = {}
            else:
                self._bytes[nodes[path]] = data

    def take(self, event: Event, holds: bool = True) -> None:
        """Let something happen.

        Args:
            event: what.
            holds: whether a sync is one.
        """
        if isinstance(event, Change):
            if event.is_folder:
                self._names.setdefault(event.node, {})
            elif event.name is not None:
                self._bytes.setdefault(event.node, b"")
            self._changes.setdefault(event.folder, []).append(event)
        elif isinstance(event, (Write, Resize)):
            self._writes.setdefault(event.node, []).append(event)
        elif isinstance(event, Sync) and (holds or event.failed):
            changes = self._changes.pop(event.node, [])
            writes = self._writes.pop(event.node, [])
            if not event.failed:
                if event.node in self._names:
                    self._names[event.node] = _renamed(self._names[event.node], changes)
                else:
                    self._bytes[event.node] = _written(self._bytes[event.node], writes)

    def shown(self) -> Tree:
        """What those see who use the disk now, as long as no sync has failed."""
        names = {at: _renamed(each, self._changes.get(at, [])) for at, each in self._names.items()}
        data = {at: _written(each, self._writes.get(at, [])) for at, each in self._bytes.items()}
        return tuple((path, data.get(at)) for path, at in sorted(self._walk(names, ROOT, "")))

    def states(self) -> Iterator[Tree]:
        """All that may be left if the power is lost now; some of it more than once."""
        folders = sorted(self._names)
        for names in _choices(
            [_names_left(self._names[at], self._changes.get(at, [])) for at in folders]
        ):
            tree = dict(zip(folders, names))
            paths = dict(self._walk(tree, ROOT, ""))
            files = sorted({node for node in paths.values() if node in self._bytes})
            for contents in _choices(
                [_bytes_left(self._bytes[at], self._writes.get(at, [])) for at in files]
            ):
                data = dict(zip(files, contents))
                yield tuple((path, data.get(node)) for path, node in sorted(paths.items()))

    def _walk(
        self, tree: Dict[int, Dict[str, int]], folder: int, path: str
    ) -> Iterator[Tuple[str, int]]:
        for name, node in tree[folder].items():
            yield path + name, node
            if node in tree:
                yield from self._walk(tree, node, f"{path}{name}/")


def read_tree(root: Path) -> Tree:
    """Read what is in a folder; named pipes are passed over, as they hold nothing."""
    found = sorted(path for path in root.rglob("*") if path.is_dir() or path.is_file())
    return tuple(
        sorted(
            (str(path.relative_to(root)), None if path.is_dir() else path.read_bytes())
            for path in found
        )
    )


def lay_out(tree: Tree, root: Path) -> None:
    """Make what a tree holds, in a folder that is empty."""
    for path, data in tree:
        if data is None:
            os.mkdir(root / path, 0o700)
        else:
            fd = os.open(root / path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, data)
            os.close(fd)


def all_sites() -> Set[str]:
    """Every line of the store that asks for a sync."""
    return set(_SITES.values())


def _find_sites() -> Dict[Tuple[str, int], str]:
    """Name every line of the store that asks for a sync: module, function, and which of them."""
    found: Dict[Tuple[str, int], str] = {}
    for path in sorted(_STORE.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef) or (path.stem, function.name) in _HOW:
                continue
            lines = sorted(
                {
                    node.lineno
                    for node in ast.walk(function)
                    if isinstance(node, ast.Call)
                    and _called(node.func) in (*_SYNCING, "fsync", "fdatasync")
                }
            )
            for number, line in enumerate(lines, 1):
                which = f" {number}" if len(lines) > 1 else ""
                found[path.stem, line] = f"{path.stem}.{function.name}{which}"
    return found


def _called(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


_SITES = _find_sites()


def _sites(frame: Any) -> FrozenSet[str]:
    """Name the lines that asked for a sync, from the frame that called it outwards."""
    found = set()
    while frame is not None and Path(frame.f_code.co_filename).parent == _STORE:
        module, function = Path(frame.f_code.co_filename).stem, frame.f_code.co_name
        if (module, function) not in _HOW:
            found.add(_SITES[module, frame.f_lineno])
        if function not in _SYNCING:
            break
        frame = frame.f_back
    return frozenset(found)


def _written(data: bytes, writes: Sequence[Union[Write, Resize]]) -> bytes:
    for each in writes:
        if isinstance(each, Resize):
            data = data[: each.size].ljust(each.size, b"\0")
        else:
            before = data[: each.offset].ljust(each.offset, b"\0")
            data = before + each.data + data[each.offset + len(each.data) :]
    return data


def _bytes_left(old: bytes, writes: Sequence[Union[Write, Resize]]) -> List[bytes]:
    """What may be left of a file: nothing that was not synced, all of it, and what lies between."""
    new = _written(old, writes)
    found = [old, new]
    for number, each in enumerate(writes):
        before = _written(old, writes[:number])
        found.append(before)
        if isinstance(each, Write) and each.offset + len(each.data) > len(before):
            for length in (1, len(each.data) // 2, len(each.data) - 1):
                if each.offset + length > len(before):
                    found.append(_written(before, [each._replace(data=each.data[:length])]))
        found.append(_written(old, [*writes[:number], *writes[number + 1 :]]))
    # The length is that of now, the bytes are not.
    late = old[: len(new)].ljust(len(new), b"\0")
    found.append(late)
    for size in (_SECTOR, _PAGE):
        for at in range(0, len(new), size):
            if late[at : at + size] != new[at : at + size]:
                found.append(new[:at] + late[at : at + size] + new[at + size :])
                found.append(late[:at] + new[at : at + size] + late[at + size :])
                found.append(new[:at] + late[at:])
    return list(dict.fromkeys(found))


def _renamed(names: Dict[str, int], changes: Sequence[Change]) -> Dict[str, int]:
    names = dict(names)
    for change in changes:
        if change.removed is not None and names.get(change.removed) == change.node:
            del names[change.removed]
        if change.name is not None:
            names[change.name] = change.node
    return names


def _names_left(old: Dict[str, int], changes: Sequence[Change]) -> List[Dict[str, int]]:
    """What may be left of a folder: no change, all of them, and what lies between."""
    kept = [changes[:number] for number in range(len(changes) + 1)]
    kept.insert(1, kept.pop())
    if len(changes) <= 5:
        for some in product((False, True), repeat=len(changes)):
            kept.append([change for change, is_kept in zip(changes, some) if is_kept])
    else:
        for number, change in enumerate(changes):
            kept.append([*changes[:number], *changes[number + 1 :]])
            kept.append([change])
    found: List[Dict[str, int]] = []
    for some in kept:
        names = _renamed(old, some)
        if names not in found:
            found.append(names)
    return found


def _choices(left: Sequence[List[T]]) -> Iterator[Sequence[T]]:
    """Choose one of each; of too many, all of the first or second but one."""
    count = 1
    for each in left:
        count *= len(each)
    if count <= _MANY:
        yield from product(*left)
        return
    for base in (0, 1):
        chosen = [each[min(base, len(each) - 1)] for each in left]
        for at, each in enumerate(left):
            for one in each:
                yield [*chosen[:at], one, *chosen[at + 1 :]]
