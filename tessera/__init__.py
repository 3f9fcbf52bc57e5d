"""The command line, and a client for Python: `from tessera import Client, AsyncClient`.

Nothing is imported before it is asked for: the command line starts without httpx and numpy. `__init__.pyi` says the
same to type checkers.
"""

from importlib import import_module
from typing import Any

__all__ = ["AsyncClient", "Client", "ClientError", "Segmentation"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("tessera.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
