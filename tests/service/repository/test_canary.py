"""Which images are a canary's, and what several servers counted of one, added up."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import UsageError
from service.cli import _with_canary
from service.metrics import Metrics
from service.repository.canary import Canary, Compared, Trial
from service.repository.registry import Registry
from service.settings import Settings, SettingsError, check_bundles

DIGESTS = [hashlib.sha256(b"%d" % n).digest() for n in range(20_000)]


def canary(tmp_path: Path, share: float, salt: bytes = b"one") -> Canary:
    metrics = Metrics()
    made = Canary(Registry(Settings(state=tmp_path), metrics), metrics, share)
    made._salt = salt
    return made


@pytest.mark.parametrize("share", [0.5, 5, 33.3, 80])
def test_the_share_is_that_of_many_images(tmp_path: Path, share: float) -> None:
    p = share / 100
    taken = sum(map(canary(tmp_path, share).takes, DIGESTS))
    deviation = (len(DIGESTS) * p * (1 - p)) ** 0.5
    assert abs(taken - len(DIGESTS) * p) < 4 * deviation


def test_a_larger_share_keeps_its_images_and_another_canary_gets_others(tmp_path: Path) -> None:
    small, large, other = canary(tmp_path, 5), canary(tmp_path, 20), canary(tmp_path, 20, b"two")
    assert all(large.takes(digest) for digest in DIGESTS if small.takes(digest))
    both = sum(large.takes(digest) and other.takes(digest) for digest in DIGESTS)
    assert abs(both - 800) < 4 * (20_000 * 0.04 * 0.96) ** 0.5
    assert all(map(canary(tmp_path, 100).takes, DIGESTS))


def test_what_several_servers_counted_is_added_up() -> None:
    def trial(since: float, *images: Compared) -> Trial:
        made = Trial("a@1", "b@2", np.zeros((2, 3), np.int64), since)
        for image in images:
            made.add(image)
            made.answered[1] += 1
        made.answered[0], made.skipped = 7, 2
        return made

    big = np.array([[2**60, 0, 1], [0, 5, 0]])
    one = trial(20.0, Compared(big, (0.5, 0.25), (4.0, 8.0)), Compared(big, (None, 0.75), (6.0, 0.0)))
    two = trial(10.0, Compared(np.array([[1, 2, 3], [4, 5, 6]]), (0.1, 0.2), (8.0, 3.0)))
    assert one.joined([]).as_json() == one.as_json()
    sent = Trial.of_json(json.loads(json.dumps(two.as_json())))
    both = one.joined([sent])
    assert both.table.tolist() == [[2**61 + 1, 2, 5], [4, 15, 6]]
    assert (both.since, both.answered, both.compared, both.skipped) == (10.0, [14, 3], 3, 4)
    assert both.passes[0].median == 6.0
    assert both.passes[0].mean == 6.0
    assert (both.passes[1].count, both.passes[1].mean) == (2, 5.5)  # one needed no pass
    assert both.margins[0].mean == pytest.approx(0.3)
    assert one.compared == 2  # what is added up stays what it was


def test_what_the_command_line_and_the_settings_may_say(tmp_path: Path) -> None:
    settings = Settings.from_env({"TESSERA_CANARY": str(tmp_path), "TESSERA_CANARY_SHARE": "2.5", "HOME": "/"})
    assert (settings.canary, settings.canary_share) == (tmp_path, 2.5)
    assert _with_canary(settings, None, None) == settings
    other = _with_canary(settings, tmp_path / "new", 40)
    assert (other.canary, other.canary_share) == (tmp_path / "new", 40)
    for share in ("0", "101", "nan", "-5"):
        with pytest.raises(SettingsError, match="TESSERA_CANARY_SHARE"):
            Settings.from_env({"TESSERA_CANARY_SHARE": share})
        with pytest.raises(UsageError, match="above 0 to 100"):
            _with_canary(settings, None, float(share))
    with pytest.raises(UsageError, match="--canary"):
        _with_canary(Settings(), None, 5)
    with pytest.raises(UsageError, match="'absent' is no bundle folder"):
        check_bundles(Settings(canary=Path("absent")))


def test_a_canary_that_cannot_be_one_is_refused_at_the_start(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no bundle: it has no manifest\.json"):
        check_bundles(Settings(bundles=(tiny_bundle,), canary=tmp_path))
    with pytest.raises(UsageError, match="is served already"):
        check_bundles(Settings(bundles=(tiny_bundle,), canary=tiny_bundle / "." / ".." / tiny_bundle.name))
