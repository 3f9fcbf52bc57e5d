"""From an image to an answer's bytes: network → assign → crf → render.

Knows nothing of HTTP: it is given a task and a format, and returns bytes.
"""

import numpy as np

from models import assign, region_stats
from models.io import encode
from models.similarity import similarity
from models.types import Array
from service.errors import BadOption
from service.formats import pictures
from service.formats.registry import Renderer
from service.formats.result import SegmentationResult
from service.inference.options import Options, SimilarOptions
from service.inference.refine import NotRefined, on_cpu, refine
from service.inference.results import NetworkOutput
from service.inference.task import ImageTask


async def segment(task: ImageTask[Options], renderer: Renderer) -> bytes:
    """One image's answer; its warnings and timings are the task's. Cancelled, it drops what has not begun.

    Raises what `ImageTask` raises, and BadOption for options this model cannot follow.
    """
    options, served, runtime = task.options, task.served, task.runtime
    count, chosen = served.clusters.count, options.render
    for cluster in chosen.only or ():
        if cluster >= count:
            raise BadOption(f"only: no cluster {cluster}; {served.bundle.ref} has 0 to {count - 1}")
    table, style = served.clusters.table(options.k), served.clusters.style
    wants_margin = renderer.name == "json" or runtime.sampled()
    with task.admitted():
        output = await task.network_output(code=wants_margin or options.refine is not None, before_crf=on_cpu(task))
        if renderer.photo or options.refine:
            task.claim(output.source)
        if min(output.source) < (cell := task.manifest.code.stride):
            size = f"{output.source[1]}×{output.source[0]}"
            task.warnings.append(f"the image is {size} pixels, smaller than one cell of the model's grid ({cell})")
        refined: Array | None = None
        if options.refine:
            try:
                refined = await refine(task, output)
            except NotRefined as error:
                task.warnings.append(str(error))

        def finish() -> bytes:
            image = task.decoded.image if renderer.photo else None
            with task.timings.measure("assign"):
                labels = _labels(task, output) if refined is None else refined
                margin = _margin(task, output, full=options.confidence) if wants_margin else None
                found = region_stats.compute(labels, count, margin)
                merged = bool((table != np.arange(count)).any())
            result = SegmentationResult(
                model=served.name,
                digest=served.bundle.digest[:12],
                k=options.k or count,
                image=image,
                labels=table[labels] if merged else labels,
                table=table,
                areas=region_stats.merge(found, table) if merged else found,
                style=style,
                margin=margin,
                depth_rule=output.depth_rule,
                refined=refined is not None,
                warnings=task.warnings,
                timings=task.timings,
                options=chosen,
            )
            with task.timings.measure("encode"):
                body = renderer.render(result)
            runtime.metrics.segmented(
                served.name,
                result.areas,
                task.timings,
                refined=result.refined if options.refine else None,
                margin=None if margin is None else float(margin.mean()),
            )
            counts = np.zeros(count, np.int64)
            counts[[area.id for area in found]] = [area.pixels for area in found]
            served.drift.add(counts)
            return body

        return await task.run(finish)


async def similar(task: ImageTask[SimilarOptions]) -> bytes:
    """How like one pixel every other is, as the options say. Raises what `ImageTask` raises, and BadOption."""
    options, code = task.options, task.manifest.code
    if code.assignment != "cosine":
        raise BadOption(f"{task.served.bundle.ref} compares by dot products; similarity needs a model with cosines")
    with task.admitted():
        output = await task.network_output(code=True)

        def finish() -> bytes:
            assert output.code is not None
            with task.timings.measure("assign"):
                try:
                    at = (options.y, options.x)
                    cosines = similarity(output.code, at, output.source, output.box, code.interpolation)
                except ValueError as error:
                    raise BadOption(f"x, y: {error}") from None
            with task.timings.measure("encode"):
                return encode.npy(cosines) if options.format == "npy" else pictures.heat(cosines)

        return await task.run(finish)


def _labels(task: ImageTask[Options], output: NetworkOutput) -> Array:
    """The network's own ids uint8 [H, W] at the source's size."""
    how = task.manifest.code.interpolation
    return assign.labels(output.scores, output.source, output.box, interpolation=how)


def _margin(task: ImageTask[Options], output: NetworkOutput, *, full: bool) -> Array:
    """How clearly each place was decided: at the source's size when asked for, else on the patch grid."""
    grid, box, code = output.scores.shape[1:], output.box, task.manifest.code
    small = (max(1, round(grid[0] * box[2])), max(1, round(grid[1] * box[3])))
    return assign.margin(
        output.scores,
        output.code,
        output.source if full else small,
        assignment=code.assignment,
        box=box,
        interpolation=code.interpolation,
    )
