"""What was measured, as a table for people, as Markdown for docs/performance.md, and as JSON."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

from tabulate import tabulate

from benchmarks.figure import Figure, Measured, Row

_HEADERS = ("figure", "ours", "baseline", "ratio", "must reach", "aim", "reached")


def table(rows: Sequence[Row], style: str = "simple") -> str:
    """One line for each row; `style` is one of tabulate's."""
    lines = [_cells(row) for row in rows]
    return tabulate(lines, headers=_HEADERS, tablefmt=style, disable_numparse=True)


def head(facts: Mapping[str, str], versions: Mapping[str, str], runs: int) -> List[str]:
    """Where, with what and how often was measured, in lines."""
    return [
        ", ".join(f"{name}: {text}" for name, text in facts.items()),
        ", ".join(f"{name} {text}" for name, text in versions.items()),
        f"medians, of {runs} turns or more, interleaved, after one that does not count",
    ]


def to_json(
    rows: Sequence[Row], facts: Mapping[str, str], versions: Mapping[str, str], runs: int
) -> str:
    """Everything, every single turn too."""
    return json.dumps(
        {
            "machine": dict(facts),
            "versions": dict(versions),
            "runs": runs,
            "figures": [_values(row) for row in rows],
        },
        indent=2,
    )


def _cells(row: Row) -> List[str]:
    figure = row.figure
    cells = [
        figure.name,
        _amount(row.ours, figure),
        "" if row.baseline is None else f"{row.baseline.name}: {_amount(row.baseline, figure)}",
        "" if row.ratio is None else f"{row.ratio:g} x",
        " and ".join(filter(None, (_bound(figure.must, figure), figure.condition))),
        _bound(figure.aim, figure),
        verdict(row),
    ]
    return [cell or "-" for cell in cells]


def _values(row: Row) -> Dict[str, Any]:
    figure = row.figure
    return {
        "figure": figure.name,
        "what": figure.what,
        "unit": figure.unit,
        "ours": _turns(row.ours),
        "baseline": None if row.baseline is None else _turns(row.baseline),
        "ratio": row.ratio,
        "bounds": "value" if figure.of_value else "ratio",
        "more_is_better": figure.more_is_better,
        "must": figure.must,
        "aim": figure.aim,
        "condition": figure.condition or None,
        "reached": verdict(row) or None,
    }


def _turns(measured: Measured) -> Dict[str, Any]:
    return {
        "name": measured.name,
        "median": None if measured.trouble else measured.median,
        "turns": list(measured.values),
        "trouble": measured.trouble or None,
    }


def verdict(row: Row) -> str:
    """What is reached: `aim`, `must`, or that it is `missed`; nothing if nothing can be said."""
    if row.is_missed:
        return "missed"
    if row.trouble:
        return ""
    if row.reaches(row.figure.aim):
        return "aim"
    return "must" if row.figure.must is not None or row.figure.condition else ""


def _amount(measured: Measured, figure: Figure) -> str:
    return measured.trouble or f"{_digits(measured.median)} {figure.unit}"


def _bound(bound: Optional[float], figure: Figure) -> str:
    if bound is None:
        return ""
    unit = figure.unit if figure.of_value else "x"
    return f"{'≥' if figure.more_is_better else '≤'} {bound:g} {unit}"


def _digits(value: float) -> str:
    """Three digits that count, whole numbers whole."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
