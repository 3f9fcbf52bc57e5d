"""What CHANGELOG.md says of one version.

Knows nothing of git or of packages.
"""

import re

from requirements.release.refusal import Refusal

UNRELEASED = "Unreleased"
_DATED = re.compile(r"(?P<version>\S+) — \d{4}-\d{2}-\d{2}")


def sections(text: str) -> dict[str, str]:
    """What stands below each heading of the second level: title → body without blank edges."""
    parts = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def section(text: str, version: str, rehearsal: bool) -> str:
    """The notes of a version, its heading on top; in a rehearsal, where there are any, those of what is unreleased.

    Refusal (2): the version has no dated section, or an empty one, or entries wait under Unreleased.
    """
    found = sections(text)
    waiting = found.get(UNRELEASED, "")
    if rehearsal and waiting:
        return f"## {version} — {UNRELEASED.lower()}\n\n{waiting}\n"
    if waiting:
        raise Refusal(f"CHANGELOG.md has entries under {UNRELEASED}: give them to a version, `## {version} — DATE`", 2)
    for title, body in found.items():
        dated = _DATED.fullmatch(title)
        if dated and dated["version"] == version:
            if not body:
                raise Refusal(f"CHANGELOG.md says nothing of {version}", 2)
            return f"## {title}\n\n{body}\n"
    raise Refusal(f"CHANGELOG.md has no section `## {version} — DATE`, and {version} is pyproject.toml's version", 2)
