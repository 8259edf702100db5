"""What the shell offers when TAB is pressed: by what a parameter is called, what can stand there.

Whatever is wrong, a completer offers nothing and says nothing. It makes no store, takes no lock and
never waits. What it offers is put onto a command line as it is, so it is never anything that a
shell could take for more than a word.
"""

from __future__ import annotations

import os
import re
from typing import Callable, Dict, List, Optional, Sequence

import click
from click.shell_completion import CompletionItem

from queuectl.cli.command import Session
from queuectl.config import SETTINGS
from queuectl.errors import QueueError
from queuectl.job import Job, JobState
from queuectl.store.glance import Glimpse, Wanted, glance
from queuectl.values import DEFAULT_QUEUE, PRIORITIES

Items = List[CompletionItem]
Completer = Callable[[click.Context, click.Parameter, str], Items]

_MOST_JOBS = 50
_MOST_LINES = 1000
_WORD = re.compile(rb"[A-Za-z0-9._][A-Za-z0-9._-]*")


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer what fits a parameter, if what it is called says what that is."""
    for name in parameter.opts:
        if name in _BY_NAME:
            return _BY_NAME[name](context, parameter, incomplete)
    return []


def complete_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the ids of jobs, those enqueued last first."""
    return _jobs(context, parameter, incomplete, JobState.ALL)


def complete_dead(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the ids of dead jobs, those enqueued last first."""
    return _jobs(context, parameter, incomplete, (JobState.DEAD,))


def complete_states(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the states that are not named yet, also behind a comma."""
    before, comma, word = incomplete.rpartition(",")
    states = [state for state in (*JobState.ALL, "dlq") if state not in before.split(",")]
    return _items([f"{before}{comma}{state}" for state in _matching(states, word)])


def complete_settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the names of settings, with `-` where that was typed."""
    written = "-" if "-" in incomplete else "_"
    return _items(_matching([name.replace("_", written) for name in SETTINGS], incomplete))


def complete_queues(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the names of the queues in which there were jobs of late."""
    return _seen(context, incomplete, lambda job: (job.queue,), DEFAULT_QUEUE)


def complete_labels(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Offer the labels that jobs had of late."""
    return _seen(context, incomplete, lambda job: job.labels)


def complete_priorities(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> Items:
    """Offer the priorities that have names."""
    return _items(_matching(list(PRIORITIES), incomplete))


def complete_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Have the shell offer files."""
    return [CompletionItem(incomplete, type="file")]


def complete_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Have the shell offer folders."""
    return [CompletionItem(incomplete, type="dir")]


_BY_NAME: Dict[str, Completer] = {
    "job_id": complete_jobs,
    "job_ids": complete_jobs,
    "--state": complete_states,
    "--queue": complete_queues,
    "name": complete_queues,
    "--label": complete_labels,
    "--after": complete_jobs,
    "--after-any": complete_jobs,
    "--priority": complete_priorities,
    "key": complete_settings,
    "keys": complete_settings,
    "--key": complete_settings,
    "path": complete_files,
    "--file": complete_files,
    "--output": complete_files,
    "--token-file": complete_files,
    "--store": complete_folders,
}


def _seen(
    context: click.Context, incomplete: str, values_of: Callable[[Job], Sequence[str]], *more: str
) -> Items:
    """Offer values of the jobs that were enqueued last, and some more."""
    from queuectl.store.record import from_line

    found = set(more)
    for seen in _glance(context, lambda seen: True, _MOST_LINES):
        try:
            values = values_of(from_line(seen.line))
            found.update(value for value in values if _WORD.fullmatch(os.fsencode(value)))
        except (ValueError, TypeError, AttributeError):
            # The line is damaged, or of a newer version. Whoever needs it will say so.
            continue
    return _items(_matching(sorted(found), incomplete))


def _jobs(
    context: click.Context, parameter: click.Parameter, incomplete: str, states: Sequence[str]
) -> Items:
    given = context.params.get(str(parameter.name)) or ()
    prefix, used = os.fsencode(incomplete), {os.fsencode(word) for word in given}

    def is_wanted(seen: Glimpse) -> bool:
        job_id = seen.job_id
        fits = seen.state in states and job_id.startswith(prefix) and job_id not in used
        return fits and _WORD.fullmatch(job_id) is not None

    return _items([seen.job_id.decode() for seen in _glance(context, is_wanted, _MOST_JOBS)])


def _glance(context: click.Context, wanted: Wanted, most: int) -> List[Glimpse]:
    from queuectl.store.opening import find_files, locate

    session = context.find_object(Session)
    try:
        return glance(
            find_files(locate(_expanded(session.store if session else None))), wanted, most
        )
    except (QueueError, OSError):
        return []


def _expanded(location: Optional[str]) -> Optional[str]:
    """What the shell will make of a path that it has not read yet."""
    return location and os.path.expanduser(os.path.expandvars(location))


def _matching(names: Sequence[str], prefix: str) -> List[str]:
    return [name for name in names if name.startswith(prefix)]


def _items(words: Sequence[str]) -> Items:
    return [CompletionItem(word) for word in words]
