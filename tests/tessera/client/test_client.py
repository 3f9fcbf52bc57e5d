"""Both clients against a real server on loopback."""

import asyncio
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from models import palette
from models.io.decode import decode, load
from service.formats import registry
from service.inference.options import Options, SimilarOptions
from tessera import AsyncClient, Client, ClientError, Segmentation
from tessera.client import (
    BadImage,
    Conflict,
    ImageOptions,
    ImageRefused,
    KeyRefused,
    NoAddress,
    NotFound,
    OptionRefused,
    Refused,
    SegmentOptions,
    connection,
)
from tests.service.answers import JPEG, PHOTO, PNG

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url, key="secret") as client:
        yield client


def test_segment(client: Client) -> None:
    found = client.segment(PHOTO)
    assert found.labels.shape == (60, 100)
    assert found.labels.dtype == np.uint8
    assert found.labels[30].tolist() == sorted(found.labels[30].tolist())
    assert found.names == {0: "red", 1: "green", 2: "blue", 3: "white", 4: "black"}
    assert found.colors[0] == (230, 30, 30)
    assert (found.k, found.model, len(found.digest), found.warnings) == (5, "tiny", 12, ())
    assert sum(cluster.fraction for cluster in found.clusters) == pytest.approx(1)
    assert found.timings_ms["encoder"] >= 0
    assert found.familiarity is found.familiar is None  # this bundle does not say
    assert (found.mask("green") == (found.labels == 1)).all()
    with pytest.raises(KeyError, match="pink"):
        found.mask("pink")


def test_every_option_reaches_the_server(client: Client) -> None:
    assert client.segment(PNG, k=3).k == 3
    margins = client.segment(PNG, confidence=True).confidence
    assert margins is not None
    assert margins.shape == (60, 100)
    assert margins.dtype == np.float32
    assert 0 <= margins.min() < margins.max() <= 1
    assert client.segment(PNG, crf="fast").document["refined"] is True
    assert client.segment(PNG, model=None, timeout_ms=20_000, priority=-3).labels.shape == (60, 100)
    with Image.open(io.BytesIO(client.segment_as(PNG, "color", only=[0, 3]))) as drawn:
        shown = np.asarray(drawn.convert("RGBA"))[30, 10::20, 3] > 0
    assert shown.tolist() == [True, False, False, True, False]
    for name in set(Options.model_fields) - {"format"}:
        assert name in get_type_hints(SegmentOptions)
    for name in set(SimilarOptions.model_fields) - {"format", "x", "y"}:
        assert name in get_type_hints(ImageOptions)


def test_any_format(client: Client) -> None:
    assert (decode(client.segment_as(PNG, "overlay")).image.shape) == (60, 100, 3)
    for name in registry.names():
        assert client.segment_as(PNG, name)


def test_pictures_of_it(client: Client, tmp_path: Path) -> None:
    found = client.segment(JPEG)
    colors = np.array(list(found.colors.values()), np.uint8)[np.argsort(list(found.colors))]
    assert (found.image() == decode(JPEG).image).all()
    assert (found.overlay(0.3) == palette.overlay(decode(JPEG).image, found.labels, colors, 0.3)).all()
    assert (found.overlay(only=[]) == found.image()).all()
    assert (np.load(found.save(tmp_path / "a.npy")) == found.labels).all()
    with Image.open(found.save(tmp_path / "a.png")) as png:
        assert (np.asarray(png) == found.labels).all()
    assert load(found.save(tmp_path / "a.webp")).image.shape == (60, 100, 3)
    assert json.loads(found.save(tmp_path / "a.json").read_text())["model"] == "tiny"
    with pytest.raises(ValueError, match=r"\.npy"):
        found.save(tmp_path / "a.bmp")


def test_coco_is_what_pycocotools_writes(client: Client) -> None:
    rng = np.random.default_rng(5)
    for pixels in (PHOTO, rng.integers(0, 255, (37, 21, 3), np.uint8), np.full((1, 1, 3), 250, np.uint8)):
        found = client.segment(pixels)
        document = found.to_coco(7, "a.png")
        json.dumps(document)
        assert document["images"] == [
            {"id": 7, "file_name": "a.png", "width": pixels.shape[1], "height": pixels.shape[0]}
        ]
        assert len(document["annotations"]) == len(found.clusters)
        for annotation in document["annotations"]:
            mask = found.labels == annotation["cluster_id"]
            theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert annotation["segmentation"]["counts"] == theirs["counts"].decode()
            assert annotation["area"] == coco.area(theirs) == mask.sum()
            assert annotation["bbox"] == coco.toBbox(theirs).tolist()
            assert annotation["category_id"] == annotation["cluster_id"] + 1
        served = json.loads(client.segment_as(pixels, "coco"))["annotations"]
        for name in ("category_id", "segmentation", "area", "bbox"):
            assert [one[name] for one in served] == [one[name] for one in document["annotations"]]


def test_similar(client: Client) -> None:
    cosines = client.similar(PNG, x=10, y=30)
    assert cosines.shape == (60, 100)
    assert cosines.dtype == np.float32
    assert cosines[30, 10] == pytest.approx(1, abs=1e-3)
    with pytest.raises(OptionRefused, match="x"):
        client.similar(PNG, x=100, y=0)
    across = client.similar(PNG, x=10, y=30, other=PHOTO[:, :50])
    assert across.shape == (60, 50)
    assert across[30, 10] == pytest.approx(1, abs=1e-2)


def test_clusters_are_named_and_come_back(client: Client) -> None:
    clusters = client.clusters()
    assert [cluster.id for cluster in clusters] == list(range(5))
    assert clusters["green"] == clusters[1] == client.cluster(1)
    assert clusters.levels == (2, 3, 4, 5)
    assert len(clusters[0].neighbors) == 3
    with pytest.raises(KeyError, match="'pink'"):
        clusters["pink"]
    centroid = client.clusters(centroids=True)[2].centroid
    assert centroid is not None
    assert len(centroid) == 3
    try:
        assert client.rename(1, "meadow").name == "meadow"
        assert client.segment(PNG).names[1] == "meadow"
        assert client.change_cluster(1, color="#00ff00", hidden=True).hidden
        found = client.segment(PNG)
        assert (found.overlay()[found.labels == 1] == found.image()[found.labels == 1]).all()
    finally:
        back = client.change_cluster(1, name=None, color=None, hidden=None)
    assert back == clusters[1]
    assert client.tree()[0].merge == (1, 2)
    assert decode(client.exemplar(0)).image.shape == (24, 24, 3)


def test_classes_are_taught(client: Client) -> None:
    with pytest.raises(OptionRefused, match="POST /classes"):
        client.segment(PNG, classes=True)
    try:
        warm, cold = client.make_class("warm", color="#aa0000", clusters=[0]), client.put_class(5, "cold")
        with pytest.raises(Conflict, match="'warm' already"):
            client.make_class("warm")
        assert client.teach(warm.id, PNG, x=5, y=30).agrees == 1.0
        blue = np.zeros((60, 100), bool)
        blue[:, 42:58] = True
        lesson = client.teach(cold.id, PHOTO, mask=blue)
        assert (lesson.agrees, lesson.classes[1].examples) == (0.0, 1)
        client.teach(cold.id, PNG, points=[(45, 3), (50, 3)])
        client.teach(cold.id, PNG, box=(2, 2, 10, 10), negative=True)
        classes = client.classes()
        assert (len(classes), classes["cold"].examples, classes[5].negatives, classes.warnings) == (2, 2, 1, ())
        with pytest.raises(KeyError, match="'pink'"):
            classes["pink"]
        found = client.segment(PNG, classes=True)
        assert found.names == {0: "warm", 5: "cold"}
        assert set(np.unique(found.labels)) == {0, 5}
        assert len(found.suggestions) == 3
        assert len(client.suggest(count=2)) == len(client.suggest(PNG, 2)) == 2
        whole = client.export_classes()
        removed = client.delete_example(5, lesson.example)
        assert client.classes()["cold"].examples == 1
        assert client.import_classes(removed)["cold"].examples == 2
        client.import_classes(client.delete_class(5))
        assert client.import_classes(whole, replace=True).classes == classes.classes
    finally:
        for one in client.classes():
            client.delete_class(one.id)
    assert not client.segment(PNG).suggestions


def test_models(client: Client, url: str) -> None:
    (model,) = client.models()
    assert (model.name, model.state, model.default, model.k) == ("tiny", "ready", True, 5)
    assert client.segment(PNG, model=model.ref).digest == model.digest
    assert client.model("tiny").document["manifest"]["name"] == "tiny"
    with Client(url, key="root") as admin:
        assert admin.load_model("tiny", default=True).name == "tiny"
        with pytest.raises(Conflict):
            admin.unload_model("tiny")


@pytest.mark.parametrize(
    ("kind", "status", "ask"),
    [
        (ImageRefused, 415, lambda c: c.segment(b"%PDF-1.7\n" + bytes(99))),
        (ImageRefused, 400, lambda c: c.segment(PNG[:60])),
        (OptionRefused, 422, lambda c: c.segment(PNG, k=99)),
        (OptionRefused, 422, lambda c: c.segment_as(PNG, "gif")),
        (OptionRefused, 422, lambda c: c.segment(PNG, colour="red")),
        (NotFound, 404, lambda c: c.segment(PNG, model="nobody")),
        (NotFound, 404, lambda c: c.cluster(77)),
        (NotFound, 404, lambda c: c.model("../x")),
        (KeyRefused, 403, lambda c: c.load_model("tiny")),
    ],
)
def test_refusals_have_a_class_and_say_what_to_change(
    client: Client, kind: type[Refused], status: int, ask: Any
) -> None:
    with pytest.raises(kind) as refused:
        ask(client)
    error = refused.value
    assert (type(error), error.status) == (kind, status)
    assert error.title
    assert len(error.detail) > 10
    assert error.request_id
    assert error.request_id in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_a_key_is_sent(url: str) -> None:
    with Client(url) as stranger, pytest.raises(KeyRefused):
        stranger.clusters()


@pytest.mark.parametrize("written", ["localhost:8000", "[::1]:8000", "gpu/tessera"])
def test_an_address_without_a_scheme_is_one_of_http(written: str) -> None:
    assert connection.settings(written, None)["base_url"] == httpx.URL(f"http://{written}")


@pytest.mark.parametrize(
    "written", ["", "no place", "ftp://here", "localhost:port", "localhost:99999", "http:/localhost"]
)
def test_what_is_no_address_is_said(written: str) -> None:
    with pytest.raises(NoAddress, match="no address"):
        Client(written)


def test_many_keep_their_order_and_one_bad_spoils_none(client: Client) -> None:
    images: list[Any] = [PNG if i % 7 else np.full((9, 9 + i, 3), 250, np.uint8) for i in range(40)]
    images[3], images[20] = "nowhere.png", b"no image at all, but some text"
    found = list(client.segment_many(images, concurrency=4))
    assert isinstance(found[3], BadImage)
    assert isinstance(found[20], ImageRefused)
    widths = [one.width for one in found if isinstance(one, Segmentation)]
    assert widths == [100 if i % 7 else 9 + i for i in range(40) if i not in (3, 20)]


def test_what_is_true_of_all_is_raised(client: Client) -> None:
    with pytest.raises(OptionRefused):
        list(client.segment_many([PNG] * 9, k=99))
    with pytest.raises(ValueError, match="concurrency"):
        client.segment_many([PNG], concurrency=0)


def test_images_are_taken_as_they_are_needed(client: Client) -> None:
    taken = []

    def images() -> Iterator[bytes]:
        for i in range(1000):
            taken.append(i)
            yield PNG

    answers = client.segment_many(images(), concurrency=2)
    next(answers)
    assert len(taken) <= 5
    answers.close()  # type: ignore[attr-defined]


def test_async(url: str, tmp_path: Path) -> None:
    async def ask() -> None:
        async with AsyncClient(url, key="secret") as client:
            await client.wait_ready(5)
            one, clusters, models = await asyncio.gather(client.segment(PNG, k=4), client.clusters(), client.models())
            assert (one.k, len(clusters), models[0].name) == (4, 5, "tiny")
            images: list[Any] = [PNG, b"no image at all, but some text", PHOTO]
            many = [answer async for answer in client.segment_many(images, concurrency=2)]
            assert [type(answer) for answer in many] == [Segmentation, ImageRefused, Segmentation]
            assert (await client.similar(PNG, 1, 1)).shape == (60, 100)
            assert (await client.segment_as(PNG, "npy")).startswith(b"\x93NUMPY")
            assert (await client.rename(0, "fire")).name == "fire"
            assert (await client.rename(0, None)).name == "red"
            assert (await client.cluster(2)).name == "blue"
            assert len(await client.tree()) == 3
            made = await client.make_class("warm", clusters=(0, 3))
            assert (await client.teach(made.id, PNG, x=1, y=1, negative=True)).classes[0].negatives == 1
            assert (await client.segment(PNG, classes=True)).names == {0: "warm"}
            assert (await client.put_class(0, "hot")).clusters == (0, 3)
            assert (await client.suggest(PNG))[0].between == (0, 0)
            assert await client.suggest()
            assert (await client.import_classes(await client.export_classes())).classes[0].name == "hot"
            assert await client.delete_example(0, (await client.teach(0, PNG, x=1, y=1)).example)
            assert await client.delete_class(0)
            assert len(await client.classes()) == 0
            assert (await client.exemplar(0, 1)).startswith(b"RIFF")
            with pytest.raises(OptionRefused):
                _ = [answer async for answer in client.segment_many([PNG] * 5, k=99)]
            with pytest.raises(ClientError):
                await client.model("nobody")
            job = await client.wait_job(await client.submit(zipped(tmp_path / "p.zip")), timeout=20, every=0.05)
            assert (job.done, job.failed) == (3, 1)
            with zipfile.ZipFile(await client.download(job, tmp_path / "r.zip")) as archive:
                assert len(archive.namelist()) >= 2
            assert (await client.delete_job(job.id)).id == job.id

    asyncio.run(ask())


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/one.png", PNG)
        archive.writestr("two.jpg", JPEG)
        archive.writestr("bad.png", b"no image at all, but some text")
    return path


def test_jobs(client: Client, tmp_path: Path) -> None:
    job = client.submit(zipped(tmp_path / "photos.zip"), ["png", "npy"], k=3)
    ended = client.wait_job(job, timeout=20, every=0.05)
    assert (ended.state, ended.total, ended.done, ended.failed) == ("done", 3, 3, 1)
    assert [failure.file for failure in ended.failures] == ["bad.png"]
    assert client.jobs()[0].id == job.id
    result = client.download(job, tmp_path / "result.zip")
    assert not list(tmp_path.glob(".*"))
    with zipfile.ZipFile(result) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("one.npy")]
        assert (np.load(io.BytesIO(archive.read(name))) == client.segment(PNG, k=3).labels).all()
    client.delete_job(job)
    with pytest.raises(NotFound):
        client.download(job, tmp_path / "again.zip")
    assert not (tmp_path / "again.zip").exists()
    with pytest.raises(BadImage):
        client.submit("nowhere.zip")
    with pytest.raises(Refused, match="TESSERA_ROOTS"):
        client.submit_folder("/nowhere")


def test_the_client_meets_neither_torch_nor_the_service() -> None:
    code = (
        "import sys, tessera; assert 'httpx' not in sys.modules and 'numpy' not in sys.modules;"
        "from tessera import Client, AsyncClient, Segmentation;"
        "assert not {'torch', 'service', 'fastapi', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
