"""What a rollout cost, from its trace. Depends on the machine, so it never enters the quality results."""

from collections.abc import Iterator, Sequence

import numpy as np

from magbench.metrics.base import Declared, Metric, Needs, NotApplicable, Scores
from magbench.records import Series, TraceRecord
from magbench.traces import generated

SIZES = {
    "keys_passes": "frames",
    "past_frames": "frames",
    "cached_frames": "frames",
    "cache_bytes": "bytes",
    "state_bytes": "bytes",
}
"""Fields of a trace, with their unit, of which the largest and the mean over chunks are reported."""


class Efficiency(Metric):
    """Speed and memory of the generated chunks; the prefill of a given history is left out.

    A re-cache counts to the chunk that follows. Times are of the whole batch that a sample was made in, beside whatever
    else the machine did: compare within a run.

    * `fps`: pixel frames generated, over the time of all chunks (video decoding is not in it)
    * `chunk_ms_p50`, `chunk_ms_p95`: latency of a chunk
    * `keys_passes`: key frames that a query sees, its own chunk's included, summed over the passes of a chunk: the work
      that a cache policy decides; peak and mean over chunks, like all that follow
    * `past_frames`: past frames that a pass sees, its own chunk excluded: the budget, as measured
    * `cached_frames`, `cache_bytes`: keys and values that are kept
    * `state_bytes`: anything else the policy keeps, such as queries
    * `network_bytes`: weights of a second network that the cache needs, once for all samples
    """

    name = "efficiency"
    version = 2
    title = "Speed, attention and memory, as measured"
    clock = "every chunk"
    needs = Needs(frames=False, trace=True)
    reductions = (
        Declared("fps", "higher", "/s", 0),
        Declared("chunk_ms_p50", "lower", "ms", 0),
        Declared("chunk_ms_p95", "lower", "ms", 0),
        *(Declared(f"{name}_{of}", "lower", unit, 0) for name, unit in SIZES.items() for of in ("peak", "mean")),
        Declared("network_bytes", "lower", "bytes", 0),
    )

    def finish(self) -> Scores | NotApplicable:
        """Summarise the trace."""
        chunks = generated(self.info.trace)
        if not chunks:
            return NotApplicable("the trace has no generated chunk")
        sample = self.info.sample
        frames = sample.video.frames - sample.history_frames if sample.video else 0
        ms = np.array([chunk.ms for chunk in chunks])
        seconds = float(ms.sum()) / 1000
        values: dict[str, float | NotApplicable] = {
            "fps": frames / seconds if seconds and frames else NotApplicable("no frames, or no time measured"),
            "chunk_ms_p50": float(np.percentile(ms, 50)),
            "chunk_ms_p95": float(np.percentile(ms, 95)),
            "network_bytes": float(max(chunk.network_bytes for chunk in chunks)),
        }
        for name in SIZES:
            sizes = [float(getattr(chunk, name)) for chunk in chunks]
            values |= {f"{name}_peak": max(sizes), f"{name}_mean": float(np.mean(sizes))}
        return Scores(values, tuple(self._series(chunks)))

    def _series(self, chunks: Sequence[TraceRecord]) -> Iterator[Series]:
        """Time and cached frames of each chunk, at the second where it begins."""
        sample = self.info.sample
        starts = (sample.history_frames, *sample.timing.chunk_borders)
        if sample.video and len(starts) == len(chunks):
            times = tuple(start / sample.video.fps for start in starts)
            yield Series(name="chunk_ms", times=times, values=tuple(chunk.ms for chunk in chunks), unit="ms")
            cached = tuple(chunk.cached_frames for chunk in chunks)
            yield Series(name="cached_frames", times=times, values=cached, unit="frames")
