"""Names to objects, imported only when asked for."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from magbench.errors import ConfigError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listing = "known: " + (", ".join(names) or "none")
    return f"did you mean {close[0]!r}? ({listing})" if close else listing


def load_object(path: str) -> Any:
    """Import `package.module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Mapping[str, Any]):
    """A read-only mapping from a name to an object given as `package.module:attribute`.

    The object is imported at look-up, so listing names costs nothing. Other packages add entries
    through an entry-point group; a name of our own can't be replaced by one of theirs.

    Args:
        kind: What the names stand for, as a user would say it: "policy", "metric".
        entries: Name to `package.module:attribute`.
        group: Entry-point group that other packages may use, or None.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._own = dict(entries)
        self._group = group

    def plug_ins(self) -> EntryPoints:
        """What other packages declare, names of ours included."""
        return entry_points(group=self._group) if self._group else EntryPoints()

    def paths(self) -> dict[str, str]:
        """All names with their import paths, installed plug-ins included, sorted by name."""
        plug_ins = {point.name: point.value for point in self.plug_ins()}
        return dict(sorted({**plug_ins, **self._own}.items()))

    def __getitem__(self, name: str) -> Any:
        """Import and return the object called `name`.

        Raises:
            ConfigError: no such name; the hint names the closest one.
        """
        if name in self._own:
            return load_object(self._own[name])
        paths = self.paths()
        if name not in paths:
            raise ConfigError(f"unknown {self.kind} {name!r}", did_you_mean(name, paths))
        return load_object(paths[name])

    def __contains__(self, name: object) -> bool:
        """Whether `name` is known, without importing it."""
        return name in self.paths()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(self.paths())

    def __len__(self) -> int:
        """Count the names."""
        return len(self.paths())
