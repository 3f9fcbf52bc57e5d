"""What a manifest may say, rule by rule. What its files hold is in test_bundle.py."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.manifest import Cluster, Manifest, Merge
from tests.models.stripes import parts


def manifest(**changed: Any) -> Manifest:
    given = {key: value for key, value in parts().items() if key in Manifest.model_fields}
    return Manifest(**(given | {"files": {}} | changed))


def named(*names: str, fraction: float = 1 / 3) -> list[Cluster]:
    return [Cluster(name=name, color="#000000", fraction=fraction) for name in names]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "../up"}, "pattern"),
        ({"clusters": named("one", "same", "same")}, "'same': names are unique"),
        ({"clusters": named("a", "b", "c", fraction=0.1)}, "sum to"),
        ({"clusters": named("alone", fraction=1)}, "at least 2"),
        ({"hierarchy": []}, "stops at 3"),
        ({"hierarchy": [Merge(k=2, merge=(0, 1), into=2, height=0)]}, "cannot merge"),
        ({"hierarchy": [Merge(k=2, merge=(0, 3), into=0, height=0)]}, "cannot merge"),
        ({"hierarchy": [Merge(k=1, merge=(0, 1), into=0, height=0)]}, "k = 1"),
        ({"files": {"NOTICE": "not a digest"}}, "pattern"),
        ({"surprise": 1}, "not permitted"),
    ],
)
def test_what_is_not_sound_is_refused_with_its_reason(changed: dict[str, Any], reason: str) -> None:
    assert manifest().name == "stripes"
    with pytest.raises(ValidationError, match=reason):
        manifest(**changed)


@pytest.mark.parametrize("name", ["road\u202e", "ro\u200bad", "two\nlines"])
def test_a_clusters_name_is_seen_whole(name: str) -> None:
    with pytest.raises(ValidationError, match="not seen"):
        named(name)
