"""What a body of …/infer asks: images, outputs, parameters.

Knows nothing of models, of answers. Everything is bounded before it is made: numbers in JSON are counted as commas.
"""

import re
from typing import Any, NamedTuple

from pydantic_core import from_json

from models.io.pixels import Pixels
from service.api.protocols.open_inference.tensors import (
    IMAGE,
    INPUTS,
    OUTPUTS,
    Tensor,
    check_shape,
    files_in_bytes,
    files_in_json,
    pixels_in_bytes,
    pixels_in_json,
    shown,
)
from service.errors import BadBody, BodyTooLarge, nearest, quoted

MOST_NUMBERS = 2**21  # of a body or an answer in JSON
_MOST_ID = 1024
_MOST_INT = 2**63
_LENGTH = re.compile(r"[0-9]{1,12}")
_TOP, _LEAST = 10, -10  # of our priorities
_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")


class Output(NamedTuple):
    """One that is wanted, and whether as bytes behind the JSON."""

    tensor: Tensor
    binary: bool


class Call(NamedTuple):
    """One inference.

    parameters  ours, by their names;  priority, timeout_ms  the protocol's own, in our words
    """

    id: str | None
    images: list[bytes] | list[Pixels]
    outputs: list[Output]
    parameters: dict[str, Any]
    priority: str | None
    timeout_ms: str | None


def read_call(data: bytes, header_length: str | None, max_images: int) -> Call:
    """The call in a body.

    header_length  Inference-Header-Content-Length: how much of it is JSON; `0`: it is one tensor's bytes, and no JSON

    Raises BadBody, BodyTooLarge.
    """
    if header_length is None:
        size = len(data)
    elif not _LENGTH.fullmatch(header_length):
        raise BadBody(f"Inference-Header-Content-Length is a number of bytes, not {quoted(header_length)}")
    elif (size := int(header_length)) > len(data):
        raise BadBody(f"Inference-Header-Content-Length says {size} bytes of JSON, and the body has {len(data)}")
    elif size == 0:
        return _of_a_file(data)
    document = _json(data[:size], alone=header_length is None)
    parameters = _object(document, "parameters", "the request")
    id = document.get("id")
    if id is not None and not (isinstance(id, str) and len(id) <= _MOST_ID):
        raise BadBody(f"id is a text of at most {_MOST_ID} characters")
    images = _images(document, memoryview(data)[size:], max_images)
    outputs = _outputs(document, _flag(parameters, "binary_data_output"))
    for name in _SEQUENCES:
        if parameters.pop(name, None):
            raise BadBody(f"{name}: an image has nothing to do with the one before it; send no sequences")
    priority, timeout = _number(parameters, "priority"), _number(parameters, "timeout")
    return Call(
        id,
        images,
        outputs,
        parameters,
        str(max(_LEAST, _TOP + 1 - priority)) if priority else None,
        str(-(-timeout // 1000)) if timeout else None,
    )


def _of_a_file(data: bytes) -> Call:
    """A body that is an image file, with or without its length in front; all outputs are wanted as bytes."""
    if not data:
        raise BadBody("the body is empty; with Inference-Header-Content-Length: 0 it is an image file")
    prefixed = int.from_bytes(data[:4], "little") == len(data) - 4
    return Call(None, [data[4:] if prefixed else data], [Output(tensor, True) for tensor in OUTPUTS], {}, None, None)


def _json(data: bytes, *, alone: bool) -> dict[str, Any]:
    if data.count(b",") > MOST_NUMBERS:
        raise BodyTooLarge(
            f"there are more than {MOST_NUMBERS} numbers in the JSON; send the tensor as bytes (binary_data), or the"
            " image file as IMAGE"
        )
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        where = "the body" if alone else "what Inference-Header-Content-Length says of the body"
        hint = "; tensors as bytes need Inference-Header-Content-Length" if alone else ""
        raise BadBody(f"{where} is not JSON: {error}{hint}") from None
    if not isinstance(document, dict):
        raise BadBody('the JSON is an object with "inputs"')
    return document


def _images(document: dict[str, Any], binary: memoryview, max_images: int) -> list[bytes] | list[Pixels]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise BadBody('"inputs" is a list of one tensor, IMAGE or PIXELS')
    if len(inputs) != 1:
        raise BadBody(f"one input is taken, IMAGE (encoded files) or PIXELS, not {len(inputs)}; a batch is one tensor")
    (given,) = inputs
    tensor = _named(given.get("name"), INPUTS, "input")
    if given.get("datatype") != tensor.datatype:
        raise BadBody(f"{tensor.name} is {tensor.datatype}, not {shown(given.get('datatype'))}")
    shape = check_shape(tensor, given.get("shape"))
    parameters = _object(given, "parameters", tensor.name)
    _refuse_shared_memory(parameters, tensor)
    if "binary_data_size" not in parameters:
        if len(binary):
            raise BadBody(f"{len(binary)} bytes stand behind the JSON; {tensor.name} has no binary_data_size to say so")
        if "data" not in given:
            raise BadBody(f"{tensor.name} has no data: neither in JSON, nor as bytes with a binary_data_size")
        if tensor is IMAGE:
            return files_in_json(given["data"], shape[0], max_images)
        return pixels_in_json(given["data"], shape, max_images)
    if "data" in given:
        raise BadBody(f"{tensor.name} has both data and a binary_data_size; send one of them")
    size = parameters["binary_data_size"]
    if type(size) is not int or size != len(binary):
        raise BadBody(
            f"{tensor.name}: {shown(size)} is its binary_data_size, and {len(binary)} bytes stand behind the JSON"
        )
    if tensor is IMAGE:
        return files_in_bytes(binary, shape[0], max_images)
    return pixels_in_bytes(binary, shape, max_images)


def _outputs(document: dict[str, Any], binary: bool) -> list[Output]:
    """Those that are named, in their order; all, where none is. `binary` is for those that do not say."""
    given = document.get("outputs") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadBody('"outputs" is a list of objects with a "name"')
    outputs: list[Output] = []
    for one in given:
        tensor = _named(one.get("name"), OUTPUTS, "output")
        parameters = _object(one, "parameters", tensor.name)
        _refuse_shared_memory(parameters, tensor)
        if parameters.get("classification"):
            raise BadBody(
                f"{tensor.name}: classification ranks the scores of whole images, and there are none; CLUSTERS_PRESENT"
                " lists the clusters, largest first"
            )
        if any(tensor is output.tensor for output in outputs):
            raise BadBody(f"{tensor.name} is asked for twice")
        outputs.append(Output(tensor, _flag(parameters, "binary_data", binary)))
    return outputs or [Output(tensor, binary) for tensor in OUTPUTS]


def _named(name: object, among: tuple[Tensor, ...], kind: str) -> Tensor:
    for tensor in among:
        if tensor.name == name:
            return tensor
    names = [tensor.name for tensor in among]
    hint = (isinstance(name, str) and nearest(name[:60].upper(), names)) or f"; there are {', '.join(names)}"
    raise BadBody(f"no {kind} {shown(name)}{hint}")


def _refuse_shared_memory(parameters: dict[str, Any], tensor: Tensor) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise BadBody(f"{tensor.name}: memory is not shared with clients here; send and take tensors in bodies")


def _object(of: dict[str, Any], key: str, whose: str) -> dict[str, Any]:
    """The object under a key, a copy; empty where there is none."""
    value = of.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadBody(f'"{key}" of {whose} is an object')
    return dict(value)


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.pop(name, default)
    if not isinstance(value, bool):
        raise BadBody(f"{name} is true or false")
    return value


def _number(parameters: dict[str, Any], name: str) -> int:
    """A count that is taken out; 0 where there is none."""
    value = parameters.pop(name, 0)
    if type(value) is not int or not 0 <= value < _MOST_INT:
        unit = "microseconds" if name == "timeout" else "a step, 1 the first to go"
        raise BadBody(f"{name} is a whole number from 0 ({unit}; 0: the server's own), not {shown(value)}")
    return value
