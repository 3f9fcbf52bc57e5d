"""`tessera pull` and `tessera push`: bundles on the Hugging Face Hub, by `huggingface_hub` (extra `hub`).

What is pulled is judged before it is fetched (names and sizes of a bundle, nothing else), kept where a broken pull goes
on, and lies in its folder only once every digest is right. Knows nothing of networks: nothing of a bundle is run here.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from models.bundle import Bundle
from models.bundle_files import MAX_BYTES, MAX_EXEMPLAR_BYTES, OPTIONAL, REQUIRED, BundleError, exemplar_of, shown
from models.errors import TesseraError, UsageError
from models.extras import brings
from models.manifest import MAX_FILES
from models.terminal.progress import exit_code, say
from service.repository.trust import TrustList
from service.settings import PREFIX
from tessera.commands.model_card import model_card

_CACHE = ".cache"  # huggingface_hub's own, in a folder that it fills

pulling = typer.Typer(add_completion=False, help="A bundle from the Hugging Face Hub.")
pushing = typer.Typer(add_completion=False, help="A bundle to the Hugging Face Hub.")
Token = Annotated[
    str | None, typer.Option(envvar="HF_TOKEN", help="Of private repositories; else the one of `hf auth login`.")
]


class HubError(TesseraError):
    """What the Hub refuses, or where it cannot be reached."""


def pull() -> None:
    """`tessera pull`."""
    pulling()


def push() -> None:
    """`tessera push`."""
    pushing()


@pulling.command()
def _pull(
    repository: Annotated[str, typer.Argument(help="owner/name on the Hub.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The bundle's folder; else bundles/NAME.", show_default=False)
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.", show_default=False)] = None,
    digest: Annotated[
        str | None, typer.Option(help="Refuse another: the first 12 or more digits of it.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Take the place of another bundle that lies there.")] = False,
    token: Token = None,
) -> None:
    """Fetch a bundle, check every file's digest, and say whether its own is trusted here.

    A pull that was broken off goes on where it ended: type it again.

    $ tessera pull somebody/street --out bundles/street
    """
    console = Console(stderr=True)
    with exit_code(console), _told(repository):
        from huggingface_hub import HfApi, snapshot_download

        out = out or Path("bundles") / repository.rpartition("/")[2]
        wanted = _wanted(digest)
        api = HfApi(endpoint=_endpoint(), token=token)
        found = api.model_info(repository, revision=revision, files_metadata=True)
        names = _judged(repository, {one.rfilename: one.size for one in found.siblings or []})
        before = Bundle.load(out) if (out / "manifest.json").exists() else None
        if before is None and out.exists() and any(out.iterdir()):
            raise UsageError(f"{out} is there, and is no bundle; name another folder with --out")
        scratch = out.parent / f".{out.name}.pulling"
        scratch.mkdir(parents=True, exist_ok=True)
        for some in (["manifest.json"], names):  # a bundle that is not wanted costs its manifest alone
            snapshot_download(
                repository,
                revision=found.sha,
                local_dir=scratch,
                allow_patterns=some,
                token=token,
                endpoint=_endpoint(),
            )
            _check_digest(repository, scratch, wanted)
        shutil.rmtree(scratch / _CACHE, ignore_errors=True)
        try:
            bundle = Bundle.load(scratch)
        except BundleError:
            shutil.rmtree(scratch)  # what is damaged is not gone on with
            raise
        if before and before.digest != bundle.digest and not overwrite:
            raise UsageError(f"{out} holds {before.ref}, and this is {bundle.ref}; name another --out, or --overwrite")
        _take_place(scratch, out)
        say(console, f"{bundle.ref} from {repository} at {(found.sha or '')[:12]}: {len(names)} files in {out}")
        say(console, _trust(bundle))
        print(f"{bundle.digest}  {bundle.manifest.name}")


@pushing.command()
def _push(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    repository: Annotated[str, typer.Argument(help="owner/name on the Hub; made where it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Where it is made: seen by its owner alone.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch; made where it is not there.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.", show_default=False)] = None,
    token: Token = None,
) -> None:
    """Publish a bundle in one commit, patches of training photos included, with a page of what it tells apart.

    $ tessera push runs/photos/bundle somebody/street --private
    """
    console = Console(stderr=True)
    with exit_code(console), _told(repository):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        found = Bundle.load(bundle)
        api = HfApi(endpoint=_endpoint(), token=token)
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        names = ["manifest.json", *sorted(found.manifest.files)]
        old = {one.rfilename for one in api.model_info(repository, revision=revision).siblings or []}
        page = model_card(found, repository).encode()
        commit = api.create_commit(
            repository,
            [
                CommitOperationAdd("README.md", page),
                *(CommitOperationAdd(name, found.path / name) for name in names),
                *(CommitOperationDelete(name) for name in sorted(old - set(names)) if exemplar_of(name) is not None),
            ],
            commit_message=message or f"{found.ref}",
            revision=revision,
        )
        patches = sum(exemplar_of(name) is not None for name in names)
        say(console, f"{found.ref}: {len(names)} files, {patches} of them patches of training photos")
        print(commit.commit_url)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _wanted(digest: str | None) -> str:
    text = (digest or "").lower()
    if digest is not None and (len(text) < 12 or len(text) > 64 or set(text) - set("0123456789abcdef")):
        raise UsageError(f"--digest {digest}: 12 to 64 hexadecimal digits, as tessera pull prints them")
    return text


def _judged(repository: str, sizes: dict[str, int | None]) -> list[str]:
    """The files to fetch. Raises HubError for what is no bundle, or has files that are larger than a bundle's."""
    bounds = {
        name: MAX_BYTES.get(name, MAX_EXEMPLAR_BYTES)
        for name in sizes
        if name == "manifest.json" or name in REQUIRED + OPTIONAL or exemplar_of(name) is not None
    }
    if missing := [name for name in ("manifest.json", *REQUIRED) if name not in bounds]:
        raise HubError(f"{repository} holds no bundle: {missing[0]} is not there")
    if len(bounds) > MAX_FILES + 1:
        raise HubError(f"{repository}: {len(bounds)} files; a bundle has at most {MAX_FILES}")
    for name, most in bounds.items():
        if (size := sizes[name]) is None or size > most:
            said = "nobody says how large it is" if size is None else f"{size} bytes"
            raise HubError(f"{repository}: {shown(name)}: {said}; {most} are the most that such a file has")
    return sorted(bounds)


def _check_digest(repository: str, folder: Path, wanted: str) -> None:
    """Raises HubError where the manifest is not the one that was asked for."""
    found = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    if not found.startswith(wanted):
        raise HubError(f"{repository}: its digest is {found[:12]}, and not {wanted[:12]}")


def _take_place(scratch: Path, out: Path) -> None:
    """The new folder in the old one's place, in one move."""
    old = out.parent / f".{out.name}.replaced"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    scratch.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _trust(bundle: Bundle) -> str:
    """What the operator's list says of it."""
    listed = os.environ.get(f"{PREFIX}TRUST")
    if not listed:
        return f"no {PREFIX}TRUST is set: servers take any sound bundle; the line below is one of such a list"
    try:
        TrustList(Path(listed)).check(bundle.manifest.name, bundle.digest)
    except BundleError:
        return f"not in {listed}: servers refuse it until the line below stands there"
    return f"in {listed}: servers take it"


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """The Hub's errors as sentences. Raises HubError where its package is not installed."""
    try:
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise HubError(f"the package {error.name!r} is not installed here: {brings('hub')}") from None
    try:
        yield
    except GatedRepoError:
        raise HubError(f"{repository} is gated: ask for access on its page, then give --token") from None
    except RepositoryNotFoundError:
        raise HubError(f"{repository}: not there, or private: give --token (or HF_TOKEN)") from None
    except RevisionNotFoundError:
        raise HubError(f"{repository} has no such revision") from None
    except HFValidationError as error:
        raise UsageError(f"{shown(repository)}: {error}") from None
    except HfHubHTTPError as error:
        said = str(error).splitlines()[0]
        raise HubError(f"{repository}: the Hub refuses: {said}; type the command again to go on") from None
    except RuntimeError as error:  # of an upload
        raise HubError(f"{repository}: {error} {error.__cause__ or ''}; type the command again to go on") from None
    except httpx.TransportError as error:
        raise HubError(f"{repository}: the Hub cannot be reached: {error}; type the command again to go on") from None
