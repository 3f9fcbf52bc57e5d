"""`tessera clusters`: the table, and a page that fetches nothing."""

import re
import sys
from html.parser import HTMLParser
from os.path import relpath
from pathlib import Path

import pytest

from models.bundle import Bundle
from service.settings import embedded
from tessera.commands import clusters
from tessera.commands.contact_sheet import contact_sheet


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tessera clusters", *arguments])
    with pytest.raises(SystemExit) as ended:
        clusters.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.sources, self.tags = "", [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_table_and_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    page = tmp_path / "new" / "sheet.html"
    assert run(monkeypatch, str(tiny_bundle), "--html", str(page)) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("red", "green", "20.0%", "tiny@", "mean color"))
    shown = Page(page.read_text())
    assert len(shown.sources) == 10
    assert all(source.startswith("data:image/webp;base64,UklGR") for source in shown.sources)
    assert "script" not in shown.tags
    assert shown.tags.count("article") == 5
    assert shown.tags.count("path") == 3
    assert all(word in shown.text for word in ("red", "#e61e1e", "nearest", "1 and 2 become 1: 4 left"))


def test_a_run_holds_its_bundle_and_other_folders_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    assert run(monkeypatch, str(tmp_path)) == 0
    assert run(monkeypatch, str(tmp_path / "nowhere")) == 2
    said = capsys.readouterr().err
    assert "no bundle" in said
    assert f"the embedded one {relpath(embedded()[0])}" in said


def test_names_are_no_markup(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    first, *rest = bundle.manifest.clusters
    odd = first.model_copy(update={"name": "<img src=x onerror=alert(1)>[bold]"})
    manifest = bundle.manifest.model_copy(update={"clusters": (odd, *rest)})
    altered = Bundle(bundle.path, manifest, bundle.digest, bundle.centroids, bundle.golden)
    page = contact_sheet(altered)
    assert "<img src=x" not in page
    assert not re.search(r"https?://", page)
    assert clusters._plain(odd.name).endswith(r"\[bold]")
