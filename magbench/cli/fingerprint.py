"""`magbench fingerprint`."""

from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.options import FingerprintOptions


@click.command("fingerprint")
@options_of(FingerprintOptions)
def command(**values: Any) -> int:
    """Write down what a method does on a tiny fixed rollout, in seconds and without videos.

    `magbench gate` compares it with an earlier one: cache contents and positions exactly, latents within a tolerance.
    `magbench run` writes the same beside its samples.
    """
    options = FingerprintOptions.parse(given(values))
    from magbench.api import fingerprint

    found = fingerprint(**options.model_dump(exclude_unset=True))
    for label, record in found.items():
        if record.state == "value":
            console.say(f"{label}: {len(record.chunks)} chunks")
        else:
            console.error(f"{label}: {record.reason}", record.hint or None)
    console.say(f"fingerprints: {options.out / 'fingerprints'}")
    return 0 if all(record.state == "value" for record in found.values()) else 4
