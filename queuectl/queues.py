"""Named queues: what is set for each, and how that is kept among the settings of a store.

A queue is there as soon as a job names it; here is only what somebody set for one. As a claim reads
it under the store's lock, nothing is claimed from a queue once its pause was acknowledged.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional

from queuectl.config import MAX_WORKERS, parse_whole
from queuectl.errors import InvalidValueError

_PREFIX = "queue."
_CONCURRENCY = ".concurrency"
_PAUSED = ".paused"


class QueueRule(NamedTuple):
    """What is set for a queue.

    Attributes:
        concurrency: how many of its jobs may run at once, over all workers; none for no limit.
        paused: whether nothing is claimed from it.
    """

    concurrency: Optional[int] = None
    paused: bool = False


Rules = Mapping[str, QueueRule]


def read_rules(stored: Mapping[str, str]) -> Dict[str, QueueRule]:
    """Find the rules of the queues for which one is set.

    Args:
        stored: the settings of a store, as text.

    Raises:
        InvalidValueError: one is none; the message names the queue.
    """
    rules: Dict[str, QueueRule] = {}
    for key, text in stored.items():
        if not key.startswith(_PREFIX):
            continue
        name, dot, kind = key[len(_PREFIX) :].rpartition(".")
        rule = rules.get(name, QueueRule())
        if dot + kind == _CONCURRENCY:
            rules[name] = rule._replace(concurrency=_concurrency(name, text))
        elif dot + kind == _PAUSED:
            rules[name] = rule._replace(paused=True)
    return rules


def rule_changes(name: str, values: Mapping[str, Any]) -> Dict[str, Optional[str]]:
    """Return what to change in a store's settings, so that a queue's rule has these values.

    Args:
        name: the queue.
        values: by the attribute of `QueueRule`; those that are not given stay as they are.

    Raises:
        InvalidValueError: a value can never be right.
    """
    changes: Dict[str, Optional[str]] = {}
    if "concurrency" in values:
        concurrency = values["concurrency"]
        text = None if concurrency is None else str(_concurrency(name, str(concurrency)))
        changes[_PREFIX + name + _CONCURRENCY] = text
    if "paused" in values:
        changes[_PREFIX + name + _PAUSED] = "yes" if values["paused"] else None
    return changes


def is_rule(key: str) -> bool:
    """Whether a name among the settings of a store is that of a queue's rule."""
    return key.startswith(_PREFIX) and key.endswith((_CONCURRENCY, _PAUSED))


def parse_concurrency(text: str) -> Optional[int]:
    """Read how many jobs of a queue may run at once, or `none`; raises InvalidValueError."""
    return None if text.strip().lower() == "none" else parse_whole(text, 1, MAX_WORKERS)


def closed_queues(rules: Rules, running: Mapping[str, int]) -> FrozenSet[str]:
    """Return the queues from which nothing may be claimed now.

    Args:
        rules: of the queues that have one.
        running: how many jobs of each queue are processing.
    """
    return frozenset(
        name
        for name, rule in rules.items()
        if rule.paused
        or (rule.concurrency is not None and running.get(name, 0) >= rule.concurrency)
    )


def _concurrency(name: str, text: str) -> int:
    try:
        return parse_whole(text, 1, MAX_WORKERS)
    except InvalidValueError as error:
        raise InvalidValueError(f"bad concurrency of queue {name}: {error}") from error
