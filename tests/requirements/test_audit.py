"""`make audit` with doubles of pip-audit: what is known, what is not, and when nothing can be said."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from requirements import audit, pins

KNOWN = {"id": "PYSEC-2021-142", "aliases": ["CVE-2020-14343"], "fix_versions": ["5.4"], "description": "…"}
Double = Callable[..., list[str]]


@pytest.fixture
def double(tmp_path: Path) -> Double:
    """A pip-audit that answers from a table: what is known of `name==version`, None for a release it does not know."""

    def make(table: dict[str, list[dict[str, Any]] | None]) -> list[str]:
        script = tmp_path / "pip_audit.py"
        script.write_text(
            "import json, sys\n"
            f"table = json.loads({json.dumps(json.dumps(table))})\n"
            "lines = open(sys.argv[sys.argv.index('--requirement') + 1]).read().split()\n"
            "assert {'--no-deps', '--disable-pip'} < set(sys.argv)\n"
            "names = [line.split('==')[0] for line in lines]\n"
            "assert len(set(names)) == len(names), 'twice one package: pip-audit refuses that'\n"
            "answers = []\n"
            "for name, version in (line.split('==') for line in lines):\n"
            "    vulns = table.get(f'{name}=={version}', [])\n"
            "    skipped = {'name': name, 'skip_reason': 'Dependency not found'}\n"
            "    answers.append(skipped if vulns is None else {'name': name, 'version': version, 'vulns': vulns})\n"
            "print(json.dumps({'dependencies': answers, 'fixes': []}))\n"
            "sys.exit(any(answer.get('vulns') for answer in answers))\n"
        )
        return [sys.executable, str(script)]

    return make


def test_nothing_known_is_zero_and_says_how_many(
    double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PIP_AUDIT", double({"pyyaml==5.3": [KNOWN]}))
    assert audit.main([]) == 0
    releases = {(pin.name, pin.version) for name in pins.names() for pin in pins.read(name)}
    assert capsys.readouterr().out == (
        f"audited: {len(releases)} releases in {len(pins.names())} lock files, no known vulnerabilities\n"
    )


def test_what_is_known_is_one_and_a_table(
    double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = {pin.name: pin.version for pin in pins.read("serve-cpu")}["pillow"]
    bad = {"id": "PYSEC-2099-1", "aliases": ["CVE-2099-1"], "fix_versions": ["99.1"], "description": "…"}
    monkeypatch.setattr(audit, "PIP_AUDIT", double({"pyyaml==5.3": [KNOWN], f"pillow=={version}": [bad]}))
    assert audit.main([]) == 1
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["package", "version", "vulnerability", "mended", "in", "pinned", "in"]
    assert line.split() == [
        "pillow",
        version,
        "PYSEC-2099-1",
        "CVE-2099-1",
        "99.1",
        "dev",
        "heic",
        "serve-cpu",
        "serve-gpu",
        "training",
    ]


@pytest.mark.parametrize("answer", [None, []], ids=["unreachable behind a mirror", "an empty database"])
def test_a_database_that_knows_nothing_is_not_an_audit(
    answer: list[Any] | None, double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PIP_AUDIT", double({"pyyaml==5.3": answer}))
    assert audit.main([]) == 2
    assert capsys.readouterr().out.startswith("NOT AUDITED: the database has nothing on pyyaml==5.3")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ConnectionError('no route')", "ConnectionError: no route"),
        ("print('No known vulnerabilities found')", "pip-audit ended with 0 and no answer"),
        ("print('[]')", "pip-audit ended with 0 and no answer"),
        ("import sys; print('{\"dependencies\": []}')", "the database has nothing on pyyaml==5.3"),
    ],
)
def test_a_pip_audit_that_fails_is_not_an_audit(
    program: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PIP_AUDIT", [sys.executable, "-c", program])
    assert audit.main([]) == 2
    assert capsys.readouterr().out.startswith(f"NOT AUDITED: {reason}")


def test_a_pip_audit_that_is_not_there_is_not_an_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(audit, "PIP_AUDIT", [str(tmp_path / "gone")])
    assert audit.main([]) == 2
    assert capsys.readouterr().out.startswith("NOT AUDITED: pip-audit: ")


def test_releases_that_the_database_lacks_are_named_and_are_not_clean(
    double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {pin.name: pin.version for pin in pins.read("serve-cpu")}
    numpy = f"numpy=={versions['numpy']}"
    monkeypatch.setattr(audit, "PIP_AUDIT", double({"pyyaml==5.3": [KNOWN], numpy: None}))
    assert audit.main([]) == 2
    assert capsys.readouterr().out == f"NOT AUDITED: the database does not know 1 of the releases: {numpy}\n"
    both: dict[str, Any] = {"pyyaml==5.3": [KNOWN], numpy: None, f"pillow=={versions['pillow']}": [KNOWN]}
    monkeypatch.setattr(audit, "PIP_AUDIT", double(both))
    assert audit.main([]) == 1
    assert "NOT AUDITED" in capsys.readouterr().out


def test_rounds_name_no_package_twice_and_leave_nothing_out() -> None:
    releases = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3")]
    made = audit.rounds(releases)
    assert made == [[("a", "1"), ("b", "1"), ("c", "1")], [("a", "2")], [("a", "3")]]
