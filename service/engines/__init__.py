"""What runs a bundle's network on this machine.

`open_engine` gives the engine that the settings name, or the fastest here. The folder is the registry: a further
engine is one file here with a list `KINDS`.

Knows nothing of clusters, queues or HTTP.
"""

import os
from importlib import import_module
from pkgutil import iter_modules

from models.bundle import Bundle
from service.engines.base import Engine, EngineError, EngineNotInstalled, Kind
from service.settings import Settings

__all__ = ["Engine", "EngineError", "EngineNotInstalled", "Kind", "check_installed", "kinds", "open_engine"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported, which is later


def kinds() -> dict[str, Kind]:
    """Every kind of engine there is a file for, by name, installed or not."""
    files = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {kind.name: kind for file in files for kind in getattr(file, "KINDS", ())}


def check_installed(settings: Settings) -> None:
    """Raises EngineNotInstalled, a wrong setting, where the engine that the settings name is not there."""
    if settings.engine != "auto" and (kind := kinds()[settings.engine]).versions is None:
        raise EngineNotInstalled(
            f"TESSERA_ENGINE={kind.name} needs {' and '.join(kind.modules)}: install {kind.install},"
            " or set TESSERA_ENGINE=auto"
        )


def open_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The engine that `settings.engine` names.

    Raises EngineError where it cannot run here, BundleError where the network is not the manifest's or none at all.
    """
    from service.engines.autoselect import compared, fastest

    known = kinds()
    if settings.engine == "auto":
        return fastest(bundle, settings, list(known.values()))
    check_installed(settings)
    kind = known[settings.engine]
    return kind.open(bundle, settings) if kind.exact else compared(bundle, settings, kind, list(known.values()))
