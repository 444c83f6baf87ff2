"""Cache policies that others wrote: a class in a file, or an installed plug-in. Importing this file imports no torch.

What is loaded here runs with the rights of whoever asked for it.
"""

import hashlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_origin, get_type_hints

from magbench.errors import ConfigError, MagbenchError
from magbench.registry import did_you_mean

if TYPE_CHECKING:
    from magbench.runners.policies.base import CachePolicy

_PREFIX = "magbench_policy_file_"
"""How the module names of policy files begin."""
_SOURCE = "__source__"
"""Where such a module keeps the bytes that it was made from."""

_held: dict[str, bytes] = {}


def hold(files: Mapping[str, bytes]) -> None:
    """From now on take these for what the files at these paths contain, whatever is edited meanwhile."""
    _held.clear()
    _held.update(files)


def policy_in_file(path: str, name: str) -> "type[CachePolicy]":
    """The cache policy `name` that the Python file at `path` defines.

    Raises:
        ConfigError: there is no such file or class, importing it fails, or it is no cache policy.
    """
    module = _module(path)
    own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    if name not in own:
        known = [key for key, value in own.items() if _is_policy(value)]
        message = f"{path!r} defines no class {name!r}." if name else f"{path!r} needs the name of a class behind it."
        raise ConfigError(message, f"{did_you_mean(name, known)}; write {path}:{known[0] if known else 'CLASS'}")
    return vetted(own[name], f"{path}:{name}")


def vetted(policy: Any, name: str) -> "type[CachePolicy]":
    """`policy`, if it can be used as one.

    Args:
        policy: What was found where a policy should be.
        name: What the user calls it.

    Raises:
        ConfigError: it is no frozen dataclass that derives from `CachePolicy`, lacks a method, or has a parameter that
            cannot be given in a method's name.
    """
    if not _is_policy(policy) or "__dataclass_fields__" not in vars(policy):
        raise ConfigError(
            f"{name} is no cache policy.",
            "write @dataclass(frozen=True) above a class that derives from magbench.runners.policies.base.CachePolicy",
        )
    if lacking := sorted(policy.__abstractmethods__):
        raise ConfigError(f"{name} does not define {', '.join(lacking)}.", "see CachePolicy for what each has to do")
    with telling(f"the parameters of {name} cannot be read"):
        kinds = get_type_hints(policy)
    for field in fields(policy):
        if field.default is MISSING:
            raise ConfigError(f"parameter {field.name!r} of {name} has no default.", "give it one")
        kind = kinds[field.name]
        if kind not in (int, float, bool) and get_origin(kind) is not Literal:
            raise ConfigError(
                f"parameter {field.name!r} of {name} has type {getattr(kind, '__name__', kind)}.",
                "use int, float, bool or a Literal of texts: it must fit into a method's name",
            )
    found: type[CachePolicy] = policy
    return found


def documentation(policy: type) -> str:
    """The docstring of a policy class; empty where there is only the signature that dataclasses put in its place."""
    text = inspect.getdoc(policy) or ""
    return "" if text.startswith(f"{policy.__name__}(") else text


def code_of(policy: type) -> bytes:
    """The file that defines a policy, as it was loaded; empty for those of magbench, which change with its version."""
    if policy.__module__.startswith("magbench."):
        return b""
    source: bytes | None = vars(sys.modules[policy.__module__]).get(_SOURCE)
    return Path(inspect.getfile(policy)).read_bytes() if source is None else source


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Make one sentence of whatever another's code raises in here.

    Args:
        what: How the sentence begins.

    Raises:
        ConfigError: something else than an error of ours was raised.
    """
    try:
        yield
    except MagbenchError:
        raise
    except Exception as error:  # code of a user, which may raise anything
        raise ConfigError(f"{what}: {described(error)}", "--debug shows where") from error


def described(error: Exception) -> str:
    """Type and text of an exception, and where in a policy file it was raised."""
    place = fault(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text} ({place})" if place else text


def fault(error: Exception) -> str:
    """The innermost line of a policy file that raised an exception, such as `mine.py, line 7`; empty for none."""
    lines = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(_PREFIX)
    ]
    return lines[-1] if lines else ""


def _is_policy(thing: Any) -> bool:
    from magbench.runners.policies.base import CachePolicy

    return inspect.isclass(thing) and issubclass(thing, CachePolicy)


def _module(path: str) -> ModuleType:
    """The file as a module, of these very bytes: Python's own import may take a compiled copy of older ones."""
    source = _read(path)
    name = _PREFIX + hashlib.sha256(path.encode() + b"\0" + source).hexdigest()[:16]
    if name not in sys.modules:
        module = ModuleType(name)
        vars(module).update({"__file__": str(Path(path).absolute()), _SOURCE: source})
        sys.modules[name] = module  # where dataclasses look for the names in annotations
        try:
            with telling(f"{path!r} cannot be imported"):
                exec(compile(source, path, "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _read(path: str) -> bytes:
    try:
        return _held[path] if path in _held else Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no policy file {path!r}.", f"paths count from {Path.cwd()}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the policy file {path!r}: {os.strerror(error.errno or 0)}.") from error
