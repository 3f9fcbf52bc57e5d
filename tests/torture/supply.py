"""Tests 21, 24 and 25: what comes from outside: checkpoints, packages, the names that people give.

Knows nothing of servers but that they have a page.
"""

import asyncio
import json
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import torch

from models.nets.checkpoints.reader import ForeignCheckpointError, read_tensors
from tests.torture.client import request, said
from tests.torture.process import ROOT, serving
from tests.torture.verdict import Found, Place, torture
from training.report import charts
from training.report.html import left_out, page, section

MARKUP = '<img src=x onerror="alert(1)"></title><script>alert(1)</script>&\'"'


class _Evil:
    """Unpickled, it writes a file: harmless, and seen."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.file, "run")


@torture("21", "pickled checkpoints with __reduce__: refused, nothing in them is run")
async def pickles(place: Place, found: Found) -> None:
    folder = place.folder("pickles")
    witness = folder / "witness"
    tensor = torch.zeros(2)
    files = {"bare": lambda file: file.write_bytes(pickle.dumps(_Evil(witness)))}
    files |= {
        f"protocol {protocol}": (lambda file, p=protocol: file.write_bytes(pickle.dumps({"a": _Evil(witness)}, p)))
        for protocol in range(2, 6)
    }
    files["beside a tensor"] = lambda file: torch.save({"w": tensor, "evil": _Evil(witness)}, file)
    files["beside a tensor, old"] = lambda file: torch.save(
        {"w": tensor, "evil": _Evil(witness)}, file, _use_new_zipfile_serialization=False
    )
    for name, write in files.items():
        file = folder / f"{name}.ckpt"
        write(file)
        try:
            kept = sorted(read_tensors(file))
        except ForeignCheckpointError as error:
            kept = [f"refused: {error}"]
        harmless = kept[0].startswith("refused") or kept == ["w"]  # what is no tensor is left
        found.must(harmless and not witness.exists(), f"{name}: {kept}, run: {witness.exists()}")
    runs = [path for room in ("models", "service", "training") for path in (ROOT / room).rglob("*.py")]
    unpickles = re.compile(r"(?<!inert_)pickle\.loads?\(|Unpickler|weights_only\s*=\s*False|allow_pickle\s*=\s*True")
    found.must(len(runs) > 100, "the sources were not found")
    for path in runs:
        match = unpickles.search(path.read_text())
        found.must(match is None, f"{path.relative_to(ROOT)}: {match and match[0]!r}")


@torture("24", "make audit: clean, or it says NOT AUDITED with exit code 2", limit_s=900.0)
async def audited(place: Place, found: Found) -> None:
    if not re.search(r"^audit:", (ROOT / "Makefile").read_text(), re.M):
        found.must(False, "there is no `make audit`")
        return
    ran = await asyncio.to_thread(
        subprocess.run, ["make", "audit"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    said_so = "NOT AUDITED" in ran.stdout + ran.stderr
    last = ((ran.stdout + ran.stderr).strip().splitlines() or ["no word"])[-1][:120]
    # make's own exit code is 2 for whatever fails: the sentence tells.
    found.must((ran.returncode == 0) != said_so, f"exit code {ran.returncode}: {last}")
    found.figure("NOT AUDITED: its database cannot be reached" if said_so else "clean")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen += [tag, *(name for name, _ in attributes)]


@torture("25", "names that are markup: escaped in reports and contact sheets, text on the page, JSON elsewhere")
async def markup(place: Place, found: Found) -> None:
    drawn = {
        "page": page(MARKUP, section(MARKUP, "<p></p>")),
        "lines": charts.lines({MARKUP: [(0, 1.0), (1, 2.0)]}, x=MARKUP),
        "histogram": charts.histogram({MARKUP: [0.5]}, 0, 1, x=MARKUP),
        "stack": charts.stack([(MARKUP, "#ff0000", 1.0)]),
        "matrix": charts.matrix([MARKUP], [MARKUP], [[1.0]]),
        "left out": left_out([(MARKUP, MARKUP)], MARKUP),
    }
    for what, html in drawn.items():
        tags = _Tags()
        tags.feed(html)
        found.must(not {"img", "script", "onerror"} & set(tags.seen), f"{what}: the markup is taken for markup")
    by_tests = ["tests/training/report", "tests/integration/page"]
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *by_tests]
    ran = await asyncio.to_thread(subprocess.run, [sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    last = (ran.stdout.strip().splitlines() or ["nothing ran"])[-1]
    found.must(ran.returncode == 0, f"the tests of reports and page: {last}")
    writes_html = re.compile(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b")
    for script in (ROOT / "service" / "web").rglob("*.js"):
        match = writes_html.search(script.read_text())
        found.must(match is None, f"{script.name} uses {match and match[0]}")
    async with serving([place.bundle], place.folder("state")) as server:
        change = request("PATCH", "/clusters/0", json.dumps({"name": MARKUP[:80]}).encode())
        answer = await said(server.port, change)
        found.must(answer is not None and answer.status in (200, 422), f"PATCH: {answer and answer.status}")
        for path in ("/clusters", "/clusters/0", "/models", "/healthz"):
            listed = await server.ask("GET", path)
            kind = listed.headers.get("content-type", "")
            sound = kind.startswith("application/json") and listed.headers.get("x-content-type-options") == "nosniff"
            found.must(sound, f"{path} is {kind}")
        for path in ("/", "/web/index.html", "/web/main.js", "/web/style.css"):
            listed = await server.ask("GET", path)
            for header in ("content-security-policy", "referrer-policy", "cross-origin-resource-policy",
                           "cross-origin-opener-policy", "x-content-type-options"):  # fmt: skip
                found.must(header in listed.headers, f"{path} has no {header}")
            policy = listed.headers.get("content-security-policy", "")
            found.must("unsafe" not in policy and "default-src 'none'" in policy, f"{path}: {policy!r}")
