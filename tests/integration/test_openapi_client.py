"""What openapi-python-client makes of /openapi.json: without a warning, types that hold, and calls that work.

The generator wants an environment of its own: its folder of programs has to be in PATH.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.answers import PNG
from tests.service.process import ask, process

GENERATOR = shutil.which("openapi-python-client")
ASK = """
import io, sys
from tessera_client import Client
from tessera_client.api.clusters import change_cluster, cluster_tree, clusters, exemplar
from tessera_client.api.images import segment, similar
from tessera_client.api.models import model, models
from tessera_client.api.probes import healthz, livez, metrics, readyz
from tessera_client.models import (
    Change, ClusterList, ImageBody, ImagesBody, Problem, Segmentation, Segmentations, SegmentCrf, SegmentForm,
)
from tessera_client.types import File

png = sys.stdin.buffer.read()
client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
def photo(): return File(payload=io.BytesIO(png), file_name="a.png", mime_type="image/png")

for body in (SegmentForm(image=[photo()]), photo()):
    one = segment.sync(client=client, body=body, k=3)
    assert isinstance(one, Segmentation), one
    assert (one.width, one.height, one.k, one.model) == (100, 60, 3, "tiny")
    assert sum(cluster.fraction for cluster in one.clusters) > 0.999
import base64
text = base64.b64encode(png).decode()
assert isinstance(segment.sync(client=client, body=ImageBody(image=text), crf=SegmentCrf.FAST), Segmentation)
two = segment.sync(client=client, body=ImagesBody(images=[text, "QUFBQQ=="]))
assert isinstance(two, Segmentations) and isinstance(two.results[0], Segmentation), two
assert isinstance(two.results[1], Problem) and two.results[1].status == 400
form = SegmentForm(image=[photo(), photo()], k="2", confidence="true")
assert [answer.k for answer in segment.sync(client=client, body=form).results] == [2, 2]
bad = segment.sync_detailed(client=client, body=photo(), k=99)
assert bad.status_code == 422 and "2 to 5" in bad.parsed.detail
heat = similar.sync(client=client, body=photo(), x=3, y=3)
assert heat.payload.read(4) == b"\\x89PNG"
found = clusters.sync(client=client)
assert isinstance(found, ClusterList) and [c.name for c in found.clusters][:2] == ["red", "green"]
assert change_cluster.sync(0, client=client, body=Change(name="fire")).name == "fire"
assert change_cluster.sync(0, client=client, body=Change(name=None)).name == "red"
assert cluster_tree.sync(client=client).merges[0].merge == [1, 2]
assert exemplar.sync(0, 0, client=client).payload.read(4) == b"RIFF"
assert models.sync(client=client).models[0].name == "tiny"
assert model.sync("tiny", client=client).warm_shapes is not None
assert model.sync("nobody", client=client).status == 404
assert livez.sync(client=client).live and readyz.sync(client=client).ready and healthz.sync(client=client).ready
assert "tessera_requests_total" in metrics.sync(client=client)
"""


@pytest.mark.slow
@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not in PATH")
def test_a_generated_client_works(tiny_bundle: Path, tmp_path: Path) -> None:
    assert GENERATOR
    python = Path(GENERATOR).with_name("python")
    with process(tiny_bundle, tmp_path / "state") as (_, port):
        (tmp_path / "openapi.json").write_bytes(ask(port, "GET", "/openapi.json")[1])
        made = subprocess.run(
            [GENERATOR, "generate", "--path", "openapi.json", "--output-path", "made", "--fail-on-warning"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        assert "WARNING" not in made.stdout + made.stderr
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", "--python-executable", str(python), "tessera_client"],
            cwd=tmp_path / "made", capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout[-3000:]
        done = subprocess.run(
            [python, "-c", ASK, f"http://127.0.0.1:{port}"],
            cwd=tmp_path / "made", input=PNG, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-3000:]
