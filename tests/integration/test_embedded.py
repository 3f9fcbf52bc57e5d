"""The embedded default: sound, small, quick, of nobody's photos, and it finds its way in a street it never saw."""

import time
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.inference import segment, self_test
from service.engines import Engine, open_engine
from service.settings import Settings, embedded
from tests.training.small_run import RECIPES, settled
from training import methods
from training.config import recipe as recipes
from training.data.synthetic import street

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(embedded()[0])


@pytest.fixture(scope="module")
def encode(bundle: Bundle) -> Engine:
    return open_engine(bundle, Settings(engine="onnxruntime"))


def test_it_is_the_one_default_and_small(bundle: Bundle, encode: Engine) -> None:
    assert len(embedded()) == 1
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) < 12e6
    assert self_test(bundle, encode) > 0.999


def test_nothing_of_a_photo_is_in_it(bundle: Bundle) -> None:
    assert (bundle.golden.image == street()).all()
    assert bundle.manifest.provenance.recipe["export"]["exemplars"] == 0
    assert all(len(bundle.exemplars(k)) == 1 for k in range(len(bundle.manifest.clusters)))  # the mean patch


def test_its_recipe_is_the_committed_one(bundle: Bundle) -> None:
    committed = settled(RECIPES / "embedded.toml")
    made_by = recipes.parse(
        bundle.manifest.provenance.recipe, config_of=methods.config
    )  # values that came later: defaults
    assert made_by.clusters == committed.clusters
    assert made_by.seed == committed.seed


@pytest.mark.timing
def test_a_photo_takes_well_under_150_ms(bundle: Bundle, encode: Engine) -> None:
    photo = street((360, 480), seed=1)
    took = []
    for _ in range(7):
        began = time.perf_counter()
        segment(bundle, encode, photo)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.15


def test_sky_and_road_of_a_drawn_street_are_two_clusters(bundle: Bundle, encode: Engine) -> None:
    labels = segment(bundle, encode, street((360, 480), seed=2))
    sky, road = labels[10:90, 180:300], labels[280:355, 200:280]
    share = [np.bincount(part.ravel(), minlength=255).max() / part.size for part in (sky, road)]
    assert min(share) > 0.8
    assert np.bincount(sky.ravel()).argmax() != np.bincount(road.ravel()).argmax()


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs ../shared/data/camvid")
def test_scores_on_camvid_val(bundle: Bundle, encode: Engine) -> None:
    from training.data import datasets
    from training.evaluation import metrics

    images = datasets.open("camvid", CAMVID, split="val")
    counted = sum(
        metrics.confusion(segment(bundle, encode, images[i]), images.labels(i), len(bundle.manifest.clusters), 11)
        for i in range(len(images))
    )
    scores = metrics.score(np.asarray(counted))
    assert scores.miou > 0.20
    assert scores.accuracy > 0.53
