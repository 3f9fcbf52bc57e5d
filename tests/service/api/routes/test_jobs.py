"""/jobs over HTTP: what is sent, what comes back, whose it is, what is refused."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.io import geodesy
from models.io.encode import encode
from service.api import middleware
from service.jobs import runner, work
from tests.service.answers import PNG, problem
from tests.service.jobs_of import FILES, ZIP, begun, kept, packed, result, settled
from tests.tiny import bands

ANN, BEN, ADMIN = ({"X-API-Key": key} for key in ("for ann", "for ben", "open sesame"))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for seconds to pass."""
    monkeypatch.setattr(middleware, "LINGER_S", 0.05)
    monkeypatch.setattr(work, "_FLUSH_S", 0.02)
    monkeypatch.setattr(work, "_LATER_S", 0.02)
    monkeypatch.setattr(runner, "_LOOK_S", 0.02)


def test_a_result_holds_what_requests_would_have_been_answered(client: TestClient) -> None:
    found = settled(client, job := begun(client, query="format=png,npy,overlay&k=3&alpha=0.7"))
    assert found["progress"] == {"total": 3, "done": 3, "failed": 0, "rate": found["progress"]["rate"], "eta_s": None}
    assert found["progress"]["rate"] > 0
    assert (found["options"], found["formats"]) == ({"k": "3", "alpha": "0.7"}, ["png", "npy", "overlay"])
    files = result(client, job)
    stems = {"a/1": "a/1.png", "a/2": "a/2.jpg", "b c/ü": "b c/ü.png"}
    assert set(files) == {stem + end for stem in stems for end in (".png", ".npy", ".overlay.jpg")}
    for stem, source in stems.items():
        for format, end in (("png", ".png"), ("npy", ".npy"), ("overlay", ".overlay.jpg")):
            answer = client.post(f"/segment?format={format}&k=3&alpha=0.7", content=FILES[source])
            assert files[stem + end] == answer.content, (stem, format)


def test_a_job_in_classes(serve: Any) -> None:
    with serve() as client:
        assert "no class yet" in problem(client.post("/jobs?classes=true", content=ZIP), 422)
        for id, clusters in ((3, [0, 1]), (7, [2, 3, 4])):
            client.put(f"/classes/{id}", json={"name": str(id), "clusters": clusters})
        settled(client, job := begun(client, query="format=png&classes=true&crf=fast"))
        answer = client.post("/segment?format=png&classes=true&crf=fast", content=FILES["a/1.png"])
        assert result(client, job)["a/1.png"] == answer.content


def test_a_bad_image_is_named_and_spoils_none(client: TestClient) -> None:
    bad = {f"bad{i}.png": b"no image" for i in range(5)}
    job = begun(client, packed({**FILES, **bad, "notes.txt": b"left out"}))
    found = settled(client, job)
    assert (found["progress"]["done"], found["progress"]["failed"]) == (8, 5)
    assert [failure["file"] for failure in found["failures"]] == sorted(bad)
    assert "not an image" in found["failures"][0]["reason"]
    assert found["failures_after"] is None
    first = client.get(f"/jobs/{job}?limit=3").json()
    rest = client.get(f"/jobs/{job}", params={"limit": 3, "after": first["failures_after"]}).json()
    assert [failure["file"] for failure in first["failures"] + rest["failures"]] == sorted(bad)
    assert len(result(client, job)) == 3


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_of_one_name_the_first_is_taken(client: TestClient) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in (("a.jpg", "a/2.jpg"), ("a.jpg", "a/1.png"), ("b.jpg", "a/2.jpg"), ("a.jpg", "a/2.jpg")):
            archive.writestr(name, FILES[source])
    found = settled(client, job := begun(client, buffer.getvalue()))
    progress = found["progress"]
    assert (progress["total"], progress["done"], progress["failed"]) == (4, 4, 2)
    assert [failure["file"] for failure in found["failures"]] == ["a.jpg (2)", "a.jpg (3)"]
    assert all("the first is taken" in failure["reason"] for failure in found["failures"])
    answer = client.post("/segment?format=png", content=FILES["a/2.jpg"]).content
    assert result(client, job) == {"a.png": answer, "b.png": answer}


def test_a_format_that_cannot_be_written_is_no_job(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geodesy, "here", lambda: False)
    before = client.get("/jobs").json()["jobs"]
    for query in ("format=png,geotiff", "format=zip&formats=geotiff"):
        said = problem(client.post(f"/jobs?{query}", content=ZIP), 422)
        assert "format geotiff needs rasterio, which is not installed" in said
    assert client.get("/jobs").json()["jobs"] == before


def test_a_zip_in_a_form_and_options_as_its_fields(client: TestClient) -> None:
    answer = client.post("/jobs?alpha=0.5", files={"file": ("photos.zip", ZIP)}, data={"format": "json", "k": "2"})
    assert answer.status_code == 202, answer.text
    found = settled(client, answer.json()["id"])
    assert (found["formats"], found["options"]) == (["json"], {"alpha": "0.5", "k": "2"})
    assert all(name.endswith(".json") for name in result(client, found["id"]))
    assert "twice" in problem(client.post("/jobs?k=2", files={"file": ("a.zip", ZIP)}, data={"k": "2"}), 422)
    assert "several files" in problem(client.post("/jobs", files=[("a", ("a", ZIP)), ("b", ("b", ZIP))]), 400)
    assert "no file" in problem(client.post("/jobs", files={"k": (None, "2")}), 400)
    cut = client.build_request("POST", "/jobs", files={"file": ("a.zip", ZIP)})
    problem(client.post("/jobs", content=cut.read()[:-20], headers={"content-type": cut.headers["content-type"]}), 400)


def test_a_folder_below_a_root(serve: Any, tmp_path: Path) -> None:
    home = tmp_path / "photos"
    for name, data in FILES.items():
        (home / "2026" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "2026" / name).write_bytes(data)
    (tmp_path / "secret.png").write_bytes(PNG)
    (home / "2026" / "out.png").symlink_to(tmp_path / "secret.png")
    with serve(roots=(home,)) as client:
        for path in (str(home / "2026"), "2026", (home / "2026").as_uri()):
            job = begun(client, None, json={"path": path, "format": ["png", "json"], "confidence": False})
            found = settled(client, job)
            assert found["source"] == path
            assert [failure["file"] for failure in found["failures"]] == ["out.png"]
            assert "outside" in found["failures"][0]["reason"]
            assert set(result(client, job)) == {
                f"{stem}.{end}" for stem in ("a/1", "a/2", "b c/ü") for end in ("png", "json")
            }
        for path in ("..", "/etc", "2026/../.."):
            assert "TESSERA_ROOTS" in problem(client.post("/jobs", json={"path": path}), 404)
        assert "TESSERA_BUCKETS" in problem(client.post("/jobs", json={"path": "s3://other/folder"}), 404)
        assert "path" in problem(client.post("/jobs", json={"folder": "2026"}), 422)
        assert "'kk'" in problem(client.post("/jobs", json={"path": "2026", "kk": 3}), 422)
        (home / "empty").mkdir()
        job = client.post("/jobs", json={"path": "empty"}).json()["id"]
        assert "no image" in settled(client, job, "failed")["note"]


def test_without_roots_no_path_is_read(client: TestClient) -> None:
    assert "TESSERA_ROOTS" in problem(client.post("/jobs", json={"path": "/"}), 403)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("format=jpg", "overlay"),
        ("format=png,png", "twice"),
        ("format=png,", "format"),
        ("k=1", "k"),
        ("k=200", "k"),
        ("only=77", "only"),
        ("nonsense=1", "nonsense"),
        ("k=2&k=3", "twice"),
    ],
)
def test_options_are_judged_before_the_body(client: TestClient, query: str, says: str) -> None:
    assert says in problem(client.post(f"/jobs?{query}", content=b""), 422)
    assert kept(client) == [] or all(len(path.name) == 32 for path in kept(client))


def test_bodies_that_are_none(serve: Any) -> None:
    with serve(max_job_bytes=200_000, max_job_files=4) as client:
        assert "empty" in problem(client.post("/jobs", content=b""), 400)
        assert "no zip" in problem(client.post("/jobs", content=PNG), 400)
        assert "zip" in problem(client.post("/jobs", content=ZIP[:-30]), 400)
        assert "JSON" in problem(client.post("/jobs", content=b'{"path": '), 400)
        problem(client.post("/jobs", content=ZIP, headers={"content-encoding": "gzip"}), 415)
        assert "TESSERA_MAX_JOB_BYTES" in problem(client.post("/jobs", content=bytes(200_001)), 413)
        pieces = (b"PK" + bytes(100_000) for _ in range(3))
        assert "TESSERA_MAX_JOB_BYTES" in problem(client.post("/jobs", content=pieces), 413)
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", bytes(10**7))
        problem(client.post("/jobs", content=bomb.getvalue()), 413)
        problem(client.post("/jobs", content=packed({f"{i}.png": b"" for i in range(5)})), 413)
        assert "no image" in problem(client.post("/jobs", content=packed({"readme.txt": b"x"})), 400)
        assert kept(client) == []
        job = begun(client, packed({"../../out.png": PNG, "in.png": PNG}))
        assert [failure["file"] for failure in settled(client, job)["failures"]] == ["../../out.png"]
        assert set(result(client, job)) == {"in.png"}


def test_a_job_is_its_owners(serve: Any) -> None:
    with serve(keys="ann=for ann,ben=for ben,eve:edit=for eve", admin_key="open sesame") as client:
        problem(client.post("/jobs", content=ZIP), 401)
        problem(client.post("/jobs", content=ZIP, headers={"X-API-Key": "for eve"}), 403)
        job = begun(client, headers=ANN)
        settled(client, job, headers=ANN)
        for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
            problem(client.request(method, f"/jobs/{job}{path}", headers=BEN), 404)
        assert client.get("/jobs", headers=BEN).json()["jobs"] == []
        assert [one["id"] for one in client.get("/jobs", headers=ANN).json()["jobs"]] == [job]
        assert [one["owner"] for one in client.get("/jobs", headers=ADMIN).json()["jobs"]] == ["ann"]
        assert client.delete(f"/jobs/{job}", headers=ADMIN).status_code == 200
        problem(client.get(f"/jobs/{job}", headers=ANN), 404)
        assert kept(client) == []


def test_lists_go_on_where_they_ended(serve: Any) -> None:
    with serve(max_key_jobs=100) as client:
        jobs = [begun(client) for _ in range(5)]
        for job in jobs:
            settled(client, job)
        first = client.get("/jobs?limit=2").json()
        second = client.get(f"/jobs?limit=3&before={first['before']}").json()
        assert [one["id"] for one in first["jobs"] + second["jobs"]] == jobs[::-1]
        assert client.get(f"/jobs?before={second['before']}").json() == {"jobs": [], "before": None}
        problem(client.get("/jobs?limit=0"), 422)
        problem(client.get("/jobs/nothing"), 404)


def test_a_range_of_a_result(client: TestClient) -> None:
    settled(client, job := begun(client))
    path = f"/jobs/{job}/result"
    whole = client.get(path)
    size, tag = len(whole.content), whole.headers["etag"]
    assert whole.headers["content-length"] == str(size)
    part = client.get(path, headers={"range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, whole.content[10:100])
    assert part.headers["content-range"] == f"bytes 10-99/{size}"
    assert client.get(path, headers={"range": "bytes=-5"}).content == whole.content[-5:]
    rest = client.get(path, headers={"range": f"bytes={size - 9}-", "if-range": tag})
    assert (rest.status_code, rest.content) == (206, whole.content[-9:])
    assert client.get(path, headers={"range": "bytes=1-2", "if-range": '"other"'}).status_code == 200
    assert client.get(path, headers={"range": "bytes=0-1,4-5"}).content == whole.content
    behind = client.get(path, headers={"range": f"bytes={size}-"})
    problem(behind, 416)
    assert behind.headers["content-range"] == f"bytes */{size}"
    assert client.get(path, headers={"if-none-match": tag}).status_code == 304
    head = client.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_metrics_count_jobs_and_their_images(serve: Any) -> None:
    with serve() as client:
        settled(client, begun(client, packed({**FILES, "bad.png": b"no"})))
        deadline = time.monotonic() + 5
        while 'tessera_jobs{state="done"} 1.0' not in (text := client.get("/metrics").text):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert 'tessera_job_images_total{outcome="done"} 3.0' in text
        assert 'tessera_job_images_total{outcome="failed"} 1.0' in text


def test_a_server_may_have_no_jobs(serve: Any, tmp_path: Path) -> None:
    with serve(job_images=0) as client:
        assert "TESSERA_JOB_IMAGES" in problem(client.post("/jobs", content=ZIP), 403)
        problem(client.get("/jobs"), 403)


def test_labels_of_a_job_are_those_of_the_pictures(client: TestClient) -> None:
    settled(client, job := begun(client, packed({"x.png": encode(bands(60, 100), "png")}), query="format=npy"))
    assert (np.load(io.BytesIO(result(client, job)["x.npy"])) == np.arange(100) * 5 // 100).mean() > 0.9
