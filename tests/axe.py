"""axe-core, which finds what keeps people from using a page: from npm, into a folder of the checkout that git ignores.

`make axe` gets it. Tests of pages ask `violations`, and are skipped where it is not.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VERSION = "4.14.1"
FOLDER = Path(__file__).parents[1] / ".venv-axe"
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
_WHY = "needs axe-core: `make axe` gets it from npm"


def install() -> Path:
    """The script, fetched unless it is there. Raises RuntimeError where npm is missing or cannot get it."""
    script = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    wanted = FOLDER / f".ready-{VERSION}"
    if wanted.is_file() and script.is_file():
        return script
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is missing: install Node.js, or leave the checks of accessibility out")
    FOLDER.mkdir(exist_ok=True)
    arguments = [
        "install",
        "--no-save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
        "--prefix",
        str(FOLDER),
    ]
    done = subprocess.run(
        [npm, *arguments, f"axe-core@{VERSION}"], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode or not script.is_file():
        raise RuntimeError(f"npm could not get axe-core {VERSION}: {done.stderr.strip() or done.stdout.strip()}")
    wanted.touch()
    return script


def violations(page: Any) -> list[str]:
    """What axe-core finds on a playwright page as it is, a line each. Skips the test where axe-core is not there."""
    if not (FOLDER / f".ready-{VERSION}").is_file():
        pytest.skip(_WHY)
    page.evaluate(install().read_text())  # by the debugger: the page's own policy lets no such script in
    found = page.evaluate("rules => axe.run(document, rules)", _RULES)
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: " + "; ".join(" ".join(node["target"]) for node in one["nodes"])
        for one in found["violations"]
    ]


if __name__ == "__main__":
    try:
        print(install())
    except RuntimeError as error:
        sys.exit(str(error))
