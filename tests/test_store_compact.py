"""The JSON of a store's files: what `json.dumps` writes, also where Python lacks the quick way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.store.compact import encode, make_encoder

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


@given(VALUES)
def test_it_is_what_dumps_writes_without_spaces(value: Any) -> None:
    assert encode(value) == json.dumps(value, separators=(",", ":"))


def test_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        encode({"command": b"make"})


def test_a_python_without_the_quick_way_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"id": "a", "command": 'é "quoted"\n', "timeout": 0.5, "cwd": None, "counts": {"a": 1}}
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    assert make_encoder()(value) == encode(value)
