import json
from typing import Any

import numpy as np
import pytest

from models.class_file import ClassFile, ClassFileError, is_class_file, numbers

ENCODER, OTHER = "a" * 64, "b" * 64


def document() -> dict[str, Any]:
    """Two classes: one of a cluster and two examples, one of a cluster alone."""
    positive = {"n": 1, "code": [0.6, 0.8], "at": [0.25, 0.75]}
    other = {"n": 4, "code": [1, 0, 0], "at": [0, 1], "negative": True, "encoder": OTHER}
    road = {"id": 7, "name": "Road", "color": "#0066cc", "clusters": [1], "examples": [positive, other]}
    sky = {"id": 0, "name": "sky", "color": "#ccff00", "clusters": [0, 2], "examples": []}
    return {"tessera": "classes", "version": 1, "model": "m", "encoder": ENCODER, "dim": 2, "classes": [road, sky]}


def test_the_classes_and_the_examples_of_an_encoder() -> None:
    file = ClassFile.parse(json.dumps(document()).encode())
    assert file.taught() == [(7, (1,)), (0, (0, 2))]
    (one,) = file.examples(ENCODER)
    assert (one.class_id, one.at, one.negative) == (7, (0.75, 0.25), False)  # (y, x)
    assert one.code.dtype == np.float32
    assert one.code.tolist() == np.array([0.6, 0.8], np.float32).tolist()
    assert [e.negative for e in file.examples(OTHER)] == [True]
    assert not list(file.examples("c" * 64))


def test_what_is_written_is_read_as_the_same() -> None:
    code = np.random.default_rng(0).normal(size=64).astype(np.float32)
    given = document()
    given["dim"] = 64
    given["classes"][0]["examples"][0]["code"] = numbers(code)
    file = ClassFile.parse(json.dumps(given).encode())
    again = ClassFile.parse(file.to_bytes())
    assert again == file
    assert b"null" not in file.to_bytes()
    (one,) = again.examples(ENCODER)
    assert one.code.tobytes() == code.tobytes()
    assert is_class_file(file.to_bytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tessera": "clusters"}, "tessera"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"more": 1}, "more"),
        ({"dim": 3}, "dim is 3"),
        ({"dim": "2"}, "dim"),
        ({"encoder": "A" * 64}, "encoder"),
        ({"classes": [document()["classes"][0]] * 2}, "two classes have the id 7"),
        ({"classes": [document()["classes"][1] | {"id": i} for i in (1, 2)]}, "two classes have the name 'sky'"),
        ({"classes": [document()["classes"][1] | {"id": 255}]}, "classes.0.id"),
        ({"classes": [document()["classes"][1] | {"name": "a\u202eb"}]}, "classes.0.name"),
        ({"classes": [document()["classes"][1] | {"color": "red"}]}, "classes.0.color"),
        ({"classes": [document()["classes"][1] | {"clusters": [3, 3]}]}, "names a cluster twice"),
    ],
)
def test_what_is_refused_names_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ClassFileError, match=said):
        ClassFile.parse(json.dumps(document() | change).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": []}, r"examples\.0\.code"),
        ({"code": [float("nan"), 0]}, r"examples\.0\.code\.0"),
        ({"code": [1e300, 0]}, r"examples\.0\.code\.0"),
        ({"at": [0, 1.5]}, r"examples\.0\.at\.1"),
        ({"n": -1}, r"examples\.0\.n"),
        ({"n": 4}, "two examples of one n"),
        ({"negative": 1}, r"examples\.0\.negative"),
    ],
)
def test_examples_that_are_refused(change: dict[str, Any], said: str) -> None:
    given = document()
    given["classes"][0]["examples"][0] |= change
    with pytest.raises(ClassFileError, match=said):
        ClassFile.parse(json.dumps(given).encode())


def test_bytes_that_are_no_such_file() -> None:
    with pytest.raises(ClassFileError, match="JSON"):
        ClassFile.parse(b"\xff{")
    with pytest.raises(ClassFileError, match="values"):
        ClassFile.parse(b"[" + b"0," * (2**21 + 1))
    assert not is_class_file(b'{"road": 3}')
    assert not is_class_file(b"0 road")
    assert is_class_file(b' {"classes": [], "tessera" :\n"classes"}')
