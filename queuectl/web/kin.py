"""A job among those that it waits for and those that wait for it, as far as can be shown."""

from __future__ import annotations

from typing import Any, Dict, List

from queuectl.job import Job
from queuectl.manager import QueueManager

_MOST = 24
"""Jobs in all: each parent costs a look through the job file."""
_GENERATIONS = 4
_LONGEST = 200
"""Characters of a command."""


def kin(manager: QueueManager, job: Job) -> Dict[str, Any]:
    """Find a job's parents and theirs, and those that wait for it and for them.

    Returns:
        `jobs`, the job itself first; `missing`, the ids of parents that were purged; and
        `more`, whether there are others. Of what followed it and does not wait any more, nothing
        is found.
    """
    found: Dict[str, Job] = {job.id: job}
    missing: Dict[str, None] = {}
    has_more = False
    generation: List[Job] = [job]
    for _ in range(_GENERATIONS):
        ids = [parent for each in generation for parent in (*each.after, *each.after_any)]
        generation = []
        for parent_id in dict.fromkeys(ids):
            if parent_id in found or parent_id in missing:
                continue
            if len(found) + len(missing) >= _MOST // 2:
                has_more = True
                break
            parent = manager.store.get(parent_id)
            if parent is None:
                missing[parent_id] = None
            else:
                found[parent_id] = parent
                generation.append(parent)
    has_more = has_more or any(each.after or each.after_any for each in generation)
    generation = [job]
    for _ in range(_GENERATIONS):
        children = [child for child in manager.store.children(generation) if child.id not in found]
        has_more = has_more or len(found) + len(children) > _MOST
        generation = children[: _MOST - len(found)]
        found.update((child.id, child) for child in generation)
    has_more = has_more or any(each.dependents for each in generation)
    return {
        "jobs": [_brief(each) for each in found.values()],
        "missing": list(missing),
        "more": has_more,
    }


def _brief(job: Job) -> Dict[str, Any]:
    return {
        "id": job.id,
        "command": job.command[:_LONGEST],
        "state": job.state,
        "after": list(job.after),
        "after_any": list(job.after_any),
    }
