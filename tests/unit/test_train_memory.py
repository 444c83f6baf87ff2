"""The memory stage: what its loss shows, that a kill changes nothing, and the network it made."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from magbench.errors import MissingWeightsError
from magbench.runners.mini import train_memory
from magbench.runners.mini.model import MEMORY, WEIGHTS, MiniModel, load_mini, save_part
from magbench.runners.mini.teacher_forcing import flow_loss
from magbench.runners.mini.train_memory import Network, rebuild, rebuilt_psnr, third_frames
from magbench.runners.models import find_model
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.sampler import OdeSampler
from magbench.runners.wan.transformer import CausalWanTransformer


@pytest.fixture(scope="module")
def model() -> MiniModel:
    return load_mini()


@pytest.fixture
def no_past_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magbench.runners.mini.teacher_forcing.PAST_NOISE", 0.0)


def small(layers: int) -> CausalWanTransformer:
    torch.manual_seed(0)
    return CausalWanTransformer(TransformerConfig(24, 32, 2, layers, text_dim=8, text_len=4, freq_dim=16)).eval()


@torch.no_grad()
def noisy_pass(network: CausalWanTransformer, clean: Tensor, changed: int | None = None) -> tuple[Tensor, Tensor]:
    """Noisy input and output [1, 9, 16, 8, 8] of the loss, with one clean frame of the input changed."""
    seen: list[Tensor] = []

    def change(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        latents = arguments[0].clone()
        if changed is not None:
            latents[:, changed] += 1
        return latents, *arguments[1:]

    def record(_: nn.Module, arguments: tuple[Tensor, ...], flow: Tensor) -> None:
        seen.extend((arguments[0][:, 9:], flow[:, 9:]))

    hooks = [network.register_forward_pre_hook(change), network.register_forward_hook(record)]
    dice = torch.Generator().manual_seed(3)
    rope, rows = Rope(network.config.head_dim, 4, 4), torch.zeros(1, 0, network.config.text_dim)
    flow_loss(network, rope, clean, rows, range(9), [0, 1, 2], dice, cached=third_frames, rebuild=True)
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1]


@pytest.mark.usefixtures("no_past_noise")
@pytest.mark.parametrize(("layers", "reaching"), [(1, {2, 5, 8}), (2, set(range(9)))])
def test_only_third_frames_reach_the_noisy_chunks(layers: int, reaching: set[int]) -> None:
    """One layer: third frames up to the chunk's own. Deeper, the others arrive through them; later chunks never do."""
    network, clean = small(layers), torch.randn(1, 9, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    _, before = noisy_pass(network, clean)
    for frame in range(9):
        _, after = noisy_pass(network, clean, frame)
        moved = (after - before).abs().unflatten(1, (3, 3)).amax((0, 2, 3, 4, 5)) > 1e-5
        assert moved.tolist() == [frame in reaching and frame // 3 <= chunk for chunk in range(3)]


@pytest.mark.usefixtures("no_past_noise")
def test_rebuilding_shows_what_training_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One Euler step from pure noise is noise - flow."""
    monkeypatch.setattr("magbench.runners.mini.teacher_forcing.draw_sigmas", lambda shape, *_: torch.ones(*shape))
    network, clean = small(2), torch.randn(1, 9, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    noise, flow = (x[:, 6:] for x in noisy_pass(network, clean))
    silent = Network(network, network.encode_text(torch.zeros(1, 0, 8)))
    found = rebuild(silent, silent, OdeSampler(1), clean, lambda *_: noise)
    torch.testing.assert_close(found, noise - flow, rtol=0, atol=1e-5)


def test_two_steps_survive_a_kill_and_train_only_the_blocks(
    model: MiniModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_memory, "LENGTHS", ((6, 2),))
    latents = torch.randn(3, 9, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(folder: Path, stops: list[int | None]) -> dict[str, Tensor]:
        for stop in stops:
            memory = train_memory.train_memory(model, latents, folder, 2, 0, torch.device("cpu"), stop_after=stop)
        return memory.state_dict()

    whole, killed = run(tmp_path / "whole", [None]), run(tmp_path / "killed", [1, None])
    torch.testing.assert_close(killed, whole, rtol=0, atol=0)
    start = model.transformer.state_dict()
    moved = {name for name, value in whole.items() if (value != start[name]).any()}
    assert moved == {name for name in start if name.startswith("blocks.")}


def test_the_shipped_network_differs_from_the_generator_in_its_blocks_only(model: MiniModel) -> None:
    assert model.memory is not None
    generator, memory = model.transformer.state_dict(), model.memory.state_dict()
    stored = load_file(WEIGHTS / "memory.safetensors")
    assert set(stored) == {name for name in generator if name.startswith("blocks.")}
    for name, value in memory.items():
        assert torch.equal(value, stored[name].float() if name in stored else generator[name])
        assert torch.equal(value, generator[name]) == (name not in stored)
    assert not any(value.requires_grad for value in model.memory.parameters())


def test_the_shipped_network_rebuilds_chunks_and_the_generator_can_read_it(model: MiniModel) -> None:
    assert model.memory is not None
    psnr = rebuilt_psnr(model, model.memory, 8, worlds=8)
    assert psnr["memory to memory"] > max(psnr["generator to generator"], psnr["held"]) + 1
    assert psnr["memory to generator"] > psnr["generator to generator"] - 1


def test_the_weights_decide_the_identity_and_a_missing_file_is_named() -> None:
    info = find_model("mini")
    assert set(info.weights) == {file.name for file in WEIGHTS.glob("*.safetensors")}
    with pytest.raises(MissingWeightsError, match=r"model 'mini' lacks its file 'absent\.safetensors'"):
        replace(info, weights=("absent.safetensors",)).weights_sha256()


def test_without_its_file_there_is_no_memory_network_and_another_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    (folder / "memory.safetensors").unlink()
    assert load_mini(folder=folder).memory is None
    save_part(MEMORY, {"blocks.0.norm3.bias": torch.zeros(128)}, folder)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"0\.modulation\""):
        load_mini(folder=folder)
