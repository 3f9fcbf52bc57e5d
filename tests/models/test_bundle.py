"""The bundle's specification, line by line: each thing it forbids has a test that does it."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import bundle
from models.bundle import Bundle, BundleError, Golden
from models.manifest import Cluster
from tests.models.stripes import CENTROIDS, K, parts, thirds


@pytest.fixture
def saved(tmp_path: Path) -> Bundle:
    return bundle.save(tmp_path / "stripes", **parts())


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def replace(path: Path, name: str, data: bytes) -> None:
    """Another content with its digest put right: only the content itself can be refused."""
    (path / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    rewrite(path, lambda manifest: manifest["files"].update({name: digest}))


def test_a_bundle_comes_back_as_it_was_saved(saved: Bundle) -> None:
    again = Bundle.load(saved.path)
    assert again.digest == saved.digest == hashlib.sha256((saved.path / "manifest.json").read_bytes()).hexdigest()
    assert again.ref == f"stripes@{saved.digest[:12]}"
    assert (again.centroids == CENTROIDS).all()
    assert (again.golden.labels == thirds().labels).all()
    assert again.encoder_bytes() == b"not run here"
    assert [len(again.exemplars(k)) for k in range(K)] == [1, 0, 2]
    assert again.colors.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert again.report() == {"miou": None}


def test_saving_the_same_thing_twice_gives_the_same_digest(saved: Bundle, tmp_path: Path) -> None:
    assert bundle.save(tmp_path / "other", **parts()).digest == saved.digest


def test_saving_over_a_bundle_replaces_it_whole(saved: Bundle) -> None:
    newer = bundle.save(saved.path, **parts(exemplars={}))
    assert newer.exemplars(0) == []
    assert sorted(p.name for p in saved.path.parent.iterdir()) == ["stripes"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "../up"}, "pattern"),
        ({"centroids": CENTROIDS * 2}, "length 1"),
        ({"centroids": CENTROIDS[:2]}, "float32"),
        ({"centroids": CENTROIDS * np.nan}, "finite"),
        ({"clusters": [Cluster(name="same", color="#000000", fraction=1 / 3)] * 3}, "unique"),
        ({"golden": Golden(thirds().image, thirds().labels + 1)}, "golden"),
        ({"golden": Golden(thirds().image, thirds().labels[:4])}, "golden"),
        ({"exemplars": {7: [b"webp"]}}, "no place"),
    ],
)
def test_an_unsound_bundle_is_not_written(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=reason):
        bundle.save(tmp_path / "b", **parts(**changed))
    assert not (tmp_path / "b").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_missing_or_extra_file_is_refused(saved: Bundle, tmp_path: Path) -> None:
    for name in ("encoder.onnx", "centroids.npy", "golden.npz", "report.json", "NOTICE", "exemplars/002_1.webp"):
        for tamper, reason in ((lambda f: f.write_bytes(b"x"), "sha256"), (lambda f: f.unlink(), "missing")):
            copy = tmp_path / "copy"
            shutil.copytree(saved.path, copy)
            tamper(copy / name)
            with pytest.raises(BundleError, match=reason):
                Bundle.load(copy)
            shutil.rmtree(copy)
    (saved.path / "run.py").write_text("print('hello')")
    with pytest.raises(BundleError, match=r"run\.py is not listed"):
        Bundle.load(saved.path)


def test_symlinks_are_refused(saved: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    shutil.move(saved.path / "NOTICE", target)
    (saved.path / "NOTICE").symlink_to(target)
    with pytest.raises(BundleError, match="symlink"):
        Bundle.load(saved.path)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/passwd", "exemplars/../x.webp", "extra.bin"])
def test_names_outside_the_specification_are_refused(saved: Bundle, name: str) -> None:
    rewrite(saved.path, lambda manifest: manifest["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="no place in a bundle"):
        Bundle.load(saved.path)


def test_unknown_keys_and_other_versions_are_refused(saved: Bundle) -> None:
    rewrite(saved.path, lambda manifest: manifest.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        Bundle.load(saved.path)
    rewrite(saved.path, lambda manifest: (manifest.pop("surprise"), manifest.update(schema_version=2)))
    with pytest.raises(BundleError, match="schema_version"):
        Bundle.load(saved.path)


def test_pickled_arrays_are_refused(saved: Bundle) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    replace(saved.path, "centroids.npy", buffer.getvalue())
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.load(saved.path)


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        Bundle.load(tmp_path)


def test_only_the_manifest_is_rewritten_in_place_or_in_a_copy(saved: Bundle, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in saved.path.rglob("*") if path.is_file()}
    changes = {"hierarchy": [{"k": 2, "merge": [1, 2], "into": 1, "height": 0.25}], "hierarchy_by": "belonging"}
    copy = bundle.rewrite(saved, changes, tmp_path / "copy")
    assert {path: path.read_bytes() for path in before} == before
    there = bundle.rewrite(saved, changes)
    assert there.path == saved.path
    assert copy.digest == there.digest != saved.digest
    assert {path.name for path in before if path.read_bytes() != before[path]} == {"manifest.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "stripes"]
    assert there.manifest.hierarchy[0].merge == (1, 2)
    assert there.manifest.clusters == saved.manifest.clusters
    again = bundle.rewrite(there, {"hierarchy": [merge.model_dump() for merge in saved.manifest.hierarchy]})
    assert again.manifest.hierarchy == saved.manifest.hierarchy


def test_no_unsound_manifest_and_none_of_another_bundle_is_rewritten(saved: Bundle) -> None:
    raw = (saved.path / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="stops at 3"):
        bundle.rewrite(saved, {"hierarchy": []})
    assert (saved.path / "manifest.json").read_bytes() == raw
    rewrite(saved.path, lambda manifest: manifest.update(method="another"))
    with pytest.raises(BundleError, match="changed since"):
        bundle.rewrite(saved, {"hierarchy_by": "centroids"})


def test_a_network_changed_after_loading_does_not_run(saved: Bundle) -> None:
    saved.encoder_path.write_bytes(b"other")
    with pytest.raises(BundleError, match="changed since"):
        saved.encoder_bytes()


AXES = np.eye(3, dtype=np.float32)


def test_what_says_where_a_place_is_comes_back_and_is_left_out_of_codes_that_are_matched(tmp_path: Path) -> None:
    code = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    plain = bundle.save(tmp_path / "plain", **parts())
    assert plain.positions is None
    assert plain.matched(code) is code
    told = bundle.save(tmp_path / "told", **parts(positions=AXES[:, :1]))
    assert told.positions is not None
    assert (told.positions == AXES[:, :1]).all()
    assert (told.matched(code) == code * [[[0]], [[1]], [[1]]]).all()
    assert (told.matched(code[:, 0, 0]) == code[:, 0, 0] * [0, 1, 1]).all()
    files = {"positions.npy", *plain.manifest.files}
    assert told.manifest.model_copy(update={"files": plain.manifest.files}) == plain.manifest
    assert {name for name in files if told.manifest.files[name] != plain.manifest.files.get(name)} == {"positions.npy"}


def test_positions_are_added_to_a_bundle_that_is_there(saved: Bundle, tmp_path: Path) -> None:
    anew = bundle.rewrite(saved, {}, tmp_path / "anew", positions=AXES[:, 1:])
    here = bundle.rewrite(saved, {}, positions=AXES[:, 1:])
    assert anew.digest == here.digest != saved.digest
    assert Bundle.load(saved.path).positions is not None
    assert anew.encoder_bytes() == b"not run here"


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (AXES, "r from 1 to 2"),
        (AXES[:, :0], "r from 1 to 2"),
        (AXES[:2, :1], r"float32 \(3, r\)"),
        (AXES[0], r"float32 \(3, r\)"),
        (2 * AXES[:, :1], "right angles"),
        (AXES[:, [0, 0]], "right angles"),
        (np.nan * AXES[:, :1], "finite"),
    ],
)
def test_unsound_positions_are_refused(positions: np.ndarray, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=rf"positions.npy.*{reason}"):
        bundle.save(tmp_path / "b", **parts(positions=positions))
