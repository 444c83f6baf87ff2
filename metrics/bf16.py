"""The `bf16` profile of metrics with learned backbones: half the memory, faster on a GPU, and slightly other numbers.

The backbone's weights and activations are bfloat16, without autocast; what goes in and comes out is float32, and so is
every distance and similarity made of it. To give a metric this profile, add to its file

    class MyMetricBF16(MyMetric):
        profile, needs = "bf16", bf16(MyMetric.needs)

and its name to `magbench.metrics.METRICS`. The extractor must hold its networks as attributes and call them.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from magbench.metrics.base import Extractor, Needs

SUFFIX = "@bf16"
"""Marks the import path of an extractor whose backbone is to compute in bfloat16."""


def bf16(needs: Needs) -> Needs:
    """The same needs, with backbones in bfloat16."""
    return replace(needs, features=tuple(path + SUFFIX for path in needs.features))


def in_bfloat16(extractor: Extractor) -> Extractor:
    """Turn the networks of an extractor to bfloat16; a sequence layer by layer, since extractors look in between."""
    networks = [value for value in vars(extractor).values() if isinstance(value, nn.Module)]
    for part in (part for net in networks for part in (net if isinstance(net, nn.Sequential) else [net])):
        part.to(torch.bfloat16)
        part.register_forward_pre_hook(lambda module, given: tuple(_cast(x, torch.bfloat16) for x in given))
        part.register_forward_hook(lambda module, given, out: _cast(out, torch.float32))
    return extractor


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
