"""What an answer in classes costs beside one in clusters: the same images, one kind of answer after the other.

    python -m benchmarks.classes [BUNDLE …] [--classes 8,27,254] [--formats png,json] [--secs 20]

Without a BUNDLE: a near-zero network (one convolution of 16×16 pixels, D 70, K 27), whose server's own work is nearly
all there is, and the embedded default. A server of ours on loopback, cache off, is taught so many classes of ten
examples each, as a file. Then one connection asks for an image in clusters and in classes by turns, the first of each
pair changing; printed are the medians, and the ratio of the two: at most 1.3 is what is wanted where there are no more
classes than clusters. Exit code 1 where it is more.

Knows nothing of how classes are told apart.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.commits import jpeg
from benchmarks.own_server import serving
from models.bundle import Bundle, Golden, save
from models.class_file import ClassFile, FileClass, FileExample, numbers
from models.inference import segment
from models.manifest import Cluster, CodeSpec, Merge, Provenance
from models.preprocess import InputSpec
from service.settings import embedded
from training.data.synthetic import street
from training.evaluation.exported import Exported

PORT = 8231
MOST = 1.3
_D, _K, _CELL = 70, 27, 16
_EXAMPLES = 10


def main() -> int:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    parser.add_argument("--classes", default="8,27,254")
    parser.add_argument("--formats", default="png,json")
    parser.add_argument("--secs", type=float, default=20.0, help="of each line")
    given = parser.parse_args()
    within = True
    with tempfile.TemporaryDirectory() as folder:
        for path in given.bundles or [near_zero(Path(folder) / "near-zero"), embedded()[0]]:
            bundle = Bundle.load(path)
            env = {
                "TESSERA_CACHE_BYTES": "0",
                "TESSERA_ACCESS_LOG": "false",
                "TESSERA_STATE": f"{folder}/state-{path.name}",
            }
            with serving(path, Path(folder) / "log", port=PORT, env=env) as server:
                for count in (int(number) for number in given.classes.split(",")):
                    teach(server.port, bundle, count)
                    for format in given.formats.split(","):
                        plain, classes, ratio = by_turns(server.port, format, given.secs)
                        wanted = count <= max(len(bundle.manifest.clusters), 8)
                        within &= ratio <= MOST or not wanted
                        print(
                            f"{bundle.manifest.name}, K {len(bundle.manifest.clusters)}, {count} classes, {format}:"
                            f" {plain:.2f} ms in clusters, {classes:.2f} in classes, ratio {ratio:.3f}"
                            f"{'' if ratio <= MOST or not wanted else f', more than {MOST}'}",
                            flush=True,
                        )
    return 0 if within else 1


def near_zero(folder: Path) -> Path:
    """A bundle of one convolution with drawn weights, and the centroids' own; as good as none."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(_D, 3, _CELL, _CELL)).astype(np.float32) / 1000
    centroids = rng.normal(size=(_K, _D)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "weights"], ["code"], strides=[_CELL, _CELL]),
            helper.make_node("Conv", ["code", "centroids"], ["scores"]),
        ],
        "near_zero",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", "H", "W", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", _K, "h", "w"]),
            helper.make_tensor_value_info("code", TensorProto.FLOAT, ["B", _D, "h", "w"]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(centroids[:, :, None, None], "centroids"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    image = street((320, 320), seed=0)
    nothing = "0" * 64

    def write(labels: np.ndarray) -> Bundle:
        return save(
            folder,
            name="near-zero",
            method="one convolution",
            input=InputSpec(size=(320, 320), resize="stretch", multiple=_CELL, max_side_px=320),
            code=CodeSpec(dim=_D, stride=_CELL, assignment="cosine", temperature=2.0),
            clusters=[Cluster(name=f"cluster {k}", color=f"#{k * 9:02x}8040", fraction=1 / _K) for k in range(_K)],
            hierarchy=[Merge(k=k, merge=(0, k), into=0, height=1.0) for k in range(_K - 1, 1, -1)],
            provenance=Provenance(
                tessera="0", created="", recipe={}, recipe_sha256=nothing, seed=0, images=0, data="none: drawn weights",
                data_sha256=nothing, licence="none",
            ),
            encoder_onnx=network,
            centroids=centroids,
            golden=Golden(image, labels),
            exemplars={},
            report={},
            notice="Drawn by a program.\n",
        )  # fmt: skip

    unknown = write(np.zeros(image.shape[:2], np.uint8))
    labels = segment(unknown, Exported(network), image)
    for file in sorted(folder.rglob("*")):
        file.unlink()
    folder.rmdir()
    return write(labels).path


def teach(port: int, bundle: Bundle, count: int) -> None:
    """So many classes of drawn examples, in place of those before."""
    rng, dim = np.random.default_rng(count), bundle.manifest.code.dim

    def examples() -> tuple[FileExample, ...]:
        codes = rng.normal(size=(_EXAMPLES, dim)) + rng.normal(size=dim)
        at = rng.random((_EXAMPLES, 2)).tolist()
        return tuple(
            FileExample(n=n, code=numbers(code.astype(np.float32)), at=(x, y))
            for n, (code, (x, y)) in enumerate(zip(codes, at, strict=True), 1)
        )

    classes = [FileClass(id=id, name=f"class {id}", color=f"#{id:02x}8040", examples=examples()) for id in range(count)]
    file = ClassFile(
        model=bundle.manifest.name,
        encoder=bundle.manifest.files["encoder.onnx"],
        dim=dim,
        classes=tuple(classes),
    )
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", "/classes/import?replace=true", file.to_bytes())
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def by_turns(port: int, format: str, secs: float) -> tuple[float, float, float]:
    """Medians in milliseconds: in clusters, in classes; and their ratio."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    images = [jpeg(seed) for seed in range(16)]
    took: dict[str, list[float]] = {"": [], "&classes=true": []}
    until, turn = time.perf_counter() + secs, 0
    while time.perf_counter() < until or turn < 3 * len(images):
        for kind in sorted(took, reverse=bool(turn % 2)):
            began = time.perf_counter()
            connection.request("POST", f"/segment?format={format}{kind}", images[turn % len(images)])
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            if turn >= len(images):  # the first ones warm up
                took[kind].append((time.perf_counter() - began) * 1000)
        turn += 1
    connection.close()
    plain, classes = (statistics.median(times) for times in took.values())
    return plain, classes, classes / plain


if __name__ == "__main__":
    sys.exit(main())
