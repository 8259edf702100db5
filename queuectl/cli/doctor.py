"""`queuectl doctor`: what is damaged in a store, and its repair."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import click

from queuectl.cli import output
from queuectl.cli.command import Command, Session, pass_session
from queuectl.errors import DamagedError
from queuectl.render import row, to_json
from queuectl.store.doctor import examine
from queuectl.store.finding import DAMAGE, Finding, count
from queuectl.store.lock import StoreLock
from queuectl.store.opening import find_files, locate
from queuectl.store.repair import Repaired, repair
from queuectl.text import as_utf8

_FEW = 5
_LOOK = "look whether their commands are right, then queuectl dlq retry"


@click.command(cls=Command, short_help="Examine the store, and repair it.")
@click.option("--repair", "wants_repair", is_flag=True, help="Keep what is whole; copy it first.")
@pass_session
@click.pass_context
def doctor(context: click.Context, session: Session, wants_repair: bool) -> None:
    """Examine every byte of the store, and say what is damaged in it.

    Ends with 4 if anything is, and changes nothing. What it only notes needs
    nobody: the next command or start deals with it. It works on a store that
    other commands refuse, and while others work.

    With --repair it first copies the store into a folder before-repair-TIME in
    it, then keeps every job of which a whole line is left, and tells what was
    lost. A job that waits, but whose command may have been altered, is kept as
    dead. Stop the workers before. What jobs printed is neither copied nor
    touched. A store that is sound stays as it is.

    Example:
      queuectl doctor
      queuectl doctor --repair
    """
    folder = find_files(locate(session.store))
    lock = StoreLock(folder.lock)
    repaired: Optional[Repaired] = None
    try:
        with output.Progress("examining the store ...", wanted=True):
            if wants_repair:
                repaired = repair(folder, lock)
                findings = repaired.findings
            else:
                findings = examine(folder, lock)
    finally:
        lock.close()
    left = findings if repaired is None or repaired.copy is None else repaired.left
    is_sound = not any(finding.level == DAMAGE for finding in left)
    if session.json:
        output.line(to_json(_record(folder.path, is_sound, findings, repaired)))
    elif session.talks:
        screen = output.screen()
        for symbol, text in _told(folder.path, is_sound, findings, repaired):
            output.line(screen.say(symbol, screen.text(text)))
    else:
        for cells in _rows(findings, repaired):
            output.line(row(cells))
    if not is_sound:
        context.exit(DamagedError.exit_code)


def _record(
    path: str, is_sound: bool, findings: Sequence[Finding], repaired: Optional[Repaired]
) -> Dict[str, Any]:
    record = {
        "ok": is_sound,
        "store": as_utf8(path),
        "findings": [_finding_record(finding) for finding in findings],
    }
    if repaired is not None:
        record.update(
            copy=None if repaired.copy is None else as_utf8(repaired.copy),
            left=[_finding_record(finding) for finding in repaired.left],
            lost=list(repaired.lost),
            unnamed=repaired.unnamed,
            unreadable=repaired.unreadable,
            reverted=list(repaired.reverted),
            unchecked=list(repaired.unchecked),
            held=list(repaired.held),
            missing=repaired.missing,
        )
    return record


def _finding_record(finding: Finding) -> Dict[str, Any]:
    return {**finding._asdict(), "file": as_utf8(finding.file), "ids": list(finding.ids)}


def _rows(findings: Sequence[Finding], repaired: Optional[Repaired]) -> Iterator[Tuple[Any, ...]]:
    for finding in findings:
        message = f"{finding.message}{_some(finding.ids)}"
        yield finding.level, as_utf8(finding.file), finding.offset, message
    if repaired is not None and repaired.copy is not None:
        yield "copy", as_utf8(repaired.copy), None, "the store as it was"
        for level in ("lost", "reverted", "unchecked", "held"):
            for job_id in getattr(repaired, level):
                yield level, None, None, job_id
        if repaired.unnamed:
            yield "lost", None, None, _unnamed(repaired.unnamed)
        if repaired.missing:
            yield "lost", None, None, _missing(repaired.missing)
        if repaired.unreadable:
            yield "unreadable", None, None, _unreadable(repaired.unreadable)
        for finding in repaired.left:
            yield "left", as_utf8(finding.file), finding.offset, finding.message


def _told(
    path: str, is_sound: bool, findings: Sequence[Finding], repaired: Optional[Repaired]
) -> Iterator[Tuple[str, str]]:
    yield "📁", f"Store: {as_utf8(path)}"
    for finding in findings:
        yield "🔴" if finding.level == DAMAGE else "📝", _sentence(finding)
    if repaired is not None and repaired.copy is not None:
        yield "📦", f"Copy of the store as it was: {as_utf8(repaired.copy)}"
        yield from _outcome(repaired)
        for finding in repaired.left:
            yield "🔴", f"still: {_sentence(finding)}"
        if is_sound:
            yield "✅", "The store is repaired"
    elif is_sound:
        yield "✅", "The store is sound" + ("; nothing was changed" if repaired is not None else "")
    else:
        yield "💀", "The store is damaged: queuectl doctor --repair keeps what is whole"


def _outcome(repaired: Repaired) -> Iterator[Tuple[str, str]]:
    for ids, symbol, what in (
        (repaired.lost, "💀", "lost"),
        (repaired.reverted, "🔄", "back in an earlier state"),
        (repaired.unchecked, "📝", "kept from damaged commits, so that nothing vouches for them"),
        (repaired.held, "💀", f"kept from damaged commits, but dead: {_LOOK}"),
    ):
        if ids:
            yield symbol, f"{count(len(ids), 'job')} {what}{_some(ids)}"
    if repaired.unnamed:
        yield "💀", f"{_unnamed(repaired.unnamed)} lost"
    if repaired.missing:
        yield "💀", _missing(repaired.missing)
    if repaired.unreadable:
        yield "📝", _unreadable(repaired.unreadable)


def _unnamed(number: int) -> str:
    return f"{count(number, 'job')} of unknown id"


def _missing(number: int) -> str:
    what = "what it changed is lost" if number == 1 else "what they changed is lost"
    return f"nothing is left of {count(number, 'commit')}: {what}"


def _unreadable(number: int) -> str:
    return (
        f"{count(number, 'line')} did not tell whose: as many jobs more may be in an earlier state"
    )


def _sentence(finding: Finding) -> str:
    place = "" if finding.offset is None else f" at byte {finding.offset}"
    return f"{as_utf8(finding.file)}{place}: {finding.message}{_some(finding.ids)}"


def _some(ids: Sequence[str]) -> str:
    if not ids:
        return ""
    more = f" and {len(ids) - _FEW} more" if len(ids) > _FEW else ""
    return f" ({', '.join(ids[:_FEW])}{more})"
