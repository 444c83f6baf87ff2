"""Does a cache policy keep the contract: one check after the other, on rollouts of a small model of random weights."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from magbench.errors import ConfigError, MagbenchError
from magbench.runners.methods import BoundMethod, bind
from magbench.runners.policies.base import MEMORY
from magbench.runners.state import NotResumableError
from magbench.runners.user_policies import described
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.watch import HISTORY, LAYERS, TOKENS, Shown, Stored, Watched, watch, watch_resumed

BUDGETS = (6, 9, 12, 18)
"""Past frames that a policy is asked to spend."""
ROUNDING = 1e-4
"""How far rows may move in another batch, whose matrix products round differently."""
_SETTLE = 8
"""Chunks that a cache has to stay as it is, once it is full."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract, and whether it was kept."""

    name: str
    promise: str
    ok: bool
    found: str
    """How it was broken; otherwise what else there is to know."""


class BrokenError(Exception):
    """A promise was broken; says how."""


def check_policy(method: BoundMethod) -> tuple[Check, ...]:
    """Check a policy, in seconds.

    Returns:
        The checks in order; when no rollout comes to its end, only that one.
    """
    subject = Subject(method)
    checks: list[Check] = []
    for check in CHECKS:
        name, promise = check.__name__.removeprefix("_"), " ".join((check.__doc__ or "").split()).rstrip(".")
        try:
            checks.append(Check(name, promise, True, check(subject)))
        except BrokenError as error:
            checks.append(Check(name, promise, False, str(error)))
        except MagbenchError as error:
            checks.append(Check(name, promise, False, error.message))
        except Exception as error:  # code of a user, which may raise anything
            checks.append(Check(name, promise, False, described(error)))
        if not checks[0].ok:
            break
    return tuple(checks)


class Subject:
    """A policy and its rollouts, each made when a check first needs it."""

    def __init__(self, method: BoundMethod) -> None:
        self.method, self.policy = method, method.policy

    @cached_property
    def plain(self) -> Watched:
        """A history and as many chunks as fill the cache, and then some; without a switch."""
        budget = self.policy.budget
        chunks = (budget or 0) // CHUNK_FRAMES + _SETTLE
        while True:
            found = watch(self.policy, chunks)
            full = next((i for i, step in enumerate(found.steps) if step.trace.past_frames == budget), None)
            settled = full is not None and len(found.steps) - full > _SETTLE
            if budget is None or settled or chunks > 4 * budget + _SETTLE:
                return found
            chunks *= 2

    @cached_property
    def full(self) -> int:
        """The first chunk that sees as much of the past as any, history included."""
        seen = [step.trace.past_frames for step in self.plain.steps]
        return seen.index(max(seen))

    @cached_property
    def short(self) -> Watched:
        """The same over fewer chunks."""
        return watch(self.policy, self.few)

    @cached_property
    def again(self) -> Watched:
        """`short` once more."""
        return watch(self.policy, self.few)

    @cached_property
    def alone(self) -> Watched:
        """The second video of `short`, whose first may not decide for it."""
        return watch(self.policy, self.few, seeds=(2,))

    @cached_property
    def half_precision(self) -> Watched:
        """The same in bfloat16, on a GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return watch(self.policy, self.few, dtype=torch.bfloat16, device=device)

    @cached_property
    def switched(self) -> Watched:
        """Three switches: before the cache is full, after, and one with a cut."""
        switches = {HISTORY + 1: False, self.full + 3: False, self.full + 5: True}
        return watch(self.policy, self.full + 8, switches=switches)

    @property
    def few(self) -> int:
        """Chunks in which a cache fills and something leaves it."""
        return max(3, self.full - HISTORY + 4)


def _runs(subject: Subject) -> str:
    """Finite latents come out, from text alone and after a given history."""
    for watched in (watch(subject.policy, 2, history=0), subject.plain):
        _finite(watched)
    return f"{len(subject.plain.steps)} chunks"


def _budget(subject: Subject) -> str:
    """A budget can be spent, or the policy says that none can be chosen."""
    if not subject.policy.matched or subject.policy.budget is None:
        return "none can be chosen: a row of reference" if not subject.policy.matched else "it grows with the video"
    try:
        bound = {frames: bind(subject.method.family, frames) for frames in BUDGETS}
    except ConfigError as error:
        return error.message
    usable = [str(frames) for frames, method in bound.items() if not method.refusal]
    refusals = [f"not {frames}: {method.refusal}" for frames, method in bound.items() if method.refusal]
    if not usable:
        raise BrokenError(bound[BUDGETS[-1]].refusal)
    return "; ".join([f"{', '.join(usable)} frames", *refusals])


def _memory(subject: Subject) -> str:
    """The cache reaches its budget, never shows more, and does not grow from then on."""
    budget, traces = subject.policy.budget, [step.trace for step in subject.plain.steps]
    if budget is None:
        if subject.full < len(traces) - 1:
            raise BrokenError(
                f"its budget is None, as of a cache that grows: it stays at {_peak(subject):g} past frames"
            )
        return "grows with the video"
    if above := [trace for trace in traces if trace.past_frames > budget]:
        raise BrokenError(f"chunk {above[0].chunk} sees {above[0].past_frames:g} past frames, its budget is {budget}")
    if _peak(subject) < budget:
        frames = CHUNK_FRAMES * len(traces)
        raise BrokenError(f"its budget is {budget}, and in {frames} frames it shows {_peak(subject):g} at most")
    held = [trace.cache_bytes + trace.state_bytes for trace in traces]
    half = (subject.full + len(held)) // 2
    if max(held[half:]) > max(held[:half]):
        raise BrokenError(f"it goes on growing: {max(held[:half])} bytes by chunk {half}, {max(held[half:])} later on")
    cached, room = max(trace.cached_frames for trace in traces), budget + CHUNK_FRAMES
    more = f", {cached:g} cached, which is more than budget and chunk together" if cached > room else ""
    return f"{budget} past frames{more}"


def _bytes(subject: Subject) -> str:
    """`nbytes` and `state_bytes` are what can be reached from the cache."""
    for call in subject.plain.stored:
        if call.said != call.held:
            raise BrokenError(f"{_at(call)} it says {call.said} bytes, and holds tensors of {call.held}")
    return ""


def _positions(subject: Subject) -> str:
    """Time indices run from 0 to the chunk's own, cells are on the grid, sources in the past."""
    shared = 0
    for watched in (subject.plain, subject.switched):
        for call in watched.shown:
            if problem := _misplaced(call):
                raise BrokenError(f"{_at(call)} {problem}")
            shared = max(shared, _collisions(call))
    return f"note: up to {shared} tokens of a pass stand where another does" if shared else ""


def _tokens(subject: Subject) -> str:
    """A token with a source is that token as it was stored; what was made has the source `MEMORY`."""
    for watched in (subject.plain, subject.switched):
        given: dict[int, dict[int, list[tuple[Tensor, Tensor]]]] = defaultdict(lambda: defaultdict(list))
        for call in watched.calls:
            if isinstance(call, Stored):
                for place, frame in enumerate(call.chunk.span):
                    part = slice(place * TOKENS, (place + 1) * TOKENS)
                    given[call.cache][frame].append((call.keys[:, part], call.values[:, part]))
            else:
                _compare(call, given[call.cache])
    return ""


def _frames(subject: Subject) -> str:
    """Every frame is held, folded or dropped, and leaves once."""
    for watched in (subject.plain, subject.switched):
        accounts: dict[int, Account] = defaultdict(Account)
        for call in watched.calls:
            account = accounts[call.cache]
            if isinstance(call, Stored):
                account.store(call)
            else:
                account.show(call)
    return ""


def _aliasing(subject: Subject) -> str:
    """The cache neither keeps nor changes the tensors that it is given."""
    for call in subject.plain.calls:
        if call.misuse:
            raise BrokenError(f"{_at(call)} it {call.misuse}")
    return ""


def _determinism(subject: Subject) -> str:
    """The same video comes out twice in one process."""
    for first, second in zip(subject.short.steps, subject.again.steps, strict=True):
        if not torch.equal(first.latents, second.latents):
            raise BrokenError(f"chunk {first.trace.chunk} of a second video, from the same noise, differs")
        if first.trace.model_copy(update={"ms": 0.0}) != second.trace.model_copy(update={"ms": 0.0}):
            raise BrokenError(f"in chunk {first.trace.chunk} of a second video the cache is another")
    return ""


def _rows(subject: Subject) -> str:
    """A video of a batch comes out as it does alone."""
    for whole, alone in zip(subject.short.steps, subject.alone.steps, strict=True):
        change = (whole.latents[1] - alone.latents[0]).abs().max().item()
        if not change <= ROUNDING:
            raise BrokenError(f"chunk {whole.trace.chunk} of the second video moves by {change:.2g} when it is alone")
    return ""


def _dtype(subject: Subject) -> str:
    """Keys and values have the dtype and device of the queries."""
    _finite(subject.half_precision)
    return f"bfloat16 on {subject.half_precision.steps[0].latents.device.type}"


def _switches(subject: Subject) -> str:
    """It goes on, within its budget, at a new prompt and at a cut."""
    budget = subject.policy.budget
    for step in subject.switched.steps:
        if budget is not None and step.trace.past_frames > budget:
            seen = f"sees {step.trace.past_frames:g} past frames, its budget is {budget}"
            raise BrokenError(f"after a switch chunk {step.trace.chunk} {seen}")
    _finite(subject.switched)
    return ", ".join(dict.fromkeys(event for step in subject.switched.steps for event in step.trace.events))


def _resume(subject: Subject) -> str:
    """A rollout that is saved and taken up again goes on as if it had not been, or says why it can't be saved."""
    try:
        resumed = watch_resumed(subject.policy, subject.few, subject.few // 2)
    except NotResumableError as error:
        return f"not resumable, a stopped video starts over: {error.message}"
    for first, second in zip(subject.short.steps[-len(resumed) :], resumed, strict=True):
        if not torch.equal(first.latents, second.latents):
            raise BrokenError(f"chunk {first.trace.chunk} differs after it was taken up")
        if first.trace.model_copy(update={"ms": 0.0}) != second.trace.model_copy(update={"ms": 0.0}):
            raise BrokenError(f"in chunk {first.trace.chunk} the cache is another after it was taken up")
    return ""


CHECKS: tuple[Callable[[Subject], str], ...] = (
    _runs,
    _budget,
    _memory,
    _bytes,
    _positions,
    _tokens,
    _frames,
    _aliasing,
    _determinism,
    _resume,
    _rows,
    _dtype,
    _switches,
)
"""Each returns what it found, or raises; its docstring is the promise."""


def _peak(subject: Subject) -> float:
    return subject.plain.steps[subject.full].trace.past_frames


def _at(call: Shown | Stored) -> str:
    kind = "" if call.chunk.kind == "generate" else f" ({call.chunk.kind})"
    return f"chunk {call.chunk.first // CHUNK_FRAMES}{kind}, layer {call.cache % LAYERS}:"


def _finite(watched: Watched) -> None:
    for step in watched.steps:
        if not step.latents.isfinite().all():
            raise BrokenError(f"latents of chunk {step.trace.chunk} are not finite")


def _misplaced(call: Shown) -> str:
    """What is wrong with the places of the tokens shown; empty when nothing is."""
    past, chunk = call.past, call.chunk
    tokens, own = past.keys.shape[1], past.own_frames
    visible = (chunk.frames - past.hide_own) * TOKENS
    if past.keys.shape != past.values.shape or past.keys.shape[::2] != call.queries.shape[::2]:
        return f"keys are {list(past.keys.shape)}, values {list(past.values.shape)}, queries {list(call.queries.shape)}"
    if call.room not in (0, visible):
        return f"behind the values is room for {call.room} tokens, and the chunk shows {visible} of its own"
    if len(own) != chunk.frames or min(own) < 0:
        return f"own_frames is {own} for a chunk of {chunk.frames}"
    for name in ("frames", "sources", "cells", "padding"):
        tensor: Tensor | None = getattr(past, name)
        if tensor is not None and tensor.shape[-1] != tokens:
            return f"{name} has {tensor.shape[-1]} entries for {tokens} tokens"
    if not tokens:
        return ""
    low, high = int(past.frames.min()), int(past.frames.max())
    if low < 0:
        return f"a token is shown at time index {low}"
    if high > max(own):
        return f"a token is shown at time index {high}, after the chunk's own {own}"
    if int(past.sources.max()) >= chunk.first or int(past.sources.min()) < MEMORY:
        return f"a token comes from frame {int(past.sources.max())}, the chunk begins with {chunk.first}"
    if past.cells is not None:
        if not 0 <= int(past.cells.min()) <= int(past.cells.max()) < TOKENS:
            return f"a cell is outside 0 to {TOKENS - 1}"
    elif tokens % TOKENS or any(_varies(tensor) for tensor in (past.frames, past.sources)):
        return "cells is None, and the tokens are not whole frames"
    return ""


def _varies(tensor: Tensor) -> bool:
    frames = torch.unflatten(tensor, -1, (-1, TOKENS))
    return bool((frames != frames[..., :1]).any())


def _places(call: Shown) -> Iterator[list[tuple[int, int, int]]]:
    """Time index, cell and source of each token, row by row, padding left out."""
    past = call.past
    batch, tokens = past.keys.shape[:2]
    cells = torch.arange(tokens) % TOKENS if past.cells is None else past.cells
    padding = torch.zeros(tokens, dtype=torch.bool) if past.padding is None else past.padding
    columns = [tensor.expand(batch, -1).tolist() for tensor in (past.frames, cells, past.sources, padding)]
    for row in zip(*columns, strict=True):
        yield [(frame, cell, source) for frame, cell, source, none in zip(*row, strict=True) if not none]


def _collisions(call: Shown) -> int:
    """Most tokens of a row that stand where another does, the chunk's own included."""
    own = [(frame, cell) for frame in call.past.own_frames[call.past.hide_own :] for cell in range(TOKENS)]
    places = [[(frame, cell) for frame, cell, _ in row] + own for row in _places(call)]
    return max(len(row) - len(set(row)) for row in places)


def _compare(call: Shown, given: dict[int, list[tuple[Tensor, Tensor]]]) -> None:
    """Hold what is shown against what was stored, in any version of it."""
    past = call.past
    for row, places in enumerate(_places(call)):
        shown = [index for index in range(past.keys.shape[1]) if past.padding is None or not past.padding[row, index]]
        for index, (_, cell, source) in zip(shown, places, strict=True):
            if source != MEMORY and not any(
                torch.equal(past.keys[row, index], keys[row, cell])
                and torch.equal(past.values[row, index], values[row, cell])
                for keys, values in given[source]
            ):
                raise BrokenError(f"{_at(call)} a token said to come from frame {source} is not as it was stored")


class Account:
    """What became of the frames that one cache was given."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._gone: set[int] = set()
        self._back: set[int] = set()
        """Left, and given again since."""

    def store(self, call: Stored) -> None:
        """Take note of what it is given."""
        self._back |= self._gone & set(call.chunk.span)
        self._given |= set(call.chunk.span)

    def show(self, call: Shown) -> None:
        """Hold what it shows, and says of the rest, against what it was given.

        Raises:
            BrokenError: they don't add up.
        """
        leaving = [*call.past.folded, *call.past.dropped]
        for frame in leaving:
            if frame not in self._given - (self._gone - self._back) or leaving.count(frame) > 1:
                raise BrokenError(f"{_at(call)} frame {frame} leaves, and it was not there any more")
        self._gone |= set(leaving)
        self._back -= set(leaving)
        shown = {source for row in _places(call) for _, _, source in row} - {MEMORY}
        if ghosts := shown & self._gone - self._back:
            raise BrokenError(f"{_at(call)} frame {min(ghosts)} is shown, after it was said to have left")
        self._gone -= shown
        known = {frame for frame in self._given if frame < call.chunk.first}
        hidden = call.frames - call.past.keys.shape[1] / TOKENS
        if len(lost := known - shown - self._gone) > hidden:
            raise BrokenError(f"{_at(call)} frame {min(lost)} is neither shown nor said to be folded or dropped")
