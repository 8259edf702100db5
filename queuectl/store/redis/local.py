"""The folder of a store on this machine: its workers' locks, their output, and the full logs.

It is named after the store, not after the URL by which it was reached: so all commands on this
machine agree about who lives. A worker that died is found here at once, by its lock, as in a file
store; what becomes of those on other machines only their leases tell. So the machine is part of the
name too: where machines share the home folder, one may not see the locks of another, and would take
all its workers for dead.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from queuectl.machine import host
from queuectl.store.folder import StoreFolder


def state_folder(identity: str) -> StoreFolder:
    """Return this machine's folder of a store; nothing is made.

    Args:
        identity: the store's own, which nobody chose.
    """
    # A relative one is to be passed over, as the XDG Base Directory Specification has it.
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return StoreFolder(os.path.join(state, "queuectl", f"{identity}@{quote(host(), safe='')}"))
