"""The whole page of a run: what it shows, what it keeps private, and that it is one file."""

import importlib
import re
import shlex
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import typer

from models.bundle import Bundle
from models.io.paths import Skipped
from tessera.cli import COMMANDS
from tests.training.finished_run import finished, page
from tests.training.small_run import SMALL, draw, settled, small_run
from training.config.facts import note
from training.config.run import Run
from training.data.images import Found, Images
from training.report.next_steps import next_steps


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Bundle]:
    return finished(tmp_path_factory.mktemp("<b>shown"))


def test_every_photo_stands_beside_its_map_with_words_for_who_cannot_see_it(shown: tuple[Run, Bundle]) -> None:
    html = page(*shown)
    for i in range(8):
        assert f'alt="photo {i}.png"' in html
        assert re.search(rf'alt="map of {i}\.png: cluster \d \d+%', html)
    assert all('alt="' in tag and 'alt=""' not in tag for tag in re.findall("<img[^>]*>", html))
    assert not re.search(r"<script|<link|url\(|src=\"(?!data:)", html)
    assert "<b>shown" not in html


def test_what_the_run_noted_is_shown_and_what_it_did_not_is_left_out(shown: tuple[Run, Bundle]) -> None:
    run, bundle = shown
    assert "<h2>Balance" not in page(run, bundle)
    note(
        run,
        "k_curve",
        {"curve": [{"k": 2, "stability": 0.9, "silhouette": 0.1, "unused": 0}], "sentence": "k < 3", "proposed": 2},
    )
    note(run, "aligned", {"to": "old@1", "matched": [{"id": 1, "name": "<sky>", "iou": 0.7}], "said": ["2 is new"]})
    note(run, "folder", {"duplicates": [["a.png", "<b>.png", "c.png"]]})
    note(run, "balance", {"aims": {"knn": 0.3}, "columns": ["step", "shift_knn", "knn"], "rows": [[0, 0.1, 0.2]]})
    note(run, "stages", [{"name": "stages", "seconds": 7200.0, "peak_mb": 3000.0}])
    note(run, "warnings", [{"text": "codes <collapse>", "option": "stego.balance=auto", "stage": "head", "step": 3}])
    html = page(run, bundle)
    assert "K &lt; 3." in html
    assert "<h2>Balance" in html
    assert "<td>&lt;sky&gt;</td><td>70%" in html
    assert "<li>2 is new.</li>" in html
    assert "Copies of other files (2)" in html
    assert "a.png = &lt;b&gt;.png = c.png" in html
    assert "2.0 h</td><td>100%</td><td>2.9 GB" in html
    assert "Codes &lt;collapse&gt; (noticed in stage head, step 3). May help: <code>--set stego.balance=auto" in html
    shutil.rmtree(run.cache / "facts")
    assert "<h2>Clusters" in page(run, bundle)


def test_a_bundle_of_the_last_release_has_a_page(shown: tuple[Run, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its report.json knows nothing of familiarity, second choices or machines."""
    run, bundle = shown
    new = {"familiarity", "near_duplicates", "runners_up", "machine"}
    old = {name: value for name, value in bundle.report().items() if name not in new}
    monkeypatch.setattr(Bundle, "report", lambda self: dict(old))
    assert "<h2>Similarity of codes" in page(run, bundle)


def test_private_photos_are_in_no_page(tmp_path: Path) -> None:
    run, bundle = finished(tmp_path, "export.exemplars=0")
    html = page(run, bundle)
    assert "none is shown" in html
    assert html.count("<img") == sum(len(bundle.exemplars(k)) for k in range(3))  # mean patches alone
    assert re.search(r"\d\.png", html)  # of odd photos the name
    assert ".png" not in (bundle.path / "report.json").read_text()


def test_a_photo_that_is_gone_is_told_of(tmp_path: Path) -> None:
    run, bundle = finished(tmp_path)
    (run.images.root / "3.png").unlink()
    assert "3.png could not be opened again" in page(run, bundle)


def test_measured_images_bounds_what_is_measured(tmp_path: Path) -> None:
    _, bundle = finished(tmp_path, "export.measured_images=3")
    assert bundle.report()["measured_on"] == 3
    assert bundle.report()["images"] == 8


def test_commands_are_those_of_this_run_quoted_for_a_shell(tmp_path: Path) -> None:
    images = draw(tmp_path / "my photos", count=4)
    run = replace(small_run(tmp_path / "a b", images=images), recipe=settled(None, *SMALL, "clusters.k=200"))
    bundle = run.folder / "bundle"
    serve, recluster, evaluate, anew, again = (
        shlex.split(step.command) for step in next_steps(run, bundle, run.folder)
    )
    assert serve == ["tessera", "serve", "--bundle", str(run.folder / "bundle")]
    assert recluster[:3] == ["tessera", "recluster", str(run.folder)]
    assert evaluate[1:5] == ["evaluate", str(run.folder), "--data", str(images.root)]
    assert (anew[1], anew[-1]) == ("train", "clusters.k=255")
    assert again[1:] == ["train", "--out", str(run.folder), "--resume"]
    told = next_steps(run, bundle, tmp_path / "c", option="stego.lr=1e-4", k=7)
    assert told[3].command.endswith("--set stego.lr=1e-4")
    assert told[1].command == shlex.join(["tessera", "recluster", str(tmp_path / "c"), "--k", "7"])


def test_the_page_stays_small_with_very_many_clusters(tmp_path: Path) -> None:
    run, bundle = finished(tmp_path, "clusters.k=255", "export.exemplars=20")
    html = page(run, bundle)
    assert len(html) < 4_000_000
    assert len(re.findall("<article>", html)) == 255
    assert np.isfinite(bundle.report()["stability"])


def test_unescaped_is_what_a_shell_gets(shown: tuple[Run, Bundle]) -> None:
    run, bundle = shown
    commands = [unescape(text) for text in re.findall(r"<li>[^<]*<pre>([^<]*)</pre>", page(run, bundle))]
    assert [str(run.folder) in " ".join(shlex.split(one)) for one in commands] == [True] * 5


@pytest.mark.parametrize("number", range(5))
def test_every_command_is_one_that_tessera_understands(number: int, shown: tuple[Run, Bundle]) -> None:
    run, bundle = shown
    words = shlex.split(next_steps(run, bundle.path, run.folder)[number].command)
    name, arguments = ("train", words[2:]) if words[0] == "python" else (words[1], words[2:])
    if name == "recluster":
        pytest.importorskip("training.recluster")
    owner = importlib.import_module(COMMANDS[name].owner.partition(":")[0])
    app = owner.serve if name == "serve" else typer.Typer()
    if name != "serve":
        app.command()(owner.command)
    typer.main.get_command(app).make_context(name, arguments)  # raises where a word is not understood


def test_what_was_left_out_is_told_in_words_and_several_folders_are_all_named(tmp_path: Path) -> None:
    paths = draw(tmp_path / "one").paths
    found = Found(left_out={".mp4": 3, ".txt": 1})
    skipped = [Skipped(tmp_path / "two" / "<bad>.jpg", "it ends early")]
    images = Images([tmp_path / "one", tmp_path / "two"], paths, found, skipped=skipped)
    run, bundle = finished(tmp_path)
    html = page(replace(run, images=images), bundle)
    assert "3 videos (3 .mp4): save frames of them" in html
    assert "two/&lt;bad&gt;.jpg</td><td>it ends early" in html
    both = f"--data {tmp_path / 'one'} --data {tmp_path / 'two'}"
    assert sum(both in step.command for step in next_steps(replace(run, images=images), bundle.path, tmp_path)) == 2
