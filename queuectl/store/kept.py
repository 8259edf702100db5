"""Output that is kept in a folder after its run: put there for a worker that died, and trimmed."""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterator, Mapping

from queuectl.store.disk import failure
from queuectl.store.folder import Log, StoreFolder


def keep_spool(folder: StoreFolder, spool: str, kept: str) -> None:
    """Move what a dead worker's last run printed to where the output of ended runs is.

    Args:
        folder: where that is.
        spool: the worker's file, which may be missing.
        kept: its new path; what is there stays.

    Raises:
        StoreError: it cannot be moved.
    """
    try:
        if os.stat(spool).st_size > 0 and not os.path.exists(kept):
            for each in (folder.logs, os.path.dirname(kept)):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(each, 0o700)
            os.rename(spool, kept)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise failure("keep", spool, error) from error


def trim(folder: StoreFolder, limit: int, spared: Callable[[], Mapping[str, int]]) -> Iterator[Log]:
    """Remove the oldest output of a folder, and yield each that was; see `Store.trim_output`.

    Raises:
        StoreError: it cannot be removed.
    """
    logs = folder.kept_logs()
    excess = sum(log.size for log in logs) - limit
    if excess <= 0:
        return
    first_spared = spared()
    for log in sorted(logs):
        if excess <= 0:
            return
        if log.job_id in first_spared and log.run >= first_spared[log.job_id]:
            continue
        path = folder.log(log.job_id, log.run)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure("remove", path, error) from error
        excess -= log.size
        yield log
