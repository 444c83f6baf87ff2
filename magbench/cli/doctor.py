"""`magbench doctor`."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click

from magbench import __version__, provenance
from magbench.cli import console
from magbench.errors import MagbenchError

FREE_GIB = 2
"""Disk space below which a run may not fit."""


def _packages() -> Iterator[tuple[str, str]]:
    yield "ok", f"magbench {__version__}, python {provenance.versions()['python']}"
    try:
        declared = [line for line in requires("magbench") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        declared = []
        yield "note", "magbench runs from a checkout: it is not installed as a package"
    names = [line.partition(";")[0].strip() for line in declared] or list(provenance.PACKAGES)
    for name in (n.split(">")[0].split("=")[0].split("!")[0].strip() for n in names):
        try:
            yield "ok", f"{name} {version(name)}"
        except PackageNotFoundError:
            yield "note" if name == "decord" else "bad", f"{name} is not installed: pip install {name}"


def _torch() -> Iterator[tuple[str, str]]:
    import torch

    yield "ok", f"{provenance.cores()} cores, torch uses {torch.get_num_threads()} threads outside workers, 1 in each"
    if not torch.cuda.is_available():
        yield "note", "no CUDA device: models run on the CPU"
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield "ok", f"cuda:{index} {facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def _codecs() -> Iterator[tuple[str, str]]:
    import av

    for name, kind in (("libx264rgb", "w"), ("libx264", "w"), ("h264", "r"), ("hevc", "r"), ("av1", "r")):
        what = "encoder" if kind == "w" else "decoder"
        try:
            av.Codec(name, kind)  # type: ignore[arg-type]
            yield "ok", f"{what} {name}"
        except av.codec.codec.UnknownCodecError:
            yield "bad" if kind == "w" else "note", f"{what} {name} is missing in PyAV {av.__version__}"


def _models() -> Iterator[tuple[str, str]]:
    from magbench.runners.models import MODELS

    for model in MODELS.values():
        try:
            model.weights_sha256()
            yield "ok", f"model {model.name}: weights are here"
        except MagbenchError as error:
            yield "bad", f"{error.message}; {error.hint}"


def _weights() -> Iterator[tuple[str, str]]:
    from magbench.metrics.weights import find, manifest

    for name in manifest():
        try:
            yield "ok", f"weights {name}: {find(name)[0]}"
        except MagbenchError as error:
            yield "note", f"{error.message}; {error.hint}"


def _folders() -> Iterator[tuple[str, str]]:
    from magbench.metrics.weights import cache_folder

    for what, folder in (("run folders", Path("runs")), ("weights", cache_folder())):
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free / 2**30
        state = "ok" if free >= FREE_GIB else "note"
        try:
            with tempfile.TemporaryFile(dir=there):
                yield state, f"{what} go below {folder.absolute()}: writable, {free:.1f} GiB free"
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            yield "bad" if what == "run folders" else "note", f"{what} can't go below {folder.absolute()}: {reason}"


CHECKS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "packages": _packages,
    "processor": _torch,
    "video": _codecs,
    "models": _models,
    "learned metrics": _weights,
    "folders": _folders,
}


@click.command("doctor")
def command() -> int:
    """Check this machine: packages, processor, codecs, weights, folders. Exit code 1 if something needed is missing."""
    bad = 0
    for name, check in CHECKS.items():
        console.say(name)
        for state, text in check():
            bad += state == "bad"
            console.say(f"  {state:<4} {text}")
    console.say(f"{bad} problems" if bad else "everything needed is here")
    return 1 if bad else 0
