"""From an image to an answer: network → assign → crf → render.

Knows nothing of HTTP: it is given a task and a renderer, and returns what that makes.
"""

from functools import partial
from typing import TypeVar

import numpy as np

from models import assign, region_stats
from models.familiarity import Tally, tally
from models.io import encode
from models.manifest import Manifest
from models.native.bindings import Ranked
from models.region_stats import Area
from models.similarity import code_of, likeness
from models.types import Array
from service.errors import BadOption
from service.formats import pictures
from service.formats.registry import Renderer
from service.formats.result import NO_DATA, SegmentationResult, Suggestion
from service.inference.options import ExampleOptions, Options, SimilarOptions, SuggestOptions
from service.inference.refine import NotRefined, on_cpu, refine
from service.inference.results import Known, NetworkOutput
from service.inference.task import ImageTask
from service.inference.taught import Place, as_classes, decided, place_of, suggestions
from service.inference.vocabulary import Vocabulary, vocabulary_of
from service.repository.served_model import Served

T = TypeVar("T")
_IN_CLASSES = Options(classes=True)
_FINISH_BYTES = 4  # for each pixel of a large answer: labels, a copy where some hold no data, the file and its base64
_PHOTO_BYTES = 4  # the painted photo, and its file
_SIMILAR_BYTES = 16  # cosines and lengths, strips of both put together, and the picture or file of them
_CONFIDENCE_BYTES = 12  # the same of margins
_PLACE_BYTES = 8  # a mask, where data is, and a label map
_SUGGESTIONS = 3  # places to teach next, in an answer
_DOUBT_BYTES = 3  # which pixels are unknown, and two label maps without them


async def segment(task: ImageTask[Options], renderer: Renderer[T]) -> T:
    """One image's answer, made by the renderer; warnings and timings are the task's. Cancelled, it drops what waits.

    Raises what `ImageTask` raises, and BadOption for options this model cannot follow.
    """
    options, served, runtime = task.options, task.served, task.runtime
    words, chosen = vocabulary(options, served), options.render
    count, table, taught = words.size, words.table, words.taught
    doubts = chosen.unknown is not None
    full = options.confidence or doubts or renderer.margin == "full"
    wants_margin = renderer.margin is not None or doubts
    if options.refine and options.tile == "always":
        raise BadOption("tile: edges are not refined in windows; leave tile=always out, or crf")
    photo = renderer.photo or (options.refine is not None and options.crf_size == "source")
    with task.admitted():
        output = await task.network_output(
            code=True,  # for margins
            photo=photo,
            before_crf=on_cpu(task),
            tile="never" if options.refine else options.tile,
            margin="full" if full else renderer.margin,
            taught=taught,
        )
        network = output
        await task.hold_pixels(output, photo=photo, fitted=options.refine is not None)
        if min(output.source) < (cell := task.manifest.code.stride):
            size = f"{output.source[1]}×{output.source[0]}"
            task.warnings.append(f"the image is {size} pixels, smaller than one cell of the model's grid ({cell})")
        if (doubt := served.clusters.doubt(options.k)) is not None:
            task.warnings.append(doubt)
        refined: Array | None = None
        if options.refine:
            if taught is not None:
                output = await task.run(partial(as_classes, output, taught))
            try:
                refined = await refine(task, output)
            except NotRefined as error:
                task.warnings.append(str(error))

        def finish() -> T:
            image = task.photo if renderer.photo else None
            task.until.check()
            with task.timings.measure("assign"):
                shown_by = output if taught is None or output is not network else as_classes(output, taught)
                labels = labels_of(task.manifest, shown_by) if refined is None else refined
                sure_where = decided(task.manifest, shown_by) if renderer.margin is not None else None
                on_grid = ranked_of(task.manifest, network) if network.tally is None else None
                cells = tally_of(task.manifest, network, on_grid)
                margin: Array | None = None
                if wants_margin:
                    taken = None if full else on_grid if taught is None else sure_where
                    margin = taken.margin if taken is not None else margin_of(task.manifest, shown_by, full=full)
                shown = labels
                if (valid := output.facts.valid) is not None:  # a map with holes is counted, and shown where asked for
                    own = chosen.keep_no_data and refined is None
                    labels = valid.erase(labels if own else labels.copy())
                    shown = labels if chosen.keep_no_data else shown
                found = sure_of = region_stats.compute(labels, count, margin, ignored=NO_DATA)
                if chosen.unknown is not None and margin is not None:
                    doubtful = margin < chosen.unknown
                    sure_of = region_stats.compute(_without(labels, doubtful), count, margin, ignored=NO_DATA)
                    shown = _without(shown, doubtful)
                if valid is not None and margin is not None and chosen.keep_no_data:
                    valid.erase(margin, 0.0)
                merged = taught is None and bool((table != np.arange(count)).any())
                places = suggestions(shown_by, sure_where, _SUGGESTIONS)
            known = task.known = Known.of(cells, task.manifest)
            held = sum(area.pixels for area in found)
            named = sum(area.pixels for area in sure_of)
            if not held:
                task.warnings.append("no pixel of this image holds data: there is nothing to segment")
            elif not named:
                task.warnings.append(f"every pixel is unknown: no margin reaches {chosen.unknown:g}")
            result = SegmentationResult(
                model=served.name,
                digest=served.bundle.digest[:12],
                k=words.k,
                image=image,
                labels=_merged(shown, table) if merged else shown,
                table=table,
                areas=region_stats.merge(sure_of, table) if merged else sure_of,
                style=words.style,
                margin=margin,
                georeference=task.georeference if renderer.georeference else None,
                valid_fraction=held / shown.size,
                unknown_fraction=(held - named) / shown.size,
                depth_rule=output.facts.depth_rule,
                pages=output.facts.pages,
                orientation=output.facts.orientation,
                refined=refined is not None,
                familiarity=known.familiarity,
                familiar=known.familiar,
                warnings=task.warnings,
                timings=task.timings,
                options=chosen,
                of=words.of,
                suggestions=places,
            )
            task.until.check()
            with task.timings.measure("encode"):
                body = renderer.render(result)
            areas, of_network = result.areas, found
            if taught is not None:  # what is counted are the network's own clusters, whatever is shown
                of_network = _network_areas(cells, served.clusters.count, held)
                areas = region_stats.merge(of_network, served.clusters.table(None))
            surely = cells.mean_margin(served.clusters.count)
            refined_in_time = result.refined if options.refine else None
            runtime.metrics.segmented(served.label, areas, task.timings, refined=refined_in_time, margin=surely)
            counts = np.zeros(served.clusters.count, np.int64)
            counts[[area.id for area in of_network]] = [area.pixels for area in of_network]
            served.drift.add(counts)
            served.unfamiliar.add(known.familiar)
            served.statistics.image(task.timings.so_far())
            return body

        more = (_PHOTO_BYTES if renderer.photo else 0) + (_CONFIDENCE_BYTES if wants_margin and full else 0)
        more += renderer.bytes_per_px + (_DOUBT_BYTES if doubts else 0)
        return await task.finish(output, finish, _FINISH_BYTES + more)


def vocabulary(options: Options, served: Served) -> Vocabulary:
    """What an answer's ids stand for. Raises BadOption for what a model cannot tell apart."""
    return vocabulary_of(options, served.clusters, served.classes.state)


async def point(task: ImageTask[ExampleOptions], id: int, mask: bytes | None) -> Place:
    """The place in an image that is shown to a class. Raises what `ImageTask` raises, and BadOption."""
    taught = task.served.classes.state
    with task.admitted():
        output = await task.network_output(code=True, taught=taught)

        def finish() -> Place:
            with task.timings.measure("assign"):
                limits = task.runtime.limits
                return place_of(task.options, mask, id, task.manifest, output, taught, limits)

        return await task.finish(output, finish, _PLACE_BYTES)


async def suggest(task: ImageTask[SuggestOptions]) -> tuple[Suggestion, ...]:
    """Where an image's classes are decided least clearly. Raises what `ImageTask` raises, and BadOption."""
    taught = vocabulary_of(_IN_CLASSES, task.served.clusters, task.served.classes.state).taught
    assert taught is not None
    with task.admitted():
        output = await task.network_output(code=True, taught=taught)

        def finish() -> tuple[Suggestion, ...]:
            with task.timings.measure("assign"):
                shown = as_classes(output, taught)
                return suggestions(shown, decided(task.manifest, shown), task.options.count)

        return await task.finish(output, finish, 0)


async def similar(task: ImageTask[SimilarOptions], of: ImageTask[SimilarOptions] | None = None) -> bytes:
    """How like one pixel every other is, as the options say; with `of`, which is another image of the same model, that
    image's pixel is meant, and codes are compared without what says where they are (`Bundle.matched`).

    Raises what `ImageTask` raises, and BadOption.
    """
    bundle, how = task.served.bundle, task.manifest.code
    if how.assignment != "cosine":
        raise BadOption(f"{bundle.ref} compares by dot products; similarity needs a model with cosines")
    place: Array | None = None
    if of is not None:
        with of.admitted():
            place = bundle.matched(_place(of, await of.network_output(code=True)))
    with task.admitted():
        output = await task.network_output(code=True)

        def finish() -> bytes:
            assert output.code is not None
            with task.timings.measure("assign"):
                code = output.code if place is None else bundle.matched(output.code)
                meant = _place(task, output) if place is None else place
                cosines = likeness(meant, code, output.source, output.box, how.interpolation)
            with task.timings.measure("encode"):
                return encode.npy(cosines) if task.options.format == "npy" else pictures.heat(cosines)

        return await task.finish(output, finish, _SIMILAR_BYTES)


def _place(task: ImageTask[SimilarOptions], output: NetworkOutput) -> Array:
    """The code float32 [D] of the pixel that the options name. Raises BadOption where it is none, or holds no data."""
    assert output.code is not None
    (y, x), (height, width) = (task.options.y, task.options.x), output.source
    valid = output.facts.valid
    if valid is not None and y < height and x < width and not valid.at(y, x, output.source):
        raise BadOption(f"x, y: the pixel x = {x}, y = {y} holds no data, by what the file says; choose another")
    try:
        return code_of(output.code, (y, x), output.source, output.box, task.manifest.code.interpolation)
    except ValueError as error:
        raise BadOption(f"x, y: {error}") from None


def _merged(labels: Array, table: Array) -> Array:
    """The ids that stand for a map's, uint8 [H, W]; NO_DATA stays."""
    all_ids = np.arange(NO_DATA + 1, dtype=np.uint8)
    all_ids[: len(table)] = table
    merged: Array = all_ids[labels]
    return merged


def _without(labels: Array, pixels: Array) -> Array:
    """A label map that is NO_DATA where `pixels` is True."""
    return np.where(pixels, np.uint8(NO_DATA), labels)


def labels_of(manifest: Manifest, output: NetworkOutput) -> Array:
    """The network's own ids uint8 [H, W] at the source's size, or the classes'."""
    if output.labels is not None:
        return output.labels.copy()  # what was erased in one answer is in the next
    how = manifest.code.interpolation
    labels = assign.labels(output.scores, output.source, output.box, interpolation=how)
    if output.ids is None or (output.ids == np.arange(len(output.ids))).all():
        return labels
    return output.ids[labels]


def _network_areas(tally: Tally, count: int, pixels: int) -> list[Area]:
    """The network's own clusters in an image that was answered in classes: so many pixels, by its cells."""
    cells = tally.cells[:count]
    scale = pixels / max(1.0, cells.sum())
    return [Area(int(k), round(float(cells[k] * scale)), (0, 0, 0, 0), 0.0) for k in np.flatnonzero(cells)]


def ranked_of(manifest: Manifest, output: NetworkOutput) -> Ranked:
    """The network's own two best clusters of every place of the patch grid that the image fills, and how clearly one
    won."""
    box, code = output.box, manifest.code
    size, how = assign.cells(output.scores.shape[1:], box), code.interpolation
    return assign.ranked(output.scores, output.code, size, assignment=code.assignment, box=box, interpolation=how)


def tally_of(manifest: Manifest, output: NetworkOutput, ranked: Ranked | None = None) -> Tally:
    """The cells of the patch grid that hold data, and their margins, by the network's own clusters.

    ranked  of `ranked_of`, where it has been taken already
    """
    if output.tally is not None:
        return output.tally
    box, code, facts = output.box, manifest.code, output.facts
    known = None
    if facts.valid is not None:
        known = facts.valid.erase(np.ones(assign.cells(output.scores.shape[1:], box), bool), False)
    return tally(
        output.scores,
        output.code,
        known,
        assignment=code.assignment,
        box=box,
        interpolation=code.interpolation,
        ranked=ranked,
    )


def margin_of(manifest: Manifest, output: NetworkOutput, *, full: bool) -> Array | None:
    """How clearly each place was decided: at the source's size when asked for, else on the patch grid; None where an
    image was seen in windows and nobody asked."""
    if output.labels is not None:
        return None if output.margin is None else output.margin.copy()
    box, code = output.box, manifest.code
    return assign.margin(
        output.scores,
        output.code,
        output.source if full else assign.cells(output.scores.shape[1:], box),
        assignment=code.assignment if output.ids is None else "cosine",
        box=box,
        interpolation=code.interpolation,
    )
