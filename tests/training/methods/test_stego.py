"""STEGO on eight small images: it learns, it repeats itself exactly, and its backbone stays as it was."""

import pytest
import torch

from tests.training.methods.test_methods import fitted
from tests.training.small_run import draw, make, several_kinds, small_run
from training.config import facts
from training.data.crops import five, square
from training.features.store import digest
from training.losses.correspondence import center, correlation, draw_points, normalize, sample
from training.trainer import loop

SMALL = ["method=stego", "backbone.name=test_resnet", "stego.code_dim=8", "stego.points=4", "stego.batch_size=4"]
VIT = ["backbone.name=test_vit"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        VIT,
        ["stego.five_crop=true", "stego.nonlinear=false"],
        ["stego.shifts=auto", "stego.centering=paper", "stego.stabilize=true", "stego.zero_clamp=false"],
        ["stego.negatives_drawn_by=upstream", "stego.precision=float32", "input.interpolation=nearest"],
        ["stego.negatives=0", "stego.dropout=0"],
        ["stego.weight_crf=0.1", "stego.crf_points=6", "stego.five_crop=true"],
        ["stego.weight_reconstruction=0.5"],
        [*VIT, "backbone.features=keys"],
    ],
)
def test_two_steps(tmp_path, overrides):
    run = small_run(tmp_path, *SMALL, "stego.steps=2", *overrides)
    method = make(run)
    before, backbone = digest(method.network.head), digest(method.network.backbone)
    loop.fit(method, method.stages(), run)
    assert digest(method.network.head) != before
    assert digest(method.network.backbone) == backbone
    line = loop.read_log(run.log)[-1]
    terms = {"self", "knn", "rand"} - ({"rand"} if "stego.negatives=0" in overrides else set())
    assert {f"log/{t}_similarity" for t in terms} <= line.keys()
    terms |= {
        term for term in ("crf", "reconstruction") if any(o.startswith(f"stego.weight_{term}=") for o in overrides)
    }
    assert terms | {"cluster"} <= line.keys()
    pixels = torch.randint(0, 256, (2, 96, 64, 3), dtype=torch.uint8)
    method.eval()
    with torch.inference_mode():
        code = method.encoder()(pixels)
        mirrored = method.encoder()(pixels.flip(2))
    assert code.shape[:2] == (2, 8)
    assert torch.allclose(mirrored.flip(-1), code, atol=1e-4)  # flip averaging makes it so
    assert torch.allclose(method.centroids().norm(dim=1), torch.ones(3), atol=1e-5)


def test_the_loss_falls_and_only_the_head_and_the_probe_learn(tmp_path):
    run = small_run(tmp_path, *SMALL, "stego.steps=60", "stego.shifts=auto", "stego.dropout=0")
    method = make(run)
    stage = method.stages()[0]
    trained = {id(p) for group in stage.groups for p in group["params"]}
    assert trained == {id(p) for p in (*method.network.head.parameters(), *method.probe.parameters())}
    assert [group["lr"] for group in stage.groups] == [5e-4, 5e-3]
    loop.fit(method, [stage], run)
    losses = [line["loss"] for line in loop.read_log(run.log)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_the_decoder_learns_and_is_not_exported(tmp_path):
    run = small_run(tmp_path, *SMALL, "stego.steps=30", "stego.weight_reconstruction=1", "stego.dropout=0")
    method = make(run)
    before = digest(method.decoder)
    loop.fit(method, method.stages(), run)
    losses = [line["reconstruction"] for line in loop.read_log(run.log)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert digest(method.decoder) != before
    assert not any("decoder" in name for name in method.encoder().state_dict())


def test_cells_have_the_colors_of_their_own_crop(tmp_path):
    images = draw(tmp_path / "photos", count=4)
    method = make(small_run(tmp_path, *SMALL, "stego.weight_crf=1", "stego.five_crop=true", images=images))
    side = method.features.maps.shape[-1]
    assert method.colors.shape == (20, side, side, 3)
    crop = torch.tensor([9])  # the center of the second image
    wanted = square(five(images[1])[4], side)
    got = method._colors(crop)[0].permute(1, 2, 0) * method.network.std.flatten() + method.network.mean.flatten()
    assert torch.allclose(got, torch.from_numpy(wanted.astype("float32")), atol=1e-3)


def test_keys_and_tokens_never_share_a_cache(tmp_path):
    for features in ("tokens", "keys"):
        make(small_run(tmp_path, *SMALL, *VIT, f"backbone.features={features}"))
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 2


def test_an_epoch_is_a_pure_function_of_the_seed(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    first, again, later = (list(method._batches(epoch)) for epoch in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert a["anchor"].tolist() == b["anchor"].tolist()
        assert a["neighbor"].tolist() == b["neighbor"].tolist()
        losses = [method._loss(batch) for batch in (a, b)]  # whatever torch's own generator does in between
        assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert first[0]["anchor"].tolist() != later[0]["anchor"].tolist()
    assert sorted(torch.cat([b["anchor"] for b in first]).tolist()) == list(range(8))


def test_neighbors_are_neighbors_and_never_oneself(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "stego.neighbors=2"))
    table = method.features.neighbors
    for epoch in range(5):
        for batch in method._batches(epoch):
            for anchor, neighbor in zip(batch["anchor"].tolist(), batch["neighbor"].tolist(), strict=True):
                assert neighbor in table[anchor, 1:3]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_images_do_not_crash(tmp_path, count):
    run = small_run(tmp_path, *SMALL, "stego.steps=3", images=draw(tmp_path / "few", count=count))
    method = make(run)
    loop.fit(method, method.stages(), run)
    assert torch.isfinite(method.centroids()).all()


def test_a_second_run_object_finds_the_features_and_the_same_random_weights(tmp_path):
    first = make(small_run(tmp_path, *SMALL))
    folders = sorted((tmp_path / "run" / "cache").iterdir())
    torch.rand(7)
    second = make(small_run(tmp_path, *SMALL))
    assert sorted((tmp_path / "run" / "cache").iterdir()) == folders
    assert digest(first) == digest(second)


def test_auto_shifts_leave_the_asked_share_above(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "stego.shifts=auto", "stego.centering=none"))
    low, high = (method.shifts_for([share] * 3) for share in (0.6, 0.1))
    assert all(a < b for a, b in zip(low, high, strict=True))
    generator = torch.Generator().manual_seed(1)
    maps = method.features.batch(range(8), torch.device("cpu"))
    found = normalize(sample(maps, draw_points(8, 4, generator)))
    own = center(correlation(found, found), "none")
    assert float((own > low[0]).float().mean()) == pytest.approx(0.6, abs=0.1)


def test_centroids_can_be_left_to_the_pipeline(tmp_path):
    assert make(small_run(tmp_path, *SMALL, "stego.centroids=kmeans")).centroids() is None


@pytest.mark.parametrize(("asked", "side"), [(0, 4), (8, 4), (32, 2)])
def test_finer_cells_than_asked_for_are_averaged(tmp_path, asked, side):
    method = make(small_run(tmp_path, *SMALL, f"stego.least_stride={asked}"))
    assert method.features.maps.shape[2:] == (side, side)
    assert method.network.stride == 64 // side


def test_steps_scale_with_the_folder(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    assert method.stages()[0].steps == 300
    method = make(small_run(tmp_path, *SMALL, "stego.steps=7"))
    assert method.stages()[0].steps == 7


AUTO = [*SMALL, "stego.balance=auto", "stego.steps=40"]


def test_a_balance_begins_at_the_shifts_given_and_leaves_a_trace(tmp_path):
    fixed = make(small_run(tmp_path, *AUTO, "stego.shift_self=0.9", "stego.shift_knn=-0.5"))
    assert fixed.shifts.tolist()[1] == pytest.approx(float(fixed.balance.low[1]))  # as far down as there are pairs
    run = small_run(tmp_path, *AUTO, "stego.shifts=auto")
    method = make(run)
    begun = method.shifts.tolist()
    assert begun == pytest.approx(method.shifts_for([0.5, 0.5, 0.1]), abs=1e-3)
    loop.fit(method, method.stages(), run)
    assert method.shifts.tolist() != begun
    found = facts.noted(run, "balance")
    assert [row[0] for row in found["rows"]] == list(range(1, 41))
    last = loop.read_log(run.log)[-1]
    assert found["rows"][-1][1] == pytest.approx(float(method.shifts[0]), abs=1e-4)
    assert {"log/shift_self", "log/shift_knn", "log/shift_rand"} <= last.keys()


def test_a_balance_resumes_to_the_same_bits(tmp_path):
    images = draw(tmp_path / "photos")
    whole = fitted(tmp_path / "whole", AUTO, images)
    again = fitted(tmp_path / "stopped", AUTO, images, stop_after=27)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in whole.state_dict().items())
    assert again.balance.facts() == whole.balance.facts()


@pytest.mark.slow
@pytest.mark.parametrize("start", [(3, 3, 3), (-0.5, -0.5, -0.5), (0.9, -0.5, -0.5)])
def test_a_balance_recovers_from_bad_shifts_on_drawn_photos(tmp_path, start):
    kinds = several_kinds(tmp_path / "photos", 24)
    shifts = [f"stego.shift_{term}={b}" for term, b in zip(("self", "knn", "rand"), start, strict=True)]
    own = ["method=stego", "backbone.name=resnet10t", "input.train_size=160", "stego.points=6", "stego.steps=300"]
    run = small_run(tmp_path, *own, "stego.balance=auto", *shifts, images=kinds)
    method = make(run)
    loop.fit(method, method.stages(), run)
    _, knn, rand, _, _ = method.balance.seen.tolist()
    assert 0.2 < knn < 0.4
    assert -0.05 < rand < 0.1
