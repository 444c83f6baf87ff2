"""Compare two fingerprints: was the same fed in, and did the same come out. Imports no torch."""

import base64
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magbench.records import ChunkPrint, FingerprintRecord

TOLERANCE = {"float32": 5e-4, "bfloat16": 1.0}
"""Per numeric type: how far a latent value may move, in units of the chunk's root mean square.

Measured on `mini`: in float32 other kernels, threads and batch sizes move values by up to 3e-5, while the gentlest
fault planted (the slow average ten times as fast) moves them by 9e-3. In bfloat16 other kernels move them by 0.4, so
there the counts and positions do the work. Any other type takes the largest."""
NOT_COMPARABLE = "not comparable: "
"""How a sentence of `check` starts when other things were fed in, so that nothing follows from what came out."""

_FED = ("recipe", "model", "weights_sha256", "dtype", "sampler", "budget_frames", "history_frames")
_COUNTED = ("kind", "first_frame", "frames", "passes", "past_frames", "cached_frames", "cache_bytes", "state_bytes",
            "held", "folded", "dropped", "events", "shown", "own_frames", "hide_own")  # fmt: skip


def check(baseline: FingerprintRecord, current: FingerprintRecord, tolerance: float | None = None) -> tuple[str, ...]:
    """What changed between two fingerprints of a method, one sentence each; empty when nothing did.

    Args:
        baseline: As recorded.
        current: As it is now.
        tolerance: Largest change of a latent value that passes, in units of the chunk's root mean square; None takes
            that of the numeric type, `TOLERANCE`.

    Returns:
        Sentences. Those about what was fed in start with `NOT_COMPARABLE`, and are then the only ones.
    """
    if baseline.state != "value":
        return (f"{NOT_COMPARABLE}the baseline of {baseline.method} is {baseline.state}: {baseline.reason}",)
    if current.state != "value":
        return (f"{current.method} is {current.state}: {current.reason}",)
    fed = tuple(
        f"{NOT_COMPARABLE}{name.replace('_', ' ')} was {_short(before)} and is {_short(now)}"
        for name in _FED
        if (before := getattr(baseline, name)) != (now := getattr(current, name))
    )
    if fed:
        return fed
    limit = TOLERANCE.get(current.dtype, max(TOLERANCE.values())) if tolerance is None else tolerance
    return (*_parameters(baseline, current), *_counts(baseline, current), *_values(baseline, current, limit))


def latent_change(baseline: ChunkPrint, current: ChunkPrint) -> float:
    """Largest change of a chunk's latents in units of the baseline's root mean square; NaN or inf if one isn't finite.

    Raises:
        ValueError: the two have different shapes.
    """
    before, now = decode_latents(baseline), decode_latents(current)
    if before.shape != now.shape:
        raise ValueError(f"latents of shape {before.shape} and {now.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.abs(now - before).max() / np.sqrt(np.square(before).mean()))


def encode_latents(values: ArrayLike) -> str:
    """Finite or not, as base64 of little-endian float32 in C order."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def decode_latents(chunk: ChunkPrint) -> NDArray[np.float64]:
    """Latents [frames, channels, rows, columns] of a generated chunk.

    Raises:
        ValueError: the text does not hold as many values as the shape says.
    """
    raw = np.frombuffer(base64.b64decode(chunk.latents, validate=True), dtype="<f4")
    return raw.reshape(chunk.shape).astype(np.float64)


def _parameters(baseline: FingerprintRecord, current: FingerprintRecord) -> Iterator[str]:
    before, now = baseline.parameters, current.parameters
    for name in sorted({*before, *now}):
        if name not in before or name not in now or before[name] != now[name]:
            yield f"parameter {name} was {before.get(name, 'absent')} and is {now.get(name, 'absent')}"


def _counts(baseline: FingerprintRecord, current: FingerprintRecord) -> Iterator[str]:
    pairs = list(zip(baseline.chunks, current.chunks, strict=False))
    if len(baseline.chunks) != len(current.chunks):
        yield f"there were {len(baseline.chunks)} chunks and are {len(current.chunks)}"
    for name in _COUNTED:
        changed = [(a, getattr(a, name), getattr(b, name)) for a, b in pairs if getattr(a, name) != getattr(b, name)]
        if changed:
            chunk, before, now = changed[0]
            others = f", and in {len(changed) - 1} more chunks" if changed[1:] else ""
            yield f"{name.replace('_', ' ')} of {chunk.name} was {_short(before)} and is {_short(now)}{others}"


def _values(baseline: FingerprintRecord, current: FingerprintRecord, limit: float) -> Iterator[str]:
    for before, now in zip(baseline.chunks, current.chunks, strict=False):
        if not before.latents and not now.latents:
            continue
        if before.shape != now.shape:
            yield f"latents of {before.name} had shape {before.shape} and have {now.shape}"
        elif not (change := latent_change(before, now)) <= limit:
            yield f"latents of {before.name} moved by {change:.2g} of their root mean square, tolerance {limit:g}"


def _short(value: object) -> str:
    """A value as text; hashes and long sequences are cut."""
    if isinstance(value, str):
        return value[:12] + "..." if len(value) > 60 else repr(value)
    if isinstance(value, Sequence):
        text = ", ".join(_short(item) for item in value)
        return f"({text if len(text) <= 80 else text[:77] + '...'})"
    return f"{value:g}" if isinstance(value, float) else str(value)
