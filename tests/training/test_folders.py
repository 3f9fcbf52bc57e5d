"""Folders as people have them, through the commands: several at once, with runs among them, with files that vanish."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.training.few_steps import few_steps
from tests.training.small_run import draw, make, small_run
from training import pretrain, train
from training.data.errors import UnreadableImage
from training.data.regions import RegionOptions

SMALL = [
    "backbone.name=test_vit", "backbone.weights=random", "input.train_size=64", "input.size=64", "clusters.k=3",
    "workers=0", "stego.steps=2", "stego.code_dim=8", "export.exemplars=1",
]  # fmt: skip
PICIE = ["method=picie", "backbone.name=test_resnet", *few_steps("picie")]
FEW = ["--backbone", "test_resnet", "--rounds", "1", "--batch-size", "2", "--steps", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run below its own data, on which a file vanished after it was read; and what was said of that."""
    photos = tmp_path_factory.mktemp("data")
    draw(photos / "a", count=4)
    draw(photos / "b", count=3)
    (photos / "b" / "gone.png").symlink_to("nowhere.png")
    (photos / "film.MOV").touch()
    out, lost = photos / "runs" / "1", photos / "b" / "2.png"
    opened, content = train.datasets.open, lost.read_bytes()

    def then_lost(*args: object, **how: object) -> object:
        images = opened(*args, **how)  # type: ignore[arg-type]
        lost.unlink()
        return images

    app = typer.Typer()
    app.command()(train.command)
    asked = ["--data", str(photos / "a"), "--data", str(photos / "b"), "--out", str(out), "--device", "cpu"]
    asked += [part for one in SMALL for part in ("--set", one)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.datasets, "open", then_lost)
        stopped = CliRunner().invoke(app, asked)
    assert stopped.exit_code == 1, stopped.output
    lost.write_bytes(content)
    done = CliRunner().invoke(app, ["--out", str(out), "--device", "cpu", "--resume"])
    assert done.exit_code == 0, done.output
    return photos, stopped.output


def test_a_file_that_vanishes_is_named_and_the_run_goes_on_with_it(trained: tuple[Path, str]) -> None:
    _, said = trained
    last = " ".join(said.split("error: ")[1].split())
    assert last.startswith("b/2.png: no such file or directory. Checkpoints are kept: with the file as it was the run")
    assert "Traceback" not in said
    assert "copies among the images: 2 (a/0.png and b/0.png, for instance); what they show counts twice" in said


def test_what_a_run_keeps_names_files_below_their_folders(trained: tuple[Path, str]) -> None:
    photos, _ = trained
    run = photos / "runs" / "1"
    assert (run / "skipped.txt").read_text() == "b/gone.png\ta link to nothing\n"
    page = (run / "report.html").read_text()
    told = re.sub("<pre>.*?</pre>", "", page, flags=re.DOTALL) + (run / "bundle" / "manifest.json").read_text()
    assert "b/gone.png" in told
    assert str(photos) not in told
    assert f"--data {photos}/a --data {photos}/b" in page  # of what may be typed next
    assert json.loads((run / "run.json").read_text())["data"]["folders"] == [str(photos / "a"), str(photos / "b")]
    provenance = json.loads((run / "bundle" / "manifest.json").read_text())["provenance"]
    assert provenance["data"].startswith("7 images of a and b")
    # the drawn images of a and of b are the same; b/2.png was gone, and is back since the run went on
    assert json.loads((run / "cache" / "facts" / "folder.json").read_text()) == {
        "left_out": {},
        "duplicates": [[f"a/{i}.png", f"b/{i}.png"] for i in range(3)],
    }


def test_a_run_below_the_data_changes_nothing_for_those_after_it(trained: tuple[Path, str]) -> None:
    photos, _ = trained
    app = typer.Typer()
    app.command()(pretrain.main)
    done = CliRunner().invoke(app, ["--data", str(photos), "--out", str(photos / "runs" / "b.safetensors"), *FEW])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "7 images, 1 steps" in said
    assert "left out: 1 video (1 .mov): save frames of them as JPEG or PNG" in said
    assert "skipped b/gone.png: a link to nothing" in said


@pytest.mark.parametrize("what", ["features", "picie", "regions"])
def test_every_part_of_training_names_a_file_that_rots(tmp_path: Path, what: str) -> None:
    run = small_run(tmp_path, *(PICIE if what == "picie" else ["backbone.name=test_vit"]))
    method = make(run) if what == "picie" else None
    (tmp_path / "images" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    def use() -> None:
        if what == "features":
            make(run)
        elif what == "regions":
            run.regions(RegionOptions(size=(48, 64), scales=(100.0,)))
        else:
            for stage in method.stages():
                stage.before_epoch(0)
                list(stage.batches(0))

    with pytest.raises(UnreadableImage, match=r"^3\.png: the PNG"):
        use()
