"""CAUSE on eight small images: what learns when, that labels change nothing, and what the TR head serves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import TesseraError
from models.nets.codebook import CodebookDecoder
from models.nets.encoder import Encoder
from models.nets.heads import ProjectionHead
from models.preprocess import fitted_size
from tests.training.methods.test_methods import fitted
from tests.training.small_run import draw, make, small_run
from training import pipeline
from training.data.images import Found, Images
from training.data.preprocess import input_spec
from training.features.store import digest
from training.trainer import loop

SMALL = [
    "method=cause",
    "backbone.name=test_resnet",
    "cause.code_dim=8",
    "cause.projection_dim=16",
    "cause.concepts=12",
    "cause.hidden=16",
    "cause.batch_size=4",
    "cause.cell=2",
    "input.train_size=96",
]
TR = ["cause.head=tr"]
OURS = ["cause.center=true", "cause.probe_start=kmeans", "cause.thresholds=auto"]
VIT = ["backbone.name=test_vit"]


def trained(folder, *overrides, images=None):
    run = small_run(folder, *SMALL, *overrides, images=images)
    method = make(run)
    loop.fit(method, method.stages(), run)
    return method


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        TR,
        OURS,
        [*TR, *OURS, *VIT],
        ["cause.bank=0", "cause.five_crop=true", "cause.precision=float32", "cause.dropout=0"],
        ["cause.cell=1", "cause.flip_average=true", "input.interpolation=nearest"],
    ],
)
def test_two_steps_of_each_stage(tmp_path, overrides):
    run = small_run(tmp_path, *SMALL, "cause.steps=2", *overrides)
    method = make(run)
    before = digest(method.backbone)
    loop.fit(method, method.stages(), run)
    assert digest(method.backbone) == before
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    assert [line["stage"] for line in loop.read_log(run.log)][::2] == ["codebook", "contrast", "probe"]
    pixels = torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        code, mirrored = method.encoder()(pixels), method.encoder()(pixels.flip(2))
    assert code.shape[:2] == (2, 8)
    assert torch.allclose(mirrored.flip(-1), code, atol=1e-4)
    assert torch.allclose(method.centroids().norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "tr"])
def test_each_stage_moves_its_own_parts_alone(tmp_path, head):
    run = small_run(tmp_path, *SMALL, "cause.steps=2", f"cause.head={head}")
    method = make(run)
    parts = ["codebook", "student", "projection", "mean_projection", "head", "probe"]
    moving = {
        "codebook": {"codebook"},
        "contrast": {"student", "projection", "mean_projection", "head"},
        "probe": {"probe"},
    }

    def state() -> dict[str, str]:
        modules = {name: getattr(method, name, method.network.head) for name in parts[1:]}
        return {"codebook": str(method.codebook.tolist()), **{name: digest(m) for name, m in modules.items()}}

    for stage in method.stages():
        before = state()
        # A run of one stage: the loop would otherwise take it for a stage it has finished.
        loop.fit(method, [stage], run, name=stage.name)
        after = state()
        assert {name for name in parts if before[name] != after[name]} == moving[stage.name]


def labelled(folder, value: int) -> Images:
    """The eight images, every pixel of them labelled with one class."""
    plain = draw(folder)
    maps = {}
    for path in plain.paths:
        maps[path] = path.with_suffix(".label")
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(maps[path], "PNG")
    return Images(folder, plain.paths, Found(plain.paths, maps, ("a", "b", "c")))


@pytest.mark.parametrize("head", ["mlp", "tr"])
def test_labels_change_nothing(tmp_path, head):
    """The published script's last stage trains the evaluated head on labels."""
    first, second = (
        trained(tmp_path / str(value), "cause.steps=3", f"cause.head={head}", images=labelled(tmp_path / "x", value))
        for value in (0, 2)
    )
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert torch.equal(first.centroids(), second.centroids())


@pytest.mark.parametrize("stop_after", [5, 8, 11])  # in the contrast, between two epochs and within one; in the probe
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, stop_after):
    images, overrides = draw(tmp_path / "images"), [*SMALL, *TR, *OURS, "cause.steps=4"]
    whole = fitted(tmp_path / "whole", overrides, images)
    resumed = fitted(tmp_path / "stopped", overrides, images, stop_after)
    for name, wanted in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], wanted), name


def test_the_losses_fall(tmp_path):
    method = trained(tmp_path, "cause.steps=40", "cause.center=true", "cause.dropout=0", "cause.bank=0")
    lines = loop.read_log(method.run.log)
    for stage in ("codebook", "contrast", "probe"):
        losses = [line["loss"] for line in lines if line["stage"] == stage]
        assert sum(losses[-5:]) < sum(losses[:5]), stage


def test_the_bank_fills_and_is_emptied_in_the_end(tmp_path):
    run = small_run(tmp_path, *SMALL, "cause.steps=6")
    method = make(run)
    codebook, contrast, probe = method.stages()
    held = []

    def follow() -> None:
        contrast.after_step()
        held.append(len(method.bank))

    loop.fit(method, [codebook, replace(contrast, after_step=follow), probe], run)
    assert 0 < held[0] < held[-1]
    assert held == sorted(held)
    assert len(method.bank) == 0


def test_what_is_exported_is_the_moving_average(tmp_path):
    method = trained(tmp_path / "a", "cause.steps=2", "cause.momentum=0")
    assert digest(method.network.head) == digest(method.student)
    method = trained(tmp_path / "b", "cause.steps=2")
    assert digest(method.network.head) != digest(method.student)
    begun = make(small_run(tmp_path / "b", *SMALL, "cause.steps=2"))
    assert digest(begun.network.head) == digest(begun.student)


@pytest.mark.parametrize(
    ("head", "steps", "wanted"),
    [("tr", 10, [1, 1, 0.5, 0.5, 0.25]), ("tr", 20, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]), ("mlp", 6, [1] * 3)],
)
def test_the_probes_rate_halves_every_two_published_epochs(tmp_path, head, steps, wanted):
    method = make(small_run(tmp_path, *SMALL, f"cause.head={head}", f"cause.steps={steps}"))
    stage, rates = method.stages()[2], []
    for epoch in range(len(wanted)):
        stage.before_epoch(epoch)
        rates.append(stage.groups[0]["lr"] / 1e-3)
    assert rates == pytest.approx(wanted)


def test_stages_as_published(tmp_path):
    for head, clip in (("mlp", 0.1), ("tr", 2.0)):
        codebook, contrast, probe = make(small_run(tmp_path, *SMALL, f"cause.head={head}")).stages()
        assert [codebook.steps, contrast.steps, probe.steps] == [150, 200, 150]
        assert contrast.clip == clip
        assert codebook.clip == probe.clip == float("inf")
        assert [s.groups[0].get("weight_decay", 0) for s in (codebook, contrast, probe)] == [0, 1e-4, 1e-4]
        assert {s.groups[0]["lr"] for s in (codebook, contrast, probe)} == {1e-3}
    assert make(small_run(tmp_path, *SMALL, "cause.clip=1")).stages()[1].clip == 1


def test_batches_are_a_pure_function_of_seed_and_epoch(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    for stage in method.stages():
        first, again, later = (list(stage.batches(epoch)) for epoch in (3, 3, 4))
        assert [b["crop"].tolist() for b in first] == [b["crop"].tolist() for b in again]
        assert [b["seed"] for b in first] == [b["seed"] for b in again]
        assert [b["crop"].tolist() for b in first] != [b["crop"].tolist() for b in later]
        assert sorted(torch.cat([b["crop"] for b in first]).tolist()) == list(range(8))


def test_auto_thresholds_leave_the_asked_shares(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "cause.attract=0.3", "cause.repel=0.5"))
    with torch.no_grad():
        method.codebook.normal_()
    positive, negative = method._thresholds()
    maps = method._maps({"crop": torch.arange(8)})
    unit = torch.nn.functional.normalize(method.codebook.detach(), dim=1)
    ids = (maps.flatten(2).transpose(1, 2) @ unit.T).argmax(-1).flatten()
    alike = (unit @ unit.T)[ids][:, ids]
    assert positive >= negative
    # Concepts are few, so shares jump: below the threshold less than asked, with it no less.
    assert float((alike > positive).float().mean()) < 0.3 + 0.15
    assert float((alike < negative).float().mean()) < 0.5 + 0.15


@pytest.mark.parametrize("overrides", [[], TR])
@pytest.mark.parametrize("count", [1, 5])
def test_few_images_do_not_crash(tmp_path, count, overrides):
    method = trained(tmp_path, "cause.steps=3", *overrides, images=draw(tmp_path / "few", count=count))
    assert torch.isfinite(method.centroids()).all()


def test_centering_is_in_the_exported_network(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "cause.center=true", "cause.precision=float32"))
    maps = method._maps({"crop": torch.arange(8)})
    assert torch.allclose(maps.mean((0, 2, 3)), torch.zeros(maps.shape[1]), atol=1e-4)
    pixels = torch.from_numpy(
        np.stack([np.asarray(Image.fromarray(method.run.images[i]).resize((96, 96), 2)) for i in range(2)])
    )
    x = (pixels.permute(0, 3, 1, 2).float() - method.network.mean) / method.network.std
    with torch.inference_mode():
        assert torch.allclose(method.backbone(x), maps[:2], atol=0.05 * float(maps.abs().max()))


@pytest.mark.parametrize("center", ["true", "false"])
def test_begun_with_earlier_weights_the_mean_is_taken_off_once(tmp_path, center):
    overrides = [*SMALL, "cause.precision=float32"]
    first = make(small_run(tmp_path, *overrides, "cause.center=true"))
    again = pipeline.build(small_run(tmp_path, *overrides, f"cause.center={center}"))
    again.begin({name: value for name, value in first.state_dict().items() if value.ndim}, "the first")
    again.prepare()
    batch = {"crop": torch.arange(8)}
    assert torch.equal(again._maps(batch), first._maps(batch))
    assert torch.equal(again.backbone.center, first.backbone.center)


def test_centroids_can_be_left_to_the_pipeline(tmp_path):
    assert make(small_run(tmp_path, *SMALL, "cause.centroids=kmeans")).centroids() is None


def test_too_few_cells_are_refused(tmp_path):
    with pytest.raises(TesseraError, match=r"6 × 6 tokens have no cell of 9: lower cause\.cell"):
        make(small_run(tmp_path, *SMALL, "cause.cell=9"))


def test_a_tr_head_says_what_sizes_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("models.nets.codebook.MAX_TOKENS", 48)
    method = make(small_run(tmp_path, *SMALL, *TR, "cause.steps=1", "input.size=96"))
    assert method.encoder().stride == 16
    spec = input_spec(method.encoder(), 96)
    assert spec.max_side_px == 128  # 6 rows of at most 8 tokens
    assert fitted_size((100, 900), spec) == (96, 128)
    assert input_spec(make(small_run(tmp_path / "mlp", *SMALL)).encoder(), 96).max_side_px == 384
    with pytest.raises(TesseraError, match=r"set input\.size to at most 96, cause\.least_stride higher"):
        make(small_run(tmp_path / "large", *SMALL, *TR, "input.size=160"))


def test_the_heads_are_what_they_are_called(tmp_path):
    assert isinstance(make(small_run(tmp_path, *SMALL)).encoder().head, ProjectionHead)
    method = make(small_run(tmp_path, *SMALL, *TR))
    assert isinstance(method.encoder(), Encoder)
    assert isinstance(method.encoder().head, CodebookDecoder)
    assert method.encoder().head.grid == (6, 6)
