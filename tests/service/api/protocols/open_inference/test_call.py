"""What a body asks is what its writer meant, or is refused in a sentence; whatever the body is."""

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TesseraError
from models.io.pixels import Pixels
from service.api.protocols.open_inference.call import MOST_NUMBERS, Call, read_call
from service.api.protocols.open_inference.tensors import OUTPUTS
from service.errors import BadBody, BodyTooLarge
from tests.service.answers import B64, PHOTO, PNG
from tests.service.api.protocols.open_inference.calls import PIXELS, binary, elements, image, pixels


def call(document: dict[str, Any], tensor: bytes = b"") -> Call:
    head = json.dumps(document).encode()
    return read_call(head + tensor, str(len(head)) if tensor else None, 8)


def shown(of: Call) -> list[Any]:
    assert all(isinstance(one, Pixels) for one in of.images)
    return [one.image for one in of.images if isinstance(one, Pixels)]


def test_files_come_in_json_or_in_bytes() -> None:
    assert call(image()).images == [PNG]
    assert call(image(shape=[2], data=[B64, B64])).images == [PNG, PNG]
    assert call(image(shape=[2, 1], data=[[B64], [B64]])).images == [PNG, PNG]
    for files in ([PNG], [PNG, b""], [b"", b"a", PNG]):
        body, head = binary(elements(*files), shape=[len(files)])
        assert read_call(body, head["inference-header-content-length"], 8).images == files


def test_pixels_come_in_json_or_in_bytes() -> None:
    flat = PIXELS.reshape(-1).tolist()
    for document in (pixels(), pixels(data=flat), pixels(data=[float(level) for level in flat])):
        assert np.array_equal(shown(call(document)), PIXELS)
    two = np.stack([PHOTO, PHOTO[::-1]])
    body, head = binary(two.tobytes(), "PIXELS", shape=[2, 60, 100, 3])
    found = shown(read_call(body, head["inference-header-content-length"], 8))
    assert np.array_equal(found, two)
    assert not found[0].flags.owndata  # a view of the body


def test_a_body_may_be_the_file_itself() -> None:
    for body in (PNG, elements(PNG)):
        found = read_call(body, "0", 8)
        assert found.images == [PNG]
        assert [(output.tensor, output.binary) for output in found.outputs] == [(tensor, True) for tensor in OUTPUTS]


@pytest.mark.parametrize(
    ("asked", "binary_by_default", "expected"),
    [
        (None, None, [("LABELS", False), ("CONFIDENCE", False), ("CLUSTERS_PRESENT", False)]),
        ([], True, [("LABELS", True), ("CONFIDENCE", True), ("CLUSTERS_PRESENT", True)]),
        (
            [{"name": "CONFIDENCE"}, {"name": "LABELS", "parameters": {"binary_data": False}}],
            True,
            [("CONFIDENCE", True), ("LABELS", False)],
        ),
        ([{"name": "LABELS", "parameters": {"binary_data": True}}], None, [("LABELS", True)]),
    ],
)
def test_outputs_are_chosen_by_name(asked: Any, binary_by_default: bool | None, expected: list[Any]) -> None:
    document = image() | ({} if asked is None else {"outputs": asked})
    if binary_by_default is not None:
        document["parameters"] = {"binary_data_output": binary_by_default}
    found = call(document)
    assert [(output.tensor.name, output.binary) for output in found.outputs] == expected
    assert found.parameters == {}


@pytest.mark.parametrize(
    ("given", "priority", "timeout_ms"),
    [
        ({}, None, None),
        ({"priority": 0, "timeout": 0}, None, None),
        ({"priority": 1, "timeout": 1}, "10", "1"),
        ({"priority": 11, "timeout": 1000}, "0", "1"),
        ({"priority": 2**40, "timeout": 2_500_001}, "-10", "2501"),
    ],
)
def test_priority_and_timeout_are_said_in_our_words(
    given: dict[str, int], priority: str | None, timeout_ms: str | None
) -> None:
    found = call(image() | {"parameters": {**given, "k": 3, "sequence_id": 0}, "id": "mine"})
    assert (found.priority, found.timeout_ms, found.parameters, found.id) == (priority, timeout_ms, {"k": 3}, "mine")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, '"inputs" is a list of one tensor'),
        ({"inputs": []}, "not 0"),
        ({"inputs": image()["inputs"] + pixels()["inputs"]}, "not 2; a batch is one tensor"),
        (image(name="image"), "no input 'image'; did you mean 'IMAGE'"),
        (image(name=[1]), "there are IMAGE, PIXELS"),
        (image(datatype="UINT8"), "IMAGE is BYTES, not 'UINT8'"),
        (image(shape=[1, 2]), r"its shape is \[-1\], not"),
        (image(shape=[True]), r"its shape is \[-1\], not"),
        (image(shape=[0], data=[]), "holds no image"),
        (image(shape=[2]), "says 2 elements, and its data holds 1"),
        (image(data=[7]), "a list of the files in base64"),
        (image(data=["%"]), "its base64 is damaged"),
        (image(shape=[9], data=[B64] * 9), "more than 8 images"),
        (image(parameters={"shared_memory_region": "x"}), "memory is not shared"),
        (image(parameters=[]), '"parameters" of IMAGE is an object'),
        (image(parameters={"binary_data_size": 3}), "both data and a binary_data_size"),
        ({"inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES"}]}, "has no data"),
        (pixels(shape=[1, 60, 100, 4]), r"its shape is \[-1,-1,-1,3\]"),
        (pixels(shape=[1, 60, 101, 3]), "takes 18180 numbers"),
        (pixels(shape=[1, 100, 60, 3]), r"the data is \[1,60,100,3\]"),
        (pixels(shape=[1, 0, 100, 3], data=[]), "holds no image"),
        (pixels(shape=[1, 1, 1, 3], data=[0, 1, 256]), "whole, 0 to 255"),
        (pixels(shape=[1, 1, 1, 3], data=[0, 0.5, 1]), "multiplied by 255"),
        (pixels(shape=[1, 1, 1, 3], data=[0, None, 1]), "whole, 0 to 255"),
        (pixels(shape=[1, 1, 1, 3], data=[[1], 2]), "a list of whole numbers"),
        (pixels(shape=[1, 1, 1, 3], data={}), "a list of whole numbers"),
        (pixels(shape=[1, 1, 1, 3], data=[10**400] * 3), "a list of whole numbers"),
        (image() | {"id": 7}, "id is a text"),
        (image() | {"outputs": [{"name": "MASK"}]}, "there are LABELS, CONFIDENCE"),
        (image() | {"outputs": [{"name": "LABELS"}] * 2}, "asked for twice"),
        (image() | {"outputs": [{"name": "LABELS", "parameters": {"classification": 3}}]}, "classification ranks"),
        (image() | {"outputs": [{"name": "LABELS", "parameters": {"shared_memory_region": "x"}}]}, "is not shared"),
        (image() | {"outputs": [{"name": "LABELS", "parameters": {"binary_data": 1}}]}, "binary_data is true or false"),
        (image() | {"parameters": {"sequence_id": 5}}, "sequence_id: an image has nothing to do"),
        (image() | {"parameters": {"sequence_start": True}}, "sequence_start"),
        (image() | {"parameters": {"priority": -1}}, "priority is a whole number"),
        (image() | {"parameters": {"timeout": "soon"}}, "microseconds"),
        (image() | {"parameters": {"priority": True}}, "priority is a whole number"),
    ],
)
def test_what_is_wrong_is_said(document: dict[str, Any], says: str) -> None:
    with pytest.raises((BadBody, BodyTooLarge), match=says):
        call(document)


def test_a_number_of_thousands_of_digits_is_no_500() -> None:
    for where, digits in (("timeout", 4000), ("priority", 5000)):
        text = json.dumps(image() | {"parameters": {where: 0}}).replace(f'"{where}": 0', f'"{where}": {"7" * digits}')
        with pytest.raises(BadBody, match=r"whole number|number out of range"):
            read_call(text.encode(), None, 8)


@pytest.mark.parametrize("length", ["-1", "1e3", " 1", "", "9" * 40, "0x10", "1,1"])
def test_a_malformed_length_is_refused(length: str) -> None:
    with pytest.raises(BadBody, match="Inference-Header-Content-Length"):
        read_call(binary()[0], length, 8)


@pytest.mark.parametrize(
    ("tensor", "changes", "says"),
    [
        (elements(PNG)[:-1], {}, "ends 1 bytes behind the tensor"),
        (elements(PNG) + b"\0", {}, "behind the tensor"),
        (elements(PNG, PNG), {}, "hold more"),
        (elements(PNG), {"shape": [2]}, "hold 1"),
        (elements(PNG), {"shape": [9]}, "more than 8 images"),
        (elements(PNG), {"parameters": {"binary_data_size": 4}}, "'4' is its binary_data_size"),
        (elements(PNG), {"parameters": {"binary_data_size": "4"}}, "binary_data_size"),
        (elements(PNG), {"parameters": {}}, "has no binary_data_size to say so"),
        (b"\xff\xff\xff\xff", {}, "behind the tensor"),
    ],
)
def test_bytes_are_checked_against_the_shape(tensor: bytes, changes: dict[str, Any], says: str) -> None:
    body, head = binary(tensor, **changes)
    with pytest.raises((BadBody, BodyTooLarge), match=says):
        read_call(body, head["inference-header-content-length"], 8)
    body, head = binary(PIXELS.tobytes()[:-1], "PIXELS")
    with pytest.raises(BadBody, match="takes 18000 bytes, and 17999 came"):
        read_call(body, head["inference-header-content-length"], 8)


def test_json_is_made_of_so_many_numbers() -> None:
    with pytest.raises(BodyTooLarge, match="send the tensor as bytes"):
        read_call(b"[" + b"1," * (MOST_NUMBERS + 1) + b"1]", None, 8)


@settings(max_examples=150, deadline=None)
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "id", "binary_data_size",
                 "binary_data", "priority", "timeout", "sequence_id", "classification", "x"]
            ),
            inner | st.sampled_from(["IMAGE", "PIXELS", "BYTES", "UINT8", "LABELS", [1], [1, 1, 1, 3], B64, 3, 0]),
            max_size=5,
        ),
        max_leaves=12,
    ),
    tensor=st.binary(max_size=32),
    slip=st.integers(-3, 3),
)  # fmt: skip
def test_no_document_breaks_the_reader(document: Any, tensor: bytes, slip: int) -> None:
    head = json.dumps(document).encode()
    for length in (None, str(len(head)), str(len(head) + slip)):
        with suppress(TesseraError):
            assert read_call(head + tensor, length, 8).images


@settings(max_examples=100, deadline=None)
@given(
    where=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    kind=st.sampled_from(["IMAGE", "PIXELS"]),
    length=st.integers(0, 2**33),
)
def test_no_change_of_a_sound_body_breaks_the_reader(where: list[tuple[int, int]], kind: str, length: int) -> None:
    tensor = elements(b"file", b"another") if kind == "IMAGE" else bytes(12)
    shape = [2] if kind == "IMAGE" else [2, 1, 2, 3]
    body, head = binary(tensor, kind, shape=shape)
    changed = bytearray(body)
    for at, value in where:
        changed[at % len(changed)] = value
    at = where[0][0] % (len(changed) - 3)
    again = bytes(changed[:at]) + struct.pack("<I", length & 0xFFFFFFFF) + bytes(changed[at + 4 :])
    for data in (bytes(changed), again):
        for said in (head["inference-header-content-length"], str(length), None):
            with suppress(TesseraError):
                assert read_call(data, said, 8).images
