"""training/remeasure.py: the tree of a bundle that has none of what belongs together, from its images."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from models.bundle import Bundle
from tests.tiny import bands, write_tiny_bundle
from training import remeasure

ORDERS = [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (1, 4, 0, 3, 2), (3, 2, 1, 0, 4)]


@pytest.fixture(scope="module")
def bundle_and_photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of five colors, and noisy photos of bands of them."""
    home = tmp_path_factory.mktemp("remeasured")
    random = np.random.default_rng(0)
    (home / "photos").mkdir()
    for i, order in enumerate(ORDERS):
        photo = bands(64, 120, order).astype(int)
        noisy = photo + random.integers(-9, 10, photo.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(home / "photos" / f"{i}.png")
    return write_tiny_bundle(home / "bundle").path, home / "photos"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_the_manifest_changes_and_it_says_what_the_tree_is(
    bundle_and_photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, photos = bundle_and_photos
    here = shutil.copytree(bundle, tmp_path / "bundle")
    before = contents(here)
    remeasure.command(here, [photos], out=tmp_path / "new")
    assert contents(here) == before
    remeasure.command(here, [photos])
    after = contents(here)
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    assert after == contents(tmp_path / "new")  # and so the same twice
    manifest = Bundle.load(here).manifest
    assert manifest.hierarchy_by == "belonging"
    assert [merge.k for merge in manifest.hierarchy] == [4, 3, 2]
    assert sum(cluster.fraction for cluster in manifest.clusters) == pytest.approx(1)
    assert manifest.familiarity is not None
    assert 0 < manifest.familiarity.quantiles[0] <= manifest.familiarity.threshold <= manifest.familiarity.quantiles[-1]
    said = capsys.readouterr()
    assert "tree: by centroids → by belonging" in said.out
    assert "familiarity: half of the images are surer than" in said.out
    assert f"tiny@{Bundle.load(bundle).digest[:12]} → tiny@{Bundle.load(here).digest[:12]}" in said.out
    remeasure.command(here, [photos])
    assert "tree: as it was" in capsys.readouterr().out


def test_shares_are_measured_where_they_never_were_and_kept_elsewhere(
    bundle_and_photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, photos = bundle_and_photos
    shares = {}
    for images in (0, 7):
        here = shutil.copytree(bundle, tmp_path / str(images))
        manifest = json.loads((here / "manifest.json").read_text())
        manifest["provenance"]["images"] = images
        for cluster, share in zip(manifest["clusters"], (0.1, 0.1, 0.1, 0.3, 0.4), strict=True):
            cluster["fraction"] = share
        (here / "manifest.json").write_text(json.dumps(manifest))
        if images:
            with pytest.raises(typer.Exit):
                remeasure.command(here, [photos])
            assert "are not the 7 that the bundle was made of" in " ".join(capsys.readouterr().err.split())
        remeasure.command(here, [photos], other_images=images > 0)
        shares[images] = [cluster.fraction for cluster in Bundle.load(here).manifest.clusters]
    assert shares[0] == pytest.approx([0.2] * 5, abs=0.03)
    assert shares[7] == [0.1, 0.1, 0.1, 0.3, 0.4]


def test_what_is_not_there_changes_nothing(
    bundle_and_photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, photos = bundle_and_photos
    before = contents(bundle)
    plain = tmp_path / "plain"
    plain.mkdir()
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(bands(64, 120, (0, 0, 0, 0, 0))).save(plain / "red.png")

    def refused(*given: object, **options: object) -> str:
        with pytest.raises(typer.Exit) as stopped:
            remeasure.command(*given, **options)  # type: ignore[arg-type]
        assert stopped.value.exit_code in (1, 2)
        return " ".join(capsys.readouterr().err.split())

    assert "is not a folder" in refused(bundle, [tmp_path / "nowhere"])
    assert "at least 1" in refused(bundle, [empty])
    assert "fewer than two of the clusters" in refused(bundle, [plain])
    assert "no such bundle" in refused(tmp_path / "nowhere", [photos])
    assert "is not empty" in refused(bundle, [photos], out=plain)
    assert contents(bundle) == before


def test_what_says_where_a_place_is_is_kept_where_there_is_such_a_thing(
    bundle_and_photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny bundle's code is a mean color: of an image of one color it is the same everywhere."""
    bundle, photos = bundle_and_photos
    for asked, why in (("2", "--debias = 2: of an image of one color 3 channels"), ("some", "write a number, or auto")):
        with pytest.raises(typer.Exit) as stopped:
            remeasure.command(bundle, [photos], out=tmp_path / "new", debias=asked)
        assert stopped.value.exit_code == 2
        assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()
    remeasure.command(bundle, [photos], out=tmp_path / "new", debias="auto")
    assert Bundle.load(tmp_path / "new").positions is None
