"""training/recluster.py: another number of clusters of a run that is done; and names that carry over."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.console import Console

from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import segment, self_test
from tests.tiny import write_tiny_bundle
from tests.training.small_run import draw, small_run
from training import pipeline, recluster
from training.config import facts
from training.config.run import Run
from training.discovery.code_sample import path_of
from training.evaluation.exported import Exported
from training.export.regraph import with_centroids

SMALL = ["method=stego", "backbone.name=test_resnet", "stego.code_dim=8", "stego.points=4", "stego.steps=3"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that ended, of five clusters."""
    run = small_run(tmp_path_factory.mktemp("done"), *SMALL, "clusters.k=5", "stego.batch_size=4")
    run.write_facts()
    pipeline.train(run)
    return run


def test_another_number_of_clusters_of_the_same_network(done, tmp_path):
    old = Bundle.load(done.folder / "bundle")
    noted = {path.name: path.read_bytes() for path in (done.cache / "facts").iterdir()}
    new = recluster.recluster(done, old, 4, tmp_path / "new")
    assert len(new.manifest.clusters) == 4
    assert self_test(new, Exported(new.encoder_bytes())) == 1.0
    page = (tmp_path / "new.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Carried over" in page
    assert old.ref in page
    assert new.manifest.provenance.recipe["clusters"]["k"] == 4
    assert new.manifest.input == old.manifest.input
    assert new.manifest.hierarchy_by == old.manifest.hierarchy_by == "belonging"
    assert new.manifest.familiarity is not None
    assert old.manifest.familiarity is not None
    assert new.manifest.familiarity != old.manifest.familiarity
    kept = {(c.name, c.color) for c in new.manifest.clusters} & {(c.name, c.color) for c in old.manifest.clusters}
    assert kept  # of its own bundle, without being asked
    assert {path.name: path.read_bytes() for path in (done.cache / "facts").iterdir()} == noted


def test_the_codes_support_a_number_and_it_is_told(done, tmp_path):
    run = replace(done, console=Console(file=io.StringIO()))
    new = recluster.recluster(run, Bundle.load(done.folder / "bundle"), None, tmp_path / "auto")
    assert len(new.manifest.clusters) == facts.noted(done, "k_curve")["proposed"]
    assert facts.noted(done, "k_curve")["sentence"] in run.console.file.getvalue()


def test_codes_that_are_gone_or_of_another_network_are_computed_anew(done, tmp_path):
    with_them = recluster.recluster(done, Bundle.load(done.folder / "bundle"), 3, tmp_path / "with")
    earlier = replace(done, folder=tmp_path / "run")
    shutil.copytree(done.folder, earlier.folder)
    path_of(earlier).unlink()
    without = recluster.recluster(earlier, Bundle.load(earlier.folder / "bundle"), 3, tmp_path / "without")
    photo = done.images[0]
    labels = [segment(one, Exported(one.encoder_bytes()), photo) for one in (with_them, without)]
    assert (labels[0] == labels[1]).mean() > 0.97  # other cells may be drawn of codes that differ in the last bits
    assert path_of(earlier).exists()


def test_the_same_clusters_again_keep_ids_names_and_colors(done, tmp_path):
    old = Bundle.load(done.folder / "bundle")
    own = recluster.recluster(done, old, 5, tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    for i, cluster in enumerate(manifest["clusters"]):
        cluster["name"], cluster["color"] = f"thing {i}", f"#0000{i:02x}"
    (tmp_path / "first" / "manifest.json").write_text(json.dumps(manifest))
    named = Bundle.load(tmp_path / "first")
    again = recluster.recluster(done, old, 5, tmp_path / "again", align_to=named)
    assert [(c.name, c.color) for c in again.manifest.clusters] == [(f"thing {i}", f"#0000{i:02x}") for i in range(5)]
    assert np.allclose(again.centroids, own.centroids, atol=1e-5)


def test_training_anew_keeps_the_names_of_what_is_found_again(done, tmp_path):
    to = ["clusters.k=5", "stego.batch_size=4", f"export.align_to={done.folder / 'bundle'}"]
    run = small_run(tmp_path, *SMALL, *to, "seed=1", images=done.images)
    bundle = pipeline.train(run)
    found = facts.noted(run, "aligned")
    assert found["to"] == Bundle.load(done.folder / "bundle").ref
    for one in found["matched"]:
        assert bundle.manifest.clusters[one["id"]].name == one["name"] == f"cluster {one['id']}"
    names = {cluster.name for cluster in bundle.manifest.clusters}
    assert len(names & {f"cluster {i}" for i in range(5)}) == len(found["matched"])
    assert bundle.manifest.provenance.recipe["export"]["align_to"] == "bundle"  # no path of this machine


def test_auto_takes_as_many_clusters_as_the_codes_support(done, tmp_path):
    run = small_run(tmp_path, *SMALL, "clusters.k=auto", "stego.batch_size=4", images=done.images)
    assert len(pipeline.train(run).manifest.clusters) == facts.noted(run, "k_curve")["proposed"]


def test_the_command_and_what_it_refuses(done, tmp_path, capsys):
    recluster.command(done.folder, "3", tmp_path / "a bundle")
    said = capsys.readouterr()
    assert "3 clusters" in said.out
    assert f"serve   tessera serve --bundle '{tmp_path / 'a bundle'}'" in said.out

    def refused(*arguments: object, **options: object) -> str:
        with pytest.raises(typer.Exit) as stopped:
            recluster.command(*arguments, **options)  # type: ignore[arg-type]
        assert stopped.value.exit_code in (1, 2)
        return " ".join(capsys.readouterr().err.split())

    assert "--k 1: write a number of 2 to 255, or auto" in refused(done.folder, "1")
    assert "--k many: write" in refused(done.folder, "many")
    assert "holds no run" in refused(tmp_path, "3")
    assert "no such bundle folder" in refused(done.folder, "3", align_to=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is there and no bundle" in refused(done.folder, "3", tmp_path / "file")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(done.folder / "run.json", unfinished)
    assert "has no bundle yet" in refused(unfinished, "3")
    assert "is not a folder" in refused(done.folder, "3", data=[tmp_path / "gone"])


def test_a_graph_gets_other_centroids_and_nothing_else(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 72, 3), dtype=np.uint8)
    other = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    scores, code = Exported(with_centroids(bundle.encoder_bytes(), other))(pixels, code=True)
    assert code is not None
    np.testing.assert_array_equal(code, Exported(bundle.encoder_bytes())(pixels, code=True).code)
    np.testing.assert_allclose(scores, np.einsum("kd,bdhw->bkhw", other, code), rtol=1e-4, atol=1e-5)
    assert with_centroids(with_centroids(bundle.encoder_bytes(), other), bundle.centroids) == with_centroids(
        bundle.encoder_bytes(), bundle.centroids
    )
    with pytest.raises(TesseraError, match="does not end in a comparison"):
        with_centroids(bundle.encoder_bytes(), other[:, :2])


def test_a_run_elsewhere_is_found_by_its_images(done, tmp_path):
    photos = tmp_path / "moved"
    draw(photos)
    recluster.command(done.folder, "2", tmp_path / "out", data=[photos])
    assert len(Bundle.load(tmp_path / "out").manifest.clusters) == 2
    assert Path(tmp_path / "out.html").exists()
