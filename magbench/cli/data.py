"""`magbench data`: make data sets."""

from pathlib import Path
from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.options import BuildMagOptions


@click.group("data")
def command() -> None:
    """Make data sets of one's own."""


@command.command("build-mag")
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CLIPS...")
@options_of(BuildMagOptions)
def build_mag(clips: tuple[Path, ...], **values: Any) -> int:
    """Make leave-and-return clips as MAG-Bench's: each clip, and behind it the clip reversed.

    CLIPS are videos, folders of videos, or CSV files like MAG-Bench's (video_path, raw_caption, duration(sec), and
    category if wanted), which give captions. Best is one camera motion in each. Everything is looked through before
    anything is written; repeat the command to go on where it stopped. Then: magbench run --clips OUT --method ...
    """
    options = BuildMagOptions.parse(given(values))
    from magbench.data.mag_frames import FrameRule
    from magbench.data.palindromes import Recipe, build, check_folder, plan
    from magbench.runners.models import find_model

    model = find_model(options.model) if options.model else None
    rule, fps, size = None, options.fps, options.size
    if model:
        fps, size = fps or model.fps, size or model.size
        rule = FrameRule(fps, model.stride, model.chunk)
    recipe = Recipe(fps, size, options.seconds)
    planned, notes = plan(clips, recipe, rule, options.faulty_clips == "leave-out")
    for text in notes:
        console.warn(text)
    check_folder(planned, options.out)
    table = build(planned, recipe, options.out, console.note)
    console.say(f"{len(planned)} clips: {table}")
    return 0
