"""Video files: read in order with PyAV, written reproducibly, probed without surprises.

Scores always come from `open_video`: every frame, in order, one at a time. decord only seeks, for
contact sheets and posters.
"""

import hashlib
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from magbench.errors import VideoError
from magbench.records import Transform, VideoRef

Frame = NDArray[np.uint8]
"""uint8 [height, width, 3], RGB."""

SHUFFLE_SECONDS = 4.0
"""Length of the blocks inside which `shuffled` permutes frames."""
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
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be read as a video ({_reason(error)})", "the file is of another kind, or cut short"
        ) from error
    if container.format.name == "tty":  # FFmpeg draws any text file as a terminal
        container.close()
        raise VideoError(f"{path}: is a text file, not a video", "give a video file")
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path}: has no video stream", "give a file that contains pictures")
    return container


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def probe(path: Path) -> Probe:
    """Size, rate and number of frames of a video.

    Raises:
        VideoError: the file is missing, empty, unreadable, or has no video stream or frame.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        frames, keys, step = _count(path, container)
        rate, warnings = stream.average_rate or stream.guessed_rate, []
        if not rate:
            if not step:
                raise VideoError(f"{path}: has neither a frame rate nor timestamps", "re-mux it with a frame rate")
            rate = 1 / step
            warnings.append("no frame rate in the file: taken from its timestamps")
    with _open(path) as container:
        try:
            first = next(container.decode(video=0), None)
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: cannot be read as a video ({_reason(error)})") from error
        if first is None:
            raise VideoError(f"{path}: has no frames", "generate it again")
        if any(component.is_alpha for component in first.format.components):
            warnings.append("the alpha channel is ignored")
        height, width = _pixels(first).shape[:2]
        if first.rotation % 360:
            warnings.append(f"shown rotated by {first.rotation % 360} degrees, as the file asks")
    return Probe(frames, float(rate), width, height, () if first.format.is_rgb else tuple(keys), tuple(warnings))


def _count(path: Path, container: Any) -> tuple[int, list[int], float]:
    """Announced frames, indices of the key frames, and the median step between frames in seconds (0: no timestamps)."""
    stream = container.streams.video[0]
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
            raise VideoError(f"{path}: cannot be read as a video ({_reason(error)})") from error
    known = sorted(time for time in times if time is not None)
    step = statistics.median(b - a for a, b in pairwise(known)) if len(known) > 1 else 0.0
    read, promised = end - (container.start_time or 0) / av.time_base, (container.duration or 0) / av.time_base
    cut_short = known and read > 0 and promised - read > max(0.1, 1.5 * step)
    frames = (stream.frames or round(len(times) * promised / read)) if cut_short else len(times)
    return frames, keys, step


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
        self._transform, self._hold_from = transform, hold_from
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
        count = repeats = patched = 0
        start = time = 0.0
        previous: Frame | None = None
        broken = ""
        frames = self._container.decode(video=0)
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
            stamp = frame.time
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
            repeats += previous is not None and np.array_equal(previous, pixels)
            previous = pixels
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
        if repeats:
            self.warnings.append(f"{repeats} of {count} frames repeat the frame before exactly")


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
