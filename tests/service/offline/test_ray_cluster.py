"""How many workers of which size have room on a cluster; no Ray is started."""

import pytest

from models.errors import UsageError
from service.offline import ray_cluster
from service.offline.ray_cluster import Node, Pool, Wanted, pool


@pytest.mark.parametrize(
    ("nodes", "wanted", "found"),
    [
        ([Node(2, 0)], Wanted(), Pool(1, 1, 2, 0)),
        ([Node(2, 0)], Wanted(2, 2), Pool(2, 2, 1, 0)),
        ([Node(2, 0)], Wanted(3, 3), None),
        ([Node(2, 0)], Wanted(2, 8), Pool(2, 8, 1, 0)),
        ([Node(8, 0), Node(8, 0), Node(8, 0)], Wanted(4, 4), Pool(4, 4, 4, 0)),
        ([Node(64, 0), Node(6, 0)], Wanted(), Pool(17, 17, 4, 0)),
        ([Node(1, 0)], Wanted(), Pool(1, 1, 1, 0)),
        ([Node(16, 2)], Wanted(gpus=0.25), Pool(4, 4, 4, 0.25)),
        ([Node(64, 2)], Wanted(gpus=0.25), Pool(8, 8, 4, 0.25)),
        ([Node(16, 1)], Wanted(1, 4, 0.25), Pool(1, 4, 4, 0.25)),
        ([Node(16, 1)], Wanted(3, 3, 0.4), None),  # two of 0.4 go onto one GPU
        ([Node(16, 4)], Wanted(2, 2, 2.0), Pool(2, 2, 8, 2.0)),
        ([Node(16, 0)], Wanted(gpus=1.0), None),
        ([Node(0, 0)], Wanted(), None),
        ([], Wanted(), None),
    ],
)
def test_workers_have_as_many_cores_as_their_number_leaves(
    nodes: list[Node], wanted: Wanted, found: Pool | None
) -> None:
    assert pool(nodes, wanted) == found


def test_what_is_missing_is_said_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(
        UsageError, match=r"\(ray\): pip install 'tessera-segmentation\[ray\]', in a checkout make serve"
    ):
        ray_cluster.check_installed()


def test_where_no_cluster_is_that_is_said_at_once() -> None:
    with pytest.raises(UsageError, match=r"--ray-address '127\.0\.0\.1:1': no cluster answers there \(.*refused"):
        ray_cluster._check_there("127.0.0.1:1")
