"""What a rollout cost, from its trace. Depends on the machine, so it never enters the quality results."""

import numpy as np

from magbench.metrics.base import Declared, Metric, Needs, NotApplicable, Scores
from magbench.records import Series


class Efficiency(Metric):
    """Speed and memory of the generated chunks; the prefill of a given history is left out.

    Times are of the whole batch that a sample was made in, beside whatever else the machine did: compare within a run.

    * `fps`: pixel frames generated, over the time of all chunks (re-encoding of the cache included, video decoding not)
    * `chunk_ms_p50`, `chunk_ms_p95`: latency of a chunk
    * `keys_passes`: past frames attended to, times passes, mean over chunks: the work that a cache policy decides
    * `cached_frames`, `cache_bytes`: largest and mean; `state_bytes`: the most of anything else the policy keeps
    """

    name = "efficiency"
    title = "Speed and cache size, as measured"
    clock = "every chunk"
    needs = Needs(frames=False, trace=True)
    reductions = (
        Declared("fps", "higher", "/s", 0),
        Declared("chunk_ms_p50", "lower", "ms", 0),
        Declared("chunk_ms_p95", "lower", "ms", 0),
        Declared("keys_passes", "lower", "frames", 0),
        Declared("cached_frames_peak", "lower", "frames", 0),
        Declared("cached_frames_mean", "lower", "frames", 0),
        Declared("cache_bytes_peak", "lower", "bytes", 0),
        Declared("cache_bytes_mean", "lower", "bytes", 0),
        Declared("state_bytes_peak", "lower", "bytes", 0),
    )

    def finish(self) -> Scores | NotApplicable:
        """Summarise the trace."""
        generated = [row for row in self.info.trace if row.kind == "generate"]
        if not generated:
            return NotApplicable("the trace has no generated chunk")
        sample = self.info.sample
        seconds = sum(row.ms for row in self.info.trace if row.kind != "history") / 1000
        frames = sample.video.frames - sample.history_frames if sample.video else 0
        ms = np.array([row.ms for row in generated])
        cached = np.array([row.cached_frames for row in generated])
        held = np.array([row.cache_bytes for row in generated], np.float64)
        chunks = tuple(float(row.chunk) for row in generated)
        return Scores(
            {
                "fps": frames / seconds if seconds and frames else NotApplicable("no frames, or no time measured"),
                "chunk_ms_p50": float(np.percentile(ms, 50)),
                "chunk_ms_p95": float(np.percentile(ms, 95)),
                "keys_passes": float(np.mean([row.past_frames * row.passes for row in generated])),
                "cached_frames_peak": float(cached.max()),
                "cached_frames_mean": float(cached.mean()),
                "cache_bytes_peak": float(held.max()),
                "cache_bytes_mean": float(held.mean()),
                "state_bytes_peak": float(max(row.state_bytes for row in generated)),
            },
            (
                Series(name="chunk_ms", times=chunks, values=tuple(ms.tolist()), unit="ms"),
                Series(name="cached_frames", times=chunks, values=tuple(cached.tolist()), unit="frames"),
            ),
        )
