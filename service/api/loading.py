"""Loading and unloading models for who has the admin key, whatever protocol asks for it.

Knows nothing of routes, of how a bundle is proved.
"""

import asyncio
import logging
import re
from pathlib import Path

from fastapi import Request

from service.api.dependencies import state_of
from service.errors import BadOption, NotAllowed, NotFound, nearest, quoted
from service.repository.registry import Added
from service.repository.served_model import Served

log = logging.getLogger("tessera")

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


async def load(request: Request, caller: str, name: str, *, default: bool = False) -> Added:
    """Serve the bundle in the folder of this name under TESSERA_MODELS.

    Raises NotAllowed, BadOption, NotFound, and what `SharedModels.load` raises.
    """
    state = state_of(request)
    folder = await asyncio.to_thread(folder_of, state.settings.models, name)
    added = await state.models.load(folder, default=default)
    request.state.model = added.served.bundle.ref
    log.info("%s loaded %s, request %s", caller, added.served.bundle.ref, request.state.request_id)
    return added


async def unload(request: Request, caller: str, name: str) -> Served:
    """Put a model away. Raises what `SharedModels.unload` raises."""
    served = await state_of(request).models.unload(name)
    log.info("%s unloaded %s, request %s", caller, served.bundle.ref, request.state.request_id)
    return served


def folder_of(models: Path | None, name: str) -> Path:
    """The bundle's folder, in `models` and nowhere else. Raises NotAllowed, BadOption, NotFound."""
    if models is None:
        raise NotAllowed(
            "models are not loaded over HTTP here; set TESSERA_MODELS to the folder that holds the bundles"
        )
    if not _FOLDER.fullmatch(name):
        raise BadOption(
            f"{quoted(name)} is no folder's name: letters, digits, dots, dashes, underscores, a letter or digit first"
        )
    try:
        home = models.resolve(strict=True)
        folder = (home / name).resolve()
        if folder.parent == home and folder.is_dir():
            return folder
        if folder.is_dir():
            raise NotFound(f"{quoted(name)} leads out of the folder in TESSERA_MODELS; copy the bundle into it")
        there = sorted(file.parent.name for file in home.glob("*/manifest.json"))[:20]
    except OSError as error:
        raise NotFound(f"the folder in TESSERA_MODELS cannot be read: {error.strerror}; set it right") from None
    hint = nearest(name, there) or f"; there is {', '.join(there) or 'nothing yet'}"
    raise NotFound(f"no bundle folder {name!r} in TESSERA_MODELS{hint}")
