"""What brings an extra: one wording, for extras that there are."""

import re
import tomllib
from pathlib import Path

from models.extras import brings, pip
from tessera.commands.doctor import _EXTRAS

ROOT = Path(__file__).parents[2]


def test_both_ways_are_named() -> None:
    assert brings("geo") == "pip install 'tessera-segmentation[geo]', in a checkout make serve EXTRAS=geo"
    assert brings("training").endswith("[training]', in a checkout make train DATA=photos")
    assert brings("") == "pip install 'tessera-segmentation', in a checkout make serve"
    assert brings("zarr").startswith(pip("zarr"))


def test_extras_of_the_service_are_locked_and_have_a_line_in_the_page() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    service = {*declared, "dev"} - {"cpu", "gpu", "training", "crf", "dev"}
    assert {extra for extra in service if not (ROOT / "requirements" / f"{extra}.txt").exists()} == set()
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == service
    assert service <= set(_EXTRAS)


def test_nobody_words_it_in_another_way() -> None:
    found = [
        str(file.relative_to(ROOT))
        for room in ("models", "service", "tessera", "training")
        for file in (ROOT / room).rglob("*.py")
        if re.search(r"tessera-segmentation\[|pip install -e", file.read_text(encoding="utf-8"))
    ]
    assert found == []
