"""Three tools for assistants that speak the Model Context Protocol, over stdio (extra `mcp`): `tessera mcp`.

They ask a server that runs: an assistant names files of this machine, and sees pictures and numbers. Files outside the
folders that were allowed are not read. Knows nothing of how anything is segmented.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from models import palette
from models.io.encode import encode
from models.preprocess import resize
from tessera.client import Client, ClientError

T = TypeVar("T")
_SHOWN_PX = 1024  # of a picture's long side: what an assistant looks at


def server(client: Client, allowed: list[Path]) -> MCPServer:
    """The tools, on a client of a server of ours. allowed: folders, resolved."""
    said = "Unsupervised semantic segmentation of images that lie on this machine."
    made = MCPServer("tessera", instructions=said, log_level="WARNING")

    @made.tool(structured_output=False)
    def segment(image: str, k: int | None = None, crf: bool = False, only: list[int] | None = None) -> list[Any]:
        """Which clusters (regions that look alike) an image holds: names, shares and boxes, and the painted photo.

        image: path of a file. k: how many clusters to tell apart, fewer than the model's. crf: refine the edges.
        only: ids of the clusters to paint.
        """
        found = _asked(lambda: client.segment(_file(image, allowed), k=k, crf=crf))
        told = {
            "model": f"{found.model}@{found.digest}",
            "width": found.width,
            "height": found.height,
            "clusters": [
                {"id": one.id, "name": one.name, "color": one.color, "share": round(one.fraction, 4), "bbox": one.bbox}
                for one in found.clusters
            ],
            "warnings": found.warnings,
        }
        return [json.dumps(told, ensure_ascii=False), _picture(found.overlay(only=only))]

    @made.tool(structured_output=False)
    def clusters() -> str:
        """What the model tells apart: each cluster's id, name, color, share of the training pixels, nearest others."""
        found = _asked(client.clusters)
        told = [
            {"id": one.id, "name": one.name, "color": one.color, "share": round(one.fraction, 4),
             "nearest": [near.id for near in one.neighbors]}
            for one in found
        ]  # fmt: skip
        return json.dumps({"model": f"{found.model}@{found.digest}", "clusters": told}, ensure_ascii=False)

    @made.tool(structured_output=False)
    def similar(image: str, x: int, y: int) -> list[Any]:
        """How like one pixel of an image every other is: a heat map, and the share of the image that is much like it.

        image: path of a file. x, y: the pixel's column and row, from 0.
        """
        cosines = _asked(lambda: client.similar(_file(image, allowed), x=x, y=y))
        told = {"width": cosines.shape[1], "height": cosines.shape[0], "share_above_0.5": float((cosines > 0.5).mean())}
        heat = palette.heat()[np.clip(127.5 * (cosines + 1), 0, 255).astype(np.uint8)]
        return [json.dumps(told), _picture(heat)]

    return made


def _asked(ask: Callable[[], T]) -> T:
    """What a server answers. Raises ToolError with its own sentence: the assistant reads what to change."""
    try:
        return ask()
    except ClientError as error:
        raise ToolError(str(error)) from None


def _file(name: str, allowed: list[Path]) -> Path:
    """The file, where it lies in a folder that was allowed. Raises ToolError."""
    path = Path(name).expanduser().resolve()
    if not any(path.is_relative_to(folder) for folder in allowed):
        raise ToolError(
            f"{name!r} lies outside of {', '.join(map(str, allowed))}; --allow of tessera mcp names folders"
        )
    return path


def _picture(pixels: np.ndarray[Any, Any]) -> Image:
    height, width = pixels.shape[:2]
    if (scale := _SHOWN_PX / max(height, width)) < 1:
        pixels = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    return Image(data=encode(pixels, "jpeg"), format="jpeg")
