"""Loading: a bad default ends the server, a bad second one is named and the first serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Encoded
from service.errors import Busy, NotFound
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings
from tests.tiny import MeanColor


class Wrong(MeanColor):
    """Computes something else than training did."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        scores = super().__call__(pixels, code=code).scores
        return Encoded(np.roll(scores, 1, axis=1))


def load(settings: Settings, *encoder: Callable[[Any], Any]) -> Registry:
    async def whole() -> Registry:
        registry = Registry(settings, Metrics(), *encoder)
        await registry.load()
        await registry.close()
        return registry

    return asyncio.run(whole())


def test_the_first_is_the_default_and_names_find_the_rest(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    registry = load(Settings(bundles=(tiny_bundle, make_bundle("other")), state=tmp_path))
    assert registry.state == "ready"
    assert registry.get(None).name == "tiny"
    other = registry.get("other")
    assert registry.get(other.bundle.ref) is other
    for ref in ("others", "other@000000000000", "", "tiny@"):
        with pytest.raises(NotFound):
            registry.get(ref)


def test_a_default_that_fails_its_golden_image_fails_the_server(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = load(Settings(bundles=(tiny_bundle,), state=tmp_path), lambda bundle: Wrong())
    assert registry.state == "failed"
    assert "golden image" in caplog.text
    with pytest.raises(Busy):
        registry.get(None)


def test_a_second_bundle_that_is_bad_is_named_and_not_served(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bad = make_bundle("bad")
    (bad / "NOTICE").write_text("changed")
    registry = load(Settings(bundles=(tiny_bundle, bad, tmp_path / "absent", tiny_bundle), state=tmp_path / "state"))
    assert registry.state == "ready"
    assert [s.name for s in registry.served] == ["tiny"]
    assert "NOTICE" in registry.failed["bad"]
    assert "no such" in registry.failed["absent"]
    assert "twice" in registry.failed["tiny"]
    assert str(tmp_path) not in " ".join(registry.failed.values())


@pytest.mark.parametrize("bundles", [(), (Path("absent"),)])
def test_nothing_to_serve_is_said(bundles: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(Settings(bundles=bundles, state=tmp_path)).state == "failed"
    assert "train one" in caplog.text
