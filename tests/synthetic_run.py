"""A made-up but plausible run folder: 4 methods and 3 references, 2 tracks, all states, hostile text; and a sweep."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from magbench.records import (
    CaseRecord,
    MethodRecord,
    MetricRecord,
    Reduction,
    RunRecord,
    SampleRecord,
    Series,
    Timing,
    TraceRecord,
    VideoRef,
)
from magbench.store import RunStore

FPS, CHUNK, SIZE = 8, 3, 64
HOSTILE = '<script>alert("x")</script> & 100% of $x^2$ | a_b {c} \\input{d} `e` ~f~ #g'
METHODS = ("memrope", "fifo", "memrope:memory=none", "full")
PRIMARY = {
    "long-horizon": ("appearance_drift@default/end", "subject_consistency@mini/anchor_end"),
    "mag-bench": ("landmark_recall@mini/recall", "retention@default/aligned_psnr@unheld"),
}
STRENGTH = {"memrope": 1.0, "fifo": 0.0, "memrope:memory=none": 0.35, "full": 0.8, "real": 1.5, "static": 0.4}
BUDGETS, OWN = (6, 9, 12, 18), {"fifo": 9, "memrope": 9, "mag": 23}
"""Of a sweep: past frames, and those that its methods have of their own."""
HINT = "put alexnet.pth into ~/.cache/magbench/weights; `magbench weights fetch lpips` gets it"


Made = tuple[SampleRecord, list[MetricRecord], list[TraceRecord]]


def run_record(**changes: object) -> RunRecord:
    return RunRecord(
        **{
            "magbench_version": "0.1.0",
            "kind": "run",
            "suite": "mini",
            "suite_version": 1,
            "model": "mini",
            "methods": METHODS,
            "primary": PRIMARY,
            "command": "magbench run --method memrope --out runs/made-up",
            "started": "2026-01-02T03:04:05Z",
            "finished": "2026-01-02T03:07:05Z",
            "status": "complete",
            "versions": {"python": "3.11.9", "torch": "2.6.0"},
            "hardware": {"cpu": "an ordinary one", "cores": "2"},
            "weights": {"mini": "ab" * 32},
            **changes,
        }
    )


def make_entries(cases: int = 12) -> list[Made]:
    """All samples of the run with their metrics and traces, in memory."""
    labels = (*METHODS, "real", "static", "shuffled")
    return [make_sample(track, index, label) for track in PRIMARY for index in range(cases) for label in labels]


def sweep_record(own: Mapping[str, int] = OWN, **changes: object) -> RunRecord:
    """The record of `make_sweep`'s run."""
    labels = [sweep_label(family, budget, own[family]) for budget in BUDGETS for family in own]
    methods = tuple(dict.fromkeys((*labels, *own, "full")))
    return run_record(**{"methods": methods, "primary": {"long-horizon": PRIMARY["long-horizon"]}, **changes})


def sweep_label(family: str, budget: int, own: int) -> str:
    return family if budget == own else f"{family}:window={budget + CHUNK}"


def make_sweep(own: Mapping[str, int] = OWN, cases: int = 12) -> list[Made]:
    """`--budget 6,9,12,18,own` on one track: larger budgets drift less; `full` unmatched, `mag` refused at 2 frames."""
    found: list[Made] = []
    for index in range(cases):
        found += [make_sample("long-horizon", index, label) for label in ("full", "real", "static", "shuffled")]
        sample, metrics, trace = found[-4]
        found[-4] = relabel(sample, "full", "full", matched=False), metrics, trace
        for order, (family, mine) in enumerate(own.items()):
            for budget in sorted({*BUDGETS, mine}):
                label = sweep_label(family, budget, mine)
                made = relabel(sample, label, family, budget_frames=budget, own_budget_frames=mine)
                scores = make_metrics("long-horizon", index, label, 0, sample.case.frames, 0.1 * order + 0.04 * budget)
                network = {"network_bytes": 5 << 20} if family == "mag" else {}
                found.append((made, scores, traces(label, sample.case.frames, 0, budget, **network)))
        refused = {
            "budget_frames": 2,
            "applicability": "not applicable",
            "reason": "mag can't use a budget of 2 frames.",
        }
        no = relabel(sample, "mag:budget=2", "mag", own_budget_frames=23, **refused)
        no = no.model_copy(update={"status": "not_applicable", "reason": refused["reason"], "video": None})
        found.append((no, [], []))
    return found


def relabel(sample: SampleRecord, label: str, family: str, **method: object) -> SampleRecord:
    """The sample as another method's."""
    fields = {"label": label, "policy": family, "family": family, "budget_frames": None, **method}
    key = f"{sample.key.partition('.full.')[0]}.{label.replace(':', '-').replace('=', '-')}"
    return sample.model_copy(update={"key": key, "method": sample.method.model_copy(update=fields)})


def make_run(
    root: Path, cases: int = 12, pixels: bool = False, run: RunRecord | None = None, made: list[Made] | None = None
) -> RunStore:
    """Write a run, of `make_entries` if no other; without `pixels`, previews and contact sheets are a few bytes."""
    store = RunStore.create(root, run or run_record())
    for sample, metrics, trace in made or make_entries(cases):
        if sample.video and sample.video.transform == "none":
            write_media(store, sample, pixels)
        if trace:
            store.write_trace(sample.key, trace)
        for record in metrics:
            store.write_metric(sample.key, record)
        store.write_sample(sample)
    return store


def make_sample(track: str, index: int, label: str) -> Made:
    reference = label not in METHODS
    history = (36 if index % 2 else 42) if track == "mag-bench" else 0
    frames = history + 24 if history else 120
    case = CaseRecord(
        id=f"{track[:3]}-{index:02d}",
        track=track,
        prompt=HOSTILE if index == 0 else f"a blue walker with a red hat in the green hills, number {index}",
        history_frames=history,
        frames=frames,
        stratum=("half", "one", "two", "four")[index % 4],
    )
    method = MethodRecord(
        label=label,
        policy="reference" if reference else label.partition(":")[0],
        budget_frames=None if reference else 12,
        applicability="reference"
        if reference
        else "in-distribution"
        if label == "memrope"
        else "training-free transfer",
        reason="the window was never trained with slots" if label == "memrope:memory=none" else "",
    )

    def key(of: str) -> str:
        return f"{track}.{case.id}.s0.{of.replace(':', '-').replace('=', '-')}.{index:04d}"

    base = {"key": key(label), "case": case, "method": method, "model": "mini", "seed": 0}
    if label == "full" and track == "mag-bench":
        reason = "history is longer than the trained span of 48 frames"
        return SampleRecord(**base, status="not_applicable", reason=reason), [], []
    if label == "fifo" and index == 3:
        reason = "out of memory at chunk 7"
        return SampleRecord(**base, status="error", reason=reason, hint="try --workers 1"), [], []
    transform = label if label in ("static", "shuffled") else "none"
    path = f"../{key('real')}/video.mkv" if transform != "none" else "video.mkv"
    video = VideoRef(path=path, sha256="cd" * 32, frames=frames, fps=FPS, width=SIZE, height=SIZE, transform=transform)
    borders = tuple(range(history + CHUNK, frames, CHUNK))
    updates = borders[5::2] if label == "memrope" else borders[6::6] if label == "full" else ()
    sample = SampleRecord(
        **base,
        status="ok",
        video=video,
        truth=None if reference else video.model_copy(update={"path": f"../{key('real')}/video.mkv"}),
        timing=Timing() if reference else Timing(chunk_borders=borders, update_borders=updates),
        history_frames=history,
    )
    scores = make_metrics(track, index, label, history, frames)
    return sample, scores, [] if reference else traces(label, frames, history)


def traces(label: str, frames: int, history: int, budget: int = 12, **fields: int) -> list[TraceRecord]:
    found = []
    for chunk, first in enumerate(range(0, frames, CHUNK)):
        held = first if label == "full" else min(first, 9 if label == "memrope:memory=none" else budget)
        found.append(
            TraceRecord(
                chunk=chunk,
                kind="history" if first < history else "generate",
                first_frame=first,
                frames=CHUNK,
                ms=40 + held,
                passes=11,
                keys_passes=11 * (held + CHUNK),
                past_frames=held,
                cached_frames=held,
                cache_bytes=held * 16 * 128 * 4 * 2 * 4,
                state_bytes=16384 if label == "memrope" else 0,
                events=("evict", "absorb") if label == "memrope" and first > 12 and chunk % 2 else (),
                **fields,
            )
        )
    return found


def make_metrics(
    track: str, index: int, label: str, history: int, frames: int, strength: float | None = None
) -> list[MetricRecord]:
    rng = np.random.default_rng([index, *label.encode()])
    level = np.random.default_rng(index).normal(0, 0.05)
    strength = STRENGTH.get(label, -1.0) if strength is None else strength
    t = np.arange(history, frames) / FPS
    since = t - t[0]

    def series(name: str, values: np.ndarray, unit: str = "", axis: str = "time", times: np.ndarray = t) -> Series:
        return Series(name=name, times=times.round(4).tolist(), values=values.round(6).tolist(), unit=unit, axis=axis)

    def record(name: str, reductions: list[Reduction], found: list[Series], state: str = "value") -> MetricRecord:
        metric, _, profile = name.partition("@")
        return MetricRecord(
            metric=metric,
            profile=profile,
            version=1,
            state=state,
            video_sha256="ef" * 32,
            reductions=reductions,
            series=found,
        )

    def value(name: str, number: float, direction: str = "none", unit: str = "") -> Reduction:
        return Reduction(name=name, state="value", value=round(float(number), 6), direction=direction, unit=unit)

    drift = 0.05 + level * 0.3 + (1.6 - strength) * 0.012 * since + 0.01 * rng.normal(size=len(t)).cumsum() / 4
    anchor = 0.97 + level * 0.2 - (1.6 - strength) * 0.02 * since + 0.01 * rng.normal(size=len(t))
    ssim = np.clip(0.9 + level + 0.01 * rng.normal(size=len(t) - 1), 0, 1) if label != "static" else np.ones(len(t) - 1)
    if label == "shuffled":
        ssim, anchor = ssim * 0.4, anchor * 0.5
    lags = np.array([0.5, 1, 2, 5])
    motion = 0.001 if label == "static" else 0.08 + 0.02 * strength + 0.004 * rng.normal()
    if label == "memrope:memory=none" and track == "long-horizon":
        motion = 0.03
    found = [
        record(
            "appearance_drift@default",
            [value("end", drift[-1], "lower"), value("worst_window", drift.max(), "lower")],
            [series("distance", drift)],
        ),
        record(
            "subject_consistency@mini",
            [value("anchor_end", anchor[-8:].mean(), "higher"), value("mean", anchor.mean())],
            [series("anchor", anchor), series("lag", 0.95 - (1.6 - strength) * 0.03 * lags, "", "lag", lags)],
        ),
        record(
            "motion@default",
            [value("magnitude", motion, "none", "/s"), value("freeze_share", float(label == "static"), "lower")],
            [series("magnitude", motion + 0.002 * rng.normal(size=len(t)), "/s")],
        ),
        record(
            "ssim_consecutive@default",
            [
                value("median", np.median(ssim)),
                Reduction(name="spike_rate", state="not_applicable", reason="the clip is frozen", direction="lower")
                if label == "static"
                else value("spike_rate", max(0, 0.03 + 0.01 * rng.normal()), "lower"),
            ],
            [series("ssim", ssim, times=t[1:])],
        ),
        MetricRecord(
            metric="lpips_consecutive",
            profile="default",
            version=1,
            state="not_applicable",
            reason="no weights: AlexNet for LPIPS v0.1",
            hint=HINT,
            video_sha256="ef" * 32,
        ),
    ]
    if label not in ("real", "static", "shuffled"):
        found.append(
            record(
                "efficiency@default",
                [value("fps", 20 + 3 * strength, "higher", "/s"), value("chunk_p95", 55, "lower", "ms")],
                [],
            )
        )
    if track == "mag-bench":
        psnr = 17 + 3 * strength + level * 20 + 0.3 * rng.normal(size=len(t)) - 0.6 * since
        recall = np.clip(0.3 + 0.35 * strength + level + 0.05 * rng.normal(), 0, 1)
        found.append(
            record("landmark_recall@mini", [value("recall", recall, "higher"), value("false_alarms", 0.05)], [])
        )
        found.append(
            record(
                "retention@default",
                [
                    value("aligned_psnr@unheld", psnr.mean(), "higher", "dB"),
                    value("coverage_psnr", psnr.mean() + 1, "higher", "dB"),
                ],
                [series("aligned_psnr", psnr, "dB")],
            )
        )
    return found


def write_media(store: RunStore, sample: SampleRecord, pixels: bool) -> None:
    key, frames, history, label = sample.key, sample.case.frames, sample.history_frames, sample.method.label
    index = int(sample.case.id[-2:])
    store.publish(key, "video.mkv", lambda path: path.write_bytes(b"not read by reports") and None)
    if not pixels:
        for name in ("preview.mp4", "preview.jpg"):
            store.publish(key, name, lambda path: path.write_bytes(b"not read by reports") and None)
        return
    from magbench.data.contact_sheet import sheet

    clip = [picture(index, label, n, history) for n in range(frames)]
    chosen = np.linspace(0, frames - 1, 12).round().astype(int)
    shown = sheet([clip[i] for i in chosen], [f"{i / FPS:.1f} s{' given' if i < history else ''}" for i in chosen])
    store.publish(key, "preview.jpg", lambda path: shown.save(path, "JPEG", quality=85))
    store.publish(key, "preview.mp4", lambda path: encode(path, clip))


def picture(index: int, label: str, n: int, history: int) -> np.ndarray:
    """A panning landscape with a walker, decaying into stripes for the weaker methods. uint8 [64, 64, 3]."""
    rng = np.random.default_rng(index)
    sky, ground, body = rng.integers(60, 230, (3, 3))
    x = np.arange(SIZE)[None, :] + 2 * n
    y = np.arange(SIZE)[:, None]
    hills = 34 + 6 * np.sin(x / 17) + 4 * np.sin(x / 7)
    image = np.where((y < hills)[..., None], sky, ground).astype(float)
    image[30 + n % 2 : 50, 26:38] = body
    image[24 + n % 2 : 30, 28:36] = (220, 40, 40)
    bad = max(0, n - history) / 120 * (1.2 - STRENGTH.get(label, 0.5))
    stripes = 128 + 100 * np.sin(x / 3 + y / 5)[..., None] * np.array([1, 0.5, 0.8])
    return np.clip(image * (1 - bad) + stripes * bad, 0, 255).astype(np.uint8)


def encode(path: Path, clip: list[np.ndarray]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
