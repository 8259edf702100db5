"""The command `queuectl` itself: which commands there are, and what becomes of errors.

This is the one place where an error becomes a line on standard error and an exit code.
"""

from __future__ import annotations

import os
from typing import Optional, Sequence

import click

from queuectl import __version__
from queuectl.cli import output
from queuectl.cli.command import Group, Session, help_if_bare
from queuectl.errors import QueueError

BUG = 70
INTERRUPTED = 130
PIPE_CLOSED = 141

_COMPLETE = "_QUEUECTL_COMPLETE"
_SECTIONS = {
    "Core commands": {
        "enqueue": "queuectl.cli.enqueue:enqueue",
        "start": "queuectl.cli.workers:start",
        "stop": "queuectl.cli.workers:stop",
        "status": "queuectl.cli.status:status",
        "nodes": "queuectl.cli.nodes:nodes",
        "metrics": "queuectl.cli.metrics:metrics",
        "serve": "queuectl.cli.serve:serve",
        "list": "queuectl.cli.jobs:list_jobs",
        "show": "queuectl.cli.jobs:show",
        "logs": "queuectl.cli.logs:logs",
        "wait": "queuectl.cli.wait:wait",
    },
    "Jobs that are there": {
        "cancel": "queuectl.cli.changes:cancel",
        "retry": "queuectl.cli.changes:retry",
        "edit": "queuectl.cli.changes:edit",
        "purge": "queuectl.cli.changes:purge",
    },
    "Queues": {"queue": "queuectl.cli.queue:queue"},
    "Care of the store": {
        "doctor": "queuectl.cli.doctor:doctor",
        "export": "queuectl.cli.transfer:export_queue",
        "import": "queuectl.cli.transfer:import_queue",
        "stores": "queuectl.cli.stores:stores",
    },
    "Configuration": {"config": "queuectl.cli.config:config"},
    "Dead letter queue": {"dlq": "queuectl.cli.dlq:dlq"},
    "Shell and system": {
        "completion": "queuectl.cli.completion:completion",
        "service": "queuectl.cli.service:service",
    },
    "": {"worker": "queuectl.cli.workers:worker"},
}


@click.group(
    cls=Group,
    sections=_SECTIONS,
    epilog="queuectl COMMAND --help tells more about each, with an example.",
)
@click.version_option(__version__, message="queuectl %(version)s")
@click.pass_context
def queuectl(context: click.Context) -> None:
    """A background job queue for shell commands.

    Jobs wait in a store until a worker runs them; what fails is retried, ever
    more slowly, and what keeps failing lands in the dead letter queue (DLQ).

    Example:
      queuectl enqueue "echo 'Hello World'"
      queuectl start --count 2 --timeout 1
      queuectl list
    """
    help_if_bare(context)


def run(words: Sequence[str]) -> int:
    """Run one command line.

    Args:
        words: what follows the program's name.

    Returns:
        The exit code. Whatever went wrong was said on standard error.
    """
    output.prepare()
    try:
        code = call(words)
        output.flush()
    except click.UsageError as error:
        output.notice(usage_text(error))
        code = error.exit_code
    except QueueError as error:
        output.notice(str(error))
        code = error.exit_code
    except BrokenPipeError:
        code = PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except Exception:  # noqa: BLE001  # A bug: its traceback is harmless only once escaped.
        _confess()
        code = BUG
    output.flush_what_can_be()
    return code


def call(words: Sequence[str]) -> int:
    """Run one command line, as `run` does, but let what goes wrong through.

    Raises:
        click.UsageError: the words are wrong.
        QueueError: something else is.
    """
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(
            queuectl, {"obj": Session()}, "queuectl", _COMPLETE, os.environ[_COMPLETE]
        )
    try:
        with queuectl.make_context("queuectl", list(words), obj=Session()) as context:
            queuectl.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return 0


def usage_text(error: click.UsageError) -> str:
    """Put bad usage into one line that ends in the help to read."""
    command = error.ctx.command_path if error.ctx is not None else "queuectl"
    wrong = _what_is_wrong(error)
    return f"{wrong}{'' if wrong.endswith('?') else ';'} see {command} --help"


def _what_is_wrong(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        near = _nearest_option(error)
        return f"no such option {error.option_name}" + (f": did you mean {near}?" if near else "")
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"missing {error.param.human_readable_name}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"bad value for {error.param.opts[0]}: {error.message}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _nearest_option(error: click.NoSuchOption) -> Optional[str]:
    """Name the long option that one is nearly, whatever its case, which Click minds."""
    if error.ctx is None or not error.option_name.startswith("--"):
        return None
    import difflib

    options = error.ctx.command.get_params(error.ctx)
    names = [name for option in options for name in option.opts if name.startswith("--")]
    near = difflib.get_close_matches(error.option_name.lower(), names, n=1)
    return near[0] if near else None


def _confess() -> None:
    import traceback

    from queuectl.render import visible_output

    output.complain(visible_output(traceback.format_exc()))
    output.notice("this is a bug in queuectl: please report it, with what is above")
