"""PiCIE on eight small images: its labels, its losses, its variants, and going on in mid-epoch."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.errors import TesseraError
from tests.training.small_run import draw, make, small_run
from training.methods.picie import view_loader
from training.methods.picie.losses import class_weights, label, level_shares, view_losses
from training.methods.picie.view_loader import ViewLoader
from training.trainer import loop

SMALL = ["method=picie", "backbone.name=test_resnet", "picie.code_dim=8", "picie.epochs=1", "picie.batch_size=4"]


@pytest.mark.parametrize(
    ("overrides", "terms"),
    [
        ([], {"within", "across"}),
        (["picie.overcluster=6"], {"within", "across"}),
        (["picie.views=1"], {"classify"}),
        (["picie.batch_norm=upstream", "picie.class_weights=inverse"], {"within", "across"}),
        (["picie.kmeans_points=600", "picie.cluster_batch=3", "picie.init_batches=1"], {"within", "across"}),
    ],
)
def test_two_steps(tmp_path, overrides, terms):
    run = small_run(tmp_path, *SMALL, *overrides)
    method = make(run)
    assert method.stages()[0].steps == 2
    loop.fit(method, method.stages(), run)
    line = loop.read_log(run.log)[-1]
    assert terms <= line.keys()
    centroids = method.centroids()
    assert centroids.shape == (3, 8)
    lengths = centroids.norm(dim=1)  # means of unit vectors, left as short as they are
    assert bool((lengths <= 1 + 1e-5).all())
    method.eval()
    with torch.inference_mode():
        code = method.encoder()(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8))
    assert code.shape == (2, 8, 16, 24)
    assert torch.allclose(code.norm(dim=1), torch.ones(2, 16, 24), atol=1e-5)
    assert not (run.cache / "labels").exists()  # only needed while training


def test_labels_are_the_nearest_clusters_of_what_training_sees(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    method._cluster(0)
    method.eval()
    for batch in method._batches(0):
        method.eval()
        with torch.no_grad():
            codes = method._coded(batch["items"], [False, True])
        for view, code in enumerate(codes):
            wanted = label(code, method.means(0)[view])
            agree = (wanted == batch["labels"][:, 0, view].long()).float().mean()
            assert agree > 0.999  # batches of another size round otherwise


def test_going_on_in_mid_epoch_meets_the_same_labels_and_views(tmp_path):
    first = make(small_run(tmp_path, *SMALL))
    first._cluster(0)
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    rest = list(first._batches(0))[1:]
    second = make(small_run(tmp_path, *SMALL))
    second.load_state_dict(state)
    with torch.no_grad():
        for parameter in second.network.parameters():
            parameter += 0.1  # half an epoch of training: labels must not be made anew with these weights
    for a, b in zip(rest, list(second._batches(0))[1:], strict=True):
        assert torch.equal(a["labels"], b["labels"])
        assert all(torch.equal(x.views[1], y.views[1]) for x, y in zip(a["items"], b["items"], strict=True))


def test_labels_lost_from_the_cache_are_made_anew(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    method._cluster(0)
    wanted = [batch["labels"] for batch in method._batches(0)]
    method._labels_path(0).unlink()
    found = [batch["labels"] for batch in method._batches(0)]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_carried_centroids_keep_their_places(tmp_path):
    shift = {}
    for carry in ("true", "false"):
        method = make(small_run(tmp_path / carry, *SMALL, f"picie.carry_centroids={carry}"))
        method._cluster(0)
        before = method.means(0).clone()
        method._cluster(1)
        shift[carry] = float((method.means(0) - before).norm(dim=2).mean())
    assert shift["true"] < shift["false"]


def test_the_two_views_share_what_they_show(tmp_path):
    """Without changes of light, view 1 through a pixel-wise network is view 2 cropped after it."""
    quiet = [f"picie.augment.{name}=0" for name in ("jitter", "hue", "gray", "blur")]
    method = make(small_run(tmp_path, *SMALL, *quiet))
    item = method.loader.load(0, "both", 3)
    first = F.avg_pool2d(item.views[0][None], 4)
    from training.methods.picie.augment import resized_crop

    second = resized_crop(F.avg_pool2d(item.views[1][None], 4), [item.crop], method.side)
    assert float((first - second).abs().mean()) < 12  # of 255; sharp borders move by part of a cell
    other = resized_crop(F.avg_pool2d(item.views[1][None], 4), [method.loader.load(1, "both", 3).crop], method.side)
    assert float((first - other).abs().mean()) > 2 * float((first - second).abs().mean())


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_decodes_every_image_once_and_kept_views_are_those_made_anew(tmp_path, monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(view_loader, "_KEPT_NUMBERS", 0)
    run = small_run(tmp_path, *SMALL, "picie.epochs=2", images=draw(tmp_path / "images"))
    decoded = []
    monkeypatch.setattr(run.images, "load", lambda i: decoded.append(i) or type(run.images).load(run.images, i))
    method = make(run)
    loop.fit(method, method.stages(), run)
    method.centroids()
    assert sorted(decoded) == list(range(8))
    views = [method.loader.load(1, which, 3).views for which in ("first", "second")]
    both = ViewLoader(run, method.config.augment, 4)._made(1, "both", 3).views
    assert all(torch.equal(one[0], other) for one, other in zip(views, both, strict=True))


def test_agreeing_views_have_within_equal_across():
    code = F.normalize(torch.randn(2, 5, 4, 4), dim=1)
    means = torch.randn(3, 5).expand(2, 3, 5)
    truth = label(code, means[0])
    within, across = view_losses([code, code], (truth, truth), means, torch.ones(2, 3))
    assert torch.allclose(within, across)


def test_class_weights():
    counts = torch.tensor([[60.0, 30.0, 10.0, 0.0]])
    assert class_weights(counts, "proportional").tolist()[0] == pytest.approx([0.6, 0.3, 0.1, 0.0])
    assert class_weights(counts, "none").tolist() == [[1, 1, 1, 1]]
    inverse = class_weights(counts, "inverse")[0]
    assert (inverse * counts[0])[:3].tolist() == pytest.approx([100.0] * 3)
    assert inverse[3] == 0


def test_the_finer_clustering_counts_less():
    assert level_shares([27]) == [1.0]
    coarse, fine = level_shares([27, 100])
    assert coarse == pytest.approx(math.log(100) / (math.log(27) + math.log(100)))
    assert coarse + fine == pytest.approx(1)


def test_batches_shrink_with_the_folder_and_hold_every_image_once(tmp_path):
    method = make(small_run(tmp_path, "method=picie", "backbone.name=test_resnet"))
    order = method.loader.order(0)
    assert sorted(i for batch in order for i in batch) == list(range(8))
    assert {len(batch) for batch in order} == {4}
    method.loader.batch_size = 7  # one would be left over
    assert [len(batch) for batch in method.loader.order(0)] == [8]


def test_a_vit_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(TesseraError, match=r"set backbone\.name=resnet18"):
        make(small_run(tmp_path, "method=picie", "backbone.name=vit_tiny_patch16_224"))
