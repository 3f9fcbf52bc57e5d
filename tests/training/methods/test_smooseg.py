"""SmooSeg on eight small images: it learns, who feels which term, and what it exports is STEGO's graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import assign
from models.bundle import Bundle
from models.hierarchy import level
from models.inference import segment
from models.similarity import similarity
from tests.training.small_run import draw, make, small_run
from training import pipeline
from training.evaluation.exported import Exported
from training.features.store import digest
from training.losses.correspondence import center, correlation, normalize
from training.trainer import loop

SMALL = ["method=smooseg", "backbone.name=test_resnet", "smooseg.code_dim=8", "smooseg.batch_size=4"]
VIT = ["backbone.name=test_vit"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        VIT,
        ["smooseg.five_crop=true", "smooseg.precision=float32", "input.interpolation=nearest"],
        ["smooseg.shifts=auto", "smooseg.dropout=0", "smooseg.flip_average=true"],
        [*VIT, "backbone.features=keys", "smooseg.weight_rand=0"],
    ],
)
def test_two_steps(tmp_path, overrides):
    run = small_run(tmp_path, *SMALL, "smooseg.steps=2", *overrides)
    method = make(run)
    before, backbone = digest(method.network.head), digest(method.network.backbone)
    prototypes = digest(method.prototypes)
    loop.fit(method, method.stages(), run)
    assert digest(method.network.head) != before
    assert digest(method.prototypes) != prototypes
    assert digest(method.network.backbone) == backbone
    line = loop.read_log(run.log)[-1]
    assert {"self", "rand", "data", "log/self_agreement", "log/rand_agreement"} <= line.keys()
    assert {"log/code_similarity", "log/largest_cluster"} <= line.keys()
    assert torch.equal(method.centroids(), method.current_centroids())
    assert torch.allclose(method.centroids().norm(dim=1), torch.ones(3), atol=1e-5)


def test_smoothness_moves_the_head_and_the_data_term_the_students_prototypes(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    batch = next(iter(method._batches(0)))
    for terms, moved in (({"self", "rand"}, "head"), ({"data"}, "student")):
        method.zero_grad()
        losses = method._loss(batch)
        sum(losses[name] for name in terms).backward()
        feel = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        wanted = {name for name, _ in method.named_parameters() if moved in name.split(".")}
        assert feel == wanted


def test_the_losses_fall_and_only_the_head_and_the_student_learn(tmp_path):
    run = small_run(tmp_path, *SMALL, "smooseg.steps=60", "smooseg.shifts=auto", "smooseg.lr=1e-3")
    method = make(run)
    (stage,) = method.stages()
    trained = {id(p) for group in stage.groups for p in group["params"]}
    assert trained == {id(p) for p in (*method.network.head.parameters(), method.prototypes.student)}
    assert [group["lr"] for group in stage.groups] == [1e-3, 5e-4]
    loop.fit(method, [stage], run)
    lines = loop.read_log(run.log)
    for terms in (("loss",), ("self", "rand"), ("data",)):
        losses = [sum(line[term] for term in terms) for line in lines]
        assert sum(losses[-10:]) < sum(losses[:10]), terms


def test_the_teacher_is_the_moving_average_of_every_step(tmp_path):
    run = small_run(tmp_path, *SMALL, "smooseg.steps=5", "smooseg.momentum=0.9")
    method = make(run)
    seen = [method.prototypes.student.detach().clone()]
    (stage,) = method.stages()

    def after_step() -> None:
        stage.after_step()
        seen.append(method.prototypes.student.detach().clone())

    loop.fit(method, [replace(stage, after_step=after_step)], run)
    wanted = sum(0.1 * 0.9 ** (5 - i) * student for i, student in enumerate(seen[1:], 1)) + 0.9**5 * seen[0]
    assert torch.allclose(method.prototypes.teacher, wanted, atol=1e-6)
    assert not torch.allclose(method.prototypes.teacher, seen[-1], atol=1e-6)


def test_an_epoch_is_a_pure_function_of_the_seed(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    first, again, later = (list(method._batches(epoch)) for epoch in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert a["crop"].tolist() == b["crop"].tolist()
        losses = [method._loss(batch) for batch in (a, b)]  # whatever torch's own generator does in between
        assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert first[0]["crop"].tolist() != later[0]["crop"].tolist()
    assert sorted(torch.cat([b["crop"] for b in first]).tolist()) == list(range(8))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_images_do_not_crash(tmp_path, count):
    run = small_run(tmp_path, *SMALL, "smooseg.steps=3", "smooseg.shifts=auto", images=draw(tmp_path / "few", count))
    method = make(run)
    loop.fit(method, method.stages(), run)
    assert torch.isfinite(method.centroids()).all()


def test_auto_shifts_leave_the_asked_share_of_all_pairs_above(tmp_path):
    method = make(small_run(tmp_path, *SMALL, "smooseg.shifts=auto", "smooseg.dropout=0"))
    low, high = (method.shifts_for([share] * 2) for share in (0.6, 0.1))
    assert all(a < b for a, b in zip(low, high, strict=True))
    units = normalize(method.features.batch(range(8), torch.device("cpu")))
    own = center(correlation(units, units), "code")
    others = torch.cat([correlation(units, units.roll(i, 0)) for i in range(1, 8)])
    for share, shifts in ((0.6, low), (0.1, high)):
        for pairs, shift in zip((own, center(others, "code")), shifts, strict=True):
            assert float((pairs > shift).float().mean()) == pytest.approx(share, abs=0.06)


def test_steps_fit_the_folder(tmp_path):
    method = make(small_run(tmp_path, *SMALL))
    assert method.stages()[0].steps == 300
    method.features = replace(method.features, neighbors=np.zeros((40, 1)))
    assert method.stages()[0].steps == 600
    method.features = replace(method.features, neighbors=np.zeros((5001, 1)))
    assert method.stages()[0].steps == 3000
    assert make(small_run(tmp_path, *SMALL, "smooseg.steps=7")).stages()[0].steps == 7


def test_what_is_served_is_the_teachers_cosines_their_tree_and_the_codes_likeness(tmp_path):
    run = small_run(tmp_path, *SMALL, "smooseg.steps=4", "export.exemplars=0", "export.measured_images=2")
    pipeline.train(run)
    bundle = Bundle.load(run.folder / "bundle")
    session = Exported(bundle.encoder_bytes())
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    method = make(run)
    loop.fit(method, method.stages(), run)  # trained already: loads its end
    method.eval()
    with torch.inference_mode():
        code = method.encoder()(torch.from_numpy(photo)[None])
        unit = F.normalize(F.interpolate(code, (64, 64), mode="bilinear", align_corners=False), dim=1)
        cosines = torch.einsum("bdhw,kd->bkhw", unit, method.centroids())[0]
    found = segment(bundle, session, photo)
    assert (found == cosines.argmax(0).numpy()).mean() > 0.999
    said = session(photo[None], code=True)
    code_spec = bundle.manifest.code
    chances = assign.probabilities(
        said.scores[0], said.code[0], (64, 64), temperature=code_spec.temperature, assignment=code_spec.assignment
    )
    assert np.allclose(chances, (2 * cosines).softmax(0).numpy(), atol=1e-4)
    alike = similarity(said.code[0], (5, 9), (64, 64))
    assert np.allclose(alike, torch.einsum("dhw,d->hw", unit[0], unit[0, :, 5, 9]).numpy(), atol=1e-4)
    assert len(set(level(bundle.manifest.hierarchy, 2, 3).tolist())) == 2
