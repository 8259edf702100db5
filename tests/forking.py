"""Commands forked off a process that has imported what they need, instead of a new Python for each.

Each is a process of its own all the same, with arguments, environment, folder, session and
descriptors of its own, and it runs `queuectl.cli.main` to its end. Spared is what is the same each
time: to start Python and to import takes ten times as long as most commands do. What only a start
from scratch shows is not for this; nor is a command that leaves processes behind, for those would
not be found: /proc shows what was forked with the environment of whom it was forked from.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import pkgutil
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, TextIO, Tuple

RUNNING, HELD_OPEN = "still running", "output held open by others"
"""What may be the case when the time of a command is over."""

_SIZE = 8  # bytes that tell how long a request is
_REDIS = "queuectl.store.redis"  # loaded once it is wanted: it takes as long as all else


class Ended(NamedTuple):
    """What came of a command: its exit code, negative if it was a signal, and what it wrote."""

    code: int
    out: bytes
    err: bytes


class TooLateError(Exception):
    """A command did not end in time, and was killed.

    Args:
        what: whether it still ran.
        timeout: how many seconds it was given.
        out: what it had written.
    """

    def __init__(self, what: str, timeout: float, out: Optional[bytes]) -> None:
        super().__init__(f"{what} after {timeout:g}s\n--- out: {out!r}")


class Commands:
    """Runs commands, also several at once, until it is closed.

    Args:
        python: how Python is called.
        env: the environment in which it starts, without a test's mark.
    """

    def __init__(self, python: Sequence[str], env: Dict[str, str]) -> None:
        self._turn = threading.Lock()
        self._server, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*python, __file__, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of whom commands are forked off."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._server.close()
        self._process.wait()

    def run(self, words: Sequence[str], cwd: str, env: Dict[str, str], timeout: float) -> Ended:
        """Run `queuectl WORDS` to its end.

        Raises:
            TooLateError: it did not end in so many seconds, and was killed.
        """
        stdin = os.open(os.devnull, os.O_RDONLY)
        ours, (said, out, err) = zip(*(os.pipe() for _ in range(3)))
        try:
            request = json.dumps([list(words), cwd, env]).encode()
            fds = array.array("i", [said, stdin, out, err])
            with self._turn:
                head = len(request).to_bytes(_SIZE, "big")
                self._server.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                self._server.sendall(request)
        finally:
            for fd in (said, stdin, out, err):
                os.close(fd)
        try:
            return _listen(ours, timeout)
        finally:
            for fd in ours:
                os.close(fd)


def _listen(pipes: Sequence[int], timeout: float) -> Ended:
    """Read all that is written into the pipes, of which the first tells the pid, then its end."""
    deadline = time.monotonic() + timeout
    read = {fd: bytearray() for fd in pipes}
    told, out, err = read.values()
    with selectors.DefaultSelector() as selector:
        for fd in pipes:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                pid, *code = map(int, told.split())
                if code:
                    raise TooLateError(HELD_OPEN, timeout, bytes(out))
                os.killpg(pid, signal.SIGKILL)
                raise TooLateError(RUNNING, timeout, bytes(out))
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                read[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return Ended(int(told.split()[1]), bytes(out), bytes(err))


class Server:
    """The process that forks, which takes requests as long as there is somebody to make them.

    Args:
        requests: where they come from.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        # By process id, where its end is to be told.
        self._running: Dict[int, int] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Fork what is asked for."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    os.read(self._woken, 4096)
                    self._tell_of_the_ended()
                if self._requests in ready:
                    request, fds = self._take()
                    if not fds:
                        return
                    if request[2].get("QUEUECTL_STORE", "").startswith("redis"):
                        importlib.import_module(_REDIS)
                    self._fork(selector, request, fds)

    def _take(self) -> Tuple[Any, List[int]]:
        """Take a request, and the descriptors that come with it; none at the end."""
        fds = array.array("i")
        room = socket.CMSG_LEN(4 * fds.itemsize)
        head, ancillary, _, _ = self._requests.recvmsg(_SIZE, room, socket.MSG_WAITALL)
        for _, _, data in ancillary:
            fds.frombytes(data)
        size, parts = int.from_bytes(head, "big"), []
        while size:
            parts.append(self._requests.recv(size))
            size -= len(parts[-1])
        return json.loads(b"".join(parts) or b"null"), list(fds)

    def _fork(self, selector: selectors.BaseSelector, request: Any, fds: List[int]) -> None:
        pid = os.fork()
        said, *standard = fds
        if pid == 0:
            selector.close()
            self._let_go()
            os.close(said)
            become(*request, *standard)
        _tell(said, pid)
        self._running[pid] = said
        for fd in standard:
            os.close(fd)

    def _tell_of_the_ended(self) -> None:
        for pid, said in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                _tell(said, code)
                os.close(said)
                del self._running[pid]

    def _let_go(self) -> None:
        """In a child: be none of this."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._requests.close()
        for fd in (self._woken, self._wake, *self._running.values()):
            os.close(fd)


def _tell(said: int, number: int) -> None:
    # Who has given a command up does not listen any more.
    with contextlib.suppress(BrokenPipeError):
        os.write(said, b"%d\n" % number)


def become(words: Sequence[str], cwd: str, env: Dict[str, str], *standard: int) -> None:
    """In a forked process: be a command, as it would be had it been started from scratch.

    Args:
        words: what follows `queuectl`.
        cwd: where it runs.
        env: its environment.
        *standard: what becomes its input, its output, and where it complains.
    """
    from queuectl import __main__
    from queuectl.cli import main

    os.setsid()
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    # Whether one can seek in it, Python looks once.
    sys.stdin = _opened(0, "r", sys.__stdin__)
    sys.stdout = _opened(1, "w", sys.__stdout__)
    sys.stderr = _opened(2, "w", sys.__stderr__)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    random.seed()
    sys.argv = [__main__.__file__, *words]
    sys.path[0] = cwd
    try:
        main()
    except BaseException:  # noqa: BLE001  # Nothing may get out into a second server.
        traceback.print_exc()
        os._exit(70)


def _opened(fd: int, mode: str, like: TextIO) -> TextIO:
    options = {"encoding": like.encoding, "errors": like.errors, "closefd": False}
    return open(fd, mode, 1 if like.line_buffering else -1, **options)


def load() -> None:
    """Import what most commands import."""
    import queuectl.cli

    for module in pkgutil.iter_modules(queuectl.cli.__path__):
        importlib.import_module(f"queuectl.cli.{module.name}")
    for name in ("manager", "render", "store.file", "store.opening"):
        importlib.import_module(f"queuectl.{name}")


if __name__ == "__main__":
    load()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        Server(requests).serve()
