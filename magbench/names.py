"""Names of things on disk: readable, and unique by hash."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping's canonical JSON, in hexadecimal."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(text: str, length: int = 40) -> str:
    """`text` made fit for a file name: letters, digits, `=`, `+`, `_` and `-`, a letter or digit first."""
    return re.sub(r"[^A-Za-z0-9=+_]+", "-", text).lstrip("-=+_")[:length].rstrip("-") or "x"
