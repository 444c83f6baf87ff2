"""Click options made from the option models, so that every option has one spelling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from magbench.errors import ConfigError
from magbench.options import Options

EMPTY = "give a value, or leave it out; a variable of the shell may be unset"
Function = TypeVar("Function", bound=Callable[..., Any])


def options_of(model: type[Options]) -> Callable[[Function], Function]:
    """Decorate a command with one option per field of `model`; the command gets the given ones as keywords.

    Click only splits the line. Values are checked by the model, so that Python callers see the same messages.
    """

    def decorate(function: Function) -> Function:
        for name, field in reversed(model.model_fields.items()):
            function = _option(name, field)(function)
        return function

    return decorate


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What the user really gave: absent options and empty repeats left out, so that the model's defaults hold.

    Raises:
        ConfigError: an option is an empty text, as an unset variable of the shell gives.
    """
    for name, value in values.items():
        if value == "" or (isinstance(value, tuple) and "" in value):
            raise ConfigError(f"option --{name.replace('_', '-')} is empty", EMPTY)
    return {name: value for name, value in values.items() if value is not None and value != () and value is not False}


def _option(name: str, field: FieldInfo) -> Callable[[Function], Function]:
    flag = "--" + name.replace("_", "-")
    envvar = f"MAGBENCH_{name.upper()}"
    text = field.description or ""
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, default=False, envvar=envvar, help=text)
    repeatable = get_origin(field.annotation) is tuple
    choices = _choices(field.annotation)
    if field.default not in (None, ()) and not field.is_required():
        text += f" [default: {field.default}]"
    flags = ("-o", flag) if name == "out" else (flag,)
    return click.option(
        *flags, name, multiple=repeatable, envvar=envvar, metavar="|".join(choices) or _metavar(name, field), help=text
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _metavar(name: str, field: FieldInfo) -> str:
    parts = {field.annotation, *get_args(field.annotation)}
    if Path in parts:
        return "DIR" if name == "out" else "FILE"
    return name.upper()
