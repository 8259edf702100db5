"""The command line: a module for each family of commands, loaded when one of them is called."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run `queuectl` with the words of this process's command line, and end with its exit code.

    This ends the process: nothing behind the call is run.
    """
    try:
        # What is imported stays: looking for garbage among it takes a twentieth of the time.
        gc.disable()
        from queuectl.cli.app import run

        gc.freeze()
        gc.enable()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    # Everything is written and closed. To take the modules apart would take longer than to enqueue.
    os._exit(code)
