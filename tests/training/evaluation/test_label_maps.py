"""Label maps of one image in every way: named so that a table can be read, equal to what the house gives elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import inference as bundles
from models.bundle import Bundle
from models.preprocess import fit
from models.refine import refine
from tests.models.crf import recorded
from tests.tiny import bands
from training.evaluation.exported import open_networks
from training.evaluation.label_maps import Edges, Mapper, Way


def opened(folder: Path, **code: object) -> Mapper:
    """The mapper of the bundle there, its code's description changed."""
    bundle = Bundle.load(folder)
    manifest = bundle.manifest.model_copy(update={"code": bundle.manifest.code.model_copy(update=code)})
    return Mapper(
        replace(bundle, manifest=manifest), open_networks(bundle, flip=True, features=False, device="cpu").networks
    )


def photo(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 45, (75, 131, 3)).round()
    return (bands(75, 131) + noise).clip(0, 255).astype(np.uint8)


def test_ways_and_their_names(tiny_bundle: Path) -> None:
    mapper = opened(tiny_bundle)
    edges = [Edges(), Edges("fast", "source"), Edges("pydensecrf")]
    names = ["plain", "flip", "crf", "flip + crf", "fast at source", "flip + fast at source"]
    assert [way.name for way in mapper.ways(edges)] == [*names, "pydensecrf", "flip + pydensecrf"]
    assert [way.name for way in mapper.ways([])] == ["plain", "flip"]
    assert Way(probe=True, edges=Edges(resolution="source")).name == "linear probe, crf at source"


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_labels_are_those_of_the_bundle(tiny_bundle: Path, interpolation: str) -> None:
    mapper, image = opened(tiny_bundle, interpolation=interpolation), photo()
    encoder = open_networks(mapper.bundle, flip=False, features=False, device="cpu").exported
    plain = mapper(image, [Way()])[Way()].labels
    np.testing.assert_array_equal(plain, bundles.segment(mapper.bundle, encoder, image))
    fitted = fit(image, mapper.bundle.manifest.input)
    answer = mapper.networks[False](fitted.pixels)
    for edges in (Edges(), Edges("fast"), Edges("fast", "source")):
        made = mapper(image, [Way(edges=edges)])[Way(edges=edges)]
        wanted = refine(
            answer.scores, answer.code, fitted, mapper.bundle.manifest.code, method=edges.method,
            resolution=edges.resolution, photo=image,
        )  # fmt: skip
        np.testing.assert_array_equal(made.labels, wanted)
        assert (made.labels != plain).any()
        assert made.seconds > 0


def test_the_published_code_agrees_with_ours(tiny_bundle: Path) -> None:
    mapper = opened(tiny_bundle)

    def made(way: Way) -> np.ndarray:
        return mapper(photo(), [way])[way].labels

    theirs = recorded.labels("tiny-bundle", lambda: made(Way(edges=Edges("pydensecrf"))))
    assert (made(Way(edges=Edges())) == theirs).mean() > 0.999
