"""`POST /segment` of a file that lies below one of the operator's roots: gigabytes that need no upload.

What would be taken as an upload is read and answered as one; what is larger is read in windows, and its label map
streamed as GeoTIFF, or answered in the other formats where it is small enough. Knows nothing of pixels.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fastapi.responses import Response, StreamingResponse
from starlette.background import BackgroundTask

from models.errors import UsageError
from models.io import ome_zarr
from models.io.file_bytes import FileBytes
from models.io.samples import ImageTooLarge, Limits
from service.api import answering
from service.api.openapi import media_type
from service.api.request import InferenceRequest
from service.errors import BadOption, NotFound, NotKept, quoted
from service.formats.registry import Renderer
from service.inference import large, pipeline
from service.inference.large_task import LargeTask
from service.inference.options import Options
from service.inference.task import ImageTask
from service.roots import Roots

_STREAMED_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)

Told = ImageTask[Options] | LargeTask


async def segment(asked: InferenceRequest[Options], path: str, renderer: Renderer[bytes]) -> tuple[Response, Told]:
    """The answer for a file, and the task that has what is told besides it.

    Raises NotAllowed, NotFound, BadOption, ImageError and its kin, Busy, DeadlinePassed, NotKept.
    """
    try:
        return await _segment(asked, path, renderer)
    except UsageError as error:  # a library that is not installed
        raise BadOption(str(error)) from None
    except OSError as error:
        if error.errno in _FULL:
            raise NotKept("the label map does not fit on the server's disk for now; ask for less of it") from None
        raise NotFound(f"{quoted(path, 200)} cannot be read: {os.strerror(error.errno or errno.EIO)}") from None


async def _segment(asked: InferenceRequest[Options], path: str, renderer: Renderer[bytes]) -> tuple[Response, Told]:
    state = asked.state
    file = (await asyncio.to_thread(Roots.from_settings(state.settings).resolve, path)).path
    if not ome_zarr.is_zarr(file):
        if not file.is_file():
            raise NotFound(f"{quoted(path, 200)} is no file; name one, or a folder that is an OME-Zarr")
        if file.stat().st_size <= state.settings.max_bytes:
            try:
                return await _small(asked, file, renderer)
            except ImageTooLarge:
                if not await asyncio.to_thread(large.in_rows, file):
                    raise
    limits = Limits(large.LIMITS.max_bytes, state.settings.max_file_mpx, large.LIMITS.max_side_px, large.LIMITS.setting)
    task = LargeTask(file, asked.options, asked.served, state.runtime, asked.caller, asked.deadline, limits)
    try:
        if renderer.name != "geotiff":
            return Response(
                await task.answer(renderer), media_type=media_type(asked.request, renderer.media_type)
            ), task
        return await _streamed(task, media_type(asked.request, renderer.media_type)), task
    finally:
        asked.request.state.timings.add(task.timings.so_far())
        if (trace := asked.request.state.trace) is not None:
            trace.images.append(task.traced())


async def _small(asked: InferenceRequest[Options], file: Path, renderer: Renderer[bytes]) -> tuple[Response, Told]:
    """As an upload."""

    def read() -> bytes:
        with FileBytes.open(file) as data:
            return data[: asked.state.settings.max_bytes + 1]

    with asked.state.runtime.admission.hold() as hold:
        hold(file.stat().st_size)
        task = asked.task(await asyncio.to_thread(read))
        content, task = await answering.answer(asked, task, partial(pipeline.segment, renderer=renderer))
    return Response(content, media_type=media_type(asked.request, renderer.media_type)), task


async def _streamed(task: LargeTask, media_type: str) -> Response:
    """A file's label map, from a file that is gone once it is sent."""
    file = await task.stream()
    size = os.fstat(file.fileno()).st_size
    headers = {"content-length": str(size), "content-disposition": 'attachment; filename="labels.tif"'}
    closed = BackgroundTask(file.close)
    return StreamingResponse(_chunks(file), media_type=media_type, headers=headers, background=closed)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(file.read, _STREAMED_BYTES):
            yield chunk
    finally:
        file.close()
