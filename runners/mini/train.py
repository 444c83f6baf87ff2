"""The recipe of `mini`, in one command: `python -m magbench.runners.mini.train --out DIR`.

Renders its data, trains the VAE, then the transformer, then the memory network, and writes the weights to DIR/weights.
The step counts are the recipe: the same seed, machine type and versions give the same weights. Killed, the same command
continues. The memory stage needs only the other stages' weights.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from magbench.data.mini_world import FPS
from magbench.runners.mini.batches import TRAINED_SPAN
from magbench.runners.mini.clips import training_clips
from magbench.runners.mini.model import MEMORY, load_mini, save_part
from magbench.runners.mini.train_flow import train_flow
from magbench.runners.mini.train_memory import rebuilt_psnr, train_memory
from magbench.runners.mini.train_vae import train_vae
from magbench.runners.mini.vae import MiniVAE
from magbench.runners.wan.configs import CHUNK_FRAMES

log = logging.getLogger(__name__)

SAMPLER = {"steps": 10, "shift": 3.0}


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="work folder: checkpoints, latents, weights")
    parser.add_argument("--stage", choices=("vae", "transformer", "memory", "all"), default="all")
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--vae-worlds", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=2800, help="transformer steps")
    parser.add_argument("--memory-steps", type=int, default=400)
    parser.add_argument("--clips", type=int, default=2400, help="clips of 129 frames for all but the VAE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stop-after", type=int, help="write a checkpoint and stop after this step of the stage")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    device, weights = torch.device(options.device), options.out / "weights"

    if options.stage in ("vae", "all"):
        vae = train_vae(
            options.out / "vae", options.vae_steps, options.vae_worlds, options.seed, device, options.stop_after
        )
        save_part("vae", vae, weights)
    if options.stage == "vae":
        return
    latents, worlds = training_clips(_trained_vae(weights, device), options.out / "clips.safetensors", options.clips)
    if options.stage in ("transformer", "all"):
        recipe = {"seed": options.seed, "steps": options.steps, "clips": options.clips, "vae_steps": options.vae_steps}

        def export(average: dict[str, Tensor], done: int) -> None:
            for part in ("transformer", "text"):
                save_part(part, _under(f"{part}.", average), weights)
            config = {
                "fps": FPS,
                "chunk": CHUNK_FRAMES,
                "trained_span_frames": TRAINED_SPAN,
                "sampler": SAMPLER,
                "recipe": {**recipe, "steps_done": done},
            }
            (weights / "config.json").write_text(json.dumps(config, indent=2) + "\n")

        train_flow(
            latents,
            worlds,
            options.out / "transformer",
            options.steps,
            options.seed,
            device,
            stop_after=options.stop_after,
            exported=export,
        )
    if options.stage in ("memory", "all"):
        model = load_mini(options.device, folder=weights)
        memory = train_memory(
            model,
            latents,
            options.out / "memory",
            options.memory_steps,
            options.seed,
            device,
            stop_after=options.stop_after,
        )
        save_part(MEMORY, {name: w for name, w in memory.state_dict().items() if name.startswith("blocks.")}, weights)
        for chunks in (1, 8):
            found = {name: round(psnr, 2) for name, psnr in rebuilt_psnr(model, memory, chunks).items()}
            log.info("last of %d chunks from third frames, held-out PSNR in dB: %s", chunks, found)


def _trained_vae(weights: Path, device: torch.device) -> MiniVAE:
    vae = MiniVAE()
    vae.load_state_dict({name: value.float() for name, value in load_file(weights / "vae.safetensors").items()})
    vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae.eval()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


if __name__ == "__main__":
    main()
