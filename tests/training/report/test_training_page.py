"""Charts and pages that hold whatever a run may be called."""

import re
import xml.etree.ElementTree as ET

import pytest

from training.report import charts
from training.report.html import PAGE, page
from training.report.run_sections import curves, span

EVIL = '<b onload="x">&\'"'


def drawn(html: str) -> ET.Element:
    """The charts parse as XML: every tag closed, every name escaped."""
    return ET.fromstring(f"<div>{html}</div>")


def test_linesspan_the_frame() -> None:
    svg = charts.lines({"a": [(0, 1.0), (10, 3.0)], EVIL: [(0, 2.0), (10, 2.0)], "none": []}, x=EVIL)
    first, second = drawn(svg).findall(".//polyline")
    (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in first.attrib["points"].split()]
    assert x0 < x1
    assert y0 > y1  # up is more
    assert len(set(re.findall(r",([\d.]+)", second.attrib["points"]))) == 1
    assert EVIL not in svg


@pytest.mark.parametrize("points", [[(3, 2.0)], [(0, 0.0), (1, 0.0)], [(i, i % 7) for i in range(5000)]])
def test_odd_series_are_drawn(points: list[tuple[float, float]]) -> None:
    found = drawn(charts.lines({"a": points}, x="step")).find(".//polyline")
    assert found is not None
    assert 1 <= len(found.attrib["points"].split()) <= 240
    assert "nan" not in found.attrib["points"]


def test_no_series_no_chart() -> None:
    assert charts.lines({"a": []}, x="step") == ""
    assert "no step" in curves([])


def test_thinning_keeps_the_mean() -> None:
    thin = charts.thinned([(i, float(i % 2)) for i in range(1000)], most=100)
    assert len(thin) == 100
    assert all(value == 0.5 for _, value in thin)


def test_histogram_and_stack() -> None:
    drawn(charts.histogram({EVIL: [0.0, 0.5, 0.5], "flat": [0.0, 0.0, 0.0]}, -1, 1, x="cosine"))
    rows = drawn(charts.stack([(EVIL, "#ff0000", 0.25), ("b", "#00ff00", 0.75)])).findall(".//rect")
    assert [float(r.attrib["width"]) for r in rows] == [250, 750]


def test_a_matrix_shades_and_says_its_shares() -> None:
    svg = charts.matrix([EVIL, "b"], ["1", EVIL, "3"], [[0.0, 0.004, 0.996], [0.5, 0.25, 0.25]])
    cells = drawn(svg).findall(".//rect")
    assert len(cells) == 6
    shades = [float(cell.attrib["fill-opacity"]) for cell in cells]
    assert shades[2] == max(shades)
    assert shades[0] == min(shades)
    assert cells[3].find("title").text == "b → 1: 50.0%"  # type: ignore[union-attr]
    words = [text.text for text in drawn(svg).findall(".//text")]
    assert words[-4:] == ["100", "50", "25", "25"]  # what rounds to nothing is left blank
    assert EVIL not in svg


def test_a_page_holds_any_title() -> None:
    html = page(f"BODY TITLE {EVIL}", "<p>TITLE</p>")
    assert EVIL not in html
    assert html.count("<p>TITLE</p>") == 1
    assert "<title>BODY TITLE &lt;b" in html


def test_curves_of_every_stage_apart() -> None:
    log = [{"stage": EVIL, "step": i, "epoch": 0, "seconds": 1, "loss": 1.0, "log/x": 2.0} for i in (1, 2)]
    page = curves([*log, {"stage": "two", "step": 1, "epoch": 0, "seconds": 2, "loss": 1.0}])
    assert len(drawn(page).findall(".//figure")) == 3
    assert EVIL not in page


def test_the_page_asks_for_nothing_else() -> None:
    assert not re.search(r"<script|<link|url\(|https?:", PAGE)


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (200, "3.3 min"), (9000, "2.5 h")])
def test_spans_are_readable(seconds: float, text: str) -> None:
    assert span(seconds) == text
