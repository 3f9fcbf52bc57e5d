"""CVAT's native functions, judged by cvat_sdk's own mapper and mask reader, against a server on loopback."""

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from models.similarity import LIKE
from tessera import Client
from tests.models.test_bridges import inside
from tests.service.process import process
from tests.tiny import COLORS

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")
masks = pytest.importorskip("cvat_sdk.masks")

Create = Callable[..., Any]
SIZE = {"image_width": 320, "image_height": 240}


def squares() -> PIL.Image.Image:
    """Squares in each other, which make regions with holes."""
    image = np.zeros((240, 320, 3), np.uint8)
    for depth, color in enumerate(["red", "white", "blue", "red"]):
        image[24 * depth : 240 - 24 * depth, 32 * depth : 320 - 32 * depth] = COLORS[color]
    return PIL.Image.fromarray(image)


@pytest.fixture(scope="module")
def url(tiny_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(tiny_bundle, tmp_path_factory.mktemp("state")) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def create(url: str) -> Iterator[Callable[..., Any]]:
    """Makes a function of a module, as cvat-cli does; its connections end with the test."""
    made: list[Any] = []

    def of(module: str, **parameters: Any) -> Any:
        parameters = {"url": url} | parameters
        made.append(import_module(f"tessera.integrations.{module}").create(**parameters))
        return made[-1]

    yield of
    for function in made:
        function.client.close()


def annotated(function: Any, polygons: bool = False, least: float | None = None) -> list[Any]:
    """What CVAT would keep of an image: its own checks, and its own labels, numbered from 100."""
    kind = "polygon" if polygons else "mask"
    there = [
        SimpleNamespace(name=label.name, id=100 + label.id, type=kind, attributes=[], sublabels=[])
        for label in function.spec.labels
    ]
    mapper = driver._AnnotationMapper(
        logging.getLogger(), function.spec.labels, there, allow_unmatched_labels=False, conv_mask_to_poly=polygons
    )
    context = driver._DetectionFunctionContextImpl(frame_name="a.png", conf_threshold=least, conv_mask_to_poly=polygons)
    tags, shapes = mapper.validate_and_remap(function.detect(context, squares()), 7)
    assert tags == []
    assert {shape.frame for shape in shapes} == {7}
    return list(shapes)


def test_masks_are_the_label_map(url: str, create: Create) -> None:
    with Client(url) as client:
        want = client.segment(squares()).labels
    made = np.full(want.shape, -1)
    for shape in annotated(create("cvat_detection")):
        mask = masks.decode_mask(shape.points, **SIZE)
        assert (made[mask] == -1).all()
        made[mask] = shape.label_id - 100
    assert (made == want).all()


def test_polygons_are_too(url: str, create: Create) -> None:
    with Client(url) as client:
        want = client.segment(squares(), k=3).labels
    made = np.full(want.shape, -1)
    for shape in annotated(create("cvat_detection", k=3), polygons=True):
        mask = inside(np.array(shape.points).reshape(-1, 2).astype(int), want.shape)
        assert (made[mask] == -1).all()
        made[mask] = shape.label_id - 100
    assert (made == want).all()
    function = create("cvat_detection", min_area=want.size // 4)
    assert 0 < len(annotated(function, polygons=True)) < len(np.unique(want))


def test_its_threshold_is_the_clusters_confidence(url: str, create: Create) -> None:
    with Client(url) as client:
        sure = sorted(cluster.confidence for cluster in client.segment(squares()).clusters)
    assert len(annotated(create("cvat_detection"), least=sure[1])) == len(sure) - 1


def test_names_are_labels_and_hidden_clusters_are_none(url: str, create: Create) -> None:
    with Client(url) as client:
        for id, change in {0: {"name": "both"}, 2: {"name": "both"}, 4: {"hidden": True}}.items():
            client.change_cluster(id, **change)  # type: ignore[arg-type]
        try:
            function = create("cvat_detection")
            assert [(label.name, label.id) for label in function.spec.labels] == [
                ("both", 0),
                ("green", 1),
                ("white", 3),
            ]
            found = {shape.label_id: shape.points for shape in annotated(function)}
            want = client.segment(squares()).labels
            assert (masks.decode_mask(found[100], **SIZE) == np.isin(want, [0, 2])).all()
        finally:
            for id in (0, 2, 4):
                client.change_cluster(id, name=None, hidden=None)


def clicked(function: Any, positive: Any, negative: Any = (), box: Any = None) -> list[Any]:
    image = function.preprocess_image(None, squares())
    prompts = SimpleNamespace(pos_points=positive, neg_points=negative, bounding_box=box)
    return list(function.detect(None, image, prompts))


def test_clicks_make_a_mask(url: str, create: Create) -> None:
    function = create("cvat_interaction")
    (shape,) = clicked(function, [(5.5, 5.5)])
    assert shape.type == "mask"
    with Client(url) as client:
        red, blue = (client.similar(squares(), x=x, y=y) for x, y in [(5, 5), (80, 60)])
    assert (masks.decode_mask(shape.points, **SIZE) == (red >= LIKE)).all()
    (told,) = shape.attributes
    assert float(told.value) == pytest.approx(red[red >= LIKE].mean(), abs=1e-3)

    (shape,) = clicked(function, [(5.0, 5.0), (400.0, 5.0)], [(80.0, 60.0)], ((0.0, 0.0), (100.5, 240.0)))
    corner = np.zeros_like(red, bool)
    corner[:, :101] = True
    with Client(url) as client:
        meant = np.maximum(red, client.similar(squares(), x=319, y=5))
    assert (masks.decode_mask(shape.points, **SIZE) == ((meant >= LIKE) & (meant > blue) & corner)).all()
    assert clicked(function, [(5.0, 5.0)], [(5.0, 5.0)]) == []


def test_where_the_server_is_may_stand_in_the_environment(
    url: str, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_URL", url)
    assert {label.name for label in create("cvat_detection", url="", model="tiny", crf="fast").spec.labels} == set(
        COLORS
    )
    assert len(clicked(create("cvat_interaction", url="", model="tiny"), [(5.0, 5.0)])) == 1
