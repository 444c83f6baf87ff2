"""Where a run came from: versions, hardware, source revision. Without names of people, hosts or folders."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from magbench import __version__

PACKAGES = ("torch", "torchvision", "torchmetrics", "lpips", "scikit-image", "open-clip-torch", "numpy", "av", "decord")
"""Packages whose version may change a pixel or a score."""


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of magbench, Python and `PACKAGES`; a package that isn't there is `absent`."""
    return {"magbench": __version__, "python": platform.python_version()} | {p: _version(p) for p in PACKAGES}


def hardware() -> dict[str, str]:
    """Processor, its cores, memory, and the graphics cards the driver tells of. Imports no torch."""
    found = {"machine": platform.machine(), "system": platform.system(), "cores": str(cores())}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        found["cpu"] = names[0] if names else "unknown"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f}"
    if shutil.which("nvidia-smi"):
        gpus = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        found["gpus"] = "; ".join(gpus.splitlines()) or "none"
    return found


def git() -> dict[str, str]:
    """Commit of the checkout that magbench runs from, and whether it has changes; empty when installed as a wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or not shutil.which("git"):
        return {}
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": str(bool(changes)).lower()} if commit else {}


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else ""
