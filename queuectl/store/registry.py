"""Which kind of store a URL means: one that comes with QueueCTL, or one that others install.

A distribution brings one by an entry point of the group `queuectl.stores`, whose name is the URL's
scheme. What it names is imported only when such a URL is used, or when all are listed; what goes
wrong in it then is told with the name of its distribution. So nobody else pays for it, or fails by
it; and the kinds that come with QueueCTL are found without a look at what is installed.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Callable, Iterator, List, NamedTuple, Optional

from queuectl.errors import InvalidValueError, StoreError
from queuectl.store.base import Notice, Store

Opener = Callable[[str, bool, Notice], Store]
"""What an entry point is: a subclass of `Store`, or a function that returns one. It is called with
the URL; whether to make the store where there is none; and whom to tell, in one line each, what a
user should know. It raises StoreError, and what else `queuectl.errors` has for a store."""

_GROUP = "queuectl.stores"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_OF_REDIS = ("redis", "rediss", "unix", "redis+sentinel")


class Kind(NamedTuple):
    """A kind of store that has URLs.

    Attributes:
        scheme: of its URLs.
        place: where its opener is, as `module:name`.
        distribution: what brings it; none if QueueCTL does.
        version: of that distribution.
        library: what it needs, and what the extra of QueueCTL is called that brings that.
        flaw: why it is not used, whatever it is.
    """

    scheme: str
    place: str
    distribution: Optional[str] = None
    version: Optional[str] = None
    library: Optional[str] = None
    flaw: Optional[str] = None

    @property
    def origin(self) -> str:
        """What brings it."""
        built_in = self.distribution is None
        return "built in" if built_in else f"{self.distribution} {self.version}"

    def load(self) -> Opener:
        """Import what opens its stores.

        Raises:
            StoreError: it cannot be used; the message says why.
        """
        if self.flaw is not None:
            raise StoreError(self.flaw)
        if self.distribution is None:
            return self._load_built_in()
        module, _, path = self.place.partition(":")
        try:
            opener: object = import_module(module)
            for name in path.split("."):
                opener = getattr(opener, name)
        except Exception as error:  # Others wrote it: anything may come of it.
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise StoreError(f"{self.origin} cannot be loaded: {why}") from error
        if not callable(opener):
            raise StoreError(f"{self.origin} cannot open a store: {self.place} is no function")
        return opener

    def _load_built_in(self) -> Opener:
        try:
            import_module(str(self.library))
        except ImportError as error:
            raise StoreError(
                f'{self.scheme}:// stores need pip install "queuectl[{self.library}]"'
            ) from error
        module, _, name = self.place.partition(":")
        opener: Opener = getattr(import_module(module), name)
        return opener


def kinds() -> Iterator[Kind]:
    """Yield the kinds of stores that have URLs: those of QueueCTL first, then by their schemes."""
    for scheme in _OF_REDIS:
        yield Kind(scheme, "queuectl.store.redis:RedisStore", library="redis")
    plugins = _plugins()
    for plugin in plugins:
        rivals = [other.origin for other in plugins if other.scheme == plugin.scheme]
        flaw = None
        if plugin.scheme in _OF_REDIS:
            flaw = f"{plugin.scheme}:// stores come with queuectl: {plugin.origin} is not used"
        elif not _SCHEME.fullmatch(plugin.scheme):
            flaw = f"{plugin.origin} names no scheme of a URL: {plugin.scheme!r}"
        elif len(rivals) > 1:
            flaw = f"{plugin.scheme}:// stores come with {' and '.join(rivals)}: uninstall one"
        yield plugin._replace(flaw=flaw)


def open_url(url: str, create: bool, notice: Notice) -> Store:
    """Open the store at a URL.

    Args:
        url: begins with a scheme and `://`.
        create: whether to make the store where there is none.
        notice: told, in one line each, what a user should know.

    Raises:
        InvalidValueError: there is no kind of store for this URL.
        StoreError: the kind cannot be used; and what else it raises.
    """
    scheme = url.partition("://")[0]
    kind = next((kind for kind in kinds() if kind.scheme == scheme), None)
    if kind is None:
        raise InvalidValueError(
            f"no store can be opened at {scheme}:// URLs: queuectl stores lists the known ones"
        )
    store: object = kind.load()(url, create, notice)
    if not isinstance(store, Store):
        raise StoreError(f"{kind.origin} opened no store, but gave a {type(store).__name__}")
    return store


def _plugins() -> List[Kind]:
    from importlib.metadata import distributions

    # Not `entry_points`, which tells of distributions, and takes a group, from Python 3.10 on. The
    # first of a name on the path is the one that is imported.
    found = {
        (point.name, distribution.metadata["Name"]): Kind(
            point.name,
            point.value.partition("[")[0].strip(),
            distribution.metadata["Name"],
            distribution.version,
        )
        for distribution in reversed(list(distributions()))
        for point in distribution.entry_points
        if point.group == _GROUP
    }
    return sorted(found.values(), key=lambda kind: (kind.scheme, kind.origin))
