"""What a trace says of each generated chunk."""

from collections.abc import Iterable

from magbench.records import TraceRecord

_ADDED = ("ms", "passes", "keys_passes")
_LARGEST = ("past_frames", "cached_frames", "cache_bytes", "state_bytes", "network_bytes")


def generated(trace: Iterable[TraceRecord]) -> list[TraceRecord]:
    """The generated chunks, each with the re-cache before it: time and passes added up, of sizes the larger one."""
    found: list[TraceRecord] = []
    before: list[TraceRecord] = []
    for row in trace:
        if row.kind == "recache":
            before.append(row)
        elif row.kind == "generate":
            rows = [*before, row]
            cost = {name: sum(getattr(each, name) for each in rows) for name in _ADDED}
            cost |= {name: max(getattr(each, name) for each in rows) for name in _LARGEST}
            found.append(row.model_copy(update=cost))
            before = []
    return found
