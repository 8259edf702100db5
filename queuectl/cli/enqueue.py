"""`queuectl enqueue`: one job from the command line, or many from a file.

What is a command and what is an option must never be guessed: of `enqueue mkdir -p 10`, Click left
alone would make the command `mkdir`. So several words are refused unless `--` stands before them.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, NoReturn, Optional, Tuple

import click

from queuectl.admission import Receipt
from queuectl.cli import output
from queuectl.cli.command import Command, Session, checked, pass_session
from queuectl.cli.fields import field_options, given_fields
from queuectl.cli.intake import add_file, new_job, parse_json_job
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.newjob import NewJob
from queuectl.render import to_json
from queuectl.text import as_utf8
from queuectl.values import validate_id

QUOTE = "quote the command, or put -- before it"
_LITERAL = "queuectl.literal"


class _Words(NamedTuple):
    """The words of a command line.

    Attributes:
        options: what stands before `--`, for Click to parse.
        literal: what stands behind it; nothing if there is no `--`.
        has_command: whether one of the former is more than an option.
    """

    options: List[str]
    literal: Optional[List[str]]
    has_command: bool


class EnqueueCommand(Command):
    """Keeps what follows `--` away from Click, which would not tell it from what stands before."""

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        """Parse the words before `--`; those behind it are found in the context's meta.

        Raises:
            click.UsageError: they are no options and one command.
        """
        words = self._split(args)
        ctx.meta[_LITERAL] = words.literal
        try:
            return super().parse_args(ctx, words.options)
        except click.NoSuchOption as error:
            if not words.has_command or self._is_nearly_ours(error.option_name):
                raise
            raise click.UsageError(QUOTE, ctx) from error

    def _is_nearly_ours(self, word: str) -> bool:
        """Whether an unknown option is one of ours, misspelt, and not one of the command."""
        import difflib

        ours = [name for option in self.params for name in option.opts]
        return bool(difflib.get_close_matches(word.lower(), ours, n=1, cutoff=0.8))

    def _split(self, args: List[str]) -> _Words:
        takes_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        has_command = is_value = False
        for number, word in enumerate(args):
            if is_value:
                is_value = False
            elif word == "--":
                return _Words(args[:number], args[number + 1 :], has_command)
            elif word in takes_value:
                is_value = True
            elif not word.startswith("-"):
                has_command = True
        return _Words(args, None, has_command)


@click.command(cls=EnqueueCommand, short_help="Add a job, or one job for each line of a file.")
@click.argument("words", nargs=-1, metavar="COMMAND")
@click.option("--file", "path", metavar="PATH", help="Add one job a line; - is standard input.")
@field_options()
@click.option(
    "--id", "job_id", metavar="ID", callback=checked(validate_id), help="Its id. Default: a UUID."
)
@click.option("--follow", is_flag=True, help="Show what it prints; end as queuectl wait does.")
@click.option("--wait", is_flag=True, help="Return once it has ended, as queuectl wait does.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
@click.option("--print-id", is_flag=True, help="Print the id, and nothing else.")
@pass_session
def enqueue(
    session: Session,
    /,
    words: Tuple[str, ...],
    path: Optional[str],
    job_id: Optional[str],
    follow: bool,
    wait: bool,
    quiet: bool,
    print_id: bool,
    **options: Any,
) -> None:
    r"""Add a job to the queue.

    COMMAND is one word, a line for the shell: quote it. Words behind -- are put
    together to such a line; a single one is taken as it is. A word that begins
    with { is a job as JSON, whose keys are command, id, and the options below as
    max_retries, run_at, ... (labels for --label); put -- before a shell group.

    With --file each line is a command or a JSON job. Blank lines and those that
    begin with # are passed over, options are defaults for every line, and either
    all jobs are added or none. A line that begins with "-- " is a command even
    if a { follows.

    The job runs by the setting shell, by default /bin/sh, which is often dash
    and not bash, in the current folder, with the environment of start: the PATH,
    virtual environment and exports of the shell that enqueues are not kept. In
    "pg_dump | gzip" the job succeeds although pg_dump fails, as the shell looks
    at the last command only.

    Example:
      queuectl enqueue "echo 'Hello World'"
      queuectl enqueue "make backup" --max-retries 5 --timeout 1h
      queuectl enqueue -- mkdir -p "a folder"
      queuectl enqueue '{"id": "job1", "command": "sleep 2", "max_retries": 2}'
      printf '%s\n' 'make a' 'make b' | queuectl enqueue --file - --print-id
    """
    if (quiet, print_id, session.json).count(True) > 1:
        _refuse("choose one of --quiet, --print-id and --json")
    if follow and (wait or session.json or print_id):
        _refuse("choose one of --follow, --wait, --print-id and --json")
    given = given_fields(options)
    literal: Optional[List[str]] = click.get_current_context().meta[_LITERAL]
    if path is None:
        if job_id is not None:
            given["id"] = job_id
        request = _request(words, literal, given)
        with session.open(create=True) as manager:
            receipt = manager.submit([request])
            # What the job prints has standard output for itself.
            _show(receipt, session, quiet or follow, print_id, many=False)
            if follow and not quiet:
                output.notice(f"job {receipt.jobs[0].id!r} is queued")
            if follow or wait:
                output.flush()
                _stay(session, manager, receipt.jobs[0], follow)
        return
    if words or literal:
        _refuse("give a command or --file, not both")
    if follow or wait:
        _refuse("--follow and --wait are for one job: queuectl wait waits for several")
    if job_id is not None:
        _refuse("--id is for one job, --file for many: write the ids into the lines")
    _show(add_file(session, path, given), session, quiet, print_id, many=True)


def _stay(session: Session, manager: QueueManager, job: Job, follow: bool) -> NoReturn:
    """Stay until the job has ended, and end as it did."""
    from queuectl.cli.follow import await_job, follow_job

    code = (follow_job if follow else await_job)(session, manager, job)
    raise click.exceptions.Exit(code)


def _request(
    words: Tuple[str, ...], literal: Optional[List[str]], given: Mapping[str, Any]
) -> NewJob:
    """Find out which job the words mean."""
    if len(words) > 1 or (words and literal):
        _refuse(QUOTE)
    if literal:
        line = literal[0] if len(literal) == 1 else _joined(literal)
        request = new_job(as_utf8(line), given)
    elif not words:
        _refuse("give a command, or --file")
    elif words[0].startswith("{"):
        request = parse_json_job(as_utf8(words[0]), given)
    else:
        request = new_job(as_utf8(words[0]), given)
    if request.on_conflict is not None and request.unique is None:
        _refuse("--on-conflict needs --unique")
    return request


def _joined(words: List[str]) -> str:
    import shlex

    return " ".join(map(shlex.quote, words))


def _refuse(why: str) -> NoReturn:
    raise click.UsageError(why, click.get_current_context())


def _show(receipt: Receipt, session: Session, quiet: bool, print_id: bool, *, many: bool) -> None:
    jobs = receipt.jobs
    for text in receipt.notices:
        output.notice(text)
    if quiet:
        return
    for job_id in sorted(receipt.known):
        output.notice(f"already queued: job {job_id!r}")
    if print_id:
        output.write("".join(f"{job.id}\n" for job in jobs))
    elif session.json and many:
        output.line(to_json([job.to_dict() for job in jobs]))
    elif not session.talks:
        for job in jobs:
            output.line(to_json(job.to_dict()))
    else:
        _tell(receipt, many)


def _tell(receipt: Receipt, many: bool) -> None:
    screen = output.screen()
    new = len({job.id for job in receipt.jobs}.difference(receipt.known))
    if many:
        what = "1 job" if new == 1 else f"{new} jobs"
        output.line(screen.say("📦", f"{what} enqueued successfully!"))
        return
    job = receipt.jobs[0]
    if new:
        output.line(screen.say("📦", "Job enqueued successfully!"))
    output.line(screen.say("🆔", f"ID: {job.id}"))
    label = screen.say("📝", "Command: ")
    room = max(screen.width - len(label) - 1, 40)
    output.line(label + screen.cut(screen.text(job.command), room))
