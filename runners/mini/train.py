"""The recipe of `mini`, in one command: `python -m magbench.runners.mini.train --out DIR`.

Renders its data, trains the VAE, then the transformer, and writes the weights to DIR/weights. The step counts are the
recipe: the same seed, machine type and versions give the same weights. Killed, the same command continues.
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
from magbench.runners.mini.model import save_part
from magbench.runners.mini.train_flow import train_flow
from magbench.runners.mini.train_vae import train_vae
from magbench.runners.mini.vae import MiniVAE
from magbench.runners.wan.configs import CHUNK_FRAMES

log = logging.getLogger(__name__)

SAMPLER = {"steps": 10, "shift": 3.0}


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="work folder: checkpoints, latents, weights")
    parser.add_argument("--stage", choices=("vae", "transformer", "all"), default="all")
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--vae-worlds", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=2800, help="transformer steps")
    parser.add_argument("--clips", type=int, default=2400, help="clips of 129 frames to train the transformer on")
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
    if options.stage in ("transformer", "all"):
        vae = MiniVAE()
        vae.load_state_dict({name: value.float() for name, value in load_file(weights / "vae.safetensors").items()})
        vae.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        recipe = {"seed": options.seed, "steps": options.steps, "clips": options.clips, "vae_steps": options.vae_steps}

        def export(average: dict[str, Tensor], done: int) -> None:
            for part, prefix in (("transformer", "transformer."), ("text", "text.")):
                own = {name.removeprefix(prefix): v for name, v in average.items() if name.startswith(prefix)}
                save_part(part, own, weights)
            config = {
                "fps": FPS,
                "chunk": CHUNK_FRAMES,
                "trained_span_frames": TRAINED_SPAN,
                "sampler": SAMPLER,
                "recipe": {**recipe, "steps_done": done},
            }
            (weights / "config.json").write_text(json.dumps(config, indent=2) + "\n")

        train_flow(
            vae,
            options.out / "transformer",
            options.steps,
            options.clips,
            options.seed,
            device,
            stop_after=options.stop_after,
            exported=export,
        )


if __name__ == "__main__":
    main()
