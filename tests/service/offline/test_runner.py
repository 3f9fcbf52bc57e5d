"""Many images through the engine: the same answers as requests get, and what ends one image or all of them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from starlette.testclient import TestClient

from models.io.encode import encode
from service.errors import NetworkFailed
from service.formats import registry
from service.inference.options import Options
from service.offline import runner
from service.offline.engine import generous, running
from service.offline.journal import Journal, Order
from service.offline.outputs import DiskFull, Outputs
from service.offline.runner import Ended, Runner, Todo
from service.offline.sources import Finder, Item
from service.settings import Settings
from tests.service.fakes import FakeEngine
from tests.tiny import bands

FORMATS = tuple(name for name in registry.names() if name != "zip")  # of which the others are the parts


@pytest.fixture
def settings(tiny_bundle: Path, tmp_path: Path) -> Settings:
    return generous(Settings(bundles=(tiny_bundle,), state=tmp_path / "state", threads=1))


def images(folder: Path, count: int) -> list[Item]:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(bands(40 + i, 70 + 3 * i, tuple(np.roll(range(5), i))), "png"))
    finder = Finder()
    finder.folder(folder)
    return finder.found().items


def run(
    settings: Settings,
    items: Sequence[Item],
    out: Path,
    *,
    options: Options = Options(),  # noqa: B008
    formats: Sequence[str] = FORMATS,
    open_engine: Any = None,
    meanwhile: Callable[[Runner, Ended], object] = lambda runner, ended: None,
) -> list[Ended]:
    """Everything, with a journal; what ended, in order."""
    ended: list[Ended] = []

    async def whole() -> None:
        async with running(settings, open_engine) as engine:
            with engine.registry.use(None) as served:
                outputs = Outputs(out, formats)
                outputs.begin()
                journal = Journal.begin(outputs, Order(served.bundle.ref, served.bundle.digest, tuple(formats), {}))
                known = {source: record.stem for source, record in journal.records.items()}
                todo = [
                    Todo(item, stem)
                    for item, stem in zip(items, outputs.stems(items, known), strict=True)
                    if not journal.is_done(item, Todo(item, stem).files(outputs))
                ]

                def on_end(one: Ended) -> None:
                    journal.note(one.item, one.todo.stem, one.failed, one.warnings)
                    ended.append(one)
                    meanwhile(work, one)

                work = Runner(
                    options,
                    formats,
                    runtime=engine.runtime,
                    served=served,
                    outputs=outputs,
                    at_once=4,
                )
                try:
                    await work.run(todo, on_end)
                finally:
                    journal.close()
                    outputs.end()

    out.mkdir(exist_ok=True)
    asyncio.run(whole())
    return ended


def without_times(answer: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer)
    return {name: value for name, value in document.items() if name != "timings_ms"}


@pytest.mark.parametrize(
    "query", ["", "crf=fast&k=3", "confidence=true&only=0,2", "min_area=30&id_offset=1&palette=false"]
)
def test_answers_are_those_of_requests(settings: Settings, tmp_path: Path, client: TestClient, query: str) -> None:
    given = dict(pair.split("=") for pair in query.split("&") if pair)
    items = images(tmp_path / "in", 6)
    ended = run(settings, items, tmp_path / "out", options=Options.model_validate(given))
    assert sorted(one.item.name for one in ended) == [item.name for item in items]
    assert [one.failed for one in ended] == [None] * 6
    outputs = Outputs(tmp_path / "out", FORMATS)
    for item in items:
        for format, file in zip(FORMATS, outputs.files(item.name.removesuffix(".png")), strict=True):
            params = {**given, "format": format, "file_name": item.name}
            asked = client.post("/segment", params=params, content=item.read()).content
            found = (tmp_path / "out" / file).read_bytes()
            assert (without_times(found) == without_times(asked)) if asked[:1] == b"{" else found == asked, file


def test_formats_with_margins_of_their_own_go_apart() -> None:
    one = runner.passes(("json", "png"), Options())
    assert [(r.margin, r.photo) for r in one] == [("grid", False)]
    assert [r.margin for r in runner.passes(("json", "overlay", "confidence"), Options())] == ["grid", "full"]
    assert [r.margin for r in runner.passes(("json", "confidence"), Options(confidence=True))] == ["full"]


def test_a_bad_file_is_named_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    items = images(tmp_path / "in", 3)
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    (tmp_path / "in" / "2.png").unlink()
    ended = {one.item.name: one.failed for one in run(settings, items, tmp_path / "out", formats=["png"])}
    assert ended["0.png"] is None
    assert "image" in str(ended["1.png"])
    assert ended["2.png"] == "no such file or directory"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".tessera", "0.png"]


def test_what_stops_goes_on_where_it_was(settings: Settings, tmp_path: Path) -> None:
    items = images(tmp_path / "in", 14)
    first = run(settings, items, tmp_path / "out", formats=["png"], meanwhile=lambda work, _: work.stop())
    assert 1 <= len(first) <= 5
    second = run(settings, items, tmp_path / "out", formats=["png"])
    assert len(first) + len(second) == 14
    assert run(settings, items, tmp_path / "out", formats=["png"]) == []


def test_a_full_disk_ends_the_run_which_goes_on_later(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = images(tmp_path / "in", 8)
    done: list[Ended] = []

    def fill(work: Runner, ended: Ended) -> None:
        done.append(ended)
        if len(done) == 3:
            monkeypatch.setattr(Outputs, "check_room", _refuse)

    def _refuse(self: Outputs) -> None:
        raise DiskFull("the disk is full")

    with pytest.raises(DiskFull):
        run(settings, items, tmp_path / "out", formats=["png"], meanwhile=fill)
    monkeypatch.undo()
    assert len(run(settings, items, tmp_path / "out", formats=["png"])) == 8 - len(done)


def test_a_full_engine_is_waited_for(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_LONGEST_WAIT_S", 0.01)
    items = images(tmp_path / "in", 5)
    small = settings.model_copy(update={"max_queue_size": 1})
    assert [one.failed for one in run(small, items, tmp_path / "out", formats=["png"])] == [None] * 5


def test_a_network_that_is_gone_ends_the_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NETWORK_WAIT_S", 0.01)

    class Gone(FakeEngine):
        ready = False

        def __call__(self, pixels: Any, *, code: bool = False) -> Any:
            if self.ready:
                raise NetworkFailed("tiny: its network died")
            return super().__call__(pixels, code=code)

        def warm(self, shapes: Any) -> None:
            super().warm(shapes)
            self.ready = True

    items = images(tmp_path / "in", 3)
    with pytest.raises(NetworkFailed):
        run(settings, items, tmp_path / "out", formats=["png"], open_engine=lambda bundle: Gone())


def test_many_bytes_at_once_wait_for_each_other() -> None:
    most = 0

    async def scenario() -> None:
        held = 0
        room = runner._Room(100)

        async def use(count: int) -> None:
            nonlocal held, most
            async with room.of(count):
                held += count
                most = max(most, held)
                await asyncio.sleep(0.001)
                held -= count

        async with asyncio.timeout(5):
            await asyncio.gather(*(use(count) for count in (40, 40, 40, 300, 1)))

    asyncio.run(scenario())
    assert most == 300


def test_a_raster_that_is_too_large_to_be_held_is_read_in_windows(
    settings: Settings, tmp_path: Path, client: TestClient
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", bands(300, 400), tile=(64, 64), photometric="rgb")
    finder = Finder()
    finder.folder(folder)
    items = finder.found().items
    small = settings.model_copy(update={"max_mpx": 0.1})
    (whole,) = run(small, items, tmp_path / "png", formats=["png"])
    assert "0.1 Mpx" in str(whole.failed)
    assert "run it with --format geotiff" in str(whole.failed)
    (refined,) = run(small, items, tmp_path / "crf", formats=["geotiff"], options=Options(crf="fast"))
    assert "crf: edges are not refined in windows" in str(refined.failed)
    (never,) = run(small, items, tmp_path / "never", formats=["geotiff"], options=Options(tile="never"))
    assert "the limit is 0.1 Mpx" in str(never.failed)
    (done,) = run(small, items, tmp_path / "out", formats=["geotiff"])
    assert done.failed is None
    asked = client.post("/segment", params={"format": "geotiff", "tile": "always"}, content=items[0].read())
    (tmp_path / "asked.tif").write_bytes(asked.content)
    with rasterio.open(tmp_path / "out" / "a.tif") as found, rasterio.open(tmp_path / "asked.tif") as expected:
        assert (found.read() == expected.read()).all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".tessera", "a.tif"]
    assert run(small, items, tmp_path / "out", formats=["geotiff"]) == []


def test_a_zarr_store_becomes_one_with_a_label_image(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    group = zarr.open_group(str(tmp_path / "in" / "a.zarr"), mode="w", zarr_format=3)
    group.create_array("0", data=bands(120, 200).transpose(2, 0, 1), chunks=(1, 64, 64))
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scales = [{"type": "scale", "scale": [1, 1, 1]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scales}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    finder = Finder()
    finder.folder(tmp_path / "in")
    items = finder.found().items
    assert [(item.name, item.store) for item in items] == [("a.zarr", True)]
    (done,) = run(settings, items, tmp_path / "out", formats=["png"])
    assert done.failed is None
    labels = np.asarray(zarr.open_group(str(tmp_path / "out" / "a.zarr"), mode="r")["labels/tessera/0"])
    assert (labels.reshape(120, 200)[60, [20, 60, 100, 140, 180]] == range(5)).all()
    assert run(settings, items, tmp_path / "out", formats=["png"]) == []
