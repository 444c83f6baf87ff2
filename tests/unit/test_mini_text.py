"""Prompts become one id per slot, each in its own role."""

import random

import pytest
import torch

from magbench.data.mini_world import VOCABULARY, Scene
from magbench.errors import ConfigError
from magbench.runners.mini.text import TOKENS, MiniText, token_ids


def test_vocabulary_has_one_token_per_word_and_role() -> None:
    assert len(set(TOKENS)) == len(TOKENS) == sum(map(len, VOCABULARY.values()))
    assert TOKENS.index("body:red") != TOKENS.index("hat_colour:red")


def test_ids_spell_the_scene() -> None:
    dice = random.Random(3)
    for _ in range(20):
        scene = Scene.draw(dice)
        spelled = dict(TOKENS[i].split(":") for i in token_ids(scene))
        assert Scene(**spelled) == scene


def test_encode_looks_up_the_rows_of_the_ids() -> None:
    torch.manual_seed(0)
    text = MiniText(5)
    scene = Scene("misty", "quarry", "black", "pink", "square", "stands still")
    rows = text.encode(scene.sentence())
    assert rows.shape == (1, 6, 5)
    torch.testing.assert_close(rows[0], text.table.weight[token_ids(scene)])


def test_the_empty_prompt_is_zeros() -> None:
    assert torch.equal(MiniText(5).encode(""), torch.zeros(1, 6, 5))


def test_encode_refuses_free_text() -> None:
    with pytest.raises(ConfigError, match="cannot read the prompt 'a cat'"):
        MiniText(5).encode("a cat")
