"""The methods by name.

Knows nothing of what any of them does. The folder is the registry: a further method is one file or folder here, holding
a `METHOD` class derived from `base.Method`; `base` itself is none.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel

from models.errors import UsageError
from training.methods.base import Method


def names() -> list[str]:
    """Every method there is a file or folder for."""
    return sorted(m.name for m in iter_modules(__path__) if m.name != "base")


def method(name: str) -> type[Method[Any]]:
    """The class behind a method's name. Raises UsageError."""
    if name not in names():
        raise UsageError(f"method {name!r}: there are {', '.join(names())}")
    found: type[Method[Any]] = import_module(f"training.methods.{name}").METHOD
    return found


def config(name: str) -> type[BaseModel]:
    """What the recipe's table of a method may hold. Raises UsageError."""
    return method(name).Config
