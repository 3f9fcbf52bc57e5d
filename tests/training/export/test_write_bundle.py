"""ONNX computes what torch computes, at every size, and a bundle says what it holds."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from models.bundle import Bundle
from models.errors import TesseraError
from models.inference import segment, self_test
from models.io.samples import Decoded
from models.nets.build import build
from models.nets.encoder import Encoder
from models.nets.heads import FPNHead, ProjectionHead
from models.preprocess import IMAGENET, InputSpec, Normalization, fit
from training.config.recipe import ClusterSection, ExportSection, InputSection, Recipe
from training.config.run import Run
from training.data.images import Found, Images
from training.data.preprocess import input_spec
from training.data.synthetic import street
from training.discovery.cluster_codes import cluster
from training.discovery.segmenter import Segmenter
from training.evaluation.exported import Exported
from training.export import provenance
from training.export.corpus_stats import measure
from training.export.onnx import Deployed, check, to_onnx
from training.export.positions import kept_positions, positions
from training.pipeline import finish
from training.stage_costs import StageCosts

KINDS = ["vit", "keys", "cnn", "neck", "position", "flip"]


def encoder(kind: str) -> Encoder:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if kind in ("vit", "keys"):
        backbone = build("test_vit", "random", features="keys" if kind == "keys" else "tokens")
        return Encoder(backbone, ProjectionHead(backbone.channels, 12), flip_average=True).eval()
    name = "resnet10t" if kind == "position" else "test_resnet"  # the smaller one tells sky from ground by chance
    half = [0.5] * 3 if kind == "half" else []
    backbone = build(name, "random", levels=3, neck=16 if kind == "neck" else 0, mean=half, std=half)
    if kind == "neck":
        return Encoder(backbone, ProjectionHead(backbone.channels, 12)).eval()
    head = FPNHead(backbone.pyramid_channels, 12)
    if kind == "position":
        return Encoder(backbone, head, position=0.5).eval()
    return Encoder(backbone, head, normalize=True, flip_average=kind == "flip").eval()


def centroids(dim: int, k: int = 6) -> Tensor:
    return nn.functional.normalize(torch.randn(k, dim, generator=torch.Generator().manual_seed(1)), dim=1)


def deployed(kind: str) -> tuple[Deployed, InputSpec]:
    network = encoder(kind)
    return Deployed(network, centroids(14 if kind == "position" else 12)).eval(), input_spec(network, 64)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in ("keys", "vit") else ()) for kind in KINDS]
)
def test_onnx_is_torch_at_every_batch_and_size(kind: str) -> None:
    network, spec = deployed(kind)
    session = Exported(to_onnx(network, spec))
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in [(1, 2, 3), (3, 4, 2), (1, 1, 7), (2, 5, 5), (1, 1, 1)]:
        size = (batch, height * spec.multiple, width * spec.multiple, 3)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            scores, code = network(pixels)
        got = session(pixels.numpy(), code=True)
        assert got.scores.shape == scores.shape
        assert got.code is not None
        np.testing.assert_allclose(got.scores, scores.numpy(), atol=2e-4, rtol=1e-4)
        np.testing.assert_allclose(got.code, code.numpy(), atol=2e-4, rtol=1e-4)


def test_the_file_is_the_same_every_time_and_names_no_path() -> None:
    network, spec = deployed("cnn")
    first = to_onnx(network, spec)
    assert first == to_onnx(network, spec)
    assert str(Path.home()).encode() not in first
    assert b".py" not in first
    model = onnx.load_from_string(first)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version >= 17
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_a_graph_of_another_network_is_refused() -> None:
    network, spec = deployed("cnn")
    other = to_onnx(Deployed(network.encoder, centroids(12).flip(0)), spec)
    with pytest.raises(TesseraError, match=r"agree on .* no bundle is written"):
        check(network, other, [street((60, 90))], spec)


class Streets(Images):
    """Drawn images, with the sky as ground truth."""

    def __init__(self, root: Path, count: int) -> None:
        paths = [root / f"{i}.png" for i in range(count)]
        super().__init__(root, paths, Found(paths, class_names=("sky", "else")))

    def load(self, i: int) -> Decoded:
        return Decoded(street((64, 64 + 8 * i), seed=i))

    def labels(self, i: int) -> np.ndarray:
        image = self[i]
        return (np.arange(64)[:, None] > 28).astype(np.uint8) + np.zeros(image.shape[:2], np.uint8)

    @property
    def labelled(self) -> bool:
        return True

    def subset(self, indices: object) -> Images:
        raise AssertionError("ten images need no subset")

    digest = "0" * 64  # type: ignore[assignment]


def run_of(folder: Path, exemplars: int, k: int = 5) -> Run:
    export = ExportSection(exemplars=exemplars, name="streets")
    recipe = Recipe(workers=0, input=InputSection(size=64), clusters=ClusterSection(k=k), export=export)
    images = Streets(folder / "My Photos & <b>", 10)
    return Run(recipe, images, folder, torch.device("cpu"), Console(file=io.StringIO()))


def exported(run: Run, kind: str = "cnn") -> Bundle:
    network = encoder(kind)
    found = Segmenter(network, cluster(network, input_spec(network, 64), run), "cosine", 2.0)
    return finish(run, found, StageCosts(run), trained=0.0)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that may show photos."""
    return exported(run_of(tmp_path_factory.mktemp("shown"), exemplars=3))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One that may not, of weights from a file of somebody's machine, trained on pixels of mean and std 0.5."""
    folder = tmp_path_factory.mktemp("private")
    run = run_of(folder, exemplars=0)
    backbone = run.recipe.backbone.model_copy(update={"weights": str(folder / "secret" / "w.safetensors")})
    return exported(replace(run, recipe=run.recipe.model_copy(update={"backbone": backbone})), "half")


def test_a_bundle_holds_what_it_should(shown: Bundle) -> None:
    bundle, manifest = shown, shown.manifest
    assert Bundle.load(bundle.path).digest == bundle.digest
    assert manifest.name == "streets"
    assert len(manifest.clusters) == 5
    assert sum(c.fraction for c in manifest.clusters) == pytest.approx(1)
    assert [m.k for m in manifest.hierarchy] == [4, 3, 2]
    assert len({c.color for c in manifest.clusters}) == 5
    assert {"usage", "onnx"} <= bundle.report().keys()
    assert bundle.report()["onnx"]["labels_equal"] >= 0.999
    session = Exported(bundle.encoder_bytes())
    assert self_test(bundle, session) >= 0.99
    labels = segment(bundle, session, street((50, 70), seed=3))
    assert labels.shape == (50, 70)
    assert all(len(bundle.exemplars(k)) == 3 for k in range(5) if manifest.clusters[k].fraction > 0.05)


def test_the_golden_image_is_one_of_the_photos_only_where_that_is_allowed(shown: Bundle, private: Bundle) -> None:
    image = shown.golden.image
    photos = [street((64, 64 + 8 * i), seed=i) for i in range(10)]
    assert any(photo.shape == image.shape and (photo == image).all() for photo in photos)
    assert (private.golden.image == street()).all()
    assert all(len(private.exemplars(k)) <= 1 for k in range(5))
    assert self_test(private, Exported(private.encoder_bytes())) >= 0.99


def test_the_manifest_says_what_the_graph_does_to_pixels(shown: Bundle, private: Bundle) -> None:
    assert shown.manifest.normalization == IMAGENET
    assert private.manifest.normalization == Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)


def test_provenance_names_no_path_of_this_machine(private: Bundle) -> None:
    manifest = (private.path / "manifest.json").read_text()
    assert str(private.path.parent) not in manifest + (private.path / "NOTICE").read_text()
    assert json.loads(manifest)["provenance"]["recipe"]["backbone"]["weights"] == "w.safetensors"


@pytest.mark.parametrize(
    ("folder", "wanted"),
    [
        ("photos", "photos-stego"),
        ("My Photos (2)", "my-photos-2-stego"),
        ("фото", "images-stego"),
        ("x" * 90, "x" * 63),
    ],
)
def test_a_bundle_is_named_after_its_folder(folder: str, wanted: str, tmp_path: Path) -> None:
    run = Run(Recipe(), Images(tmp_path / folder, []), tmp_path, torch.device("cpu"), Console(file=io.StringIO()))
    assert provenance.bundle_name(run) == wanted


def test_ground_truth_is_scored_where_there_is_any(tmp_path: Path) -> None:
    run = run_of(tmp_path, exemplars=0, k=4)
    network = encoder("position")
    spec = input_spec(network, 64)
    found = Segmenter(network, cluster(network, spec, run), "cosine", 2.0)
    seen = measure(found, spec, run.images, exemplars=0, device=run.device, console=run.console, workers=0)
    assert seen.scores is not None
    assert seen.scores.confusion.sum() == sum(64 * (64 + 8 * i) for i in range(10))
    assert seen.scores.accuracy > 0.5
    assert 0 < seen.entropy <= 1
    assert -1 <= seen.stability <= 1
    assert all(sum(values) == pytest.approx(1, abs=1e-3) for values in seen.similarity.values())


def test_two_columns_of_position_are_what_is_kept_of_where_places_are() -> None:
    network, spec = deployed("position")
    exported = Exported(to_onnx(network, spec))
    kept = positions(exported, spec, network.encoder.backbone.normalization, "auto")
    assert kept is not None
    assert kept.shape[0] == 14
    assert positions(exported, spec, None, 0) is None
    image = fit(street((64, 80), 3), spec).pixels[None]
    code = exported(image, code=True).code
    assert code is not None
    two = positions(exported, spec, IMAGENET, 2)
    assert two is not None
    np.testing.assert_allclose((two[12:] ** 2).sum(), 2, atol=0.1)  # they lie along the columns
    with pytest.raises(TesseraError, match="debias = 14: of an image of one color 14 channels"):
        positions(exported, spec, IMAGENET, 14)


def test_what_cannot_be_kept_is_told_and_loses_no_training() -> None:
    network, spec = deployed("position")
    onnx_file = to_onnx(network, spec)

    def kept(debias: int, assignment: str = "cosine") -> tuple[object, str]:
        console = Console(record=True, width=300)
        run = SimpleNamespace(recipe=Recipe(export=ExportSection(debias=debias)), console=console)
        found = SimpleNamespace(assignment=assignment, encoder=network.encoder)
        return kept_positions(found, onnx_file, spec, run), console.export_text()  # type: ignore[arg-type]

    directions, said = kept(2)
    assert np.shape(directions) == (14, 2)
    assert "without 2 of 14 directions" in said
    directions, said = kept(14)
    assert directions is None
    assert "export.debias = 14: of an image of one color 14 channels" in said
    directions, said = kept(2, "dot")
    assert directions is None
    assert "export.debias: codes that are compared by dot products" in said
    assert kept(0) == (None, "")
