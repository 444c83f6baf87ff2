import hashlib
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from magbench.data.video import (
    SHUFFLE_SECONDS,
    Frame,
    open_video,
    probe,
    seek_frames,
    sha256_file,
    video_ref,
    write_video,
)
from magbench.errors import VideoError


def moving(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> list[Frame]:
    """A blocky picture that pans by 3 pixels per frame."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    picture = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)[:height, :width]
    return [np.ascontiguousarray(np.roll(picture, 3 * i, axis=1)) for i in range(frames)]


def encode(
    path: Path,
    frames: list[Frame],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    form: str | None = None,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    matrix: int | None = None,
) -> None:
    """An ordinary file from PyAV, made without our writer."""
    with av.open(str(path), "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=16, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if pts:
            stream.codec_context.time_base = Fraction(1, 1000)
        if matrix:
            stream.codec_context.colorspace = matrix
        for index, frame in enumerate(frames):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.shape[2] == 3 else "rgba")
            if matrix:
                made = made.reformat(format=pixels, dst_colorspace=matrix)
                made.colorspace = matrix
            if pts:
                made.pts, made.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(made))
        container.mux(stream.encode())


def frames_of(path: Path, **view: Any) -> list[Frame]:
    with open_video(path, **view) as video:
        return [frame for _, frame in video]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 65), (1, 1), (480, 832)])
def test_lossless_gives_every_pixel_back(tmp_path: Path, height: int, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    write_video(tmp_path / "v.mkv", noise, 8)
    assert np.array_equal(np.stack(frames_of(tmp_path / "v.mkv")), noise)
    found = probe(tmp_path / "v.mkv")
    assert (found.frames, found.fps, found.width, found.height) == (3, 8.0, width, height)


@pytest.mark.parametrize("codec", ["lossless", "preview"])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, codec: Any) -> None:
    for name in ("one.tmp", "two.tmp"):
        write_video(tmp_path / name, moving(30), 8, codec)
    assert sha256_file(tmp_path / "one.tmp") == sha256_file(tmp_path / "two.tmp")


def test_preview_plays_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "p.mp4"
    frames = moving(9, 63, 65)
    write_video(path, frames, 8, "preview")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (260, 252, 8)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    shown = frames_of(path)[0]
    assert np.abs(shown[2::4, 2::4].astype(float) - frames[0]).mean() < 20  # colours, not another picture


def test_large_previews_keep_their_size_but_for_a_padded_edge(tmp_path: Path) -> None:
    write_video(tmp_path / "p.mp4", moving(2, 131, 201), 8, "preview")
    assert frames_of(tmp_path / "p.mp4")[0].shape == (132, 202, 3)


def test_times_come_from_the_timestamps(tmp_path: Path) -> None:
    pts = [0, 100, 150, 400, 410, 900]
    encode(tmp_path / "v.mkv", moving(6), pts=pts)
    with open_video(tmp_path / "v.mkv") as video:
        assert [time for time, _ in video] == pytest.approx([stamp / 1000 for stamp in pts], abs=1e-6)


def test_without_timestamps_the_rate_stands_in_with_a_warning(tmp_path: Path) -> None:
    encode(tmp_path / "v.h264", moving(5), form="h264")
    with open_video(tmp_path / "v.h264") as video:
        times = [time for time, _ in video]
        assert times == pytest.approx(np.arange(5) / video.fps)
        assert any("timestamps" in warning for warning in video.warnings)


def test_alpha_is_dropped_with_a_warning(tmp_path: Path) -> None:
    picture = moving(1)[0]
    alpha = np.full((*picture.shape[:2], 1), 77, np.uint8)
    encode(tmp_path / "v.mkv", [np.concatenate([picture, alpha], 2)] * 2, "ffv1", "bgra")
    with open_video(tmp_path / "v.mkv") as video:
        assert np.array_equal(next(iter(video))[1], picture)
        assert video.warnings == ["the alpha channel is ignored"]


def test_rotation_is_applied_as_players_do(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", moving(3), options={"crf": "10"})
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 1 << 16
    clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *clockwise)
    (tmp_path / "r.mp4").write_bytes(data)
    upright, turned = frames_of(tmp_path / "v.mp4")[0], frames_of(tmp_path / "r.mp4")[0]
    assert np.array_equal(turned, np.rot90(upright, -1))
    found = probe(tmp_path / "r.mp4")
    assert (found.width, found.height) == (48, 64)
    assert "rotated" in found.warnings[0]


def test_tagged_colour_matrices_are_honoured(tmp_path: Path) -> None:
    red = np.full((64, 64, 3), (200, 30, 60), np.uint8)
    encode(tmp_path / "v.mp4", [red] * 2, pixels="yuv444p", matrix=1, options={"crf": "1"})
    assert np.abs(frames_of(tmp_path / "v.mp4")[0].astype(int) - red).max() <= 2


def test_repeated_frames_are_reported(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", [frame for frame in moving(6) for _ in range(2)], 8)
    with open_video(tmp_path / "v.mkv") as video:
        assert len(list(video)) == 12
        assert video.warnings == ["1 in 2 frames repeat the frame before: it looks like 4 fps or less, stored at 8"]


def _missing(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("hello " * 100)


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _sound(path: Path) -> None:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _header_only(path: Path) -> None:
    write_video(path, moving(30), 8)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (_missing, "v.mp4", "no such file"),
        (_folder, "v.mp4", "is not a file"),
        (_empty, "v.mp4", r"empty \(0 bytes\)"),
        (_text, "v.txt", "is a text file"),
        (_text, "v.mp4", "cannot be read as a video"),
        (_noise, "v.mkv", "cannot be read as a video"),
        (_sound, "v.mp4", "has no video stream"),
        (_header_only, "v.mkv", "has no frames"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(
    tmp_path: Path, make: Callable[[Path], None], name: str, says: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(VideoError, match=rf"{name}: .*{says}"):
        open_video(tmp_path / name)


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", moving(1), 8)
    assert len(frames_of(tmp_path / "v.mkv")) == 1


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "lossless"), ("v.mp4", "preview")])
def test_a_truncated_file_gives_what_it_has_then_says_how_much_that_was(tmp_path: Path, name: str, codec: Any) -> None:
    path = tmp_path / name
    write_video(path, moving(40, 96, 128), 8, codec)
    whole = frames_of(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    got = []
    with pytest.raises(VideoError, match=r"only \d+ of 40 announced frames") as caught:
        for _, frame in open_video(path):
            got.append(frame)
    assert 1 < len(got) < 40
    assert f"only {len(got)} of 40" in caught.value.message
    assert all(np.array_equal(frame, expected) for frame, expected in zip(got, whole, strict=False))


def test_damage_in_the_middle_is_not_concealed(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", moving(30, 96, 128), options={"g": "5"})
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 300] = np.random.default_rng(1).bytes(300)
    (tmp_path / "v.mp4").write_bytes(data)
    with pytest.raises(VideoError, match=r"only \d+ of 30 announced frames can be read \("):
        frames_of(tmp_path / "v.mp4")


@pytest.mark.parametrize(("hold_from", "shown"), [(0, [0] * 6), (1, [0] * 6), (4, [0, 1, 2, 3, 3, 3])])
def test_static_holds_the_last_given_frame(tmp_path: Path, hold_from: int, shown: list[int]) -> None:
    frames = moving(6)
    write_video(tmp_path / "v.mkv", frames, 8)
    got = frames_of(tmp_path / "v.mkv", transform="static", hold_from=hold_from)
    assert np.array_equal(got, [frames[index] for index in shown])


def test_shuffled_permutes_inside_blocks_and_leaves_history_and_clock(tmp_path: Path) -> None:
    given, block = 5, round(SHUFFLE_SECONDS * 8)
    frames = [np.full((16, 16, 3), index, np.uint8) for index in range(given + 2 * block + 7)]
    write_video(tmp_path / "v.mkv", frames, 8)
    plain = list(open_video(tmp_path / "v.mkv"))
    mixed = list(open_video(tmp_path / "v.mkv", "shuffled", given))
    assert [time for time, _ in mixed] == [time for time, _ in plain]
    order = [int(frame[0, 0, 0]) for _, frame in mixed]
    assert order[:given] == list(range(given))
    for start, stop in ((given, given + block), (given + block, given + 2 * block), (given + 2 * block, len(frames))):
        assert sorted(order[start:stop]) == list(range(start, stop))
        assert all(order[slot] != slot for slot in range(start, stop))
    assert order == [int(frame[0, 0, 0]) for frame in frames_of(tmp_path / "v.mkv", transform="shuffled", hold_from=5)]


def test_writing_takes_frames_one_by_one(tmp_path: Path) -> None:
    alive = 0

    def source() -> Iterator[Frame]:
        nonlocal alive
        for frame in moving(5):
            alive += 1
            yield frame

    write_video(tmp_path / "v.mkv", source(), 8)
    assert (alive, probe(tmp_path / "v.mkv").frames) == (5, 5)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "no frames to write"),
        ([np.zeros((8, 8, 3), np.float32)], "frame 0 is float32"),
        ([np.zeros((8, 8), np.uint8)], r"frame 0 is uint8 \(8, 8\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], r"frame 1 is uint8 \(8, 9, 3\)"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, frames: list[Any], says: str) -> None:
    with pytest.raises(VideoError, match=says):
        write_video(tmp_path / "v.mkv", frames, 8)


@pytest.mark.parametrize("codec", ["lossless", "preview"])
def test_seeking_gives_the_frames_of_reading(tmp_path: Path, codec: Any) -> None:
    write_video(tmp_path / "v", moving(20, 96, 128), 8, codec)
    whole = frames_of(tmp_path / "v")
    got = seek_frames(tmp_path / "v", [7, 0, 19])
    assert all(np.abs(a.astype(int) - whole[i]).max() <= 2 for a, i in zip(got, (7, 0, 19), strict=True))


def test_seeking_beyond_the_end_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", moving(3), 8)
    with pytest.raises(VideoError, match="has no frame 3"):
        seek_frames(tmp_path / "v.mkv", [0, 3])


def test_video_ref_describes_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", moving(3), 8)
    ref = video_ref(tmp_path / "v.mkv", relative_to=tmp_path / "sample", transform="static", hold_from=2)
    assert (ref.path, ref.frames, ref.fps, ref.transform, ref.hold_from) == ("../v.mkv", 3, 8.0, "static", 2)
    assert ref.sha256 == hashlib.sha256((tmp_path / "v.mkv").read_bytes()).hexdigest()


def test_seeking_in_what_decord_cannot_open(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    encode(path, moving(8), "gif", "rgb8", form="gif")
    with open_video(path) as reader:
        read = [frame for _, frame in reader]
    assert all(np.array_equal(frame, read[i]) for frame, i in zip(seek_frames(path, [5, 0]), [5, 0], strict=True))


def test_seeking_in_what_decord_gets_wrong(tmp_path: Path) -> None:
    path = tmp_path / "dot.mkv"
    encode(path, moving(8, 2, 2), "ffv1", "bgr0")
    with open_video(path) as reader:
        read = [frame for _, frame in reader]
    assert all(np.array_equal(frame, read[i]) for frame, i in zip(seek_frames(path, [5, 0]), [5, 0], strict=True))
