"""Save …: files of every format, all photos in one zip, the same request as a line of the shell and as a program."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.io.encode import encode
from service.formats import registry
from tests.integration.page.steps import give
from tests.service.process import ROOT, process
from tests.tiny import bands

pytestmark = pytest.mark.slow
ODD = 'it\'s; a,b "c" #1 {d} $HOME.png'  # what shells, curl and forms have a meaning for


def save(page: Any, format: str, which: str | None = None) -> Any:
    """Choose in the dialog, and save; the download."""
    if which is not None:
        page.check(f"dialog [name=which][value={which}]")
    choose(page, format)
    with page.expect_download() as download:
        page.click("#save-now")
    page.wait_for_selector("#save-stop", state="hidden")
    return download.value


def choose(page: Any, format: str) -> None:
    field = page.locator(f"dialog [name=format][value={format}]")
    if not field.is_visible():
        page.locator("summary", has_text="More formats").click()
    field.check()


def content(download: Any) -> bytes:
    return Path(download.path()).read_bytes()


def test_every_format_of_the_server_can_be_saved(page: Any, photo: Path) -> None:
    give(page, photo)
    page.click("#save")
    page.wait_for_selector("#save-now")
    there = page.locator("dialog [name=format]").evaluate_all("all => all.map(one => one.value)")
    assert sorted(there) == sorted([*registry.names(), "seen"])
    saved = {format: save(page, format) for format in there}
    assert {format: one.suggested_filename for format, one in saved.items() if format != "png"} == {
        format: f"photo{'.seen.png' if format == 'seen' else registry.suffix(format)}"
        for format in there
        if format != "png"
    }
    assert saved["png"].suggested_filename == "photo.labels.png"
    labels = np.load(io.BytesIO(content(saved["npy"])))
    assert labels.shape == (60, 100)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content(saved["png"])))), labels)
    document = json.loads(content(saved["coco"]))
    assert document["images"][0]["file_name"] == "photo.png"
    seen = np.asarray(Image.open(io.BytesIO(content(saved["seen"]))).convert("RGB"))
    assert seen.shape == (60, 100, 3)
    assert tuple(seen[30, 10]) == (230, 30, 30)  # red over red
    with zipfile.ZipFile(io.BytesIO(content(saved["zip"]))) as packed:
        assert "segmentation.coco.json" in packed.namelist()


def test_all_photos_are_one_zip_and_coco_is_one_document(page: Any, tmp_path: Path) -> None:
    for name in ("b.png", "ä ö.png", "b.webp"):
        (tmp_path / name).write_bytes(encode(bands(60, 100), "png" if name.endswith("png") else "webp"))
    (tmp_path / "zz.png").write_bytes(b"no image")
    give(page, *sorted(tmp_path.iterdir()))
    page.locator("#progress", has_text="3 of 4 photos, 1 failed").wait_for()
    page.click("#save-all")
    with zipfile.ZipFile(io.BytesIO(content(save(page, "npy")))) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["ä ö.npy", "b.npy", "b (2).npy", "not saved.txt"] or sorted(packed.namelist()) == [
            "b (2).npy", "b.npy", "not saved.txt", "ä ö.npy",
        ]  # fmt: skip
        assert np.load(io.BytesIO(packed.read("ä ö.npy"))).shape == (60, 100)
        assert packed.read("not saved.txt").decode().startswith("zz.png\t")
        assert "not an image" in packed.read("not saved.txt").decode()
    assert "1 could not be" in page.text_content("#save-told")
    with zipfile.ZipFile(io.BytesIO(content(save(page, "coco")))) as packed:
        document = json.loads(packed.read("annotations.json"))
    assert [(one["id"], one["file_name"]) for one in document["images"]] == list(
        enumerate((page.locator(".thumb").evaluate_all("all => all.slice(0, 3).map(one => one.title)")), 1)
    )
    assert [one["id"] for one in document["annotations"]] == list(range(1, 16))  # five bands in each
    assert {one["image_id"] for one in document["annotations"]} == {1, 2, 3}
    assert len({one["id"] for one in document["categories"]}) == 5


def test_what_is_saved_is_what_is_shown(page: Any, photo: Path) -> None:
    """In the taught classes, with edges, another page: whatever the view has is in the request."""
    give(page, photo)
    body = {"method": "POST", "body": json.dumps({"name": "sky", "clusters": [2]})}
    page.evaluate("body => fetch('classes', {...body, headers: {'content-type': 'application/json'}})", body)
    page.reload()
    give(page, photo)
    page.locator("[name=edges][value=fast]").check(force=True)
    page.click("[data-of=classes]")
    page.wait_for_function("document.body.dataset.of === 'classes'")
    page.click("#save")
    page.wait_for_selector("#save-now")
    assert "edges fast · in the taught classes" in str(page.text_content("#save-as"))
    document = json.loads(content(save(page, "json")))
    assert (document["of"], document["refined"], [one["name"] for one in document["clusters"]]) == (
        "classes",
        True,
        ["sky"],
    )
    page.click("#copy-python")
    assert 'crf="fast", classes=True' in page.input_value("#snippet")
    page.locator("dialog button", has_text="Close").click()
    page.click("[data-of=clusters]")
    page.select_option("#scope", "local")
    page.click("#save")
    assert "not known there" in str(page.text_content("#save-as"))


def test_saving_can_be_stopped(page: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(encode(bands(60, 100), "png"))
    give(page, photo, tmp_path / "other.png")
    page.locator("#progress", has_text="2 of 2").wait_for()
    held: list[Any] = []
    page.route("**/segment?*format=npy*", lambda route: held.append(route))
    page.click("#save-all")
    choose(page, "npy")
    page.click("#save-now")
    page.click("#save-stop")
    page.locator("#save-told", has_text="Stopped").wait_for()
    assert page.locator("#save-now").is_enabled()


@pytest.mark.parametrize("keyed", [False, True])
def test_what_is_copied_runs(open_page: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, keyed: bool) -> None:
    keys = {"TESSERA_KEYS": "alice=open sesame"} if keyed else {}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ODD).write_bytes(encode(bands(60, 100), "png"))
    with process(tiny_bundle, tmp_path / "state", **keys) as (_, port):
        page = open_page(f"http://127.0.0.1:{port}/", permissions=["clipboard-read", "clipboard-write"])
        if keyed:
            page.fill("#key", "open sesame")
            page.keyboard.press("Enter")
        give(page, folder / ODD)
        page.locator("[name=edges][value=fast]").check(force=True)
        page.click("#save")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESSERA_KEY": "open sesame"}
        for format in ("overlay", "json", "npy", "coco"):
            choose(page, format)
            for kind in ("curl", "python"):
                page.click(f"#copy-{kind}")
                page.locator("#snippet-hint", has_text="Copied.").wait_for()
                text = page.evaluate("navigator.clipboard.readText()")
                assert text == page.input_value("#snippet")
                assert "open sesame" not in text
                command = ["bash", "-c", text] if kind == "curl" else [sys.executable, "-c", text]
                done = subprocess.run(
                    command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
                )
                assert (done.returncode, done.stderr) == (0, ""), done.stdout
                saved = folder / ODD.replace(".png", registry.suffix(format))
                if format == "json":
                    assert json.loads(saved.read_text())["refined"] is True
                elif format == "npy":
                    assert np.load(saved).shape == (60, 100)
                elif format == "coco":
                    assert json.loads(saved.read_text())["images"][0]["file_name"] == ODD
                else:
                    assert Image.open(io.BytesIO(saved.read_bytes())).size == (100, 60)
                saved.unlink()


def test_a_program_for_all_photos_is_copied_where_all_are_meant(page: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(encode(bands(60, 100), "png"))
    give(page, photo, tmp_path / "other.png")
    page.locator("#progress", has_text="2 of 2").wait_for()
    page.click("#save-all")
    folder = tmp_path / "folder"
    folder.mkdir()
    for one in (photo, tmp_path / "other.png"):
        (folder / one.name).write_bytes(one.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kind, command in (("curl", ["bash", "-ec"]), ("python", [sys.executable, "-c"])):
        page.click(f"#copy-{kind}")
        page.locator("#snippet-hint", has_text="in the folder of these 2 photos").wait_for()
        text = page.input_value("#snippet")
        subprocess.run([*command, text], cwd=folder, env=environment, check=True, timeout=60)
        for name in ("photo", "other"):
            saved = folder / f"{name}.labels.png"
            assert Image.open(io.BytesIO(saved.read_bytes())).size == (100, 60)
            saved.unlink()


def test_copying_needs_no_clipboard(page: Any, photo: Path) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.reload()
    give(page, photo)
    page.evaluate("document.execCommand = () => false")
    page.click("#save")
    page.click("#copy-curl")
    page.locator("#snippet-hint", has_text="Ctrl+C").wait_for()
    assert page.evaluate("getSelection().toString()").startswith("curl")
