"""Teaches soft labels of a whole folder to one network, which is what can be served.

Knows nothing of who made the labels, of methods or bundles.
"""

import copy

from torch import Tensor

from models.nets.encoder import Encoder
from training.config.run import Run
from training.data.regions import RegionCache
from training.discovery.segmenter import Segmenter
from training.discovery.student import DistillOptions, Student
from training.trainer import batch_norm, loop
from training.trainer.seeds import seeded


def distill(
    encoder: Encoder, cache: RegionCache, soft: Tensor, temperature: float, run: Run, agreement: float | None = None
) -> Segmenter:
    """A network that answers like the labels, taught as [clusters] `distill_steps` says.

    encoder  of a trained method; stays as it is. Its copy is trained on, backbone and all
    soft     float [n, K, h, w], of the images of the cache; 0 where no data is

    Interrupted, it goes on where it was: the labels have to be the same ones.
    """
    section, (height, width) = run.recipe.clusters, cache.images.shape[1:3]
    network = copy.deepcopy(encoder)
    network.requires_grad_(True)
    network.flip_average = False  # views are mirrored while it learns; averaging would double the time of serving
    network.position = 0.0 if section.merge else section.position
    with seeded(run.recipe.seed):
        student = Student(network, soft.shape[1]).to(run.device)
    # Views a fifth smaller each way than the image: at their mean area of 0.75 nothing changes its size much.
    smaller = (height * 4 // 5 // 16 * 16, width * 4 // 5 // 16 * 16)
    views = DistillOptions().views.model_copy(update={"size": smaller})
    lesson = DistillOptions(steps=section.distill_steps, lr=section.distill_lr, views=views)
    batch_norm.synchronize(student)
    student.train()
    loop.fit(student, [student.stage(cache.images, soft, lesson, run.recipe.seed)], run, name="consensus")
    student.eval()
    return Segmenter(network, student.unit_centroids().detach().cpu(), "cosine", temperature, agreement)
