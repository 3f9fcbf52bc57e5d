"""Options of a request as those of a command: all of them, by the same names."""

import typer

from service.commands import segment
from service.commands.option_flags import spelled_out
from service.inference.options import Options

WITHOUT = ("model", "format", "priority")


def test_every_option_of_a_request_is_one_of_the_command() -> None:
    flags = {one.name: one for one in typer.main.get_command(segment.app).params}
    own = {"paths", "out", "format", "bundle", "workers", "engine", "ray_address", "gpus", "overwrite", "dry_run"}
    assert flags.keys() == (Options.model_fields.keys() - set(WITHOUT)) | own
    assert flags["crf_size"].opts == ["--crf-size"]
    assert flags["crf_size"].metavar == "[input|source]"
    help_of_crf = str(getattr(flags["crf"], "help", ""))
    assert "guided filter" in help_of_crf
    assert help_of_crf.endswith("default false.")


def test_what_can_be_said_alone_is_true_then() -> None:
    def spelled(text: str) -> str:
        return " ".join(spelled_out(text.split(), Options, WITHOUT))

    assert spelled("--crf photos --out o") == "--crf true photos --out o"
    assert spelled("photos --crf") == "photos --crf true"
    assert spelled("--crf fast --crf-size source") == "--crf fast --crf-size source"
    assert spelled("--crf --confidence --k 3") == "--crf true --confidence true --k 3"
    assert spelled("--crf=fast --confidence False") == "--crf=fast --confidence False"
    assert spelled("--format --nonsense --crf-size input") == "--format --nonsense --crf-size input"
