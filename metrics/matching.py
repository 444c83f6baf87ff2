"""Every generated frame against every truth frame, with one backbone pass per frame and one matrix product.

A perceptual distance of the LPIPS family is a sum over layers of Σ_c w_c (f_c − g_c)², averaged over the image. Scaling
each feature by the square root of its channel and cell weight turns it into a plain squared distance of two vectors,
and |f − g|² = |f|² + |g|² − 2 f·g needs only one product for all pairs.

Frames are [N, H, W, 3] in 0..255 throughout, uint8 or floating point.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from magbench.metrics.ssim import ssim

PSNR_CAP = 60.0
"""dB that two frames get at most, since identical ones have no finite PSNR: rounding to 8 bits alone gives 59."""
RELEASED_CAP = 100.0
"""dB that the MAG release gives to a clip with an identical frame."""

CHUNK = 2**16
"""Most terms of a float32 sum: four million lose the fifth digit. Sums of sums are float64."""
_ZERO = torch.zeros((), dtype=torch.float64)

Layers = Sequence[tuple[Tensor, Tensor]]
"""Per layer features [N, C, h, w], normalised as the distance wants them, and channel weights [C], none negative."""
Backbone = Callable[[Tensor], Layers]
"""From frames [N, H, W, 3] in 0..255 to their layers."""


def pixels(frames: Tensor) -> Layers:
    """The frame itself as feature: the distance is the mean squared error of frames scaled to [−1, 1]."""
    images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return [(images, images.new_full((images.shape[1],), 1.0 / images.shape[1]))]


def cell_weights(cells: int, pixels: int) -> Tensor:
    """Share of each feature cell in the mean of its bilinear upsampling, along one axis.

    Args:
        cells: Cells along the axis of the feature map.
        pixels: Pixels along the axis of the image.

    Returns:
        float32 [cells], summing to 1.
    """
    return interpolate(torch.eye(cells)[None], size=pixels, mode="linear", align_corners=False).mean(-1)[0]


def vectors(layers: Layers, size: tuple[int, int] | None) -> Tensor:
    """Vectors whose squared distance is the perceptual distance.

    Args:
        layers: Of N frames.
        size: Height and width of the map to which the distance is upsampled before it is averaged, which is what
            `lpips.LPIPS(spatial=True)` and a mean do; None averages over the feature cells. It is the same where the
            size is a whole multiple of the feature map's.

    Returns:
        float32 [N, D], channels innermost.
    """
    first = layers[0][0]
    found = first.new_empty(len(first), sum(features[0].numel() for features, _ in layers), dtype=torch.float32)
    start = 0
    for features, channels in layers:
        rows, columns = features.shape[-2:]
        if size is None:
            cells = torch.full((rows, columns), 1.0 / (rows * columns))
        else:
            cells = cell_weights(rows, size[0])[:, None] * cell_weights(columns, size[1])
        scale = (cells[..., None].to(channels) * channels).sqrt()
        part = found[:, start : start + features[0].numel()].view(len(first), *scale.shape)
        torch.mul(features.permute(0, 2, 3, 1), scale, out=part)
        start += features[0].numel()
    return found


@torch.no_grad()
def pairwise(
    backbone: Backbone,
    generated: Tensor,
    truth: Tensor,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    max_bytes: int = 2**31,
) -> Tensor:
    """Distance of every generated frame to every truth frame.

    The mean of the truth's vectors is subtracted from all of them first: it cancels in the distance, and what is left
    is small enough for the product to be exact to about 1e-6. Truth frames are taken in blocks of at most `max_bytes`
    (each with its own mean); each further block costs another pass over the generated frames.

    Args:
        backbone: Gives the features.
        generated: N frames.
        truth: M frames, at least one.
        size: See `vectors`.
        batch: Frames per backbone call.
        max_bytes: Most memory for the vectors of the truth. A frame of 480x832 takes 16 MB with LPIPS-AlexNet.

    Returns:
        float32 [N, M] on the CPU, ≥ 0.
    """

    def embed(frames: Tensor) -> Iterator[Tensor]:
        for part in torch.split(frames, batch):
            yield vectors(backbone(part), size)

    block = max(1, max_bytes // next(embed(truth[:1])).nbytes)
    columns = []
    for frames in torch.split(truth, block):
        known = _joined(embed(frames), len(frames))
        mean = known.mean(0)
        known -= mean
        norms = _squares(known)
        rows = []
        for seen in embed(generated):
            seen -= mean
            rows.append(_squares(seen)[:, None] + norms - 2.0 * _products(seen, known))
        columns.append(torch.cat(rows))
    return torch.cat(columns, 1).clamp_(min=0.0).float().cpu()


def _joined(parts: Iterable[Tensor], rows: int) -> Tensor:
    """The parts below each other, without ever holding them twice."""
    joined, filled = torch.empty(0), 0
    for part in parts:
        if not filled:
            joined = part.new_empty(rows, part.shape[1])
        joined[filled : filled + len(part)] = part
        filled += len(part)
    return joined


def _squares(rows: Tensor) -> Tensor:
    """float64 [N]: squared length of each row."""
    return sum((torch.linalg.vector_norm(part, dim=1).double().square() for part in torch.split(rows, CHUNK, 1)), _ZERO)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """float64 [N, M]: each row of one times each row of the other."""
    parts = zip(torch.split(first, CHUNK, 1), torch.split(second, CHUNK, 1), strict=True)
    return sum(((one @ other.T).double() for one, other in parts), _ZERO)


def monotone(scores: Tensor, band: int) -> list[int]:
    """Dynamic time warping of generated to truth frames: the path of the highest total score.

    Time never runs backwards, the first frames belong together and so do the last, partners are at most `band` frames
    apart, and each truth frame weighs once, however long the generated video lingers or how much of it is passed over:
    the asymmetric form of Sakoe and Chiba (1978).

    Args:
        scores: [N, N] of generated frame (row) as truth frame (column); higher is better.
        band: At least 0, which leaves the diagonal alone.

    Returns:
        For each truth frame its generated frame, never descending, from 0 to N - 1.
    """
    frames = torch.arange(len(scores))
    allowed = (frames[:, None] - frames).abs() <= band
    allowed[1:, 0] = allowed[:-1, -1] = False
    scores = scores.masked_fill(~allowed, -math.inf)
    total, came = scores[:, 0], []
    for column in scores.T[1:]:
        best, at = total.cummax(0)
        came.append(at)
        total = best + column
    path = [len(scores) - 1]
    for at in reversed(came):
        path.append(int(at[path[-1]]))
    return path[::-1]


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame, over its pixels and channels.

    Args:
        first: N frames.
        second: N frames of the same size.

    Returns:
        float64 [N] in dB; infinite for identical frames.
    """
    errors = [(a.double() - b.double()).square().mean() for a, b in zip(first, second, strict=True)]
    return 10.0 * torch.log10(255.0**2 / torch.stack(errors))


def capped(decibels: Tensor) -> Tensor:
    """PSNR per frame, at most `PSNR_CAP`, so that a single identical frame doesn't decide a mean."""
    return decibels.clamp(max=PSNR_CAP)


def mean_ssim(first: Tensor, second: Tensor) -> float:
    """Mean over frames of `magbench.metrics.ssim.ssim`."""
    pairs = zip(first.cpu().numpy(), second.cpu().numpy(), strict=True)
    return math.fsum(ssim(a, b) for a, b in pairs) / len(first)


@dataclass(frozen=True)
class Released:
    """The released MAG-Bench scores of one clip.

    Args:
        distance: Mean over generated frames of the distance to the nearest truth frame.
        indices: For each generated frame that truth frame.
        psnr: dB, mean over frames at the match; 100 as soon as one frame is identical.
        ssim: Mean over frames at the match.
    """

    distance: float
    indices: tuple[int, ...]
    psnr: float
    ssim: float


def released_scores(backbone: Backbone, generated: Tensor, truth: Tensor) -> Released:
    """Scores at the best match, as the code of MAG (arXiv 2512.18741) computes them.

    Each generated frame is matched to the truth frame at the smallest distance (averaged over a map of the image's
    size), free of order and repetition. As in the release, generated frames beyond the truth's number are left out.

    Args:
        backbone: LPIPS-AlexNet in the release.
        generated: N ≥ M frames.
        truth: M frames.

    Raises:
        ValueError: fewer generated than truth frames.
    """
    if len(generated) < len(truth):
        raise ValueError(f"{len(generated)} generated frames for {len(truth)} truth frames")
    generated = generated[: len(truth)]
    return matched_scores(pairwise(backbone, generated, truth, (truth.shape[1], truth.shape[2])), generated, truth)


def matched_scores(distances: Tensor, generated: Tensor, truth: Tensor) -> Released:
    """`released_scores` of as many generated as truth frames, whose `distances` [N, N] are known."""
    nearest = distances.min(1)
    matched = truth[nearest.indices]
    return Released(
        distance=float(nearest.values.mean()),
        indices=tuple(nearest.indices.tolist()),
        psnr=released_psnr(generated, matched),
        ssim=mean_ssim(generated, matched),
    )


def released_psnr(first: Tensor, second: Tensor) -> float:
    """Mean over frames of `psnr`; `RELEASED_CAP` as soon as one frame is identical."""
    mean = float(psnr(first, second).mean())
    return mean if math.isfinite(mean) else RELEASED_CAP
