"""The lock files held against the database of known vulnerabilities, by pip-audit: `make audit`.

Knows nothing of the database. One that cannot be reached, or that knows nothing, is told from one that has nothing to
say by a release whose vulnerabilities everybody knows: pip-audit alone prints "no known vulnerabilities" for all three.

    0  every pin was looked up, and nothing is known of it
    1  something is known: a table, a line for each
    2  NOT AUDITED, and why
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from requirements import pins

KNOWN = ("pyyaml", "5.3")  # CVE-2020-14343 and CVE-2020-1747, since 2020 and 2021
PIP_AUDIT = (sys.executable, "-m", "pip_audit")
_TIMEOUT_S = 900


class NotAudited(Exception):
    """Why nothing can be said."""


class Finding(NamedTuple):
    """One vulnerability of one release; `locks` are the files that pin it."""

    name: str
    version: str
    vulnerability: str
    mended_in: str
    locks: tuple[str, ...]


class Audit(NamedTuple):
    """What was found, how many releases were looked up, and which could not be (name and version)."""

    findings: list[Finding]
    looked_up: int
    unknown: list[str]


def audit(locks: Iterable[str], command: Sequence[str] = PIP_AUDIT) -> Audit:
    """Looks up every pin of these lock files, those of other platforms included. NotAudited: nothing can be said."""
    where: dict[tuple[str, str], list[str]] = {}
    for lock in locks:
        for pin in pins.read(lock):
            where.setdefault((pin.name, pin.version), []).append(lock)
    said: dict[tuple[str, str], dict[str, Any]] = {}
    for releases in rounds([KNOWN, *(release for release in where if release != KNOWN)]):
        said.update(ask(releases, command))
    if not said.get(KNOWN, {}).get("vulns"):
        raise NotAudited(f"the database has nothing on {'=='.join(KNOWN)}, which is known to be vulnerable")
    findings = [
        Finding(
            *release, " ".join([found["id"], *found["aliases"]]), ", ".join(found["fix_versions"]) or "-", tuple(files)
        )
        for release, files in sorted(where.items())
        for found in said.get(release, {}).get("vulns", ())
    ]
    unknown = ["==".join(release) for release in sorted(where) if "vulns" not in said.get(release, {})]
    return Audit(findings, len(where) - len(unknown), unknown)


def rounds(releases: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The releases in lists that name no package twice, which pip-audit takes for a mistake."""
    lists: list[list[tuple[str, str]]] = []
    for release in releases:
        for some in lists:
            if release[0] not in (name for name, _ in some):
                some.append(release)
                break
        else:
            lists.append([release])
    return lists


def ask(releases: Sequence[tuple[str, str]], command: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What pip-audit says of these releases: `vulns` of those it could look up. NotAudited: it said nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in releases))
        options = (
            "--requirement",
            str(file),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        )
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotAudited(f"pip-audit: {error}") from error
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode} and no answer"]
        raise NotAudited(next((line for line in reversed(lines) if "rror" in line), lines[-1])) from None
    return {(answer["name"], answer["version"]): answer for answer in answers if "vulns" in answer}


def table(findings: Sequence[Finding]) -> str:
    """The findings as aligned columns under their names."""
    rows = [("package", "version", "vulnerability", "mended in", "pinned in")]
    rows += [(*finding[:4], " ".join(finding.locks)) for finding in findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(options: Sequence[str]) -> int:
    """The exit code; `options` go on to pip-audit (`--vulnerability-service osv`, `--ignore-vuln ID`, …)."""
    try:
        found = audit(pins.names(), [*PIP_AUDIT, *options])
    except NotAudited as reason:
        print(f"NOT AUDITED: {reason}")
        return 2
    if found.unknown:
        print(
            f"NOT AUDITED: the database does not know {len(found.unknown)} of the releases: {', '.join(found.unknown)}"
        )
    if found.findings:
        print(table(found.findings))
        return 1
    if found.unknown:
        return 2
    print(f"audited: {found.looked_up} releases in {len(pins.names())} lock files, no known vulnerabilities")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
