"""The settings: what each may be, where it comes from, and what a typing mistake is told."""

from __future__ import annotations

import math
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.config import SETTINGS, Settings, format_size, parse_size, setting
from queuectl.errors import InvalidValueError
from queuectl.retry import RetryPolicy

DEFAULTS: Dict[str, Any] = {
    "max_retries": 3,
    "backoff_base": 2.0,
    "backoff_max": 3600.0,
    "backoff_jitter": 0.0,
    "worker_count": 1,
    "job_timeout": None,
    "shutdown_grace": 30.0,
    "kill_grace": 5.0,
    "lease": 15.0,
    "max_output": 16 * 1024 * 1024,
    "keep_finished": "30d",
    "keep_output": 1024**3,
    "redis_output": 65536,
    "shell": "/bin/sh",
    "on_complete": None,
    "on_failed": None,
    "on_dead": None,
    "log_level": "INFO",
}

DURATION = {"90": 90, "10s": 10, "5m": 300, "2h": 7200, "1d": 86400, "0.5": 0.5}
NO_DURATION = ["", "0", "-1", "nan", "inf", "1e3", "x", "36501d", "5 m"]

SIZES = {
    "1024": 1024,
    "64k": 65536,
    "64 KiB": 65536,
    "16M": 16 << 20,
    "16mib": 16 << 20,
    "1GiB": 1 << 30,
    "1t": 1 << 40,
    "1024TiB": 1 << 50,
    "none": None,
}
NO_SIZES = [
    "",
    "0",
    "1023",
    "-1",
    "1.5M",
    "16MB",
    "2048ib",
    "16 K iB",
    "1025TiB",
    "x",
    "٣k",
    "9" * 20,
]

KEPT = {"0": "0", "007": "7", " 1000000000 ": "1000000000", "30d": "30d", "48h": "2d", "none": None}
NO_KEPT = ["", "-1", "1.5", "1000000001", "9" * 30, "d", "36501d", "٣"]

HOOK = {"mail me": "mail me", " - ä\n": " - ä\n", "None": None}
NO_HOOK = ["", "  ", "a\0b"]

VALID: Dict[str, Dict[str, Any]] = {
    "max_retries": {"0": 0, "1": 1, " 7 ": 7, "1000000": 1_000_000, "007": 7},
    "backoff_base": {"0": 0, "2": 2, "1.5": 1.5, "1e3": 1000, "1000000": 1e6, ".5": 0.5},
    "backoff_max": {**DURATION, "none": None, " NONE ": None},
    "backoff_jitter": {"0": 0, "1": 1, "0.25": 0.25, "1e-3": 0.001},
    "worker_count": {"1": 1, "1024": 1024},
    "job_timeout": {**DURATION, "none": None},
    "shutdown_grace": DURATION,
    "kill_grace": DURATION,
    "lease": {"3": 3, "10s": 10, "1d": 86400},
    "max_output": SIZES,
    "keep_finished": KEPT,
    "keep_output": SIZES,
    "redis_output": {"1024": 1024, "64k": 65536, "16MiB": 16 << 20},
    "on_complete": HOOK,
    "on_failed": HOOK,
    "on_dead": HOOK,
    "shell": {"/bin/sh": "/bin/sh", "/bin/bash": "/bin/bash", "/a b/ä": "/a b/ä"},
    "log_level": {"INFO": "INFO", "debug": "DEBUG", " Warning ": "WARNING"},
}

INVALID: Dict[str, Any] = {
    "max_retries": [
        "",
        "-1",
        "--1",
        "-",
        "+1",
        "1.0",
        "1e3",
        "1000001",
        "9" * 30,
        "x",
        "٣",
        "1_0",
        "none",
    ],
    "backoff_base": [
        "",
        "-1",
        "1000001",
        "nan",
        "inf",
        "-inf",
        "x",
        "1_0",
        "0x1",
        "٣",
        "none",
        "1e400",
    ],
    "backoff_max": NO_DURATION,
    "backoff_jitter": ["", "-0.1", "1.1", "nan", "inf", "50%", "none"],
    "worker_count": ["", "0", "-1", "1025", "1.5", "many", "none"],
    "job_timeout": NO_DURATION,
    "shutdown_grace": [*NO_DURATION, "none"],
    "kill_grace": [*NO_DURATION, "none"],
    "lease": [*NO_DURATION, "none", "2.9", "0.5"],
    "max_output": NO_SIZES,
    "keep_finished": NO_KEPT,
    "keep_output": NO_SIZES,
    "redis_output": [*NO_SIZES, "none", "16385k", "1GiB"],
    "on_complete": NO_HOOK,
    "on_failed": NO_HOOK,
    "on_dead": NO_HOOK,
    "shell": ["", "sh", "bin/sh", " /bin/sh", "/bin/\0", "none"],
    "log_level": ["", "INFOS", "TRACE", "none"],
}


def test_every_setting_is_tested() -> None:
    assert set(VALID) == set(INVALID) == set(DEFAULTS) == set(SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [(name, text, value) for name, texts in VALID.items() for text, value in texts.items()],
)
def test_a_valid_value_wherever_it_comes_from(name: str, text: str, value: Any) -> None:
    assert setting(name).read(text) == value
    assert type(setting(name).read(text)) is type(value) or isinstance(value, (int, float))
    assert Settings({name: text}, {})[name] == value
    assert Settings({}, {f"QUEUECTL_{name.upper()}": text})[name] == value


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in INVALID.items() for text in texts]
)
def test_an_invalid_value_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^bad value for {name}: "):
        setting(name).read(text)
    with pytest.raises(InvalidValueError, match=f"^stored settings: bad value for {name}: "):
        Settings({name: text}, {})
    if text:
        variable = f"QUEUECTL_{name.upper()}"
        with pytest.raises(InvalidValueError, match=f"^{variable}: bad value for {name}: "):
            Settings({}, {variable: text})


def test_a_hook_is_what_a_shell_can_be_given() -> None:
    assert SETTINGS["on_dead"].read("x" * 131071) == "x" * 131071
    with pytest.raises(InvalidValueError, match=r"give a script, or none$"):
        SETTINGS["on_dead"].read("ä" * 65536)
    with pytest.raises(InvalidValueError, match=r"is not a shell command, or none$"):
        SETTINGS["on_dead"].read("\ud800")


def test_none_is_offered_where_it_lifts_a_limit() -> None:
    for name, entry in SETTINGS.items():
        with pytest.raises(InvalidValueError) as caught:
            entry.read("")
        assert str(caught.value).endswith(", or none") == entry.lifts, name


def test_defaults() -> None:
    values = Settings({}, {})
    assert {name: values[name] for name in SETTINGS} == DEFAULTS
    assert {values.source(name) for name in SETTINGS} == {"default"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_a_value_that_can_be_set(name: str) -> None:
    entry = SETTINGS[name]
    assert entry.name == name
    assert entry.read(entry.write(entry.default)) == entry.default


def test_a_variable_wins_over_the_store_and_that_over_the_default() -> None:
    stored = {"max_retries": "5", "worker_count": "4"}
    environ = {"QUEUECTL_MAX_RETRIES": "6", "QUEUECTL_KILL_GRACE": "", "QUEUECTL_STORE": "/x"}
    values = Settings(stored, environ)
    assert (values["max_retries"], values.source("max_retries")) == (6, "QUEUECTL_MAX_RETRIES")
    assert (values["worker_count"], values.source("worker_count")) == (4, "store")
    assert (values["kill_grace"], values.source("kill_grace")) == (5.0, "default")


def test_what_wins_hides_what_is_wrong_below_it() -> None:
    values = Settings({"max_retries": "many"}, {"QUEUECTL_MAX_RETRIES": "6"})
    assert values["max_retries"] == 6


def test_the_environment_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUECTL_MAX_RETRIES", "9")
    assert Settings({})["max_retries"] == 9


def test_settings_of_a_newer_version_in_the_store_are_passed_over() -> None:
    assert Settings({"colour": "red"}, {})["max_retries"] == 3


@pytest.mark.parametrize("name", ["max-retries", "max_retries", "MAX_RETRIES", " Max-Retries "])
def test_names_are_written_either_way(name: str) -> None:
    assert setting(name) is SETTINGS["max_retries"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max-retry", "did you mean 'max_retries'?"),
        ("backof_base", "did you mean 'backoff_base'?"),
        ("timeout", "did you mean 'job_timeout'?"),
        ("workers", "did you mean 'worker_count'?"),
        ("zzz", "queuectl config lists them"),
        ("", "queuectl config lists them"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        setting(name)
    assert str(caught.value) == f"unknown setting {name!r}: {hint}"


def test_the_retry_policy_is_that_of_the_settings() -> None:
    stored = {"backoff_base": "3", "backoff_max": "1m", "backoff_jitter": "0.5"}
    assert Settings(stored, {}).retry_policy == RetryPolicy(3, 60, 0.5)
    assert Settings({"backoff_max": "none"}, {}).retry_policy == RetryPolicy(2, math.inf, 0)


@given(st.sampled_from(sorted(SETTINGS)), st.data())
def test_what_is_written_reads_the_same(name: str, data: st.DataObject) -> None:
    """As `config` stores a value and shows it."""
    entry = SETTINGS[name]
    text = data.draw(
        st.one_of(
            st.floats(0, 1e6).map(repr),
            st.integers(0, 2000).map(str),
            st.text("0123456789.smhdkKMGi", max_size=8),
            st.sampled_from(sorted(VALID[name])),
        )
    )
    try:
        value = entry.read(text)
    except InvalidValueError:
        return
    assert entry.read(entry.write(value)) == value


@pytest.mark.parametrize(
    ("size", "text"),
    [(1024, "1KiB"), (1536, "1536"), (16 << 20, "16MiB"), (3 << 30, "3GiB"), (1 << 50, "1024TiB")],
)
def test_sizes_are_written_with_the_largest_unit_that_is_whole(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size(text) == size
