"""Files as people have them: each is read right, or named with one clear sentence.

They are made here with PyAV, without our own writer; what is expected is what was put in, or follows from the standard.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from magbench.data.video import Frame, open_video, probe
from magbench.errors import VideoError

FPS = 16
MS = Fraction(1, 1000)


def waves(frames: int, height: int = 48, width: int = 64) -> list[Frame]:
    """Slow waves of colour that move by a pixel or two per frame: what chroma at half size can carry."""
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([128 + 90 * np.sin((a * x + b * y + 2 * i + c) / 24) for a, b, c in WAVES], axis=-1).astype(np.uint8)
        for i in range(frames)
    ]


WAVES = ((1, 0, 0), (0, 1, 20), (1, 1, 50))


@dataclass(frozen=True)
class File:
    """How a file is made."""

    name: str
    codec: str
    pixels: str = "yuv420p"
    size: tuple[int, int] = (48, 64)
    options: dict[str, str] = field(default_factory=dict)
    error: float = 2.0
    """Largest mean difference to what was put in, in grey levels."""
    warnings: tuple[str, ...] = ()


def encode(
    path: Path,
    frames: Sequence[Any],
    codec: str,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    fps: int = FPS,
    times: Sequence[int] | None = None,
) -> None:
    """Write pictures, or frames that are ready; `times` are in milliseconds."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.codec_context.thread_count = 1
        if times:
            stream.codec_context.time_base = MS
        for index, item in enumerate(frames):
            frame = item if isinstance(item, av.VideoFrame) else picture(item)
            if index == 0:
                stream.height, stream.width, stream.pix_fmt = frame.height, frame.width, pixels
            if times:
                frame.pts, frame.time_base = times[index], MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def picture(pixels: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.shape[2] == 3 else "rgba")


def read(path: Path) -> tuple[list[float], list[Frame], list[str]]:
    with open_video(path) as video:
        pairs = list(video)
        assert len(pairs) == video.frames
        return [time for time, _ in pairs], [frame for _, frame in pairs], video.warnings


def difference(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(float) - other).mean())


X264, X265, VP9 = {"crf": "4"}, {"crf": "4", "x265-params": "log-level=none"}, {"crf": "4", "b": "0", "cpu-used": "8"}
AV1 = {"crf": "6", "preset": "12", "svtav1-params": "tune=0"}
ALPHA = ("the alpha channel is ignored",)
TEN = ("10 bits per channel are read as 8",)
FILES = [
    File("h264.mp4", "libx264", options=X264),
    File("b-frames.mp4", "libx264", options=X264 | {"bf": "3", "x264-params": "b-adapt=0"}),
    File("h264.mkv", "libx264", options=X264),
    File("h264.ts", "libx264", options=X264),
    File("h264.flv", "libx264", options=X264),
    File("h264.avi", "libx264", options=X264),
    File("hevc.mp4", "libx265", options=X265),
    File("vp9.webm", "libvpx-vp9", options=VP9),
    File("av1.mp4", "libsvtav1", options=AV1),
    File("av1.webm", "libsvtav1", options=AV1),
    File("mpeg4.avi", "mpeg4", options={"b": "9000000"}, error=3),
    File("mpeg2.mpg", "mpeg2video", options={"b": "9000000"}, error=3),
    File("mjpeg.mov", "mjpeg", "yuvj420p", options={"b": "9000000"}, error=3),
    File("ffv1.mkv", "ffv1", "bgr0", error=0),
    File("raw.y4m", "rawvideo"),
    File("odd-444.mp4", "libx264", "yuv444p", (47, 63), X264),
    File("odd-420.webm", "libvpx-vp9", size=(47, 63), options=VP9),
    File("odd-444-hevc.mp4", "libx265", "yuv444p", (47, 63), X265),
    File("odd-420-av1.mp4", "libsvtav1", size=(67, 65), options=AV1),
    File("one-pixel.mkv", "ffv1", "bgr0", (1, 1), error=0),
    File("10-bit.mp4", "libx264", "yuv420p10le", options=X264, warnings=TEN),
    File("10-bit-hevc.mp4", "libx265", "yuv420p10le", options=X265, warnings=TEN),
    File("10-bit-av1.mp4", "libsvtav1", "yuv420p10le", options=AV1, warnings=TEN),
    File("10-bit-prores.mov", "prores_ks", "yuv422p10le", warnings=TEN),
    File("alpha.mkv", "ffv1", "bgra", error=0, warnings=ALPHA),
    File("alpha.webm", "libvpx-vp9", "yuva420p", options=VP9 | {"auto-alt-ref": "0"}, warnings=ALPHA),
    File("alpha-prores.mov", "prores_ks", "yuva444p10le", warnings=(*ALPHA, "12 bits per channel are read as 8")),
    File("interlaced.mp4", "libx264", options=X264 | {"x264-params": "tff=1"}, error=3, warnings=("interlaced: ",)),
    File("anamorphic.mp4", "libx264", options=X264 | {"x264-params": "sar=4/3"}, warnings=("pixels are 4:3, not",)),
    File(
        "hdr.mp4",
        "libx265",
        "yuv420p10le",
        options={**X265, "x265-params": "log-level=none:transfer=smpte2084"},
        warnings=(*TEN, "high dynamic range (PQ)"),
    ),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_container_gives_its_pictures_and_times(tmp_path: Path, file: File) -> None:
    given = waves(12, *file.size)
    alpha = np.full((*file.size, 1), 200, np.uint8)
    put = [np.concatenate([frame, alpha], axis=2) for frame in given] if set(ALPHA) & set(file.warnings) else given
    encode(tmp_path / file.name, put, file.codec, file.pixels, file.options)
    times, frames, warnings = read(tmp_path / file.name)
    assert times == pytest.approx([i / FPS for i in range(12)], abs=0.002)
    assert {frame.shape for frame in frames} == {(*file.size, 3)}
    assert max(map(difference, frames, given)) <= file.error
    assert len(warnings) == len(file.warnings)
    for found, said in zip(sorted(warnings), sorted(file.warnings), strict=True):
        assert found.startswith(said)
    found = probe(tmp_path / file.name)
    assert (found.fps, found.frames) == (pytest.approx(FPS), 12)


RED = (200, 30, 60)
MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt601": (6, 0.299, 0.114), "bt601-625": (5, 0.299, 0.114)}


def components(rgb: tuple[int, int, int], red: float, blue: float, full: bool) -> list[int]:
    """Y, Cb, Cr of 8 bits, from the formulas of ITU-R BT.601 and BT.709."""
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    if full:
        return [round(255 * y), round(128 + 255 * cb), round(128 + 255 * cr)]
    return [round(16 + 219 * y), round(128 + 224 * cb), round(128 + 224 * cr)]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("v.mp4", "libx264", {"qp": "0"}), ("v.webm", "libvpx-vp9", {"lossless": "1"}), ("v.mkv", "ffv1", {})],
)
def test_range_and_matrix_are_those_of_the_tag(
    tmp_path: Path, matrix: str, full: bool, name: str, codec: str, options: dict[str, str]
) -> None:
    number, red, blue = MATRICES[matrix]
    if codec == "libvpx-vp9" and matrix == "bt601":
        number = 5  # VP9 has one tag for both
    frames = []
    for _ in range(2):
        frame = av.VideoFrame(64, 64, "yuv444p")
        for plane, value in zip(frame.planes, components(RED, red, blue, full), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = number, 2 if full else 1
        frames.append(frame)
    with av.open(str(tmp_path / name), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = number, 2 if full else 1
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _, shown, _ = read(tmp_path / name)
    assert np.abs(shown[0].astype(int) - RED).max() <= 2


TURNS = {
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def turned(path: Path, matrix: Sequence[float]) -> Path:
    """A copy whose display matrix has these a, b, c, d."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 2**16) for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.with_name("turned.mp4").write_bytes(data)
    return path.with_name("turned.mp4")


@pytest.mark.parametrize("degrees", TURNS)
def test_quarter_turns_are_made(tmp_path: Path, degrees: int) -> None:
    encode(tmp_path / "v.mp4", waves(3), "libx264", options=X264)
    _, frames, warnings = read(turned(tmp_path / "v.mp4", TURNS[degrees]))
    assert difference(frames[0], np.rot90(waves(1)[0], -degrees // 90)) < 2
    assert warnings == [f"shown rotated by {degrees} degrees clockwise, as the file asks"]


@pytest.mark.parametrize(
    ("matrix", "how"),
    [((-1, 0, 0, 1), "mirrored"), ((1, 0, 0, -1), "mirrored"), ((0.7071, 0.7071, -0.7071, 0.7071), "turned by 45")],
)
def test_what_no_quarter_turn_puts_upright_is_refused(tmp_path: Path, matrix: Sequence[float], how: str) -> None:
    encode(tmp_path / "v.mp4", waves(3), "libx264", options=X264)
    with pytest.raises(VideoError, match=f"asks to be shown {how}"):
        open_video(turned(tmp_path / "v.mp4", matrix))


STEADY = [round(1000 * i / FPS) for i in range(24)]


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.webm", "libvpx-vp9")])
def test_a_rate_that_the_timestamps_belie_is_not_believed(tmp_path: Path, name: str, codec: str) -> None:
    encode(tmp_path / name, waves(24), codec, fps=24, times=STEADY)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].average_rate == 24
    times, _, warnings = read(tmp_path / name)
    assert warnings == ["the file says 24 fps, its timestamps say 16: these are used"]
    assert times == pytest.approx(np.array(STEADY) / 1000, abs=0.001)
    assert probe(tmp_path / name).fps == pytest.approx(16, abs=0.01)


UNEVEN = [0, 40, 80, 200, 240, 280, 900, 940, 980, 1500, 1540, 1580]


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.mp4", "libx264"), ("v.webm", "libvpx-vp9")])
def test_a_varying_rate_keeps_its_times(tmp_path: Path, name: str, codec: str) -> None:
    encode(tmp_path / name, waves(12), codec, fps=24, times=UNEVEN)
    times, _, warnings = read(tmp_path / name)
    assert times == pytest.approx(np.array(UNEVEN) / 1000, abs=0.001)
    assert warnings == ["the frame rate varies: frames are 0.04 to 0.62 s apart, 6.96 per second; timestamps are used"]


def test_a_varying_rate_is_told_though_its_mean_is_the_one_announced(tmp_path: Path) -> None:
    times = [time + (45 if i % 6 == 3 else 0) for i, time in enumerate(STEADY)]
    encode(tmp_path / "v.mkv", waves(24), "libx264", times=times)
    assert read(tmp_path / "v.mkv")[0] == pytest.approx(np.array(times) / 1000, abs=0.001)
    assert read(tmp_path / "v.mkv")[2][0].startswith("the frame rate varies: frames are 0.017 to 0.108 s apart, 16 per")


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    options = X264 | {"bf": "3", "x264-params": "b-adapt=0"}
    encode(tmp_path / "v.mp4", waves(24), "libx264", options=options, times=[5000 + time for time in STEADY])
    times, frames, warnings = read(tmp_path / "v.mp4")
    assert times == pytest.approx(np.array(STEADY) / 1000, abs=0.001)
    assert difference(frames[5], waves(24)[5]) < 2
    assert warnings == []


@pytest.mark.parametrize(("own", "stored", "ratio"), [(16, 24, "1 in 3"), (12, 24, "1 in 2"), (24, 30, "1 in 5")])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mkv", "ffv1", {}),
        ("v.mp4", "libx264", {"crf": "18"}),
        ("v.webm", "libvpx-vp9", {"crf": "30", "b": "0", "cpu-used": "8"}),
    ],
)
def test_a_rate_reached_by_repeating_is_told(
    tmp_path: Path, own: int, stored: int, ratio: str, name: str, codec: str, options: dict[str, str]
) -> None:
    frames = waves(60, 96, 128)
    shown = [frames[i * own // stored] for i in range(60)]
    encode(tmp_path / name, shown, codec, "bgr0" if codec == "ffv1" else "yuv420p", options, fps=stored)
    assert read(tmp_path / name)[2] == [
        f"{ratio} frames repeat the frame before: it looks like {own} fps or less, stored at {stored}"
    ]


def jitter(frames: int) -> list[Frame]:
    """Motion that is four times as large at every fourth frame, as behind a decoder of groups of four."""
    whole, place, shown = waves(400, 96, 128), 0, []
    for index in range(frames):
        place += 8 if index % 4 == 0 else 2
        shown.append(whole[place % 400])
    return shown


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: waves(60), None),
        (lambda: jitter(60), None),
        (lambda: waves(20) + 20 * waves(20)[-1:], "20 of 40 frames repeat the frame before exactly"),
        (lambda: 30 * waves(1), "29 of 30 frames repeat the frame before exactly"),
    ],
    ids=["moving", "unsteady", "stops", "still"],
)
def test_what_merely_stands_still_is_no_other_rate(
    tmp_path: Path, make: Callable[[], list[Frame]], says: str | None
) -> None:
    encode(tmp_path / "v.mkv", make(), "ffv1", "bgr0")
    assert read(tmp_path / "v.mkv")[2] == ([says] if says else [])


def test_a_gif_has_the_times_of_its_pauses(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(frame) for frame in waves(12))
    first.save(tmp_path / "v.gif", save_all=True, append_images=others, duration=60)
    times, frames, warnings = read(tmp_path / "v.gif")
    assert times == pytest.approx([0.06 * i for i in range(12)])
    assert max(map(difference, frames, waves(12))) < 12  # 256 colours
    assert warnings == ["no frame rate in the file: taken from its timestamps", *ALPHA]
    (tmp_path / "v.gif").write_bytes((tmp_path / "v.gif").read_bytes()[:-500])
    assert "the end mark is missing: the file may be cut short" in read(tmp_path / "v.gif")[2]


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(frame) for frame in waves(6))
    first.save(tmp_path / "v.png", save_all=True, append_images=others, duration=125)
    times, frames, _ = read(tmp_path / "v.png")
    assert times == pytest.approx([0.125 * i for i in range(6)])
    assert np.array_equal(frames, waves(6))


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "tiff"])
def test_a_picture_is_no_video(tmp_path: Path, kind: str) -> None:
    Image.fromarray(waves(1)[0]).save(tmp_path / f"v.{kind}")
    with pytest.raises(VideoError, match=r"v\.\w+: is a picture \(\w+\), not a video"):
        open_video(tmp_path / f"v.{kind}")


def sound(path: Path, with_video: bool) -> None:
    """Two seconds of silence, and half a second of video."""
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("aac", rate=8000, layout="mono")
        video: Any = container.add_stream("libx264", rate=FPS, options=X264) if with_video else None
        if video:
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for index in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * index
            container.mux(track.encode(frame))
        container.mux(track.encode())
        if video:
            for item in waves(8):
                container.mux(video.encode(picture(item)))
            container.mux(video.encode())


@pytest.mark.parametrize("name", ["v.m4a", "v.mka"])
def test_sound_alone_is_no_video(tmp_path: Path, name: str) -> None:
    sound(tmp_path / name, with_video=False)
    with pytest.raises(VideoError, match="has no video stream"):
        open_video(tmp_path / name)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_sound_that_goes_on_changes_nothing(tmp_path: Path, name: str) -> None:
    sound(tmp_path / name, with_video=True)
    times, frames, warnings = read(tmp_path / name)
    assert times == pytest.approx([i / FPS for i in range(8)], abs=0.001)
    assert difference(frames[7], waves(8)[7]) < 2
    assert warnings == []


def test_of_two_videos_the_first_is_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        streams: list[Any] = [container.add_stream("ffv1", rate=FPS) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for frame in waves(6):
            for stream, shown in zip(streams, (frame, 255 - frame), strict=True):
                container.mux(stream.encode(picture(shown)))
        for stream in streams:
            container.mux(stream.encode())
    _, frames, warnings = read(tmp_path / "v.mkv")
    assert np.array_equal(frames, waves(6))
    assert warnings == ["2 video streams: the first is read"]


CUT = [
    ("h264.mp4", "libx264", X264, "cannot be read as a video"),
    ("h264.mkv", "libx264", X264, r"only \d+ of \d+ announced frames"),
    ("h264.flv", "libx264", X264, r"only \d+ of \d+ announced frames"),
    ("hevc.mkv", "libx265", X265, r"only \d+ of \d+ announced frames"),
    ("vp9.webm", "libvpx-vp9", VP9, r"only \d+ of 24 announced frames"),
    ("av1.webm", "libsvtav1", AV1, r"only \d+ of 24 announced frames"),
    ("mpeg4.avi", "mpeg4", {}, r"cannot be read as a video|only \d+ of \d+ announced frames"),
]


@pytest.mark.parametrize(("name", "codec", "options", "says"), CUT, ids=[row[0] for row in CUT])
def test_half_a_file_is_never_taken_for_a_whole_one(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], says: str
) -> None:
    path = tmp_path / name
    encode(path, waves(24, 96, 128), codec, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match=rf"{name}: {says}") as caught:
        read(path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_no_frames_at_all(tmp_path: Path, name: str) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match=r"has no (frames|video stream)|End of file"):
        open_video(tmp_path / name)


def test_a_codec_nobody_knows_is_named(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", waves(3), "libx264", options=X264)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match="Decoder not found") as caught:
        open_video(tmp_path / "v.mp4")
    assert "convert" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["a:b.mkv", "http:x.mkv", "concat:x|y.mkv", "file:x.mkv", "100%d.mkv", "-x?a=1,b.mkv"])
def test_a_name_is_a_name_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    encode(tmp_path / "plain.mkv", waves(3), "ffv1", "bgr0")
    (tmp_path / "plain.mkv").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(read(Path(name))[1], waves(3))


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    encode(tmp_path / "secret.ts", waves(24), "libx264", options=X264)
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "v.mp4").write_text(text)
    with pytest.raises(VideoError, match="cannot be read as a video"):
        open_video(tmp_path / "v.mp4")
