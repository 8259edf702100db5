"""`queuectl config`: reading and changing the settings of a store."""

from __future__ import annotations

import os
from typing import Any, List, NamedTuple, Optional, Tuple

import click

from queuectl.cli import output
from queuectl.cli.command import Group, Session, pass_session
from queuectl.config import SETTINGS, Setting, Settings, setting
from queuectl.errors import NoStoreError
from queuectl.render import row, to_json, visible
from queuectl.text import as_utf8


class Shown(NamedTuple):
    """A setting as it is shown: with its value, and where that comes from."""

    entry: Setting
    value: Any
    source: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.entry.name

    @property
    def variable(self) -> str:
        """The variable of the environment that holds it."""
        return "QUEUECTL_" + self.name.upper()

    @property
    def text(self) -> str:
        """Its value as it may be given."""
        return self.entry.write(self.value)

    @property
    def plain(self) -> Any:
        """Its value in JSON; durations are in seconds, sizes in bytes."""
        return (
            int(self.value) if isinstance(self.value, float) and self.value % 1 == 0 else self.value
        )


@click.group(cls=Group, short_help="Show the settings, or change one.")
@click.option("--key", metavar="K", help="Show this setting only.")
@click.option("--value", metavar="V", help="With --key: set it to this.")
@pass_session
@click.pass_context
def config(
    context: click.Context, session: Session, key: Optional[str], value: Optional[str]
) -> None:
    """Show the settings, or change one.

    A setting comes from the option of a command, else from a variable such as
    QUEUECTL_MAX_RETRIES, else from the store, else it has its default. Names may
    be written with - or _. Durations are 90, 10s, 5m, 2h, 1d; none lifts a limit.
    lease and redis_output are for stores that machines share: the job file needs
    neither.

    Example:
      queuectl config
      queuectl config --key max-retries --value 5
      queuectl config get max_retries
      queuectl config reset max_retries
    """
    if context.invoked_subcommand is not None:
        if key is not None or value is not None:
            raise click.UsageError(f"--key and --value do not go with {context.invoked_subcommand}")
    elif value is None:
        _print(session, key)
    elif key is None:
        raise click.UsageError("--value needs --key")
    else:
        _set(session, key, value)


@config.command("list", short_help="Show all settings, and where each comes from.")
@pass_session
def list_settings(session: Session) -> None:
    """Show all settings, and where each comes from.

    Into a pipe goes one setting a line: name, value and source, separated by
    tabs. With --json an object from name to value, durations being in seconds.

    Example:
      queuectl config list
    """
    _print(session, None)


@config.command("get", short_help="Show one setting.")
@click.argument("key")
@pass_session
def get(session: Session, key: str) -> None:
    """Show one setting; into a pipe its value and nothing else.

    Example:
      queuectl config get backoff-base
    """
    _print(session, key)


# A value such as -1 is refused for what it is, not for looking like an option.
@config.command(
    "set", short_help="Change a setting.", context_settings={"ignore_unknown_options": True}
)
@click.argument("key")
@click.argument("value")
@pass_session
def set_value(session: Session, key: str, value: str) -> None:
    """Change a setting, for all who use this store.

    Example:
      queuectl config set max_retries 5
      queuectl config set job-timeout 10m
    """
    _set(session, key, value)


@config.command("reset", short_help="Give settings their defaults again.")
@click.argument("keys", nargs=-1, metavar="KEY...")
@click.option("--all", "everything", is_flag=True, help="All settings.")
@pass_session
def reset(session: Session, keys: Tuple[str, ...], everything: bool) -> None:
    """Give settings their defaults again.

    Example:
      queuectl config reset max_retries
      queuectl config reset --all
    """
    if everything == bool(keys):
        raise click.UsageError(
            "give keys, or --all" if not keys else "give keys or --all, not both"
        )
    entries = [setting(key) for key in (SETTINGS if everything else keys)]
    with session.open() as manager:
        manager.store.configure({entry.name: None for entry in entries})
    _confirm(session, [Shown(entry, entry.default, "default") for entry in entries])


def _set(session: Session, key: str, text: str) -> None:
    entry = setting(key)
    text = as_utf8(text)
    value = entry.read(text)
    with session.open(create=True) as manager:
        manager.configure(key, text)
    _confirm(session, [Shown(entry, value, "store")])


def _confirm(session: Session, changed: List[Shown]) -> None:
    """Show what was stored, and say so where it has no effect."""
    if session.talks:
        screen = output.screen()
        for shown in changed:
            output.line(screen.say("✅", f"{shown.name} = {screen.text(shown.text)}"))
    else:
        _print_for_programs(session, changed)
    for shown in changed:
        if os.environ.get(shown.variable):
            output.notice(f"{shown.variable} is set, and wins over what is stored")


def _print(session: Session, key: Optional[str]) -> None:
    """Show one setting, or all; where there is no store, nothing is stored."""
    names = list(SETTINGS) if key is None else [setting(key).name]
    try:
        with session.open() as manager:
            settings = manager.settings
    except NoStoreError:
        settings = Settings({})
    found = [Shown(SETTINGS[name], settings[name], settings.source(name)) for name in names]
    if not session.talks:
        if key is not None and not session.json:
            output.line(visible(found[0].text))
        else:
            _print_for_programs(session, found)
        return
    screen = output.screen()
    if key is not None:
        output.line(screen.text(f"{found[0].name} = {found[0].text} ({found[0].source})"))
        return
    output.line(screen.paint(screen.say("⚙️", "Configuration"), bold=True))
    rows = [(shown.name, shown.text, shown.source) for shown in found]
    output.line(screen.table(("Setting", "Value", "Source"), rows, (1, 2)))


def _print_for_programs(session: Session, settings: List[Shown]) -> None:
    if session.json:
        output.line(to_json({shown.name: shown.plain for shown in settings}))
    else:
        for shown in settings:
            output.line(row((shown.name, shown.text, shown.source)))
