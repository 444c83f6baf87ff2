"""The procedural world of the embedded model `mini`: 64x64 RGB at 8 fps, with ground truth for everything.

A camera pans over a long panorama that wraps around (sky, two layers of hills, landmarks), while a walker stays
in front of it. The sentence names the walker, the place and the camera path; the seed places hills, landmarks and
the walker's gait. Every frame is a function of (sentence, seed, camera path, frame index), computed with the
standard library's Mersenne Twister and IEEE basic arithmetic only, so that the bytes are the same on every machine.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from magbench.errors import ConfigError

FPS = 8
SIZE = 64
PANORAMA = 512
"""Width of the panorama in pixels; the column after the last is the first."""
SUBPIXEL = 8
"""Camera positions are multiples of 1 / SUBPIXEL pixel."""

SKIES = ("clear", "sunset", "night", "misty")
GROUNDS = ("meadow", "desert", "quarry", "snowfield")
COLOURS = ("red", "yellow", "green", "blue", "pink", "black")
HATS = ("square", "tall", "wide")
SHAPES = ("box", "tent", "ball")
CAMERAS = (
    "stands still",
    "pans left slowly",
    "pans left quickly",
    "pans right slowly",
    "pans right quickly",
    "pans left and comes back",
    "pans right and comes back",
)
SLOW, QUICK = 2.0, 4.0
"""Camera speeds in pixels per frame."""

Frame = npt.NDArray[np.uint8]

_SKY_RGB = ((115, 175, 240), (250, 180, 135), (42, 42, 95), (180, 215, 200))
_GROUND_RGB = ((105, 130, 70), (200, 175, 120), (125, 112, 128), (222, 230, 238))
COLOUR_RGB = ((215, 45, 45), (250, 225, 60), (40, 170, 60), (45, 75, 215), (240, 120, 205), (25, 25, 30))
BODY_SIZE = (13, 16)
"""Width and height of the walker's body in pixels, without the hat."""
_HAT_SIZE = {"square": (11, 9), "tall": (7, 14), "wide": (23, 6)}
HEADROOM = 29
"""Rows from the top that no walker reaches, whatever the hat and the gait."""
_LANDMARKS = 16
_LANDMARK_SIZE, _LANDMARK_BASE = 8, 32
_GRID = 8
_TURN = 24

_ARTICLE = r"(?:an?)"
_SENTENCE = re.compile(
    rf"{_ARTICLE} walker in {_ARTICLE} (?P<body>\w+) coat and {_ARTICLE} (?P<hat_shape>\w+) (?P<hat_colour>\w+) hat "
    rf"crosses {_ARTICLE} (?P<ground>\w+) under {_ARTICLE} (?P<sky>\w+) sky ?, while the camera (?P<camera>[\w ]+)"
)


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@dataclass(frozen=True)
class CameraPath:
    """A camera path in pixels, one position per frame; by default a pan that never turns.

    With any of the frame counts set, the camera rests (`lead_in`), pans to scene A (`arrive`), rests there (`dwell`),
    pans on until A is out of view (`leave`), stays away for `away` frames (out for the first half, back for the
    second), and comes back the way it went, over A without a stop, to where it began. Then it starts again.

    Args:
        speed: Pixels per frame while panning, a multiple of 1/8; positive pans right.
        lead_in: Frames of rest at the start.
        arrive: Frames of panning from the start to scene A.
        dwell: Frames of rest at scene A.
        leave: Frames of panning from scene A until the turn, without `away`.
        away: Frames between the end of `leave` and the moment the camera is back at that point; even.
    """

    speed: float
    lead_in: int = 0
    arrive: int = 0
    dwell: int = 0
    leave: int = 0
    away: int = 0

    def __post_init__(self) -> None:
        """Refuse values that have no exact camera position."""
        if self.speed * SUBPIXEL != int(self.speed * SUBPIXEL):
            raise ConfigError(f"camera speed {self.speed} is not a multiple of 1/{SUBPIXEL} pixel per frame")
        counts = (self.lead_in, self.arrive, self.dwell, self.leave, self.away)
        if any(count < 0 for count in counts) or self.away % 2:
            raise ConfigError(f"camera path has a negative frame count or an odd time away: {self}")

    @property
    def turn_frame(self) -> int | None:
        """Index of the frame at which the camera first turns around; None if it never does."""
        turn = self.arrive + self.leave + self.away // 2
        return self.lead_in + self.dwell + turn if turn else None

    @property
    def return_frame(self) -> int:
        """Index of the first frame after the time away: the camera is where `leave` ended and moves back."""
        return self.lead_in + self.arrive + self.dwell + self.leave + self.away

    def position(self, t: int) -> float:
        """Camera position in pixels relative to frame 0, for frame `t` >= 0."""
        turn = self.arrive + self.leave + self.away // 2
        if not turn:
            return self.speed * max(t - self.lead_in, 0)
        t %= self.lead_in + self.dwell + 2 * turn
        t = max(t - self.lead_in, 0)
        if t > self.arrive:
            t = max(t - self.dwell, self.arrive)
        return self.speed * (turn - abs(turn - t))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, as `CaseRecord.path` stores them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: A key is not a field of a camera path.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "speed" not in values:
            raise ConfigError(
                f"camera path {values} has unknown keys {unknown} or no speed",
                f"its keys are {', '.join(field.name for field in fields(cls))}",
            )
        return cls(**values)


@dataclass(frozen=True)
class Scene:
    """What a prompt says: the walker, the place and the camera path, each by its word."""

    sky: str
    ground: str
    body: str
    hat_colour: str
    hat_shape: str
    camera: str

    def __post_init__(self) -> None:
        """Refuse words that are not in the vocabulary."""
        for slot, words in VOCABULARY.items():
            word = getattr(self, slot)
            if word not in words:
                raise ConfigError(
                    f"{word!r} is not a word the mini world knows for {slot.replace('_', ' ')}",
                    f"choose one of: {', '.join(words)}",
                )

    def sentence(self) -> str:
        """The English prompt; `Scene.parse` is its inverse."""
        return (
            f"A walker in {_with_article(self.body)} coat and a {self.hat_shape} {self.hat_colour} hat crosses "
            f"{_with_article(self.ground)} under {_with_article(self.sky)} sky, while the camera {self.camera}."
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a prompt; case, spacing, articles and the full stop are free.

        Raises:
            ConfigError: The text is not a sentence of the grammar, or uses an unknown word.
        """
        match = _SENTENCE.fullmatch(" ".join(text.lower().split()).rstrip(" ."))
        if match is None:
            example = cls("clear", "meadow", "red", "blue", "tall", "pans right slowly").sentence()
            raise ConfigError(
                f"the model mini cannot read the prompt {text!r}: it only knows the sentences of its small world",
                f"write it like: {example}",
            )
        return cls(**match.groupdict())

    @classmethod
    def draw(cls, dice: random.Random, **fixed: str) -> Self:
        """A scene with every word drawn uniformly, except those given."""
        drawn = {slot: words[_below(dice, len(words))] for slot, words in VOCABULARY.items()}
        return cls(**{**drawn, **fixed})

    def path(self) -> CameraPath:
        """The camera path the sentence describes."""
        if self.camera == "stands still":
            return CameraPath(0.0)
        sign = 1.0 if "right" in self.camera else -1.0
        if "comes back" in self.camera:
            return CameraPath(sign * QUICK, leave=_TURN)
        return CameraPath(sign * (SLOW if "slowly" in self.camera else QUICK))


def scene_at(scenes: Mapping[int, Scene], t: int) -> Scene:
    """The scene that frame `t` belongs to, of scenes given by their first frames; one of these is 0."""
    return scenes[max(first for first in scenes if first <= t)]


VOCABULARY: dict[str, tuple[str, ...]] = {
    "sky": SKIES,
    "ground": GROUNDS,
    "body": COLOURS,
    "hat_colour": COLOURS,
    "hat_shape": HATS,
    "camera": CAMERAS,
}
"""The words of each slot of a sentence, in the order in which a text encoder numbers them."""


@dataclass(frozen=True)
class Landmark:
    """A coloured shape standing in the panorama.

    Args:
        x: Panorama column of its centre.
        colour: Word from COLOURS.
        shape: Word from SHAPES.
        size: Half width in pixels; it is 2 * size + 1 wide.
        base: Row below its lowest row.
    """

    x: int
    colour: str
    shape: str
    size: int
    base: int

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Its pixels: [height, 2 * size + 1], the last row being row `base - 1`."""
        s = self.size
        dx = np.abs(np.arange(-s, s + 1))
        if self.shape == "box":
            return np.ones((s + 3, 2 * s + 1), np.bool_)
        if self.shape == "tent":
            return np.asarray(np.arange(2 * s + 1)[:, None] >= 2 * dx[None])
        dy = np.arange(-s, s + 1)[:, None]
        return np.asarray(dy * dy + dx * dx <= s * s + s // 2)


@dataclass(frozen=True)
class View:
    """A landmark as one frame shows it.

    Args:
        landmark: Which one.
        screen_x: Its centre in pixels from the frame's left edge, fractional while the camera is.
        visible: Share of its pixels that are inside the frame and not behind the walker.
    """

    landmark: Landmark
    screen_x: float
    visible: float

    def __iter__(self) -> Iterator[Any]:
        """Unpack as (landmark, screen_x, visible)."""
        return iter((self.landmark, self.screen_x, self.visible))


@dataclass(frozen=True)
class Box:
    """Pixel rectangle, right and bottom exclusive, inside the frame."""

    left: int
    top: int
    right: int
    bottom: int


class World:
    """One video of the world, of any length.

    Args:
        scene: What the prompt says.
        seed: Places hills, landmarks, the camera's start and the walker's gait.
        path: Camera path; the one the sentence describes when None.
        later: Scenes that take over, by their first frame, above 0. The walker and the place change at once; hills,
            landmarks, gait and camera path go on.

    Raises:
        ConfigError: The path is the sentence's, and a later sentence describes another.
    """

    def __init__(
        self, scene: Scene, seed: int, path: CameraPath | None = None, later: Mapping[int, Scene] | None = None
    ) -> None:
        self.scene = scene
        self.seed = seed
        self.path = scene.path() if path is None else path
        self._scenes = {0: scene, **(later or {})}
        for other in self._scenes.values():
            if path is None and other.camera != scene.camera:
                raise ConfigError(
                    f"a switch of the mini world can't turn 'the camera {scene.camera}' into {other.camera!r}",
                    "change the walker or the place, and leave the camera as it is",
                )
        self._panoramas: dict[tuple[str, str], Frame] = {}
        dice = random.Random(f"magbench mini world {seed}")
        self._start = _GRID * _below(dice, PANORAMA // _GRID)
        self._walker_phase = _below(dice, 1000) / 1000
        self.landmarks = _draw_landmarks(dice)
        self._hills = [_skyline(dice, points, base, height) for points, base, height in ((9, 22, 9), (16, 33, 6))]

    def camera(self, t: int) -> float:
        """Panorama position of the frame's left edge at frame `t`, in pixels, not wrapped."""
        return self._start + self.path.position(t)

    def visible(self, t: int) -> list[View]:
        """The landmarks of which frame `t` shows at least one pixel, from left to right."""
        left = self.camera(t)
        walker = _grow(*self._walker(t))
        views = []
        for landmark in self.landmarks:
            middle = landmark.x - left - SIZE / 2
            screen_x = middle - PANORAMA * math.floor(middle / PANORAMA + 0.5) + SIZE / 2
            rows, columns = np.nonzero(landmark.mask)
            y = rows + landmark.base - len(landmark.mask)
            x = columns - landmark.size + math.floor(screen_x + 0.5)
            seen = (x >= 0) & (x < SIZE)
            for box in walker:
                seen &= ~((x >= box.left) & (x < box.right) & (y >= box.top) & (y < box.bottom))
            if seen.any():
                views.append(View(landmark, screen_x, float(seen.mean())))
        return sorted(views, key=lambda view: view.screen_x)

    def subject_box(self, t: int) -> Box:
        """The smallest box around the walker, hat included."""
        body, hat = _grow(*self._walker(t))
        return Box(min(body.left, hat.left), hat.top, max(body.right, hat.right), body.bottom)

    def frame(self, t: int) -> Frame:
        """Frame `t`: uint8 RGB [64, 64, 3]."""
        image, scene = self.frame_without_walker(t), scene_at(self._scenes, t)
        for box, colour in zip(_grow(*self._walker(t)), (scene.body, scene.hat_colour), strict=True):
            image[box.top : box.bottom, box.left : box.right] = COLOUR_RGB[COLOURS.index(colour)]
        return image

    def frame_without_walker(self, t: int) -> Frame:
        """The place as frame `t` shows it behind the walker: uint8 RGB [64, 64, 3]."""
        column, part = divmod(round(self.camera(t) * SUBPIXEL), SUBPIXEL)
        columns = (column + np.arange(SIZE + 1)) % PANORAMA
        strip = self.panorama(t)[:, columns].astype(np.uint16)
        return ((strip[:, :-1] * (SUBPIXEL - part) + strip[:, 1:] * part + SUBPIXEL // 2) // SUBPIXEL).astype(np.uint8)

    def clip(self, frames: int | Sequence[int]) -> Frame:
        """Frames 0 to `frames` - 1, or the frames listed: uint8 RGB [T, 64, 64, 3]."""
        return np.stack([self.frame(t) for t in (range(frames) if isinstance(frames, int) else frames)])

    def panorama(self, t: int) -> Frame:
        """The place of frame `t` without the walker: uint8 RGB [64, 512, 3]."""
        scene = scene_at(self._scenes, t)
        place = (scene.sky, scene.ground)
        if place not in self._panoramas:
            self._panoramas[place] = self._draw_panorama(*place)
        return self._panoramas[place]

    def _draw_panorama(self, sky_word: str, ground_word: str) -> Frame:
        rows = np.arange(SIZE)[:, None, None]
        sky = np.array(_SKY_RGB[SKIES.index(sky_word)])
        image = np.broadcast_to((sky * (1280 - 7 * rows) + 20 * 64 * rows // 2) // 1280, (SIZE, PANORAMA, 3)).copy()
        ground = np.array(_GROUND_RGB[GROUNDS.index(ground_word)])
        for skyline, shade in zip(self._hills, (3, 4), strict=True):
            image[np.arange(SIZE)[:, None] >= skyline[None]] = ground * shade // 4
        for landmark in self.landmarks:
            rows_, columns = np.nonzero(landmark.mask)
            y = rows_ + landmark.base - len(landmark.mask)
            x = (columns + landmark.x - landmark.size) % PANORAMA
            image[y, x] = COLOUR_RGB[COLOURS.index(landmark.colour)]
        return image.clip(0, 255).astype(np.uint8)

    def _walker(self, t: int) -> tuple[int, int, str]:
        sway, step = (_wave(t / period + self._walker_phase) for period in (20, 5))
        x, bottom = SIZE // 2 + math.floor(4 * sway + 0.5), 62 - math.floor(1.5 * (step + 1) + 0.5)
        return x, bottom, scene_at(self._scenes, t).hat_shape


def _below(dice: random.Random, limit: int) -> int:
    return int(dice.random() * limit)


def _wave(phase: float) -> float:
    """A sine-like wave of period 1 in [-1, 1], made of two parabolas."""
    u = 2 * (phase - math.floor(phase))
    return 4 * u * (1 - u) if u < 1 else -4 * (u - 1) * (2 - u)


def _grow(x: int, bottom: int, hat_shape: str) -> tuple[Box, Box]:
    """Body and hat of a walker whose centre column is `x`, standing on row `bottom`."""
    width, height = BODY_SIZE
    hat_width, hat_height = _HAT_SIZE[hat_shape]
    top = bottom - height
    body = Box(x - width // 2, top, x + width // 2 + 1, bottom)
    return body, Box(x - hat_width // 2, top - hat_height, x + hat_width // 2 + 1, top)


def _draw_landmarks(dice: random.Random) -> tuple[Landmark, ...]:
    """One landmark per stretch of the panorama, no two alike."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    stretch = PANORAMA // _LANDMARKS
    landmarks = []
    for i in range(_LANDMARKS):
        x = i * stretch + _GRID * _below(dice, 2) + _GRID // 2 - 2
        landmarks.append(Landmark(x, *kinds.pop(_below(dice, len(kinds))), _LANDMARK_SIZE, _LANDMARK_BASE))
    return tuple(landmarks)


def _skyline(dice: random.Random, points: int, base: int, height: int) -> npt.NDArray[np.int64]:
    """Top row of a layer of hills in each column: smooth noise through `points` random heights."""
    heights = np.array([dice.random() for _ in range(points)])
    place = np.arange(PANORAMA) * points / PANORAMA
    left = place.astype(np.int64)
    u = place - left
    smooth = heights[left] + (heights[(left + 1) % points] - heights[left]) * (u * u * (3 - 2 * u))
    rows: npt.NDArray[np.int64] = np.floor(base + height * smooth).astype(np.int64)
    return rows
