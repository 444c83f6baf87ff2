"""The bf16 profile: a backbone in bfloat16 between float32 and float32."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from magbench.metrics import METRICS, engine
from magbench.metrics.backbones import DINO, AlexNetLPIPS, lpips_heads
from magbench.metrics.base import Clip
from magbench.metrics.bf16 import in_bfloat16
from magbench.metrics.engine import default_metrics
from magbench.runners.scoring import metric_names
from tests.unit.clips import numbers, pan, run, sample

PROFILES = [name for name in METRICS if name.endswith("@bf16")]


class Net(nn.Module):
    """A small stand-in for a vision transformer; remembers what it computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 16, 16)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: Any) -> Any:
        out = self.embed(x).mean((2, 3))
        self.seen |= {x.dtype, out.dtype}
        return out


def alex() -> AlexNetLPIPS:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AlexNetLPIPS(alexnet(weights=None).state_dict(), lpips_heads(), "cpu")


def clip() -> Clip:
    return Clip(0, (0.0, 0.125), torch.from_numpy(pan(2, 3, 64, 96)))


def test_the_network_computes_in_bfloat16_and_features_are_float32() -> None:
    net = Net()
    features = in_bfloat16(DINO(net, "cpu"))(clip())
    assert net.seen == {torch.bfloat16}
    assert features.dtype == torch.float32


def test_layers_of_alexnet_are_float32_of_bfloat16_numbers_and_unit_length() -> None:
    extractor = in_bfloat16(alex())
    seen: list[Any] = []
    for layer in extractor._trunk:  # type: ignore[attr-defined]
        layer.register_forward_hook(lambda module, given, out: seen.append((given[0].dtype, out.dtype)))
    layers = extractor(clip())
    assert {parameter.dtype for parameter in extractor._trunk.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    assert len(seen) == 12
    for features, weights in layers:
        assert features.dtype == weights.dtype == torch.float32
        lengths = features.square().sum(1).sqrt()
        assert torch.allclose(lengths[lengths > 0.5], torch.ones(()), atol=1e-6), "normalised in float32"


def test_numbers_are_near_those_of_float32_and_not_the_same() -> None:
    metric = METRICS["lpips_consecutive@bf16"]
    exact, half = (numbers(run(metric(), pan(20, 3, 64, 96), feature=one)) for one in (alex(), in_bfloat16(alex())))
    assert half["median"] == pytest.approx(exact["median"], rel=0.03)
    assert half["median"] != pytest.approx(exact["median"], rel=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_it_differs_from_its_default_in_nothing_but_the_backbone(name: str) -> None:
    half, whole = METRICS[name], METRICS[name.replace("@bf16", "@default")]
    assert half.needs.features == tuple(path + "@bf16" for path in whole.needs.features)
    assert (half.reductions, half.clock, half.version) == (whole.reductions, whole.clock, whole.version)
    assert half.memory == whole.memory


def test_only_who_asks_gets_it() -> None:
    assert {"lpips_consecutive@bf16", "subject_consistency@bf16"} <= set(PROFILES)
    assert not set(PROFILES) & set(default_metrics(sample()))
    assert not set(PROFILES) & {name for given in ("lpips_consecutive", "motion") for name in metric_names(given)}
    assert metric_names("lpips_consecutive@bf16") == ("lpips_consecutive@bf16",)


def test_the_engine_loads_each_precision_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magbench.metrics.backbones.lpips_alex", lambda device: alex())
    engine._extractor.cache_clear()
    path = "magbench.metrics.backbones:lpips_alex"
    whole, half = engine._extractor(path, "cpu"), engine._extractor(path + "@bf16", "cpu")
    engine._extractor.cache_clear()
    kinds = [{parameter.dtype for parameter in one._trunk.parameters()} for one in (whole, half)]  # type: ignore[attr-defined]
    assert kinds == [{torch.float32}, {torch.bfloat16}]
