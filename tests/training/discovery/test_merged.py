"""Clusters of a network's codes by way of its regions, and where there are too few of these."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.training.small_run import make, small_run
from training.discovery.merged import merged

FEW = ("method=deepcluster", "backbone.name=test_resnet", "deepcluster.code_dim=8", "clusters.region_scales=[100.0]")


@pytest.mark.parametrize(
    ("k", "said"), [(3, "what belongs together of"), (200, "regions are too few for 200 clusters")]
)
def test_there_are_as_many_centroids_as_clusters(k: int, said: str, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    run = replace(small_run(tmp_path, *FEW, f"clusters.k={k}"), console=console)
    method = make(run)
    found = merged(method.encoder().eval(), method.temperature, run)
    assert found.centroids.shape == (k, 8)
    assert found.assignment == "cosine"
    assert said in console.file.getvalue()  # type: ignore[attr-defined]
