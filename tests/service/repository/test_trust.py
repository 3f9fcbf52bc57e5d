"""The operator's list of digests: read at every load, and no start with one that cannot be used."""

from pathlib import Path

import pytest

from models.bundle import Bundle, BundleError
from service.errors import BadModel
from service.repository.registry import NoBundle, Registry
from service.repository.trust import TrustList
from service.settings import SettingsError
from tests.service.registries import Engine, load, settings_of, within
from tests.service.variants import variant

DIGEST = "0123456789abcdef" * 4


def listed(tmp_path: Path, text: str) -> TrustList:
    (tmp_path / "trusted.txt").write_text(text)
    return TrustList(tmp_path / "trusted.txt")


@pytest.mark.parametrize(
    "line",
    [
        DIGEST,
        DIGEST.upper(),
        f"  {DIGEST}  ",
        f"{DIGEST}  bundles/street/manifest.json",
        f"{DIGEST} *manifest.json",
        f"\\{DIGEST}  odd\\nname/manifest.json",
        f"{DIGEST}\tstreet # since May",
        f"\ufeff{DIGEST}",
        f"# ours\n\n{'f' * 64}\r\n{DIGEST}\r\n",
    ],
)
def test_a_listed_digest_passes_and_another_does_not(tmp_path: Path, line: str) -> None:
    trust = listed(tmp_path, line)
    trust.check("street", DIGEST)
    with pytest.raises(BundleError, match=rf"street: its digest {'0' * 64} is not in trusted\.txt.*TESSERA_TRUST"):
        trust.check("street", "0" * 64)


@pytest.mark.parametrize(
    "text", ["street", DIGEST[:-1], DIGEST + "0", f"sha256:{DIGEST}", f"{DIGEST},{DIGEST}", "\x00"]
)
def test_a_list_that_cannot_be_read_stops_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"TESSERA_TRUST: .*line 1 begins with no digest"):
        listed(tmp_path, text)


def test_a_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    for name, says in (("gone", "No such file"), (".", "Is a directory"), ("binary", "no text"), ("large", "larger")):
        with pytest.raises(SettingsError, match=says):
            TrustList(tmp_path / name)


def test_without_a_list_every_sound_bundle_passes() -> None:
    TrustList(None).check("street", DIGEST)


def test_the_list_is_read_again_at_every_load(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    newer = variant(bundle, tmp_path / "newer")
    file = tmp_path / "trusted.txt"
    file.write_text(bundle.digest)

    async def work(registry: Registry) -> None:
        with pytest.raises(BadModel, match=rf"newer: its digest {newer.digest} is not in trusted\.txt"):
            await registry.add(newer.path)
        assert registry.get(None).bundle.digest == bundle.digest
        file.write_text("rubbish")
        with pytest.raises(BadModel, match="line 1 begins with no digest"):
            await registry.add(newer.path)
        file.write_text(f"{bundle.digest}\n{newer.digest}")
        assert (await registry.add(newer.path)).served.bundle.digest == newer.digest

    within(settings_of(bundle, tmp_path, trust=file), work, lambda bundle: Engine())


def test_a_default_that_is_not_listed_is_not_served(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "trusted.txt").write_text("# nobody")
    settings = settings_of(Bundle.load(tiny_bundle), tmp_path, trust=tmp_path / "trusted.txt")
    with pytest.raises(NoBundle, match="TESSERA_TRUST"):
        load(settings, lambda bundle: Engine())
