"""What all commands have in common: `--store`, `--json`, help with examples, and late loading."""

from __future__ import annotations

import contextlib
import inspect
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import click
from click.types import StringParamType

from queuectl.cli import output
from queuectl.errors import InvalidValueError
from queuectl.manager import QueueManager

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

T = TypeVar("T")
Sections = Mapping[str, Mapping[str, str]]


class Session:
    """What was asked for before or after the command: in which store, and whether as JSON.

    Attributes:
        store: what `--store` says.
        json: whether `--json` was given.
    """

    def __init__(self) -> None:
        self.store: Optional[str] = None
        self.json = False

    def open(self, create: bool = False) -> QueueManager:
        """Open the queue; what a user should know of it goes to standard error.

        Raises:
            QueueError: see `QueueManager.open`.
        """
        return QueueManager.open(self.store, create=create, notice=output.notice)

    @property
    def talks(self) -> bool:
        """Whether a person is to be talked to: at a terminal, unless JSON was asked for."""
        return not self.json and output.is_terminal()


pass_session = click.make_pass_decorator(Session)


def checked(
    parse: Callable[[str], T],
) -> Callable[[click.Context, click.Parameter, Optional[str]], Optional[T]]:
    """Make the callback of an option from what parses its text and raises InvalidValueError."""

    def callback(
        context: click.Context, parameter: click.Parameter, text: Optional[str]
    ) -> Optional[T]:
        if text is None:
            return None
        try:
            return parse(text)
        except InvalidValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


class _Text(StringParamType):
    """Text that the shell completes by what the parameter is called."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> List[CompletionItem]:
        """Offer what can stand there."""
        from queuectl.cli.completers import complete

        return complete(ctx, param, incomplete)


def _complete_by_name(parameters: Sequence[click.Parameter]) -> None:
    for parameter in parameters:
        if parameter.type is click.STRING:
            parameter.type = _TEXT


_TEXT = _Text()


def _common_options() -> List[click.Parameter]:
    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Session), str(parameter.name), value)

    return [
        click.Option(
            ["--store"],
            metavar="PATH",
            expose_value=False,
            callback=remember,
            help="Where jobs are kept. Default: QUEUECTL_STORE, else the nearest queuectl_data.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=remember,
            help="Print JSON, and nothing else.",
        ),
    ]


@contextlib.contextmanager
def _usage_of(context: click.Context) -> Iterator[None]:
    """Make bad usage know its command, also a bad value that was found only while that ran."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or context
        raise
    except InvalidValueError as error:
        raise click.UsageError(str(error), context) from error


@contextlib.contextmanager
def _parsing(context: click.Context) -> Iterator[None]:
    """While words are parsed, which also prints: help and the version."""
    with _usage_of(context), output.writing():
        yield


def _keep_examples(text: Optional[str]) -> Optional[str]:
    """Mark the examples in a help text, so that Click leaves their lines alone."""
    mark = "\b\nExample:\n"
    return None if text is None else inspect.cleandoc(text).replace("Example:\n", mark)


def help_if_bare(context: click.Context) -> None:
    """Print the help of a group of which no command was named."""
    if context.invoked_subcommand is None:
        output.line(context.get_help())


class Command(click.Command):
    """A command that takes `--store` and `--json`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = _keep_examples(self.help)
        self.params.extend(_common_options())
        _complete_by_name(self.params)

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        """Parse the words behind its name."""
        with _parsing(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with _usage_of(ctx):
            return super().invoke(ctx)


class Group(click.Group):
    """A command of commands that takes `--store` and `--json`; it loads one when that is named.

    Args:
        sections: by heading, where to find each command, as `module:name`. What has no heading is
            not listed.
    """

    command_class = Command

    def __init__(self, *args: Any, sections: Optional[Sections] = None, **options: Any) -> None:
        options.update(invoke_without_command=True, no_args_is_help=False)
        super().__init__(*args, **options)
        self.help = _keep_examples(self.help)
        self.params.extend(_common_options())
        _complete_by_name(self.params)
        self._sections = sections or {}
        self._places = {
            name: place for section in self._sections.values() for name, place in section.items()
        }

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        """Parse the words behind its name, up to that of a command."""
        with _parsing(ctx):
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> List[str]:
        """Name the commands that are shown."""
        listed = [
            name for heading, section in self._sections.items() if heading for name in section
        ]
        return [*listed, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """Load a command."""
        if cmd_name in self._places:
            module, _, name = self._places[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: List[str]
    ) -> Tuple[Optional[str], Optional[click.Command], List[str]]:
        """Find the command that the first word names.

        Raises:
            click.UsageError: there is none; the message offers the nearest name.
        """
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name.lower(), self.list_commands(ctx), n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"no such command {name!r}{hint}", ctx)
        return name, command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with _usage_of(ctx):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under their headings."""
        sections: Dict[str, Sequence[str]] = {
            heading: list(section) for heading, section in self._sections.items() if heading
        }
        sections["Commands"] = super().list_commands(ctx)
        for heading, names in sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (name, command.get_short_help_str(formatter.width))
                for name, command in commands
                if command is not None and not command.hidden
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
