"""Classes that people taught (models.class_file), as one more head of a bundle's network: told apart as the service
does, and matched to the labels' classes by name.

Knows nothing of commands or of label maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle import Bundle
from models.class_file import ClassFile
from models.errors import UsageError
from models.prototypes import Classifier
from models.types import Array
from training.evaluation.metrics import EXTRA


@dataclass(frozen=True)
class TaughtClasses:
    """What tells the classes apart.

    names  of each of the classifier's score maps;  match  int64 [M]: the labels' class of that name, or EXTRA
    """

    classifier: Classifier
    names: tuple[str, ...]
    match: Array


def taught_classes(file: ClassFile, bundle: Bundle, labels: Sequence[str]) -> tuple[TaughtClasses, tuple[str, ...]]:
    """The classes of a file on a bundle, and what should be known of them: a sentence each.

    labels  names of the labels' classes; a taught class is the one of its name, upper case or not

    Raises UsageError where nothing of the file fits the bundle, or no name is a label's.
    """
    manifest = bundle.manifest
    encoder, count = manifest.files["encoder.onnx"], len(manifest.clusters)
    notes = []
    if strange := [one.name for one in file.classes if max(one.clusters, default=0) >= count]:
        raise UsageError(
            f"{bundle.ref} has {count} clusters, and the class {strange[0]!r} names others: is it its file?"
        )
    examples = list(file.examples(encoder))
    if other := [len(e.code) for e in examples if len(e.code) != manifest.code.dim]:
        raise UsageError(f"{bundle.ref} has codes of {manifest.code.dim} numbers, the examples have {other[0]}")
    if aside := sum(len(one.examples) for one in file.classes) - len(examples):
        notes.append(f"{aside} examples were taken with another encoder than {bundle.ref}'s and take no part")
    fractions = [one.fraction for one in manifest.clusters]
    classifier = Classifier.fit(bundle.centroids, file.taught(), examples, fractions)
    if classifier is None:
        raise UsageError(f"no class has an example that was taken with the encoder of {bundle.ref}, or a cluster")
    called = {one.id: one.name for one in file.classes}
    names = tuple(called[i] for i in classifier.ids.tolist())
    known = {name.casefold(): i for i, name in enumerate(labels)}
    match = np.array([known.get(name.casefold(), EXTRA) for name in names], np.int64)
    if (match == EXTRA).all():
        raise UsageError(f"no class is called as one of the labels': {', '.join(names)}, but {', '.join(labels)}")
    taken = {name.casefold() for name in names}
    for said, missing in (
        (
            "the labels have no class of these names, and their pixels are errors",
            [n for n, m in zip(names, match, strict=True) if m == EXTRA],
        ),
        (
            "nobody taught a class of these names, which no pixel is given to",
            [n for n in labels if n.casefold() not in taken],
        ),
    ):
        if missing:
            notes.append(f"{said}: {', '.join(missing)}")
    return TaughtClasses(classifier, names, match), tuple(notes)
