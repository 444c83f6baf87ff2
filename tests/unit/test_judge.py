"""The shipped judge reads unseen worlds, through damage too, and refuses what cannot be read."""

import numpy as np
import pytest
import torch

from magbench.data.mini_world import COLOURS, SHAPES, SKIES, Scene, World
from magbench.metrics.judge import COLUMNS, REJECT, SLOTS, Judge, Reading, load_judge
from magbench.metrics.judge.frames import HELD_OUT_SEEDS, Labelled, damage, landmark_labels, render
from magbench.metrics.judge.network import WALKER_SLOTS
from magbench.metrics.judge.train import error_rates

SEEDS = HELD_OUT_SEEDS[5000:5060]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def scene(body: str = "red", sky: str = "clear") -> Scene:
    return Scene(sky, "meadow", body, "blue", "wide", "pans right quickly")


def test_clean_frames_are_read_almost_without_error(judge: Judge) -> None:
    rates = error_rates(judge, render(SEEDS, 4, garbled=0))
    assert all(rates[f"{slot} {kind}"] <= 0.01 for slot in SLOTS for kind in ("wrong", "refused"))
    assert rates["landmark missed"] < 0.03
    assert rates["landmark false alarm"] < 0.01
    assert rates["landmark colour wrong"] < 0.01
    assert rates["landmark shape wrong"] < 0.02


def test_blur_noise_and_casts_are_read_through(judge: Judge) -> None:
    clean = render(SEEDS, 4, garbled=0)
    hurt = damage(clean.frames, torch.Generator().manual_seed(1))
    assert (hurt.float() - clean.frames.float()).abs().mean() > 8
    rates = error_rates(judge, Labelled(hurt, clean.slots, clean.columns))
    assert all(rates[f"{slot} wrong"] < 0.04 for slot in SLOTS)
    assert rates["landmark missed"] < 0.06


def test_what_was_garbled_is_refused(judge: Judge) -> None:
    rates = error_rates(judge, render(SEEDS, 4, garbled=1))
    assert all(rates[f"{slot} accepted"] < 0.06 for slot in SLOTS)
    assert rates["landmark false alarm"] < 0.02


def test_a_missing_walker_is_refused_and_the_place_still_read(judge: Judge) -> None:
    empty = np.stack([World(scene(), seed).frame_without_walker(3) for seed in SEEDS[:16]])
    reading = judge.read(empty)
    for slot in WALKER_SLOTS:
        assert (getattr(reading, slot) == REJECT).float().mean() > 0.9
    assert (reading.sky == 0).all()
    assert (reading.ground == 0).all()


def test_reading_has_the_declared_form(judge: Judge) -> None:
    reading = judge.read(World(scene(), 400_001).clip(3))
    assert reading.presence.shape == reading.colour.shape == reading.shape.shape == (3, COLUMNS)
    for slot, words in SLOTS.items():
        assert getattr(reading, slot).tolist() == [words.index(getattr(scene(), slot))] * 3
        assert reading.probabilities[slot].shape == (3, len(words) + 1)
        torch.testing.assert_close(reading.probabilities[slot].sum(-1), torch.ones(3))


def test_landmarks_are_peaks_of_presence() -> None:
    presence = torch.tensor([[0.9, 0.6, 0.0, 0.4, 0.0, 0.7, 0.8, 0.1]])
    colour, shape = torch.arange(8)[None], (torch.arange(8) % 3)[None]
    none = torch.zeros(1, dtype=torch.int64)
    reading = Reading(none, none, none, none, none, {}, presence, colour, shape)
    assert reading.landmarks(0) == [(0, 0, 0), (6, 6, 0)]
    assert reading.landmarks(0, threshold=0.85) == [(0, 0, 0)]


def test_landmark_labels_agree_with_the_world() -> None:
    world = World(scene(), 400_002)
    found = 0
    for t in range(0, 60, 5):
        labels = landmark_labels(world, t)
        for landmark, x, share in world.visible(t):
            if share > 0.9:
                column = labels[:, int(x // 8)].tolist()
                assert column == [1, COLOURS.index(landmark.colour), SHAPES.index(landmark.shape)]
                found += 1
        assert (labels[0] == 1).sum() <= len(world.visible(t))
    assert found > 8


def test_embedding_follows_the_walker_and_not_the_place(judge: Judge) -> None:
    def embed(body: str, sky: str, seed: int) -> torch.Tensor:
        return torch.nn.functional.normalize(judge.embed(World(scene(body, sky), seed).clip([0, 9])).mean(0), dim=0)

    here = embed("red", "clear", 400_003)
    same = [torch.dot(here, embed("red", sky, 400_004 + i)) for i, sky in enumerate(SKIES)]
    other = [torch.dot(here, embed(body, "clear", 400_003)) for body in COLOURS if body != "red"]
    assert min(same) > max(other) + 0.03
    lengths = judge.embed(World(scene(), 400_005).clip(4)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(4))


def test_features_halve_three_times(judge: Judge) -> None:
    maps = judge.features(World(scene(), 400_006).clip(2))
    assert [tuple(m.shape[2:]) for m in maps] == [(32, 32), (16, 16), (8, 8)]
