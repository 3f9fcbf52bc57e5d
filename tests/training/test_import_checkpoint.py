"""Published checkpoints become bundles that label as the papers' own network does, and refusals name the part."""

import hashlib
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from models.bundle import Bundle
from models.errors import TesseraError, UsageError
from models.inference import segment, self_test
from models.nets.backbone import VitBackbone
from models.nets.families import FAMILIES
from tests.training import published_files as files
from tests.training.small_run import draw
from training import import_checkpoint
from training import importers as published
from training.data.synthetic import street
from training.evaluation.exported import Exported
from training.importers import Options, Parts, recognized

SIZE = files.SIDE


def imported(paths: list[Path], out: Path, console: Console | None = None, **options: Any) -> Bundle:
    known = {name: options.pop(name) for name in ("backbone", "heads", "classifier") if name in options}
    quiet = console or Console(file=io.StringIO())
    return import_checkpoint.import_checkpoints(paths, out, Options(**known), size=SIZE, console=quiet, **options)


def agreement(bundle: Bundle, wanted: Any) -> float:
    """Share of equal labels over two drawn streets of the network's own size; several labels must occur."""
    session = Exported(bundle.encoder_bytes())
    assert self_test(bundle, session) >= 0.99
    images: list[NDArray[np.uint8]] = [street((SIZE, SIZE), seed) for seed in range(2)]
    labels = [(segment(bundle, session, image), wanted(image)) for image in images]
    assert len(np.unique([theirs for _, theirs in labels])) > 1
    return float(np.mean([(ours == theirs).mean() for ours, theirs in labels]))


def test_files_of_any_age_hold_the_same(tmp_path: Path) -> None:
    for value in (files.lightning(files.stego(files.dino())), files.picie()):
        new, old = (files.save(value, tmp_path / f"{zipped}.pth", zipped=zipped) for zipped in (True, False))
        assert new.read_bytes()[:2] == b"PK" != old.read_bytes()[:2]
        wanted, found = (import_checkpoint.open_parts([path]) for path in (new, old))
        names = wanted.names("weight")
        assert len(names) > 4
        assert names == found.names("weight")
        assert all(torch.equal(found.one(name, name), wanted.one(name, name)) for name in names)


def test_stego(tmp_path: Path) -> None:
    vit = files.dino()
    state = files.stego(vit)
    path = files.save(files.lightning(state), tmp_path / "CocoStuff27 ViT.ckpt")
    bundle = imported([path], tmp_path / "bundle")
    assert agreement(bundle, lambda image: files.stego_labels(vit, state, image)) > 0.999
    manifest = bundle.manifest
    assert (manifest.name, manifest.method) == ("cocostuff27-vit-stego", "stego")
    assert (manifest.code.dim, manifest.code.stride, manifest.code.temperature) == (7, 8, 2.0)
    assert [cluster.fraction for cluster in manifest.clusters] == pytest.approx([1 / files.K] * files.K)
    assert (bundle.golden.image == street()).all()
    assert (manifest.hierarchy_by, manifest.familiarity) == ("centroids", None)  # nothing was measured
    assert bundle.exemplars(0) == []
    notice = (bundle.path / "NOTICE").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in notice
    assert "MIT" in notice
    assert str(tmp_path) not in notice + (bundle.path / "manifest.json").read_text()


def test_stego_with_the_backbone_in_a_file_of_its_own_and_a_linear_head(tmp_path: Path) -> None:
    vit = files.dino()
    state = files.stego(vit)
    lean = {k: v for k, v in state.items() if not k.startswith(("net.model", "net.cluster2"))}
    path = files.save({"state_dict": lean}, tmp_path / "lean.ckpt")
    with pytest.raises(TesseraError, match="the backbone, a ViT, is in it not"):
        imported([path], tmp_path / "bundle")
    file = files.save({"teacher": files.under("backbone", vit.state_dict())}, tmp_path / "dino.pth")
    bundle = imported([path], tmp_path / "bundle", backbone=str(file), name="lean")
    for name in ("net.cluster2.2.weight", "net.cluster2.2.bias"):
        state[name] = torch.zeros_like(state[name])
    assert agreement(bundle, lambda image: files.stego_labels(vit, state, image)) > 0.999
    assert bundle.manifest.name == "lean"
    assert {name for name, _ in bundle.manifest.provenance.recipe["import"]["files"]} == {"lean.ckpt", "dino.pth"}


def test_a_position_table_of_no_square_grid_is_refused(tmp_path: Path) -> None:
    state = files.stego(files.dino())
    state["net.model.pos_embed"] = torch.zeros(1, 1 + 8 * 12, 128)
    with pytest.raises(TesseraError, match=r"weights of the checkpoint: 97 positions, which are of no square grid"):
        imported([files.save({"state_dict": state}, tmp_path / "wide.ckpt")], tmp_path / "bundle")


@pytest.mark.parametrize("zipped", [True, False])
def test_stego_on_keys_is_told_from_stego_on_tokens_by_one_word(tmp_path: Path, zipped: bool) -> None:
    vit = files.dino(384, depth=1)
    state = files.stego(vit)
    kept = {word: files.lightning(state, dino_feat_type=word) for word in ("feat", "KK", "V")}
    paths = {word: files.save(value, tmp_path / f"{word}.ckpt", zipped=zipped) for word, value in kept.items()}
    image = street((SIZE, SIZE))
    for word, seen_by, features in (("KK", files.keys, "keys"), ("feat", files.features, "tokens")):
        found = published.read(import_checkpoint.open_parts([paths[word]]), "stego", Options())
        assert found.segmenter.encoder.backbone.features == features
        with torch.no_grad():
            code = found.segmenter.encoder.eval()(torch.tensor(image)[None])
        labels = files.by_cosine(code, found.segmenter.centroids, image.shape[:2])
        assert (labels == files.stego_labels(vit, state, image, seen_by)).mean() > 0.999
        assert (found.backbone.endswith(", keys")) == (word == "KK")
    with pytest.raises(TesseraError, match=r"trained with dino_feat_type = V: what is read here is feat or KK"):
        imported([paths["V"]], tmp_path / "V")
    with pytest.raises(TesseraError, match=r"dino_feat_type = KK and feat: what is read"):
        import_checkpoint.open_parts([paths["KK"], paths["feat"]]).setting("dino_feat_type", "feat", ("feat", "KK"))
    twelve = files.dino(128, depth=1)
    path = files.save(files.lightning(files.stego(twelve), dino_feat_type="KK"), tmp_path / "twelve.ckpt")
    with pytest.raises(TesseraError, match=r"the keys of 6 attention heads .* and its backbone has 2: such"):
        imported([path], tmp_path / "twelve")


@pytest.mark.slow
def test_picie(tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = files.picie()
    path = files.save(checkpoint, tmp_path / "checkpoint.pth.tar", zipped=False)
    bundle = imported([path], tmp_path / "bundle", classifier=2)
    assert agreement(bundle, lambda image: files.picie_labels(checkpoint, image, 2)) > 0.999
    other = files.save(checkpoint | {"args": Namespace(metric_test="l2")}, tmp_path / "l2.pth")
    with pytest.raises(TesseraError, match="trained with metric_test = l2: what is read here is cosine"):
        imported([other], tmp_path / "l2")
    weights: Tensor = checkpoint["classifier2_state_dict"]["module.weight"]
    np.testing.assert_array_equal(bundle.centroids, weights.flatten(1).numpy())  # their lengths are kept
    first = published.read(import_checkpoint.open_parts([path]), "picie", Options())
    assert torch.equal(first.segmenter.centroids, checkpoint["classifier1_state_dict"]["module.weight"].flatten(1))
    assert first.notes == ("classifier 1 of two is taken; --classifier 2 takes the other",)
    assert bundle.manifest.code.assignment == "dot"
    assert bundle.manifest.provenance.recipe["import"]["backbone"] == "resnet18"
    assert bundle.manifest.provenance.licence == "MIT, as PiCIE's repository"


@pytest.mark.parametrize(("tr", "channels", "heads"), [(False, 384, 12), (True, 128, 2)])
def test_cause(tr: bool, channels: int, heads: int, tmp_path: Path) -> None:
    cluster = files.cause_cluster(channels)
    vit, head = files.dino(channels, depth=1, heads=heads), files.cause_head(channels, tr=tr)
    file = files.save(vit.state_dict(), tmp_path / "dino.pth")
    parts = [files.save(head, tmp_path / "segment.pth"), files.save(cluster, tmp_path / "cluster.pth")]
    if tr:  # the codebook as a file of its own, beside the same one in the cluster file
        np.save(tmp_path / "modular.npy", cluster["codebook"].numpy())
        parts.append(tmp_path / "modular.npy")
    said = io.StringIO()
    bundle = imported(parts, tmp_path / "bundle", Console(file=said, width=400), backbone=str(file))

    def wanted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return files.cause_labels(vit, head, cluster, image, tr=tr)

    assert agreement(bundle, wanted) > 0.999
    assert ("12 ATTENTION HEADS" in said.getvalue()) == (channels == 384)
    notice = (bundle.path / "NOTICE").read_text()
    assert all(words in notice for words in ("no licence", "labels of its training images"))


def msn(channels: int) -> dict[str, Any]:
    """A ViT as MSN's training leaves it; DINOv2's and iBOT's are told in tests/models/nets/test_families.py."""
    state = files.under("module", files.dino(channels, depth=1).state_dict())
    return {"target_encoder": state, "encoder": state, "prototypes": torch.zeros(2, 2), "epoch": 800}


@pytest.mark.parametrize(("channels", "asked", "heads"), [(384, None, 12), (384, 6, 6), (128, None, 2), (128, 4, 4)])
def test_only_dinos_vit_s_of_cause_gets_twelve_heads(
    channels: int, asked: int | None, heads: int, tmp_path: Path
) -> None:
    file = files.save(files.dino(channels, depth=1).state_dict(), tmp_path / "dino.pth")
    cause = Parts(files.cause_head(channels, tr=False) | files.cause_cluster(channels))
    found = published.read(cause, "cause", Options(str(file), asked))
    assert isinstance(found.segmenter.encoder.backbone, VitBackbone)
    assert found.segmenter.encoder.backbone.vit.blocks[0].attn.num_heads == heads
    assert any("12 ATTENTION HEADS" in note for note in found.notes) == (heads == 12)
    known = published.read(cause, "cause", Options(str(files.save(msn(channels), tmp_path / "msn.pth"))))
    assert isinstance(known.segmenter.encoder.backbone, VitBackbone)
    assert known.segmenter.encoder.backbone.resampling == FAMILIES["msn"]
    assert known.segmenter.encoder.backbone.vit.blocks[0].attn.num_heads == channels // 64
    assert not any("12 ATTENTION HEADS" in note for note in known.notes)
    stego = published.read(Parts(files.stego(files.dino(384, depth=1))), "stego", Options())
    assert isinstance(stego.segmenter.encoder.backbone, VitBackbone)
    assert stego.segmenter.encoder.backbone.vit.blocks[0].attn.num_heads == 6


def test_photos_give_shares_patches_and_a_golden_image(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos")
    path = files.save(files.lightning(files.stego(files.dino())), tmp_path / "s.ckpt")
    bundle = imported([path], tmp_path / "bundle", data=[images.root])
    fractions = [cluster.fraction for cluster in bundle.manifest.clusters]
    assert sum(fractions) == pytest.approx(1)
    assert max(fractions) > min(fractions)
    assert bundle.manifest.hierarchy_by == "belonging"
    assert bundle.exemplars(int(np.argmax(fractions)))
    assert any((bundle.golden.image == image).all() for image in images)
    assert bundle.manifest.provenance.images == 8
    assert {"imported", "usage", "onnx"} <= bundle.report().keys()


def without(state: dict[str, Tensor], *ends: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    stego = files.stego(files.dino())
    head, cluster = files.cause_head(128, tr=True), files.cause_cluster(128)
    backbone = str(files.save(files.dino().state_dict(), tmp_path / "dino.pth"))
    picie: dict[str, Any] = files.picie()
    learned = picie["classifier1_state_dict"] | {"module.bias": torch.ones(files.K)}
    cases: list[tuple[Any, str, dict[str, Any]]] = [
        (without(stego, "cluster_probe.clusters"), r"cluster centers is not in it.*cluster_probe\.clusters", {}),
        (without(stego, "cluster1.0.bias"), r"segmentation head is not in it.*cluster1\.0\.bias", {}),
        (without(stego, "model.norm.weight"), r"vit\.norm\.weight.*not whole", {}),
        (stego | {"cluster_probe.clusters": torch.zeros(files.K, 9)}, "head gives 7", {}),
        (stego | {"net.cluster1.0.weight": torch.zeros(7, 64, 1, 1)}, "parts of two networks", {}),
        (stego | {"net.model.norm.bias": torch.full((128,), torch.nan)}, "not finite", {}),
        (stego | {"ema.cluster1.0.bias": torch.ones(7)}, "more than once, and differs", {}),
        (stego | {"other.cls_token": torch.ones(1)}, "in it more than once", {}),
        (picie | {"state_dict": without(picie["state_dict"], "decoder.layer2.bias")}, r"decoder\.layer2\.bias", {}),
        (picie | {"state_dict": without(picie["state_dict"], "layer4.1.conv2.weight")}, r"layer4\.1\.conv2", {}),
        (picie | {"classifier1_state_dict": learned}, "learned, as MDC's", {}),
        (picie | {"classifier1_state_dict": {}}, "classifier 1 is not in it", {"classifier": 1}),
        (head | {"codebook": cluster["codebook"]}, "cluster centers is not in it", {"backbone": backbone}),
        (head | {"cluster_probe": cluster["cluster_probe"]}, "codebook is not in it", {"backbone": backbone}),
        (head | cluster | {"head_ema.query_pos": torch.zeros(63, 128)}, "no square", {"backbone": backbone}),
        (head | cluster | {"codebook": torch.zeros(9, 64)}, "parts of two networks", {"backbone": backbone}),
        (without(head | cluster, "head_ema.tr.linear2.weight"), r"tr\.linear2\.weight", {"backbone": backbone}),
        ({"a": torch.zeros(1)}, "none of cause, picie, stego", {}),
        (stego | cluster, "several formats", {}),
    ]
    for value, said, options in cases:
        path = files.save(value, tmp_path / "x.pth")
        with pytest.raises(TesseraError, match=said):
            imported([path], tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


def test_options_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    stego = files.save(files.stego(files.dino()), tmp_path / "s.ckpt")
    picie = files.save(files.picie(), tmp_path / "p.pth")
    cause = files.save(files.cause_head(128, tr=False) | files.cause_cluster(128), tmp_path / "c.pth")
    cases: list[tuple[Path, str, dict[str, Any]]] = [
        (stego, "--classifier belongs", {"classifier": 1}),
        (stego, "neither a file nor a name", {"backbone": "no/such.pth"}),
        (picie, "--backbone and --heads belong", {"heads": 6}),
        (cause, "without the backbone", {}),
        (cause, "--classifier belongs", {"classifier": 1}),
        (stego, "--format vae", {"kind": "vae"}),
    ]
    for path, said, options in cases:
        with pytest.raises(UsageError, match=said):
            imported([path], tmp_path / "bundle", **options)


def test_names_are_matched_whole_and_from_their_end() -> None:
    parts = Parts({"net.train_cluster_probe.clusters": torch.zeros(2, 2), "x.cluster_probe.clusters": torch.ones(2, 2)})
    assert parts.names("cluster_probe.clusters") == ["x.cluster_probe.clusters"]
    assert recognized(parts) == "stego"


def test_the_command_and_its_exit_codes(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_checkpoint.command)

    def run(*arguments: str | Path) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    path = files.save(files.lightning(files.stego(files.dino())), tmp_path / "s.ckpt")
    done = run(path, "--out", tmp_path / "bundle", "--size", SIZE, "--name", "mine")
    assert done.exit_code == 0, done.output
    assert "tessera serve --bundle" in done.output
    assert Bundle.load(tmp_path / "bundle").manifest.name == "mine"
    (tmp_path / "junk.ckpt").write_bytes(b"<html>")
    refusals: list[tuple[int, str, list[str | Path]]] = [
        (2, "not empty", [path, "--out", tmp_path / "bundle"]),
        (2, "no such file", [tmp_path / "none.ckpt", "--out", tmp_path / "b"]),
        (2, "--size 5", [path, "--out", tmp_path / "b", "--size", "5"]),
        (2, "--name My Model", [path, "--out", tmp_path / "b", "--name", "My Model"]),
        (2, "--format", [path, "--out", tmp_path / "b", "--format", "gan"]),
        (2, "is not a folder", [path, "--out", tmp_path / "b", "--data", tmp_path / "none"]),
        (1, "a web page", [tmp_path / "junk.ckpt", "--out", tmp_path / "b"]),
    ]
    for code, said, arguments in refusals:
        refused = run(*arguments)
        assert (refused.exit_code, said in refused.output) == (code, True), refused.output
    assert not (tmp_path / "b").exists()
