"""docs/monitoring.md and what it brings is true: metrics, alert rules, the dashboard."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queuectl.metrics import Measures
from queuectl.store.base import Counts
from queuectl.web.exposition import exposition

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "monitoring.md").read_text(encoding="utf-8")
ALERTS = (DOCS / "alerts.yml").read_text(encoding="utf-8")
BOARD: Dict[str, Any] = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
NAME = re.compile(r"queuectl_[a-z_]+")
TOLD = list(
    text_string_to_metric_families(
        exposition(Measures({"default": Counts()}, 0, {}, 0.0, 0, 0, 0)),
    )
)
SAMPLES = {sample.name for family in TOLD for sample in family.samples}
# The parser calls a counter by its name without the end.
KINDS = {
    family.name + ("_total" if family.type == "counter" else ""): family.type for family in TOLD
}

# What a minute brings, as promtool writes series: of a queue that works, and of one on which
# everything goes wrong that can.
WELL = {
    "queuectl_build_info": "1x60",
    "queuectl_workers": "2x60",
    "queuectl_workers_busy": "1x60",
    "queuectl_oldest_waiting_job_age_seconds": "5x60",
    "queuectl_jobs_dead_total": "7x60",
    "queuectl_jobs_rescued_total": "1x60",
    "queuectl_attempts_failed_total": "0+1x60",
    "queuectl_job_running_seconds_count": "0+9x60",
}
BADLY = {
    "queuectl_workers": "0x60",
    "queuectl_workers_busy": "0x60",
    "queuectl_oldest_waiting_job_age_seconds": "1+60x60",
    "queuectl_jobs_dead_total": "7+1x60",
    "queuectl_jobs_rescued_total": "1+1x60",
    "queuectl_attempts_failed_total": "0+6x60",
    "queuectl_job_running_seconds_count": "0+9x60",
}


def alerts() -> List[str]:
    return re.findall(r"^      - alert: (\w+)$", ALERTS, re.MULTILINE)


def expressions() -> Iterator[str]:
    """What the dashboard asks for."""
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def promtool(*words: str) -> None:
    """Have it check something; it must find nothing."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_tells_of_every_metric_with_its_type() -> None:
    rows = re.findall(r"^\| (`queuectl_[^|]*) \| (\w+) \|", PAGE, re.MULTILINE)
    told = {name: kind for names, kind in rows for name in NAME.findall(names)}
    assert told == KINDS


def test_alerts_and_dashboard_ask_for_what_is_told() -> None:
    rules = re.findall(r"^        expr: (.*?)(?=^        \w)", ALERTS, re.MULTILINE | re.DOTALL)
    assert len(rules) == len(alerts())
    asked: Set[str] = set()
    for text in (*rules, *expressions(), json.dumps(BOARD["templating"])):
        asked.update(NAME.findall(text))
    assert asked - SAMPLES == set()


def test_the_dashboard_shows_every_metric() -> None:
    asked = [name for text in expressions() for name in NAME.findall(text)]
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == set(KINDS)


def test_the_dashboard_can_be_imported() -> None:
    """It has a form that Grafana reads, places that do not overlap, and no source of our own."""
    assert BOARD["schemaVersion"] >= 36
    source, instance = BOARD["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert source["query"] == "prometheus"
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: Set[Any] = set()
    for part in (instance, *panels, *(t for panel in panels for t in panel["targets"])):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        at = panel["gridPos"]
        across, down = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = set(itertools.product(across, down))
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert all('{instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_the_page_tells_of_every_alert() -> None:
    assert re.findall(r"^\| `(Queuectl\w+)` \|", PAGE, re.MULTILINE) == alerts()


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", str(DOCS / "alerts.yml"))


def test_the_scrape_of_the_page_is_valid(tmp_path: Path) -> None:
    (config,) = re.findall(r"^```yaml\n(scrape_configs:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(config)
    promtool("check", "config", "--syntax-only", str(tmp_path / "prometheus.yml"))


@pytest.mark.parametrize(
    ("series", "raised"), [(WELL, []), (BADLY, [{"labels": "{}", "value": 1}])]
)
def test_alerts_are_raised_when_they_should_be(
    tmp_path: Path, series: Dict[str, str], raised: List[Any]
) -> None:
    """All, where everything goes wrong; none, where it does not."""
    given = [{"series": name, "values": values} for name, values in series.items()]
    # JSON is YAML too.
    test = {
        "rule_files": [str(DOCS / "alerts.yml")],
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                        "eval_time": "50m",
                        "exp_samples": raised,
                    }
                    for name in alerts()
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    promtool("test", "rules", str(tmp_path / "test.yml"))
