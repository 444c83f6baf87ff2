"""What a rollout holds between two chunks, as JSON and tensors: nothing is pickled, and nothing is run to read it."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from magbench.errors import MagbenchError


class NotResumableError(MagbenchError):
    """Something is held that can be put down in no way; says what."""


Kinds = Mapping[str, type]
"""The dataclasses that may be read back, by name."""


def kinds_of(objects: Iterable[Any]) -> dict[str, type]:
    """The dataclasses in the modules that define the classes of these objects."""
    classes = dict.fromkeys(base for thing in objects for base in type(thing).__mro__)
    modules = dict.fromkeys(base.__module__ for base in classes)
    found = (value for module in modules for value in vars(sys.modules[module]).values())
    return {value.__name__: value for value in found if isinstance(value, type) and is_dataclass(value)}


def pack(value: Any, kinds: Kinds) -> tuple[str, dict[str, Tensor]]:
    """JSON text, and the tensors it refers to by name, on the CPU.

    Args:
        value: None, bool, int, float, str, a tensor, or a list, tuple, dict or known dataclass of such.
        kinds: Known dataclasses.

    Raises:
        NotResumableError: something else is in it.
    """
    tensors: dict[str, Tensor] = {}

    def put(item: Any) -> Any:
        if item is None or type(item) in (bool, int, float, str):
            return item
        if type(item) is Tensor:
            name = str(len(tensors))
            tensors[name] = item.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name, "device": str(item.device)}
        if type(item) in (list, tuple):
            return {type(item).__name__: [put(each) for each in item]}
        if type(item) is dict:
            return {"dict": [[put(key), put(each)] for key, each in item.items()]}
        kind: Any = kinds.get(type(item).__name__)
        if kind is type(item):
            values = {field.name: put(getattr(item, field.name)) for field in fields(kind) if field.init}
            return {"dataclass": type(item).__name__, "fields": values}
        raise NotResumableError(f"it holds a {type(item).__name__}")

    return json.dumps(put(value)), tensors


def unpack(text: str, tensors: Mapping[str, Tensor], kinds: Kinds) -> Any:
    """What was packed, tensors on their own devices."""

    def get(item: Any) -> Any:
        match item:
            case {"tensor": name, "device": device}:
                return tensors[name].to(device)
            case {"list": items}:
                return [get(each) for each in items]
            case {"tuple": items}:
                return tuple(get(each) for each in items)
            case {"dict": items}:
                return {get(key): get(each) for key, each in items}
            case {"dataclass": name, "fields": values}:
                return kinds[name](**{field: get(each) for field, each in values.items()})
        return item

    return get(json.loads(text))
