"""What the ids of an answer stand for: the network's clusters, or classes that people taught.

Knows nothing of images. Taken once an answer, whatever people change meanwhile.
"""

from typing import Literal, NamedTuple

from models.types import Array
from service.errors import BadOption
from service.formats.result import ClusterStyle
from service.inference.options import Options
from service.repository.classes import ClassState
from service.repository.cluster_names import Clusters

_TEACH = (
    "make one with POST /classes, and show it a place with POST /classes/{id}/examples, or give it clusters; or leave"
    " classes=true out"
)


class Vocabulary(NamedTuple):
    """The ids of one answer.

    of     what they are;  k  how many of them are told apart
    table  uint8: of clusters the id that stands for each of the network's; every class's stands for itself
    style  names and colors by id;  taught  the classes; None: these are clusters
    """

    of: Literal["clusters", "classes"]
    k: int
    table: Array
    style: ClusterStyle
    taught: ClassState | None = None

    @property
    def size(self) -> int:
        """Ids are below it."""
        return len(self.style.names)


def vocabulary_of(options: Options, clusters: Clusters, classes: ClassState) -> Vocabulary:
    """What an answer with these options tells apart. Raises BadOption for what a model cannot."""
    only = options.render.only or ()
    if not options.classes:
        if missing := [cluster for cluster in only if cluster >= clusters.count]:
            raise BadOption(f"only: no cluster {missing[0]}; {clusters.ref} has 0 to {clusters.count - 1}")
        table = clusters.table(options.k, merged=options.merged)
        return Vocabulary("clusters", options.k or clusters.count, table, clusters.style)
    if options.k is not None:
        raise BadOption("k: it is a number of clusters, and classes are not merged; leave it out, or classes=true")
    if not classes.taught:
        what = "no class has an example or a cluster that this model knows" if classes.classes else "there is no class"
        raise BadOption(f"classes: {what} yet; {_TEACH}" + "".join(f". {told}" for told in classes.warnings))
    if missing := [id for id in only if id not in classes.by_id]:
        raise BadOption(f"only: no class {missing[0]}; there are {', '.join(map(str, classes.by_id))}")
    return Vocabulary("classes", len(classes.classes), classes.table, classes.style, classes)
