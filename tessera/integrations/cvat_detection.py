"""A native function for CVAT that draws every cluster: `cvat-cli function create-native`, `task auto-annotate`.

Its labels are the server's clusters, by their names. A mask holds all of a cluster's pixels; where CVAT wants polygons
each region is one, and a hole hangs on its outline by a bridge without width, as CVAT's polygons have none.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

from models.bridges import bridged
from models.polygons import regions
from tessera.client import Client, Segmentation
from tessera.client.options import SegmentOptions

_CRF: dict[str, bool | Literal["band", "fast"]] = {"true": True, "false": False, "band": "band", "fast": "fast"}


class ClusterDetection:
    """The function. Its labels are asked for once: start the agent again after clusters were renamed.

    spec  clusters of one name are one label; hidden ones, and those merged into others, are none
    """

    def __init__(self, client: Client, options: SegmentOptions, min_area: int = 0) -> None:
        """min_area  pixels: smaller polygons are left out"""
        self.client, self._options, self._min_area = client, options, min_area
        self._labels: dict[int, int] = {}  # cluster → label
        named: dict[str, int] = {}
        for cluster in client.clusters(options.get("model")):
            if not cluster.hidden and cluster.merged_into is None:
                self._labels[cluster.id] = named.setdefault(cluster.name, cluster.id)
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, id, type="mask") for name, id in named.items()]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """The clusters of an image whose confidence (their mean margin) reaches what CVAT asks for."""
        found = self.client.segment(image, **self._options)
        least = context.conf_threshold or 0.0
        sure = {one.id for one in found.clusters if one.confidence >= least and one.id in self._labels}
        return self._polygons(found, sure) if context.conv_mask_to_poly else self._masks(found, sure)

    def _masks(self, found: Segmentation, sure: set[int]) -> list[models.LabeledShapeRequest]:
        clusters = defaultdict(list)
        for id in sorted(sure):
            clusters[self._labels[id]].append(id)
        return [cvataa.mask(label, encode_mask(np.isin(found.labels, ids))) for label, ids in clusters.items()]

    def _polygons(self, found: Segmentation, sure: set[int]) -> list[models.LabeledShapeRequest]:
        return [
            cvataa.polygon(self._labels[region.id], bridged(region.rings).astype(float).ravel().tolist())
            for region in regions(found.labels, min_area=self._min_area)
            if region.id in sure
        ]


def create(
    url: str = "", key: str = "", model: str = "", k: int = 0, crf: str = "", min_area: int = 0
) -> ClusterDetection:
    """What `cvat-cli` makes of `-p url=str:http://localhost:8000 -p k=int:6` and so on.

    url, key  of the server; empty: TESSERA_URL and TESSERA_KEY of the environment, where a key is not seen by others
    model, k, crf  as `POST /segment` has them;  min_area  pixels: smaller polygons are left out
    """
    client = Client(
        url or os.environ.get("TESSERA_URL", "http://localhost:8000"), key=key or os.environ.get("TESSERA_KEY")
    )
    options: SegmentOptions = {}
    if model:
        options["model"] = model
    if k:
        options["k"] = k
    if crf:
        options["crf"] = _CRF[crf]
    return ClusterDetection(client, options, min_area)
