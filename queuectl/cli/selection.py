"""Which jobs a command is about: those that are named, or those that options describe."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, TypeVar

import click

from queuectl.cli.command import checked
from queuectl.filter import JobFilter
from queuectl.values import validate_label, validate_queue

F = TypeVar("F", bound=Callable[..., Any])


def label_option(help_text: str = "Only jobs with this label.") -> Callable[[F], F]:
    """The option `--label` of a command that looks for jobs."""
    return click.option("--label", metavar="L", callback=checked(validate_label), help=help_text)


def queue_option(help_text: str = "Only jobs of this queue.") -> Callable[[F], F]:
    """The option `--queue` of a command that looks for jobs."""
    return click.option("--queue", metavar="Q", callback=checked(validate_queue), help=help_text)


def choose(
    job_ids: Sequence[str], *, everything: Optional[bool] = None, **wanted: Optional[str]
) -> Optional[JobFilter]:
    """Tell what a command is about.

    Args:
        job_ids: the jobs that are named.
        everything: whether `--all` was given; none where there is no such option.
        **wanted: by field of `JobFilter`, the options that describe jobs.

    Returns:
        A description of the jobs; nothing if they are named.

    Raises:
        click.UsageError: both, or neither.
    """
    described = {name: value for name, value in wanted.items() if value is not None}
    given = [*(["--all"] if everything else []), *(f"--{name}" for name in described)]
    if job_ids and given:
        raise click.UsageError(f"give ids or {given[0]}, not both")
    if everything and described:
        raise click.UsageError(f"choose one of {given[0]} and {given[1]}")
    if job_ids:
        return None
    if not given:
        options = [*([] if everything is None else ["all"]), *wanted]
        raise click.UsageError("give ids, or " + " or ".join(f"--{name}" for name in options))
    return JobFilter(**described)  # type: ignore[arg-type]
