"""The REST API does what its description says, whatever it is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving import API, serving
from support import Cli

pytest.importorskip("schemathesis", reason="it needs Python 3.10")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "missing_required_header",
    "ignored_auth",
)


@pytest.mark.slow
def test_requests_of_every_kind_are_answered_as_described(cli: Cli) -> None:
    with serving(cli) as server:
        done = subprocess.run(
            [
                os.path.join(os.path.dirname(sys.executable), "schemathesis"),
                *("run", f"{server.url}{API}/openapi.json"),
                *("-H", f"Authorization: Bearer {server.tokens['write']}"),
                # They go on for ever.
                *("--exclude-path-regex", "live|events"),
                *("--checks", ",".join(CHECKS)),
                *("--phases", "coverage,fuzzing", "--max-examples", "5"),
                *("--continue-on-failure", "--no-color"),
            ],
            cwd=cli.folder,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 0, done.stdout
