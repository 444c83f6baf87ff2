"""The recipe: what training shows the transformer, and that a kill changes nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from magbench.data.mini_world import GROUNDS, SKIES
from magbench.errors import ConfigError, MissingWeightsError
from magbench.metrics.judge import WEIGHTS as JUDGE_WEIGHTS
from magbench.metrics.judge import load_judge
from magbench.runners.mini import clips, train_flow
from magbench.runners.mini.batches import MIXES, SINK, TRAINED_SPAN, Batch, draw_batch
from magbench.runners.mini.clips import GENERATOR_SEEDS, HELD_OUT_SEEDS, encode_clips, training_world
from magbench.runners.mini.model import MEMORY, PARTS, WEIGHTS, MiniModel, load_mini, read_config, save_part
from magbench.runners.mini.teacher_forcing import draw_sigmas, flow_loss
from magbench.runners.mini.train_flow import MiniGenerator
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.policies.base import Chunk
from magbench.runners.policies.full import Full
from magbench.runners.rollout import Rollout
from magbench.runners.wan.configs import CONFIGS
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer

TURNING = torch.arange(50) % 3 == 0


def batches(count: int, first_step: int) -> list[Batch]:
    turns = torch.where(TURNING, 24 + torch.arange(50), -1)
    return [
        draw_batch(turns, step, torch.Generator().manual_seed(step_seed(1, step)))
        for step in range(first_step, first_step + count)
    ]


@pytest.fixture(scope="module")
def model() -> MiniModel:
    return load_mini()


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def line_loss(model: Line, step: int) -> Tensor:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step_seed(5, step)))
    return (x @ (model.weight - torch.tensor([1.0, -2.0, 0.5]))).square().mean()


def test_the_loop_learns_and_the_average_follows(tmp_path: Path) -> None:
    line = Line()
    average = train(line, lambda step: line_loss(line, step), Schedule(150, rate=0.1, warmup=10), tmp_path)
    torch.testing.assert_close(average["weight"], torch.tensor([1.0, -2.0, 0.5]), rtol=0, atol=0.05)


def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    def run(folder: Path, stops: list[int | None]) -> dict[str, Tensor]:
        for stop in stops:
            line = Line()
            average = train(line, lambda step, line=line: line_loss(line, step), Schedule(9), folder, stop_after=stop)
        return average

    whole = run(tmp_path / "whole", [None])
    torch.testing.assert_close(run(tmp_path / "killed", [2, 5, None]), whole, rtol=0, atol=0)


def test_two_steps_of_the_transformer_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Batch(torch.tensor([0, 1]), torch.arange(6).expand(2, -1), tuple(range(6)), [0, 1], 0.5)
    monkeypatch.setattr(train_flow, "draw_batch", lambda *_: small)
    worlds = [training_world(seed) for seed in GENERATOR_SEEDS[:2]]
    latents = torch.randn(2, 6, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(folder: Path, stops: list[int | None]) -> dict[str, Tensor]:
        for stop in stops:
            generator = train_flow.train_flow(latents, worlds, folder, 2, 0, torch.device("cpu"), stop_after=stop)
        return generator.state_dict()

    whole, killed = run(tmp_path / "whole", [None]), run(tmp_path / "killed", [1, None])
    torch.testing.assert_close(killed, whole, rtol=0, atol=0)
    torch.manual_seed(0)
    fresh = MiniGenerator()
    fresh.transformer.init_weights()
    assert any((value != whole[name]).any() for name, value in fresh.state_dict().items())


def test_rate_rises_stays_and_falls() -> None:
    schedule = Schedule(1000, rate=1.0, warmup=100, constant=0.5)
    assert [round(schedule.rate_at(step), 2) for step in (0, 49, 99, 499, 750, 999)] == [0.01, 0.5, 1, 1, 0.5, 0.02]


def test_batches_stay_inside_the_clips_and_show_each_frame_once() -> None:
    seen = [batch for mix in MIXES for batch in batches(150, mix.since)]
    for batch in seen:
        size, length = batch.frames.shape
        assert len(batch.clips) == size
        assert len(batch.shown) == length
        assert length % 3 == 0
        assert batch.frames.min() >= 0
        assert batch.frames.max() < TRAINED_SPAN
        assert (batch.frames.diff(dim=1) > 0).all()
        assert max(batch.chunks) < length // 3
        assert list(batch.shown) == sorted(set(batch.shown))
        assert batch.chunks == sorted(set(batch.chunks))
    assert any(batch.frames.shape[1] == TRAINED_SPAN for batch in seen)
    assert any(batch.frames.shape[1] == 3 for batch in seen[150:])


def test_sinks_are_shown_next_to_the_recent_frames_and_at_their_own_distance() -> None:
    sunk = [b for b in batches(300, 0) if b.frames.shape[1] in (21, 24) and (b.frames[:, SINK - 1] == SINK - 1).all()]
    gaps = {b.shown[SINK] - b.shown[SINK - 1] for b in sunk}
    assert 1 in gaps
    assert max(gaps) > 20
    for batch in sunk:
        if batch.shown[SINK] > SINK:
            assert batch.frames[0].tolist() == list(batch.shown)


def test_long_clips_mostly_turn_around_and_are_denoised_after_it() -> None:
    long = [batch for batch in batches(400, 0) if batch.frames.shape[1] >= 48 and max(batch.chunks) > 8]
    turning = [batch for batch in long if TURNING[batch.clips].all()]
    assert len(turning) > 0.7 * len(long)
    for batch in turning:
        half = batch.frames.shape[1] // 6
        assert sum(chunk >= half for chunk in batch.chunks) >= len(batch.chunks) // 2
        for clip, frames in zip(batch.clips.tolist(), batch.frames.tolist(), strict=True):
            assert frames[0] <= 24 + clip <= frames[-1]


def test_layout_share_moves_noise_levels_up() -> None:
    plain, high = (draw_sigmas((4000,), torch.Generator().manual_seed(0), share) for share in (0.0, 0.5))
    assert 0 < plain.min() < plain.max() < 1
    assert (high > 0.85).float().mean() > (plain > 0.85).float().mean() + 0.3


def test_teacher_forcing_shows_a_chunk_exactly_what_a_rollout_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = CausalWanTransformer(CONFIGS["mini"]).eval()
    clean, rows = torch.randn(1, 9, 16, 8, 8), torch.randn(1, 6, 64)
    monkeypatch.setattr("magbench.runners.mini.teacher_forcing.PAST_NOISE", 0.0)
    flows: list[Tensor] = []
    inputs: list[Tensor] = []

    def record(_: nn.Module, arguments: tuple[Tensor, ...], flow: Tensor) -> None:
        inputs.append(arguments[0])
        flows.append(flow)

    model.register_forward_hook(record)
    with torch.no_grad():
        flow_loss(model, Rope(64, 4, 4), clean, rows, range(9), [1, 2], torch.Generator().manual_seed(3))
    noisy, sigma = inputs[0][:, 6:], draw_sigmas((1, 2), torch.Generator().manual_seed(3))[0].tolist()

    for chunk in (1, 2):
        own = noisy[:, (chunk - 1) * 3 : chunk * 3]
        rollout = Rollout(model, Full(), OdeSampler(1), model.encode_text(rows), lambda *_: torch.zeros(()), (8, 8))
        list(rollout.history(clean[:, : 3 * chunk]))
        rollout.attention.begin(Chunk(3 * chunk, 3, "generate"))
        with torch.no_grad():
            flow = model(own, torch.full((1, 3), 1000 * sigma[chunk - 1]), rollout.text, rollout.attention)
        expected = flows[0][:, 6 + (chunk - 1) * 3 : 6 + chunk * 3]
        assert expected.std() > 0.01
        torch.testing.assert_close(flow, expected, rtol=1e-3, atol=1e-4)


def test_the_shipped_model_reads_the_prompt(model: MiniModel) -> None:
    """Eight first chunks from text: sky and ground as the judge reads them."""
    worlds = [training_world(seed) for seed in HELD_OUT_SEEDS[:8]]
    rollout = Rollout(
        model.transformer,
        Full(),
        model.sampler,
        model.text([world.scene.sentence() for world in worlds]),
        seeded_noise(range(8), (3, 16, 8, 8)),
        model.latent_size,
    )
    (step,) = rollout.generate(1)
    reading = load_judge().read(model.decode(step.latents[:, -1]))
    for slot, words, least in (("sky", SKIES, 7), ("ground", GROUNDS, 7)):
        wanted = torch.tensor([words.index(getattr(world.scene, slot)) for world in worlds])
        assert (getattr(reading, slot) == wanted).sum() >= least


def test_weights_are_small_and_described(model: MiniModel) -> None:
    files = [*WEIGHTS.glob("*.safetensors"), JUDGE_WEIGHTS]
    assert {file.stem for file in WEIGHTS.glob("*.safetensors")} == {*PARTS, MEMORY}
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    assert model.config["trained_span_frames"] == TRAINED_SPAN
    assert OdeSampler(**model.config["sampler"]) == model.sampler


def test_missing_weights_are_named(tmp_path: Path) -> None:
    save_part("vae", load_mini().vae, tmp_path)
    with pytest.raises(MissingWeightsError, match=r"lacks config\.json, transformer\.safetensors, text\.safetensors"):
        read_config(tmp_path)


def test_clips_are_encoded_once(model: MiniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "TRAINED_SPAN", 3)
    file = tmp_path / "new" / "clips.safetensors"
    latents, worlds = clips.training_clips(model.vae, file, 2)
    assert latents.shape == (2, 3, 16, 8, 8)
    assert [world.seed for world in worlds] == list(GENERATOR_SEEDS[:2])
    monkeypatch.setattr(clips, "encode_clips", None)
    assert torch.equal(clips.training_clips(model.vae, file, 2)[0], latents)
    with pytest.raises(ConfigError, match="holds 2 clips, not 3"):
        clips.training_clips(model.vae, file, 3)


def test_encoded_clips_are_what_the_vae_makes_of_the_worlds(model: MiniModel) -> None:
    seeds = GENERATOR_SEEDS[:2]
    latents = encode_clips(model.vae, seeds, 4)
    for row, seed in zip(latents, seeds, strict=True):
        exact = model.vae.encode(training_world(seed).clip(4))
        assert (row.float() - exact).abs().mean() < 0.02
