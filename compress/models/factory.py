"""A user's own network, data, loss or metric: a function named as "my_module:build"."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from compress.errors import InputError
from compress.lazy_layers import first_without_size
from compress.wording import did_you_mean


def from_factory(spec: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """The user's own network: `spec` "my_module:build" is imported and called with `args`.

    Raises InputError as `call_factory` does, and where the result is not an nn.Module or has lazy layers without sizes.
    """
    model = call_factory(spec, args)
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned {type(model).__name__}; a model factory returns a torch.nn.Module.")
    if (lazy := first_without_size(model)) is not None:
        raise InputError(
            f"{spec}: {lazy} has no size before the first call (a lazy layer); call the network on an example in "
            f"{spec.rpartition(':')[2]}."
        )
    return model


def call_factory(spec: str, args: Mapping[str, Any] | None = None) -> object:
    """Import "my_module:build" and return `build(**args)`; modules in the current directory are found, as by `python`.

    Raises InputError where the module or the name in it is missing, or importing or calling it fails.
    """
    factory = function(spec)
    try:
        return factory(**(args or {}))
    except Exception as error:
        name = spec.rpartition(":")[2]
        given = ", ".join(f"{key}={value!r}" for key, value in (args or {}).items())
        raise InputError(f"{spec}: {name}({given}) failed ({type(error).__name__}: {error}).") from error


def function(spec: str) -> Callable[..., object]:
    """The function that "my_module:build" names, imported and not called.

    Raises InputError where the module or the name in it is missing, or importing it fails.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise InputError(f'"{spec}" does not name a factory; write "my_module:build".')
    # It is kept there: loader processes that are spawned later import the user's module again.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            f"{spec}: the module {module_name} cannot be imported from {here} or the installed packages "
            f"({type(error).__name__}: {error})."
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        near = did_you_mean(name, [own for own, value in vars(module).items() if callable(value)])
        raise InputError(f"{spec}: {module_name} has no function {name}{near}")
    named: Callable[..., object] = found
    return named
