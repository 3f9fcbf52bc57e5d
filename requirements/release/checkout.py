"""The commit that is released: which, when, and its files in a folder of their own.

Knows nothing of packages. What git does not have does not get into a release.
"""

import subprocess
from pathlib import Path
from typing import NamedTuple

from requirements.release.refusal import Refusal


class Checkout(NamedTuple):
    """A commit of a repository; `epoch` is when it was made, in seconds."""

    root: Path
    commit: str
    epoch: int

    def export(self, folder: Path) -> Path:
        """The commit's files, and nothing else, below a new folder."""
        folder.mkdir(parents=True)
        archive = _git(self.root, "archive", "--format=tar", self.commit)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True, timeout=60)
        return folder


def checkout(root: Path) -> Checkout:
    """The commit that a folder shows. Refusal (2): it is no git repository, or it shows what no commit has."""
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    if changed := _git(root, "status", "--porcelain").decode().splitlines():
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        named = ", ".join(line[3:] for line in changed[:3])
        raise Refusal(f"no commit has what is here: {named}{more}. Commit, stash or ignore it", 2)
    return Checkout(root, commit, int(_git(root, "log", "-1", "--format=%ct", commit)))


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise Refusal("a release is made of a commit: install git", 2) from None
    if done.returncode:
        raise Refusal(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}", 2)
    return done.stdout
