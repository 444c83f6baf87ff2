"""The one folder for what is kept between runs and belongs to no run."""

import os
import secrets
import sys
from pathlib import Path


def cache_root() -> Path:
    """`$MAGBENCH_CACHE`, else `magbench` below the platform's own cache folder."""
    if chosen := os.environ.get("MAGBENCH_CACHE"):
        return Path(chosen).expanduser()
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "magbench"


def remember(file: Path, text: str) -> bool:
    """Write a small file of the cache, whole or not at all; False where the cache can't be written to."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        return False
    return True
