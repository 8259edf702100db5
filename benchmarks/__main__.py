"""`python -m benchmarks` measures all figures, or those that are named: docs/performance.md."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import List, Mapping, Sequence, Set

from benchmarks import cluster, drain, enqueue, idle, memory, peers, report, rewrite, scrape, status
from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.environment import Environment, file_system, has_disk, machine
from benchmarks.figure import Figure, MeasureError, Row, measure

_FAMILIES = (drain, peers, enqueue, status, scrape, idle, memory, rewrite, cluster)
_PARENT = Path("/var/tmp")


def all_figures(bench: Bench) -> List[List[Figure]]:
    """All figures, by family; those of a family use the same stores."""
    return [family.figures(bench) for family in _FAMILIES]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure QueueCTL side by side with its baselines; docs/performance.md tells "
        "what each figure means. Ends with 1 if one that must be reached is missed.",
    )
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help="names or patterns such as 'drain*'; else all"
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="default: 5")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything as JSON, for machines")
    form.add_argument("--markdown", action="store_true", help="what docs/performance.md holds")
    parser.add_argument(
        "--folder", type=Path, default=_PARENT, help=f"where to work, on a disk; default: {_PARENT}"
    )
    parser.add_argument(
        "--venv", type=Path, help="measure this environment, and make no clean one of the checkout"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it works, the numbers are void"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("the benchmarks need Linux")
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    if not has_disk(options.folder) and not options.quick:
        parser.error(
            f"{options.folder} is a {file_system(options.folder)}, where fsync costs nothing: "
            "name a folder on a disk with --folder"
        )
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="queuectl-bench-", dir=options.folder))
        stack.callback(shutil.rmtree, folder)
        try:
            environment = Environment((options.venv or folder / "venv").absolute())
            bench = Bench(folder, environment, QUICK if options.quick else Sizes())
            chosen = _choose(bench, options.figures or ["*"])
            environment.prepare()
            rows = _measure(bench, chosen, options.runs)
        except MeasureError as error:
            parser.error(str(error))
        facts, versions = machine(folder), environment.versions()
    _show(rows, facts, versions, options)
    return int(any(row.is_missed for row in rows) and not options.quick)


def _choose(bench: Bench, patterns: Sequence[str]) -> Set[str]:
    """Return the names of the figures that are asked for; MeasureError if a pattern fits none."""
    names = [figure.name for family in all_figures(bench) for figure in family]
    chosen: Set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise MeasureError(f"there is no figure {pattern!r}: choose from {', '.join(names)}")
        chosen.update(fitting)
    return chosen


def _measure(bench: Bench, chosen: Set[str], runs: int) -> List[Row]:
    rows: List[Row] = []
    for family in all_figures(bench):
        for figure in family:
            if figure.name in chosen:
                print(f"{figure.name}: {figure.what}", file=sys.stderr, flush=True)
                rows += measure(figure, runs)
        bench.stores.drop()
    return rows


def _show(
    rows: Sequence[Row],
    facts: Mapping[str, str],
    versions: Mapping[str, str],
    options: argparse.Namespace,
) -> None:
    if options.json:
        print(report.to_json(rows, facts, versions, options.runs))
        return
    lines = report.head(facts, versions, options.runs)
    if options.quick:
        lines.append("tiny sizes: the numbers mean nothing")
    if options.markdown:
        print("\n\n".join([*lines, report.table(rows, "github")]))
    else:
        print("\n".join([*lines, "", report.table(rows)]))


if __name__ == "__main__":
    # A worker of `start` inherits it, and files of the store must not be anybody else's.
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
