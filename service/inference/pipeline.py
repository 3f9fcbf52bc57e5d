"""From an uploaded file's bytes to an answer's bytes: encoding → assign → crf → render.

Knows nothing of HTTP: it is given bytes, options and a loaded model, and returns bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from models import assign, region_stats
from models.similarity import similarity
from models.types import Array
from service.errors import BadOption
from service.formats.pictures import heat
from service.formats.registry import Renderer
from service.formats.result import Result
from service.inference.options import Options, SimilarOptions
from service.inference.refine import NotRefined, refine
from service.inference.results import NetworkOutput
from service.inference.task import Order, Way


class Answer(NamedTuple):
    """An answer's bytes, and what a reader of them should know."""

    body: bytes
    warnings: tuple[str, ...]


async def segment(order: Order, options: Options, renderer: Renderer) -> Answer:
    """One image's answer. Cancelled, it drops what has not begun.

    Raises what `Way` raises, and BadOption for options this model cannot follow.
    """
    served = order.served
    for cluster in options.drawn() or ():
        if cluster >= served.clusters.count:
            raise BadOption(f"only: no cluster {cluster}; {served.bundle.ref} has 0 to {served.clusters.count - 1}")
    table, look = served.clusters.table(options.k), served.clusters.style
    runtime = order.runtime
    wants_margin = renderer.name == "json" or runtime.sampled()
    needs_photo = renderer.photo or options.refine is not None
    with runtime.admission.ticket(order.caller) as ticket:
        way = Way(order, ticket, wants_code=wants_margin or options.refine is not None)
        output = await way.output()
        if needs_photo:
            way.set_megapixels(output.source)
        warnings = _warnings(output.source, way.manifest.code.stride)
        refined = None
        if options.refine:
            try:
                refined = await refine(way, output, options, runtime.crf_timeout_s)
            except NotRefined as error:
                warnings.append(str(error))

        def finish() -> Answer:
            photo = way.photo() if renderer.photo else None
            with way.timed("assign"):
                labels = _labels(way, output) if refined is None else refined
                margin = _margin(way, output, full=options.confidence) if wants_margin else None
                found = region_stats.compute(labels, len(table), margin)
                merged = bool((table != np.arange(len(table))).any())
            result = Result(
                model=way.manifest.name,
                digest=served.bundle.digest[:12],
                k=options.k or served.clusters.count,
                options=options,
                image=photo.decoded.image if photo else None,
                labels=table[labels] if merged else labels,
                table=table,
                found=found,
                areas=region_stats.merge(found, table) if merged else found,
                style=look,
                margin=margin,
                depth_rule=output.depth_rule,
                refined=refined is not None,
                warnings=warnings,
                timings={stage: ms for stage, ms in order.timings.items() if stage != "encode"},
            )
            with way.timed("encode"):
                body = renderer.render(result)
            runtime.metrics.segmented(served, replace(result, timings=order.timings))
            return Answer(body, tuple(warnings))

        return await way.job(finish)


async def similar(order: Order, options: SimilarOptions) -> bytes:
    """How like one pixel every other is, as `options.format` says. Raises what `Way` raises, and BadOption."""
    if order.served.bundle.manifest.code.assignment != "cosine":
        raise BadOption(f"{order.served.bundle.ref} compares by dot products; similarity needs a model with cosines")
    with order.runtime.admission.ticket(order.caller) as ticket:
        way = Way(order, ticket, wants_code=True)
        output = await way.output()

        def finish() -> bytes:
            assert output.code is not None
            how = way.manifest.code.interpolation
            with way.timed("assign"):
                try:
                    at = (options.y, options.x)
                    cosines = similarity(output.code, at, output.source, output.box, how)
                except ValueError as error:
                    raise BadOption(f"x, y: {error}") from None
            with way.timed("encode"):
                return heat(cosines, options.format)

        return await way.job(finish)


def _labels(way: Way, output: NetworkOutput) -> Array:
    """The network's own ids uint8 [H, W] at the source's size."""
    how = way.manifest.code.interpolation
    return assign.labels(output.scores, output.source, output.box, interpolation=how)


def _margin(way: Way, output: NetworkOutput, *, full: bool) -> Array:
    """How clearly each place was decided: at the source's size when asked for, else on the patch grid."""
    grid, box, code = output.scores.shape[1:], output.box, way.manifest.code
    small = (max(1, round(grid[0] * box[2])), max(1, round(grid[1] * box[3])))
    return assign.margin(
        output.scores,
        output.code,
        output.source if full else small,
        assignment=code.assignment,
        box=box,
        interpolation=code.interpolation,
    )


def _warnings(source: tuple[int, int], cell: int) -> list[str]:
    if min(source) >= cell:
        return []
    return [f"the image is {source[1]}×{source[0]} pixels, smaller than one cell of the model's grid ({cell})"]
