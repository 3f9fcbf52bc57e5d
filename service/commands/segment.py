"""`tessera segment`: images in files, folders, patterns and archives → label maps in a tree like theirs.

    tessera segment photos --out labels
    tessera segment photos 'more/**/*.tif' scans.zip --out labels --format png,overlay --crf fast

Knows nothing of pixels: what is named is found, done and written by `service/offline/`. Every option of POST /segment
is an option here, made from the same model.
"""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from models.class_file import MAX_BYTES, ClassFile, ClassFileError
from models.errors import UsageError
from models.lock import locked
from models.terminal.progress import exit_code, say
from service.commands.option_flags import option, parameters, spelled_out, taken
from service.commands.segment_place import place_of
from service.commands.segment_run import SegmentRun
from service.errors import BadOption, explain, nearest, printable, quoted
from service.formats import registry
from service.inference.options import Options, descriptions
from service.offline import journal, remote, sources
from service.offline.bucket_outputs import BucketOutputs, checked
from service.offline.engine import generous
from service.offline.outputs import NOTES, Outputs
from service.offline.runner import Todo, check_formats, passes
from service.offline.sources import Found
from service.offline.work import Work
from service.settings import Settings, check_bundles

_ELSEWHERE = ("model", "format", "priority", "classes")  # --bundle, several, nobody else waits, a file
_FEW = 5
_WORKERS = "Threads that decode and encode images; 0: one for each core. With --engine ray: engines, as N or MIN-MAX."

app = typer.Typer(add_completion=False, help="Images to label maps, without a server.")


def segment() -> None:
    """The command, with words as people type them."""
    app(args=spelled_out(sys.argv[1:], Options, _ELSEWHERE))


def _command() -> Callable[..., None]:
    """`_run` as typer takes it, with an option for each of Options' fields."""
    paths = inspect.Parameter(
        "paths",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[
            list[str],
            typer.Argument(
                metavar="PATH…",
                help="Files, folders, patterns in quotes, zip archives; @LIST or - for a list of them, one a line.",
                show_default=False,
            ),
        ],
    )
    formats = f"One or several of {', '.join(registry.offline_names())}, separated by commas."
    own = [
        option(
            "out",
            str,
            inspect.Parameter.empty,
            metavar="PATH",
            help="The folder of the answers, or a bucket's URL.",
            show_default=False,
        ),
        option("format", str, "png", help=formats),
        option("bundle", Path | None, None, help="The bundle's folder; else the default.", show_default=False),
        option(
            "classes",
            Path | None,
            None,
            metavar="FILE",
            help="Answer in the classes of a file, as GET /classes/export gives it, in place of clusters.",
            show_default=False,
        ),
        option("workers", str, "0", metavar="N", help=_WORKERS),
        option(
            "engine", str, "local", metavar="[local|ray]", help="ray: workers on a cluster, or on all of this machine."
        ),
        option("ray_address", str | None, None, help="Of a Ray cluster: auto or HOST:PORT; else one is started here."),
        option("gpus", float, 0.0, min=0, max=64, help="With --engine ray: GPUs of each worker, such as 0.25."),
        option("overwrite", bool, False, help="Begin anew where answers of other options, or other files, are."),
        option("dry_run", bool, False, help="List the images and what would be written, and end."),
    ]

    def command(**given: Any) -> None:
        _run(**given)

    command.__doc__ = """Segment images in files, folders, patterns in quotes and zip archives, without a server.

    What is done stays done: the same command goes on where the last one ended, however it ended.

    $ tessera segment photos --out labels --format png,overlay
    """
    command.__signature__ = inspect.Signature([paths, *own, *parameters(Options, _ELSEWHERE)])  # type: ignore[attr-defined]
    return command


app.command()(_command())


def _run(
    paths: list[str],
    out: str,
    format: str,
    bundle: Path | None,
    classes: Path | None,
    workers: str,
    engine: str,
    ray_address: str | None,
    gpus: float,
    overwrite: bool,
    dry_run: bool,
    **given: str | None,
) -> None:
    console = Console(stderr=True)
    with exit_code(console):
        file = None if classes is None else _classes(classes)
        options, formats = _options({**given, "classes": "true" if file else None}), _formats(format)
        outputs = _outputs(out, formats)
        _check_formats(formats, options)
        _check_words(paths, given)
        place = place_of(engine, workers, ray_address, gpus)
        settings = place.settings(_settings(bundle, several=len(passes(formats, options)) > 1))
        with sources.find(paths, **_without(outputs)) as found:
            _check_apart(outputs, found)
            _told(console, found)
            before = journal.known(outputs, formats)
            stems = outputs.stems(found.items, before or {})
            todo = [Todo(item, stem) for item, stem in zip(found.items, stems, strict=True)]
            if dry_run:
                _listed(console, todo, outputs)
                return
            if before is None and not overwrite:
                _check_free(outputs, todo)
            with _locked(outputs):
                work = Work(options, formats, settings, outputs, file)
                with place.executor(lambda text: say(console, text)) as executor:
                    run = SegmentRun(console, work, executor, without=(*_ELSEWHERE, "timeout_ms"))
                    _on_a_loop(run.go(todo, overwrite=overwrite))
        if run.failed or found.unusable:
            raise typer.Exit(1)


def _on_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is, as the server: a fifth more images in a second."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _options(given: dict[str, str | None]) -> Options:
    try:
        return Options.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UsageError(explain(error.errors(), descriptions(Options))) from None


def _classes(path: Path) -> ClassFile:
    """The classes in a file. Raises UsageError."""
    try:
        with path.open("rb") as file:
            return ClassFile.parse(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise UsageError(f"--classes {quoted(str(path), 200)} cannot be read: {error.strerror}") from None
    except ClassFileError as error:
        raise UsageError(f"--classes {quoted(str(path), 200)}: {error}") from None


def _check_words(paths: Sequence[str], given: dict[str, str | None]) -> None:
    """Raises UsageError for what stands for an image and may be the value of an option that can be said alone."""
    for word in paths:
        if word.isalnum() and not os.path.lexists(word) and (told := taken(Options, given)):
            raise UsageError(f"{quoted(word, 200)} is not there, and no value of an option; {'; '.join(told)}")


def _outputs(out: str, formats: Sequence[str]) -> Outputs:
    """Raises UsageError for an URL below which nothing can be written."""
    return BucketOutputs(checked(out), formats) if remote.is_url(out) else Outputs(Path(out), formats)


def _without(outputs: Outputs) -> dict[str, Any]:
    """Where no images are looked for."""
    return {"without_url": outputs.where} if isinstance(outputs, BucketOutputs) else {"without": [outputs.folder]}


def _locked(outputs: Outputs) -> AbstractContextManager[None]:
    """One process at a time there; of a bucket nobody can tell."""
    return nullcontext() if isinstance(outputs, BucketOutputs) else locked(outputs.folder / NOTES, doing="segments")


def _check_formats(formats: Sequence[str], options: Options) -> None:
    try:
        check_formats(formats, options)
    except BadOption as error:
        raise UsageError(f"--format: {error}") from None


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    known = registry.offline_names()
    for format in formats:
        if format not in known:
            hint = registry.hint(format) or nearest(format.lower(), known)
            raise UsageError(f"--format: no such format: {quoted(format)}{hint}; there are {', '.join(known)}")
    if not formats:
        raise UsageError(f"--format: name one or several of {', '.join(known)}")
    return formats


def _settings(bundle: Path | None, *, several: bool) -> Settings:
    """The environment's, with what was typed; one bundle.

    several  whether an image passes the network more than once, which its cache then spares
    """
    settings = Settings.from_env(os.environ)
    changes: dict[str, Any] = {"bundles": settings.bundles[:1] if bundle is None else (bundle,)}
    if not several and "cache_bytes" not in settings.model_fields_set:
        changes["cache_bytes"] = 0
    settings = generous(settings.model_copy(update=changes))
    check_bundles(settings)
    return settings


def _told(console: Console, found: Found) -> None:
    """Says what cannot be taken. Raises UsageError where nothing is left."""
    for one in found.unusable:
        say(console, f"skipped: {printable(str(one.path))}: {one.reason}")
    others = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in found.left_out.most_common(_FEW))
    if not found.items:
        raise UsageError(f"there is no image to segment{f'; of other files there are {others}' if others else ''}")
    if others:
        say(console, f"left out, by their names: {others}")


def _listed(console: Console, todo: Sequence[Todo], outputs: Outputs) -> None:
    for one in todo:
        print(f"{printable(one.item.source)} → {printable(', '.join(one.files(outputs)))}")
    say(console, f"{len(todo)} images; nothing was written")


def _check_apart(outputs: Outputs, found: Found) -> None:
    """Raises UsageError where answers would lie among the images of a folder, and be taken for some the next time."""
    out = outputs.folder
    for folder in found.walked if not isinstance(outputs, BucketOutputs) else ():
        if folder.resolve().is_relative_to(out.resolve()):
            raise UsageError(
                f"--out {out} is, or holds, the images' folder {folder}; name another, such as {out / 'labels'}"
            )


def _check_free(outputs: Outputs, todo: Sequence[Todo]) -> None:
    """Raises UsageError where an answer would take the place of a file that no run of ours has written."""
    for one in todo:
        for file in one.files(outputs):
            if outputs.taken(file):
                raise UsageError(
                    f"{outputs.where}/{file} is there, and was not written here before; name another --out, or give"
                    " --overwrite"
                )
