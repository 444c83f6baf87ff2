"""Names to objects, lazily."""

from importlib.metadata import EntryPoint

import pytest

from magbench import registry
from magbench.errors import ConfigError
from magbench.registry import Registry, did_you_mean, load_object

OWN = {"sqrt": "math:sqrt", "absent": "no_such_module:thing"}


def test_objects_load_at_look_up() -> None:
    names = Registry("function", OWN)
    assert list(names) == ["absent", "sqrt"]
    assert "absent" in names
    assert len(names) == 2
    assert names["sqrt"](9) == 3
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        names["absent"]


def test_unknown_names_are_guessed() -> None:
    with pytest.raises(ConfigError, match="unknown function 'sqtr'") as caught:
        Registry("function", OWN)["sqtr"]
    assert "did you mean 'sqrt'?" in str(caught.value.hint)


def test_a_far_name_gets_the_list_only() -> None:
    assert did_you_mean("zzzzzz", ["b", "a"]) == "known: a, b"


def test_plug_ins_add_names_but_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint("cube", "math:cbrt", "group"), EntryPoint("sqrt", "math:floor", "group")]
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == "group" else [])
    names = Registry("function", OWN, group="group")
    assert names["cube"](8) == 2
    assert names["sqrt"](9) == 3


def test_load_object() -> None:
    assert load_object("os.path:join")("a", "b") == "a/b"
