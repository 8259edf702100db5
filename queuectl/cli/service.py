"""`queuectl service`: workers of a store as a service of the user's own, under systemd.

systemd reads a value in several passes: it takes `%` for a specifier, undoes quotes and
backslashes, and in a command replaces `$`. A path comes out of all of them as it went in.
"""

from __future__ import annotations

import math
import os
import re
import sys
from typing import Dict, Optional, Tuple

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.config import MAX_WORKERS, Settings, parse_whole
from queuectl.errors import NoStoreError, RequestError
from queuectl.text import as_utf8

# start needs some time itself, before the first grace and behind the second.
_MARGIN = 15

_PLAIN = re.compile(r"[A-Za-z0-9/._=:,@+-]+")

# systemd takes no program whose path holds one of these, however it is quoted.
_REFUSED = re.compile(r"[\x00-\x1f\x7f'\"\\]")

_UNIT = """\
# Workers of a QueueCTL store, as a service of your own. To save it and start it:
#   mkdir -p ~/.config/systemd/user
#   queuectl service > ~/.config/systemd/user/queuectl.service
#   systemctl --user daemon-reload
#   systemctl --user enable --now queuectl
# To have it run while you are not logged in, from boot on:
#   loginctl enable-linger
# Do it again when queuectl, the store, your PATH, shutdown_grace, kill_grace or the first of the
# hooks (on_complete, on_failed, on_dead) has changed.
{remarks}
[Unit]
Description=QueueCTL workers

[Service]
{environment}
ExecStart={command}
# TERM goes to start alone, which lets the jobs finish for so long.
KillMode=mixed
TimeoutStopSec={patience}
# A job that takes too much memory is not the end of all others.
OOMPolicy=continue
Restart=on-failure
{restart}

[Install]
WantedBy=default.target
"""

_OF_A_FOLDER = """\
# Bad usage, and a store that cannot be used or is damaged, do not get better by themselves.
RestartPreventExitStatus=2 3 4"""

_OF_A_SERVER = """\
# A server may be up later than this machine; bad usage does not get better by itself.
RestartSec=5
RestartPreventExitStatus=2 4"""

_SECRET = """\
# The URL of the store may hold a password, and a unit is for all to read. So write it from
# QUEUECTL_STORE to a file that is yours alone:
#   (umask 077; printf 'QUEUECTL_STORE="%s"\\n' "$QUEUECTL_STORE" > ~/.config/queuectl.env)
"""
_SECRET_FILE = "EnvironmentFile=%h/.config/queuectl.env"


@click.command(cls=Command, short_help="Print a systemd unit that runs workers of this store.")
@click.option(
    "--count",
    metavar="N",
    callback=checked(lambda text: parse_whole(text, 1, MAX_WORKERS)),
    help="How many workers. Default: setting worker_count, as it is at each start.",
)
@pass_session
def service(session: Session, count: Optional[int]) -> None:
    """Print a systemd user unit that runs workers of this store.

    It names the queuectl that prints it, the store and your PATH, for a service
    has an environment of its own. Its first lines say where to save it, and how
    to start it. A URL with a password is not in it: they say how to write that to
    a file of your own. Nothing is changed, and no store is made.

    Example:
      queuectl service
      queuectl service --count 2 > queuectl.service
    """
    if session.json:
        raise click.UsageError("service has no JSON form: it is a systemd unit")
    from queuectl.store.opening import locate

    location = locate(session.store)
    shown, settings = _look_at(session)
    is_url = "://" in location
    is_secret = is_url and shown != location
    variables = {
        "QUEUECTL_STORE": None if is_secret else location,
        "PATH": os.environ.get("PATH"),
    }
    environment = [
        "Environment=" + _quoted(f"{name}={value}") for name, value in variables.items() if value
    ]
    unit = _UNIT.format(
        remarks=_SECRET if is_secret else "",
        environment="\n".join([_SECRET_FILE, *environment] if is_secret else environment),
        command=_command(count),
        patience=_patience(settings),
        restart=_OF_A_SERVER if is_url else _OF_A_FOLDER,
    )
    # Whatever the locale: systemd reads UTF-8.
    output.write_bytes(unit.encode("utf-8"))


def _command(count: Optional[int]) -> str:
    program = os.path.abspath(sys.argv[0])
    words = [program]
    if os.path.basename(program) == "__main__.py":
        words = [sys.executable, "-m", "queuectl"]
    words += ["start"] if count is None else ["start", "--count", str(count)]
    if _REFUSED.search(words[0]):
        words[:0] = ["/bin/sh", "-c", 'exec "$0" "$@"']
    # In the path of the program, $ stands for itself.
    return " ".join([_quoted(words[0]), *(_quoted(word).replace("$", "$$") for word in words[1:])])


def _look_at(session: Session) -> Tuple[str, Dict[str, str]]:
    """How the store is shown to people, and its settings."""
    try:
        with session.open() as manager:
            return manager.store.shown, manager.store.settings()
    except NoStoreError as error:
        return error.path, {}


def _patience(stored: Dict[str, str]) -> int:
    """How long `start` may take to stop, in seconds, if nobody changes the settings."""
    from queuectl.notifier import time_for_hooks

    # Without the variables of this shell, which the service does not have.
    settings = Settings(stored, {})
    graces: float = settings["shutdown_grace"] + settings["kill_grace"] + time_for_hooks(settings)
    return math.ceil(graces) + _MARGIN


def _quoted(text: str) -> str:
    text = as_utf8(text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"systemd cannot be told of {text}: it is not UTF-8") from error
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r'(["\\])', r"\\\1", text.replace("%", "%%"))
    plain = [one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped]
    return f'"{"".join(plain)}"'
