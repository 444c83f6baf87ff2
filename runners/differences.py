"""Where a released code and its paper differ, method by method. Importing this file imports no torch.

Read from the released codes and, where a paper could not be had, from its README or a review that quotes it. Left out
is what concerns no latents, such as Infinity-RoPE's subtitles after `;`, and what only keeps a release from starting.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One place where "as in the paper" and "as released" give different videos."""

    paper: str
    """What paper or README say."""
    release: str
    """What the released code does."""
    here: str
    """What runs: the parameter that chooses, or which of the two it is."""
    source: str
    """File of the release, or section of the paper."""

    def lines(self) -> tuple[str, str]:
        """The two lines that explain it."""
        return f"paper: {self.paper}; release: {self.release}", f"here: {self.here} ({self.source})"


RELEASE = "as released"
VARIANT = "as released; variant=paper does as the paper says"

TABLE_FRAMES = 1024
"""Latent frames in a release's rotation tables."""
END_OF_TABLES = Difference(
    "any length",
    f"rotation tables end at latent frame {TABLE_FRAMES}, about 256 s: longer videos fail",
    f"any length, equal below {TABLE_FRAMES}; longer videos are labelled `extended`",
    "Self-Forcing wan/modules/causal_model.py:42, and in every code with absolute positions",
)
PIECES = "decoded in independent pieces of 120 latent frames: 3 pixel frames are lost at each border"
MOVED_IN_PLACE = Difference(
    "the sink's keys are rotated as it moves",
    "again and again in place, in bfloat16: an error of 8 % after 160 times",
    "once, by the whole angle",
    "Deep Forcing wan/modules/causal_model.py:26",
)

DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "full": (
        Difference(
            "any length",
            "21 latent frames, the size of its buffer; the 22nd fails",
            "any length",
            "Self-Forcing wan/modules/causal_model.py:225",
        ),
    ),
    "fifo": (
        Difference(
            "noise may be added to the context",
            "`context_noise` changes the timestep of the clean pass only, no noise is added",
            "timestep 0, no noise",
            "Self-Forcing pipeline/causal_inference.py:226",
        ),
        END_OF_TABLES,
    ),
    "longlive": (
        Difference(
            "re-caching uses a block-causal mask",
            "the mask is built and never read: re-encoded frames all see each other",
            RELEASE,
            "LongLive v1.0 pipeline/interactive_causal_inference.py:65",
        ),
        Difference(
            "the sink holds clean keys",
            "sinks larger than a chunk keep keys of the first noisy pass, and zeros while they fill",
            "clean keys whatever the sink",
            "LongLive v1.0 wan/modules/causal_model.py:261",
        ),
        END_OF_TABLES,
    ),
    "longlive-infinity": (
        Difference(
            "one continuous video",
            PIECES,
            "decoded without borders",
            "LongLive v1.0 utils/wan_wrapper.py:119",
        ),
    ),
    "memrope": (
        Difference(
            "both memories start at zero",
            "they start at the first evicted mean",
            VARIANT,
            "MemRoPE Algorithm 1; wan/modules/causal_model.py:482",
        ),
        Difference(
            "a memory token per spatial position",
            "one mean over time and space, copied to all positions, unless ema_adaptive",
            VARIANT,
            "MemRoPE section 3; wan/modules/causal_model.py:482",
        ),
        Difference(
            "every evicted frame enters the memories",
            "the two frames in the memories' slots are overwritten at the first eviction and enter none",
            VARIANT,
            "MemRoPE Algorithm 1; wan/modules/causal_model.py:704",
        ),
        Difference(
            "moving averages",
            "in bfloat16, in which an alpha of 0.01 stops moving",
            "float32",
            "MemRoPE wan/modules/causal_model.py:482, pipeline/causal_inference.py:285",
        ),
        Difference(
            "memory=long, memory=short and memory=none are ablations",
            "two memory frames are hard-wired",
            "all four; a freed slot goes to a recent frame, ours",
            "MemRoPE Table 5; wan/modules/causal_model.py:436",
        ),
        Difference("one continuous video", PIECES, "decoded without borders", "MemRoPE utils/wan_wrapper.py:92"),
    ),
    "infinity-rope": (
        Difference(
            "a flush keeps the sink and one last frame",
            "the sink and the last two frames",
            VARIANT,
            "Infinity-RoPE pipeline/causal_inference.py:214",
        ),
        Difference(
            "a cut moves the new block to {f-2, f+D-1, f+D}",
            "its indices are 45, 46, 47 whatever f",
            RELEASE,
            "Infinity-RoPE wan/modules/causal_model.py:27",
        ),
        Difference(
            "acts after 21 frames, with far positions clamped",
            "acts from frame 6, the window of its configuration; nothing is clamped",
            RELEASE,
            "Infinity-RoPE configs/self_forcing_dmd.yaml",
        ),
        Difference(
            "`#` cuts at the start of its scene",
            "at the start of the scene after it, in the last scene nowhere",
            "the schedule says at which switch",
            "Infinity-RoPE pipeline/causal_inference.py:99",
        ),
        Difference(
            "a flush leaves a shorter cache",
            "filled up with zeros when it was not full yet; queries stand off their keys for windows above 6",
            "the frames that are there, at slot positions",
            "Infinity-RoPE pipeline/causal_inference.py:214, wan/modules/causal_model.py:257",
        ),
        Difference(
            "training-free",
            "its checkpoint was trained with window 6, sink 1 and rotation after the cache",
            "what a model was trained with is said below",
            "Infinity-RoPE README",
        ),
    ),
    "deep-sink": (
        Difference(
            "the sink stands right before the newest frames",
            "three frames further back: the tail is measured from the start of the chunk",
            RELEASE,
            "Deep Forcing wan/modules/causal_model_DS.py:269",
        ),
        Difference(
            "state belongs to a video",
            "the sink's offset is never reset: a second video in one process differs",
            "new for each video",
            "Deep Forcing wan/modules/causal_model_DS.py:259",
        ),
        MOVED_IN_PLACE,
        END_OF_TABLES,
    ),
    "deep-forcing": (
        Difference(
            "every chunk the cache goes from 21 to 16 frames",
            "21 to 16 once, then 16 to 19 to 16: every second chunk",
            RELEASE,
            "Deep Forcing wan/modules/causal_model.py:434",
        ),
        Difference(
            "chosen tokens are moved in time together with the sink",
            "that branch is never reached: they keep the indices they were cached with",
            RELEASE,
            "Deep Forcing wan/modules/causal_model.py:625",
        ),
        Difference(
            "the sink stands right before the tail",
            "three frames further back, six in chunks without a compression",
            RELEASE,
            "Deep Forcing wan/modules/causal_model.py:581",
        ),
        Difference(
            "no limit on how often a token is kept",
            "seven times",
            "as released; reuse=N",
            "Deep Forcing wan/modules/causal_model.py:121",
        ),
        Difference(
            "attention scores",
            "dot products with the summed queries of the newest frames over all heads, no softmax",
            RELEASE,
            "Deep Forcing wan/modules/causal_model.py:471",
        ),
        Difference(
            "the code is in the paper's repository",
            "a project page only; what is reproduced is the release commit ea9961a in a derivative's history",
            "that commit",
            "Nizben/Spectral_C ea9961a",
        ),
        Difference(
            "state belongs to a video",
            "queries, counts and the sink's offset are never reset: a second video in one process differs",
            "new for each video",
            "Deep Forcing wan/modules/causal_model.py:413",
        ),
        Difference(
            "videos of a batch do not mix",
            "one that keeps fewer tokens than another is filled up with zeros, which are attended to",
            "what fills it up is not seen",
            "Deep Forcing wan/modules/causal_model.py:496",
        ),
        MOVED_IN_PLACE,
        END_OF_TABLES,
    ),
    "mag": (
        Difference(
            "all history is kept, compressed",
            "a ring of 21 chunks: what is older than 63 latent frames is gone",
            VARIANT,
            "MAG section 3; pipeline/memory_generation_pipeline.py:97",
        ),
        Difference(
            "empty prompts with probability 0.6 for about 1400 steps of training",
            "0.8 and 1000 in the configuration",
            "concerns training only",
            "MAG configs/mag.yaml",
        ),
        END_OF_TABLES,
    ),
    "rolling-forcing": (
        Difference(
            "window and sink can be configured",
            "24, 21 and 3 are hard-coded, the configuration's keys are dead",
            "as released; window=N",
            "Rolling Forcing wan/modules/causal_model.py:75",
        ),
        Difference(
            "the anchor is always attended to",
            "not by clean passes once the cache is full, from the eighth chunk on",
            RELEASE,
            "Rolling Forcing wan/modules/causal_model.py:211",
        ),
        Difference(
            "videos of fewer chunks than steps",
            "get wrong noise levels",
            "right noise levels",
            "Rolling Forcing pipeline/rolling_forcing_inference.py:169",
        ),
        Difference(
            "a video may begin with given latents",
            "that path fails with a NameError",
            "a history is encoded chunk by chunk, ours",
            "Rolling Forcing pipeline/rolling_forcing_inference.py",
        ),
        END_OF_TABLES,
    ),
    "causvid": (
        Difference(
            "rollouts of 21 frames joined without a seam",
            "the last rollout loses its last nine pixel frames too",
            "the video has the length that was asked for",
            "CausVid minimal_inference/longvideo_autoregressive_inference.py:56",
        ),
    ),
}
"""By method."""


def released_frames(method: str) -> int | None:
    """Most latent frames of a video that the release can make with this method's positions; None where none ends it."""
    return TABLE_FRAMES if END_OF_TABLES in DIFFERENCES.get(method, ()) else None
