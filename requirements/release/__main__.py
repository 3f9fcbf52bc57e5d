"""A release of the commit that is checked out, in dist/: built twice, checked, tried, described. Nothing is uploaded.

    make release               exit code 0: dist/ holds a release; 1: what was built is wrong; 2: it cannot begin
    make release REHEARSAL=1   the same before the version is in CHANGELOG.md

Knows the order of the steps; what each of them is, its module knows.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path

from requirements import covered, lock, pins
from requirements.release import artifacts, changelog, contents, images, provenance, trial
from requirements.release.checkout import Checkout, checkout
from requirements.release.refusal import Refusal

ROOT = pins.FOLDER.parent
TOOLS = ("auditwheel", "build", "cibuildwheel", "setuptools", "twine", "uv")
IMAGE_LOCKS = ("build", "serve-cpu", "serve-gpu", "training")  # by architecture too: what arm64's images are made of
PHOTO = "docs/street.jpg"  # what is segmented by each wheel


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; see this file's first lines."""
    parser = argparse.ArgumentParser(prog="make release", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rehearsal", action="store_true", help="notes are what CHANGELOG.md has under Unreleased")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: %(default)s")
    given = parser.parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # each step is told when it is done
    try:
        release(given.out, given.rehearsal)
    except Refusal as refusal:
        print(f"NOT RELEASED: {refusal}", file=sys.stderr)
        return refusal.code
    return 0


def release(out: Path, rehearsal: bool) -> None:
    """All of it; `out` is changed last. Refusal: there is none."""
    found = checkout(ROOT)
    version = lock.project()["project"]["version"]
    notes = changelog.section((ROOT / "CHANGELOG.md").read_text(), version, rehearsal)
    print(f"{version}, of commit {found.commit[:12]}{': a rehearsal' if rehearsal else ''}")
    with tempfile.TemporaryDirectory(prefix="tessera-release.") as temporary:
        work = Path(temporary)
        made = built_twice(found, work)
        check(made, work / "source", version)
        trials = tried(made, version, work)
        files = [*made]
        for name, text in (
            (f"CHANGELOG-{version}.md", notes),
            ("images.txt", images.commands(version, found, rehearsal)),
        ):
            (work / name).write_text(text)
            files.append(work / name)
        said = provenance.statement(
            files,
            commit=found.commit,
            epoch=found.epoch,
            parameters={"version": version, "rehearsal": rehearsal},
            materials=[pins.FOLDER / f"{name}.txt" for name in pins.names()],
            tools={"python": covered.here().python, **{name: installed_version(name) for name in TOOLS}},
            trials=[one._asdict() for one in trials],
        )
        statement = work / "provenance.intoto.json"
        provenance.write(statement, said)
        files.append(statement)
        handed_over([*files, provenance.write_sums(work, files)], out)
    print(f"{out} holds {len(files) + 1} files; nothing was uploaded")


def built_twice(found: Checkout, work: Path) -> artifacts.Artifacts:
    """The artifacts of a commit, made in two folders. Refusal: the second time other bytes came out."""
    source = found.export(work / "source")
    again = found.export(work / "once more" / "source")
    first, second = (artifacts.build(tree, tree.parent / "built", found.epoch) for tree in (source, again))
    for one, other in zip(first, second, strict=True):
        if one.name != other.name or one.read_bytes() != other.read_bytes():
            raise Refusal(f"{one.name} has other bytes when it is built once more")
        print(f"{one.name}  {one.stat().st_size / 1e6:.1f} MB, the same when built twice")
    return first


def check(made: artifacts.Artifacts, source: Path, version: str) -> None:
    """What is in them, what twine says of them, and that cibuildwheel can read how it would build. Refusal: no."""
    project = lock.project()
    modules = contents.installed(source, project)
    contents.check_wheel(made.compiled, modules, version, kernels=True)
    contents.check_wheel(made.pure, modules, version, kernels=False)
    contents.check_sdist(made.sdist, modules, version, contents.kernel_sources(project))
    print(f"each holds the {len(modules)} files that the commit has for it, and nothing else")
    for arguments in (
        ("twine", "check", "--strict", *map(str, made)),
        *(
            ("cibuildwheel", "--print-build-identifiers", "--platform", name, "--archs", "all", str(source))
            for name in ("linux", "macos")
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise Refusal(f"{' '.join(arguments[:3])}:\n{done.stdout}{done.stderr}")
    print("twine takes them, and cibuildwheel its options")
    for name in IMAGE_LOCKS:
        lock.prove(name)
        places = ", ".join(covered.ONLY.get(name, covered.PLATFORMS))
        print(f"resolved  every pin of requirements/{name}.txt: {places}")


def tried(made: artifacts.Artifacts, version: str, work: Path) -> list[trial.Trial]:
    """Both wheels on every Python that is here, which have to segment alike; elsewhere only resolved. Refusal: no."""
    here = trial.pythons()
    place, done = covered.here().platform, []
    for interpreter in here.values():
        for wheel, kernels in ((made.compiled, True), (made.pure, False)):
            one = trial.run(wheel, version, interpreter, work / "source" / PHOTO, work, kernels)
            print(f"run       {one.python}  {one.platform:13}  {one.wheel}")
            done.append(one)
    if not done:
        raise Refusal(f"none of Python {', '.join(covered.PYTHONS)} is here to try the wheels on", 2)
    if len({one.labels for one in done}) > 1:
        raise Refusal(
            "the wheels do not segment alike:\n" + "\n".join(f"{one.python} {one.wheel} {one.labels}" for one in done)
        )
    for target in covered.PLATFORMS:
        for python in covered.PYTHONS:
            if target != place or python not in here:
                one = trial.resolve(made.compiled if target == place else made.pure, python, target)
                print(f"resolved  {one.python}  {one.platform:13}  {one.wheel}")
                done.append(one)
    return done


def handed_over(files: Sequence[Path], out: Path) -> None:
    """Moves the files to `out`, in place of those that an earlier release left there; what else lies there stays."""
    out.mkdir(parents=True, exist_ok=True)
    sums = out / provenance.SUMS
    if sums.exists():
        for line in sums.read_text().splitlines():
            (out / Path(line.split()[-1]).name).unlink(missing_ok=True)
    for file in files:
        shutil.copy2(file, out)


if __name__ == "__main__":
    sys.exit(main())
