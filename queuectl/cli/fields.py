"""The options that say what can be said of a new job; see `queuectl.fields`."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Sequence, Tuple, TypeVar

import click

from queuectl.cli.command import checked
from queuectl.errors import InvalidValueError
from queuectl.fields import FIELDS

F = TypeVar("F", bound=Callable[..., Any])


def field_options(*but: str) -> Callable[[F], F]:
    """The options for all that can be said of a new job, as a decorator.

    Args:
        *but: keys without an option.
    """

    def decorate(function: F) -> F:
        for key, field in reversed(list(FIELDS.items())):
            if key not in but:
                name = "label" if key == "labels" else key.replace("_", "-")
                function = click.option(
                    f"--{name}",
                    key,
                    metavar=field.metavar,
                    multiple=field.many,
                    callback=_all_checked(field.parse) if field.many else checked(field.parse),
                    help=field.help,
                )(function)
        return function

    return decorate


def _all_checked(
    parse: Callable[[str], str],
) -> Callable[[click.Context, click.Parameter, Sequence[str]], Tuple[str, ...]]:
    check = checked(parse)

    def callback(
        context: click.Context, parameter: click.Parameter, texts: Sequence[str]
    ) -> Tuple[str, ...]:
        return tuple(str(check(context, parameter, text)) for text in texts)

    return callback


def given_fields(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what options say of a job, by key.

    Raises:
        InvalidValueError: two of them contradict each other.
    """
    given = {key: value for key, value in options.items() if value not in (None, ())}
    if "run_at" in given and "delay" in given:
        raise InvalidValueError("choose one of --run-at and --delay")
    return given
