"""What a manifest may say, rule by rule. What its files hold is in test_bundle.py."""

import math
import re
from typing import Any

import pytest
from pydantic import ValidationError

from models.manifest import Cluster, CodeSpec, Familiarity, Manifest, Merge, Provenance, parse
from models.preprocess import InputSpec
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
        ({"hierarchy_by": "guesses"}, "'belonging' or 'centroids'"),
        ({"hierarchy_by": "belonging", "hierarchy": [Merge(k=2, merge=(0, 1), into=0, height=1.1)]}, "0..1"),
        ({"hierarchy_by": "belonging", "hierarchy": [Merge(k=2, merge=(0, 1), into=0, height=-0.1)]}, "0..1"),
        (
            {
                "hierarchy_by": "belonging",
                "hierarchy": [
                    Merge(k=2, merge=(0, 1), into=0, height=0.5),
                    Merge(k=1, merge=(0, 2), into=0, height=0.4),
                ],
            },
            "never fall",
        ),
        ({"files": {"NOTICE": "not a digest"}}, "pattern"),
        ({"surprise": 1}, "not permitted"),
    ],
)
def test_what_is_not_sound_is_refused_with_its_reason(changed: dict[str, Any], reason: str) -> None:
    assert manifest().name == "stripes"
    with pytest.raises(ValidationError, match=reason):
        manifest(**changed)


def test_a_manifest_of_before_says_nothing_of_its_tree_and_ranks_centroids() -> None:
    written = manifest().model_dump_json()
    assert "hierarchy_by" not in written
    assert parse(written.encode()).hierarchy_by == "centroids"
    newer = manifest(hierarchy_by="belonging").model_dump_json()
    assert parse(newer.encode()).hierarchy_by == "belonging"


@pytest.mark.parametrize("name", ["road\u202e", "ro\u200bad", "two\nlines"])
def test_a_clusters_name_is_seen_whole(name: str) -> None:
    with pytest.raises(ValidationError, match="not seen"):
        named(name)


def nested(depth: int) -> dict[str, Any]:
    recipe: dict[str, Any] = {}
    for _ in range(depth - 1):
        recipe = {"a": recipe}
    return recipe


def provenance(**changed: Any) -> Provenance:
    return Provenance(**{**dict(parts()["provenance"]), **changed})


def code(**changed: Any) -> CodeSpec:
    return CodeSpec(**{**dict(parts()["code"]), **changed})


@pytest.mark.parametrize(
    ("make", "name", "taken", "refused"),
    [
        (code, "dim", (1, 4096), (0, 4097)),
        (code, "stride", (1, 1024), (0, 1025)),
        (code, "temperature", (1e-4, 1e4), (9e-5, 10_001, math.inf, math.nan)),
        (provenance, "seed", (-(2**63), 2**63 - 1), (-(2**63) - 1, 2**63)),
        (provenance, "images", (0, 2**63 - 1), (-1, 2**63)),
        (provenance, "data", ("x" * 4096,), ("x" * 4097,)),
        (provenance, "licence", ("x" * 4096,), ("x" * 4097,)),
        (provenance, "tessera", ("x" * 200,), ("x" * 201,)),
        (provenance, "created", ("x" * 200,), ("x" * 201,)),
        (manifest, "method", ("x" * 200,), ("x" * 201,)),
        (provenance, "recipe", ({"a": [0] * 9997},), ({"a": [0] * 9998},)),
        (provenance, "recipe", (nested(16),), (nested(17),)),
        (provenance, "recipe", ({"a": "x" * 4096}, {"x" * 4096: 1}), ({"a": "x" * 4097}, {"x" * 4097: 1})),
        (provenance, "recipe", ({"a": [2**63 - 1, 1e308, True, None, (), {}]},), ({"a": 2**63}, {"a": [math.nan]})),
        (provenance, "recipe", (), ({"a": b"bytes"}, {"a": object()})),
        (manifest, "files", ({f"{i}": "0" * 64 for i in range(8192)},), ({f"{i}": "0" * 64 for i in range(8193)},)),
        (Merge, "height", (-1e9, 1e9), (-1.1e9, 1.1e9, math.inf, math.nan)),
        (Merge, "k", (1, 254), (0, 255)),
        (Cluster, "fraction", (0, 1), (-1e-9, 1.0001, math.nan)),
        (Familiarity, "quantiles", ((0, 1), (0.5,) * 1001), ((0.5,), (0, 1.1), (-0.1, 1), (0.5, 0.4), (0.5,) * 1002)),
        (Familiarity, "threshold", (0, 1), (-1e-9, 1.0001, math.nan)),
    ],
)  # fmt: skip
def test_every_number_and_text_has_a_bound(make: Any, name: str, taken: Any, refused: Any) -> None:
    others = {
        Merge: {"k": 2, "merge": (0, 1), "into": 0, "height": 0},
        Cluster: {"name": "a", "color": "#000000", "fraction": 0},
        Familiarity: {"quantiles": (0, 1), "threshold": 0},
    }
    for value in taken:
        make(**{**others.get(make, {}), name: value})
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            make(**{**others.get(make, {}), name: value})


def test_what_is_not_known_of_familiarity_is_not_written() -> None:
    """Readers of before refuse keys that they do not know."""
    assert "familiarity" not in manifest().model_dump()
    known = Familiarity(quantiles=(0.1, 0.2, 0.6), threshold=0.15)
    assert parse(manifest(familiarity=known).model_dump_json().encode()).familiarity == known
    assert [known.of(at) for at in (0.05, 0.1, 0.15, 0.4, 0.6, 0.9)] == pytest.approx([0, 0, 0.25, 0.75, 1, 1])


def test_scores_and_code_of_the_largest_image_have_a_bound() -> None:
    large = InputSpec(size=(1024, 1024), multiple=4, max_side_px=4096)
    manifest(input=large, code=code(stride=4, dim=2045))  # 2048 maps of 2^18 cells: 2 GiB
    with pytest.raises(ValidationError, match="an image of 4096×1024, the largest of this input, take 2 GiB; 2 are"):
        manifest(input=large, code=code(stride=4, dim=2046))


def written(**changed: str) -> bytes:
    """A manifest's JSON, with what is written after these keys."""
    text = manifest().model_dump_json()
    for key, value in changed.items():
        found = re.search(rf'"{key}":("[^"]*"|{{}}|[^,}}]*)', text)
        assert found
        text = f'{text[: found.start()]}"{key}":{value}{text[found.end() :]}'
    return text.encode()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (written(schema_version="true"), "schema_version: Input should be a valid integer"),
        (written(stride='"4"'), "code.stride: Input should be a valid integer"),
        (written(stride="4.0"), "code.stride: Input should be a valid integer"),
        (written(stride="4e0"), "code.stride: Input should be a valid integer"),
        (written(fraction="true"), r"clusters\.0\.fraction: Input should be a valid number"),
        (written(fraction="NaN"), "finite"),
        (written(height="1e999"), "finite"),
        (written(recipe='{"a": NaN}'), "finite"),
        (written(recipe='{"a": 1, "a": 1}'), "'a' stands twice"),
        (written(method='"x", "method": "y"'), "'method' stands twice"),
        (written(method='"x", "m\\u0065thod": "y"'), "'method' stands twice"),
        (written(recipe='{"a": [' + "[]," * 20_000 + "0]}"), "more than 20000 lists and objects"),
        (written(recipe='{"a": ' + "[" * 9000 + "]" * 9000 + "}"), "recursion limit"),
        (b"\xff\xfe{\x00}\x00", "JSON"),
        (b"", "JSON"),
    ],
)
def test_a_file_is_read_to_the_letter(raw: bytes, says: str) -> None:
    assert parse(written()).name == "stripes"
    with pytest.raises(ValueError, match=says):
        parse(raw)
