"""strace, as the tests use it: to look at system calls, to make them fail, or to kill before them.

It is attached to a forked child that waits for it, so what is traced and counted is what the child
was asked to do, and not the start of a Python. Where strace is missing, or may not attach, the
tests that need it are skipped by name; but not where `TOOLS_REQUIRED` is set, as `.ci/run` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import forking
from starting import state_of
from support import wait_until
from test_store_tools import Child

_ALLOW_TRACER = 0x59616D61  # PR_SET_PTRACER: else Yama allows nobody but a parent to attach.
_LINE = re.compile(r"^\d+ +(.*)$")
_CALL = re.compile(r"^(\w+)\(")


class Trace(NamedTuple):
    """What became of a traced child.

    Attributes:
        code: its exit code, negative if it was a signal.
        said: the traceback, if it raised an exception.
        lines: what strace wrote, without process ids.
    """

    code: int
    said: str
    lines: List[str]

    @property
    def calls(self) -> List[str]:
        """The names of the traced calls, in order."""
        return [match[1] for match in map(_CALL.match, self.lines) if match]


def trace(act: Callable[[], object], *options: str) -> Trace:
    """Do something in a child of its own, traced from its first step to its end.

    Args:
        act: what to do.
        *options: more of strace's.
    """
    go, let_go = os.pipe()

    def child() -> None:
        os.close(let_go)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_ALLOW_TRACER, ctypes.c_ulong(-1), 0, 0, 0)
        os.write(ready, b"r")
        if os.read(go, 1):
            act()

    wait_ready, ready = os.pipe()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        out = os.path.join(folder, "trace")
        one = Child(child)
        for fd in (go, ready):
            os.close(fd)
        stack.callback(os.close, wait_ready)
        try:
            os.read(wait_ready, 1)
            # Attached to while it waits: else its waiting would be the first call that is seen.
            wait_until(lambda: state_of(one.pid) == "S", what="the child to wait")
            strace = subprocess.Popen(
                ["strace", "-f", "-o", out, *options, "-p", str(one.pid)],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            with strace:
                assert strace.stderr is not None
                said = strace.stderr.readline()
                if "attached" not in said:
                    raise OSError(f"strace cannot attach: {said.strip()}")
                os.write(let_go, b"g")
                code, error = one.end()
        except BaseException:
            os.close(let_go)
            one.end()
            raise
        os.close(let_go)
        with open(out, encoding="utf-8") as file:
            lines = [match[1] for match in map(_LINE.match, file) if match]
    return Trace(code, error, lines)


def trace_command(
    words: Sequence[str], cwd: Path, env: Dict[str, str], *options: str
) -> Tuple[Trace, str, str]:
    """Run `queuectl WORDS`, traced; return its trace, what it printed, and of what it complained.

    It is forked off: else most of what is traced is the start of a Python.

    Args:
        words: what follows `queuectl`.
        cwd: where it runs.
        env: its environment.
        *options: more of strace's.
    """
    forking.load()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def command() -> None:
            standard = (os.open(os.devnull, os.O_RDONLY), out.fileno(), err.fileno())
            forking.become(words, str(cwd), env, *standard)

        found = trace(command, *options)
        for file in (out, err):
            file.seek(0)
        return found, out.read(), err.read()


@functools.lru_cache(maxsize=None)
def missing() -> Optional[str]:
    """Why strace cannot be used here; nothing if it can, or must."""
    if os.environ.get("TOOLS_REQUIRED"):
        return None
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        trace(lambda: None)
    except OSError as error:
        return str(error)
    return None
