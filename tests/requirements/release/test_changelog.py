"""Which notes a release has, and which versions have none."""

import pytest

from requirements import lock
from requirements.release import changelog
from requirements.release.refusal import Refusal

LOG = (
    "# Changelog\n\n## Unreleased\n{waiting}\n"
    "## 1.1.0 — 2026-02-01\n\n* new\n\n## 1.0.0 — 2026-01-01\n\n* first\n\n## 0.9\n"
)


def test_a_version_has_what_stands_below_its_heading() -> None:
    notes = changelog.section(LOG.format(waiting=""), "1.1.0", rehearsal=False)
    assert notes == "## 1.1.0 — 2026-02-01\n\n* new\n"


@pytest.mark.parametrize(
    ("waiting", "version", "said"),
    [
        ("\n* more\n", "1.1.0", "under Unreleased"),
        ("", "1.2.0", "no section"),
        ("", "1.1", "no section"),
        ("", "0.9", "no section"),  # which has no date
    ],
)
def test_what_is_not_ready_is_refused(waiting: str, version: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as refusal:
        changelog.section(LOG.format(waiting=waiting), version, rehearsal=False)
    assert refusal.value.code == 2


def test_a_rehearsal_has_what_waits_or_else_the_version() -> None:
    assert "* more" in changelog.section(LOG.format(waiting="\n* more\n"), "1.1.0", rehearsal=True)
    assert "* new" in changelog.section(LOG.format(waiting=""), "1.1.0", rehearsal=True)


def test_ours_can_be_read() -> None:
    text = (lock.pins.FOLDER.parent / "CHANGELOG.md").read_text()
    version = lock.project()["project"]["version"]
    assert len(changelog.section(text, version, rehearsal=True)) > 100
    assert {"0.1.0", "0.2.0"} <= {title.split()[0] for title in changelog.sections(text)}
