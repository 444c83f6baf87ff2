"""Video files: read in order with PyAV, written reproducibly, probed without surprises.

Scores always come from `open_video`: every frame, in order, one at a time. decord only seeks, for
contact sheets and posters.
"""

import hashlib
import os
import statistics
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.codec.context import Flags
from av.sidedata.sidedata import Type
from av.stream import Disposition
from numpy.typing import NDArray

from magbench.errors import VideoError
from magbench.records import Transform, VideoRef

Frame = NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""

SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".y4m")
"""Files of a folder that count as videos."""
SHUFFLE_SECONDS = 4.0
"""Length of the blocks inside which `shuffled` permutes frames."""
RATE_TOLERANCE = 0.02
"""How far a file's frame rate may be from that of its timestamps before it is said."""
REPEAT = 0.4
"""A frame that changes by less than this share of what either neighbour changes by may repeat the one before."""
PERIODS = range(2, 17)
"""Frames after which a pattern of repeated frames may recur: 16 fps at 24 has 3, 16 at 30 has 15."""
SAMPLES = 120
"""Pixels along the short side that tell how much a frame changes."""
ALPHA = "the alpha channel is ignored"
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of ITU-T H.273 that aren't meant for ordinary screens."""
PREVIEW_SMALL = 128
"""Previews of videos up to this many pixels wide are enlarged four times, so that a person can see them."""


@dataclass(frozen=True)
class Probe:
    """What a file says of itself, checked by decoding its first frame."""

    frames: int
    """Counted in the container; announced by it where the file is cut short."""
    fps: float
    width: int
    height: int
    key_frames: tuple[int, ...] = ()
    """Index, in decoding order, of each key frame; none for RGB formats, which lose nothing between key frames."""
    warnings: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    """Seconds at which the frames are shown, where the decoder can't be relied on: AVI only says when to decode."""


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> Any:
    if not path.is_file():
        raise VideoError(f"{path}: " + ("is not a file" if path.exists() else "no such file"), "check the path")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)", "generate or copy it again")
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})  # whatever its name looks like
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be read as a video ({_reason(error)})", "the file is of another kind, or cut short"
        ) from error
    if container.format.name == "tty":  # FFmpeg draws any text file as a terminal
        container.close()
        raise VideoError(f"{path}: is a text file, not a video", "give a video file")
    if not _streams(container):
        container.close()
        raise VideoError(f"{path}: has no video stream", "give a file that contains pictures")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        kind = container.format.name.removesuffix("_pipe")
        container.close()
        raise VideoError(f"{path}: is a picture ({kind}), not a video", "give a video file")
    return container


def _streams(container: Any) -> list[Any]:
    """Video streams, the one that is read first; the cover of a sound file is none."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def probe(path: Path) -> Probe:
    """Size, rate and number of frames of a video.

    The rate is the file's own where its timestamps bear it out, else that of the timestamps.

    Raises:
        VideoError: the file is missing, empty, unreadable, or has no video stream or frame.
    """
    with _open(path) as container:
        stream, *others = _streams(container)
        aspect, transfer = stream.sample_aspect_ratio, stream.codec_context and stream.codec_context.color_trc
        packets = _count(path, container, stream)
        kind, tag = container.format.name, stream.average_rate or stream.guessed_rate
        times = packets.times if kind == "avi" else ()
        gif = kind == "gif"  # it knows pauses between frames and no rate, and FFmpeg never calls it cut short
        fps, warnings = _rate(path, None if gif and packets.frames > 1 else tag, packets)
        if gif and _last_byte(path) != b";":
            warnings.append("the end mark is missing: the file may be cut short")
        if others:
            warnings.append(f"{1 + len(others)} video streams: the first is read")
        if stream.metadata.get("alpha_mode") == "1":
            warnings.append(ALPHA)
    with _open(path) as container:
        try:
            first = next(container.decode(_streams(container)[0]), None)
        except av.error.FFmpegError as error:
            raise _unreadable(path, error) from error
        if first is None:
            raise VideoError(f"{path}: has no frames", "generate it again")
        _refuse_askew(path, first)
        warnings += _peculiarities(first, aspect, transfer)
        height, width = _pixels(first).shape[:2]
    keys = () if first.format.is_rgb else packets.keys
    return Probe(packets.frames, fps, width, height, keys, tuple(dict.fromkeys(warnings)), times)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def _unreadable(path: Path, error: Exception) -> VideoError:
    return VideoError(f"{path}: cannot be read as a video ({_reason(error)})", "generate, copy or convert it again")


def _refuse_askew(path: Path, frame: Any) -> None:
    """Refuse what quarter turns can't put upright."""
    matrix = next((bytes(data) for data in frame.side_data if data.type == Type.DISPLAYMATRIX), b"")
    a, b, _, c, d = struct.unpack("<5i", matrix[:20]) if matrix else (1, 0, 0, 0, 1)
    if a * d - b * c < 0 or (a and b):
        how = "mirrored" if a * d - b * c < 0 else f"turned by {-frame.rotation % 360} degrees"
        raise VideoError(f"{path}: asks to be shown {how}, which is not supported", "encode it upright")


def _peculiarities(frame: Any, aspect: Fraction | None, transfer: int) -> list[str]:
    """What the frames of a video have that isn't read, or that is read in one of several ways."""
    found = []
    if any(component.is_alpha for component in frame.format.components):
        found.append(ALPHA)
    if (bits := max(component.bits for component in frame.format.components)) > 8:
        found.append(f"{bits} bits per channel are read as 8")
    if transfer in HDR:
        found.append(f"high dynamic range ({HDR[transfer]}) is read without tone mapping")
    if frame.rotation % 360:
        found.append(f"shown rotated by {-frame.rotation % 360} degrees clockwise, as the file asks")
    if frame.interlaced_frame:
        found.append("interlaced: each frame is read as it is, two half pictures woven together")
    if aspect and aspect != 1:
        found.append(f"pixels are {aspect.numerator}:{aspect.denominator}, not square: they are read as stored")
    return found


@dataclass(frozen=True)
class _Packets:
    """What the container says without decoding."""

    frames: int
    keys: tuple[int, ...]
    times: tuple[float, ...]
    """Seconds, ascending; frames without a timestamp have none."""
    tick: float
    """Seconds to which the container rounds a time."""


def _count(path: Path, container: Any, stream: Any) -> _Packets:
    """Announced frames, key frames and timestamps."""
    times: list[float | None] = []
    keys: list[int] = []
    end = 0.0
    try:
        for packet in container.demux():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is stream and packet.size and not packet.is_discard:
                keys += [len(times)] if packet.is_keyframe else []
                times.append(None if packet.pts is None else float(packet.pts * packet.time_base))
    except av.error.FFmpegError as error:
        if not times:
            raise _unreadable(path, error) from error
    known = sorted(time for time in times if time is not None)
    step = statistics.median(b - a for a, b in pairwise(known)) if len(known) > 1 else 0.0
    start = 0 if container.format.name == "flv" else container.start_time or 0  # flv counts its duration from 0
    read, promised = end - start / av.time_base, (container.duration or 0) / av.time_base
    cut_short = known and read > 0 and promised - read > max(0.1, 1.5 * step)
    frames = (stream.frames or round(len(times) * promised / read)) if cut_short else len(times)
    return _Packets(frames, tuple(keys), tuple(known), float(stream.time_base))


def _rate(path: Path, tag: Fraction | None, packets: _Packets) -> tuple[float, list[str]]:
    """Frames per second, and warnings about them."""
    times = packets.times
    steps = [b - a for a, b in pairwise(times)]
    span = times[-1] - times[0] if steps else 0.0
    if not span:
        if not tag:
            raise VideoError(f"{path}: has neither a frame rate nor timestamps", "re-mux it with a frame rate")
        return float(tag), []
    measured, usual = len(steps) / span, statistics.median(steps)
    if max(max(steps) - usual, usual - min(steps)) > max(usual / 2, 2 * packets.tick):
        apart = f"{min(steps):.3g} to {max(steps):.3g} s apart"
        return measured, [f"the frame rate varies: frames are {apart}, {measured:.3g} per second; timestamps are used"]
    if tag and abs(len(steps) / tag - span) <= 2 * packets.tick:
        return float(tag), []
    if not tag:
        return measured, ["no frame rate in the file: taken from its timestamps"]
    if abs(measured / tag - 1) > RATE_TOLERANCE:
        return measured, [f"the file says {float(tag):.3g} fps, its timestamps say {measured:.3g}: these are used"]
    return measured, []


def video_ref(
    path: Path, relative_to: Path | None = None, transform: Transform = "none", hold_from: int = 0
) -> VideoRef:
    """The record of a video file as it will be scored.

    Args:
        path: The file.
        relative_to: Folder the recorded path is relative to; None records the absolute path.
        transform: See `VideoRef.transform`.
        hold_from: See `VideoRef.hold_from`.

    Raises:
        VideoError: see `probe`.
    """
    found = probe(path)
    shown = os.path.relpath(path, relative_to) if relative_to else str(path.resolve())
    return VideoRef(
        path=shown,
        sha256=sha256_file(path),
        frames=found.frames,
        fps=found.fps,
        width=found.width,
        height=found.height,
        transform=transform,
        hold_from=hold_from,
    )


def _pixels(frame: Any) -> Frame:
    """RGB pixels of a decoded frame, the right way up."""
    pixels: Frame = frame.to_ndarray(format="rgb24", src_colorspace=frame.colorspace)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


class VideoReader:
    """Iterates once over (seconds from the first frame, RGB frame). Use it as a context manager.

    Attributes:
        fps, frames, width, height: As probed.
        warnings: What to know about the file; complete after the last frame.
    """

    def __init__(self, path: Path, transform: Transform = "none", hold_from: int = 0) -> None:
        found = probe(path)
        self.path = path
        self.fps, self.frames, self.width, self.height = found.fps, found.frames, found.width, found.height
        self.key_frames = found.key_frames
        self.warnings = list(found.warnings)
        self._times, self._transform, self._hold_from = found.times, transform, hold_from
        self._container = _open(path)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        """Frames in order.

        Raises:
            VideoError: the file ends, or breaks, before the last announced frame.
        """
        match self._transform:
            case "static":
                return _held(self._decoded(), self._hold_from)
            case "shuffled":
                return _shuffled(self._decoded(), self._hold_from, round(SHUFFLE_SECONDS * self.fps))
            case _:
                return self._decoded()

    def _decoded(self) -> Iterator[tuple[float, Frame]]:
        count = patched = 0
        start = time = 0.0
        repeats = _Repeats()
        broken = ""
        frames = self._container.decode(_streams(self._container)[0])
        while True:
            try:
                frame = next(frames, None)
            except av.error.FFmpegError as error:
                broken = _reason(error)
                break
            if frame is None:
                break
            if frame.is_corrupt:
                broken = "damaged data"
                break
            stamp = self._times[count] if count < len(self._times) else frame.time
            if count == 0:
                start = stamp or 0.0
            elif stamp is None or stamp - start <= time:
                patched += 1
                time += 1 / self.fps
            else:
                time = stamp - start
            pixels = _pixels(frame)
            if pixels.shape[:2] != (self.height, self.width):
                broken = f"the frame size changes to {pixels.shape[1]}x{pixels.shape[0]}"
                break
            repeats.add(pixels)
            count += 1
            yield time, pixels
        if broken or count < self.frames - 1:
            raise VideoError(
                f"{self.path}: only {count} of {self.frames} announced frames can be read"
                + (f" ({broken})" if broken else ""),
                "the file is cut short or damaged: generate or copy it again",
            )
        if patched:
            self.warnings.append(f"{patched} timestamps missing or out of order: replaced at {self.fps:g} fps")
        self.warnings += repeats.warnings(self.fps)


class _Repeats:
    """Counts frames that repeat the one before, and tells a video stored at more than its own rate.

    An encoder turns a repeated frame into one that hardly differs, so it is told by its place: when a rate is converted
    by repeating, frames that change far less than both neighbours come back at the same places of a short period, and
    at no others.
    """

    def __init__(self) -> None:
        self._previous: Frame | None = None
        self._count = self._exact = 0
        self._changes: tuple[float, ...] = ()
        """Of the last three frames, in grey levels."""
        self._dips = {period: [0] * period for period in PERIODS}
        """At each place of a period, how many frames changed far less than their neighbours."""

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        if self._previous is not None:
            step = max(1, min(frame.shape[:2]) // SAMPLES)
            now, before = frame[::step, ::step], self._previous[::step, ::step]
            change = float(np.abs(np.subtract(now, before, dtype=np.int16)).mean())
            self._exact += change == 0 and np.array_equal(frame, self._previous)
            self._changes = (*self._changes[-2:], change)
            if len(self._changes) == 3 and self._changes[1] < REPEAT * min(self._changes[0], change):
                for period, dips in self._dips.items():
                    dips[(self._count - 1) % period] += 1
        self._count += 1
        self._previous = frame

    def warnings(self, fps: float) -> list[str]:
        """What to say after the last frame."""
        for period, dips in self._dips.items():
            cycles = self._count / period
            shares = sorted(found / cycles for found in dips)
            for repeated in range(1, period // 2 + 1):
                others, these = shares[-repeated - 1], shares[-repeated]
                if cycles >= 4 and these > 0.5 and others < 0.2:
                    own = f"it looks like {fps * (1 - repeated / period):.3g} fps or less, stored at {fps:.3g}"
                    return [f"{repeated} in {period} frames repeat the frame before: {own}"]
        if self._exact:
            return [f"{self._exact} of {self._count} frames repeat the frame before exactly"]
        return []


def _held(frames: Iterator[tuple[float, Frame]], hold_from: int) -> Iterator[tuple[float, Frame]]:
    held: Frame | None = None
    for index, (time, frame) in enumerate(frames):
        if index == max(hold_from - 1, 0):
            held = frame
        yield time, frame if held is None or index < hold_from else held


def _shuffled(frames: Iterator[tuple[float, Frame]], given: int, size: int) -> Iterator[tuple[float, Frame]]:
    yield from islice(frames, given)
    block = 0
    while items := list(islice(frames, max(size, 2))):
        order = sorted(range(len(items)), key=lambda i: hashlib.sha256(f"{block}:{i}".encode()).digest())
        shown = dict(zip(order, order[1:] + order[:1], strict=True))
        yield from ((time, items[shown[slot]][1]) for slot, (time, _) in enumerate(items))
        block += 1


def open_video(path: Path, transform: Transform = "none", hold_from: int = 0) -> VideoReader:
    """Open a video for reading in order.

    Args:
        path: The file.
        transform: `static` shows frame `max(hold_from - 1, 0)` from `hold_from` on. `shuffled` permutes the frames
            from `hold_from` on inside blocks of 4 s, always in the same way, leaving none in its place. Timestamps
            stay where they are.
        hold_from: Frames before it, the given history, stay as they are.

    Raises:
        VideoError: see `probe`.
    """
    return VideoReader(path, transform, hold_from)


def seek_frames(path: Path, indices: Sequence[int]) -> list[Frame]:
    """Single frames for contact sheets, in the order asked; never for scores.

    Uses decord where it is installed and the video has 8 bits per channel, else PyAV.

    Raises:
        VideoError: see `probe`; or an index lies outside the video.
    """
    frames = _seek_decord(path, indices)
    if frames is not None:
        return frames
    wanted, found = set(indices), {}
    with open_video(path) as video:
        for index, (_, frame) in enumerate(islice(video, max(wanted, default=-1) + 1)):
            if index in wanted:
                found[index] = frame
    if missing := sorted(wanted - set(found)):
        raise VideoError(f"{path}: has no frame {missing[0]}")
    return [found[index] for index in indices]


def _seek_decord(path: Path, indices: Sequence[int]) -> list[Frame] | None:
    """The frames, or None where decord is missing, gives up (on a GIF, for one) or errs (at 2x2 pixels, for one)."""
    with _open(path) as container:
        stream = container.streams.video[0]
        layout, shape = stream.format, (stream.height, stream.width, 3)
        if layout is None or any(component.bits != 8 for component in layout.components):
            return None
    try:
        import decord
    except (ImportError, RuntimeError):
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = [reader[index].asnumpy() for index in indices]
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, IndexError):
        return None
    return frames if all(frame.shape in (shape, (shape[1], shape[0], 3)) for frame in frames) else None


def write_video(
    path: Path, frames: Iterable[Frame], fps: float, codec: Literal["lossless", "preview"] = "lossless"
) -> None:
    """Write frames, the same bytes each time.

    Args:
        path: Where to; its extension doesn't decide anything.
        frames: uint8 [height, width, 3], RGB, all of one size.
        fps: Frames per second.
        codec: `lossless` is H.264 RGB in Matroska (use `.mkv`): every pixel comes back. `preview` is H.264 yuv420p in
            MP4 (use `.mp4`) that browsers play: padded to an even size, and enlarged four times when small.

    Raises:
        VideoError: no frames, or a frame of another type or size.
    """
    lossless = codec == "lossless"
    options = {"fflags": "bitexact"} | ({} if lossless else {"movflags": "faststart"})
    shape: tuple[int, ...] | None = None
    with av.open(str(path), "w", format="matroska" if lossless else "mp4", options=options) as container:
        for index, frame in enumerate(frames):
            expected = shape or (*frame.shape[:2], 3)
            if frame.dtype != np.uint8 or frame.shape != expected:
                raise VideoError(f"{path}: frame {index} is {frame.dtype} {frame.shape}, expected uint8 {expected}")
            shape = frame.shape
            picture = frame if lossless else _presentable(frame)
            if index == 0:
                stream: Any = container.add_stream(
                    "libx264rgb" if lossless else "libx264",
                    rate=Fraction(fps).limit_denominator(1001),
                    options={"qp": "0"} if lossless else {"crf": "18"},
                )
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "rgb24" if lossless else "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.flags |= Flags.bitexact
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if shape is None:
            raise VideoError(f"{path}: no frames to write")
        container.mux(stream.encode())


def _presentable(frame: Frame) -> Frame:
    if frame.shape[1] <= PREVIEW_SMALL:
        frame = frame.repeat(4, axis=0).repeat(4, axis=1)
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
