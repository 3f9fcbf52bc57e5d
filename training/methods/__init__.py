"""The methods by name.

Knows nothing of what any of them does. The folder is the registry: a further method is
one file or folder here, holding a `METHOD` class derived from `base.Method`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from models.errors import TesseraError
from training.methods.base import Method


class UnknownMethod(TesseraError):
    """The recipe names a method there is no file for."""


def names() -> list[str]:
    """Every method there is a file for."""
    return sorted(m.name for m in iter_modules(__path__) if m.name != "base")


def method(name: str) -> type[Method]:
    """The class behind a method's name. Raises UnknownMethod."""
    if name not in names():
        raise UnknownMethod(f"method {name!r}: there are {', '.join(names())}")
    found: type[Method] = import_module(f"training.methods.{name}").METHOD
    return found
