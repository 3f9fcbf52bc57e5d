"""What FastAPI cannot read off the routes: bodies told apart by sniffing, several answer types, problems.

Generators of clients read it, too: every body has a schema with a name, every answer a media type that they know, plain
bytes if need be. Knows nothing of how requests are answered.
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from service.api.problems import PROBLEM
from service.api.responses import ImageBody, ImagesBody
from service.formats import registry
from service.inference.options import ImageOptions, descriptions

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
BYTES = "application/octet-stream"
FORMATS: dict[str, Any] = {
    r.media_type: {"schema": {"type": "object"}} if r.media_type.endswith("+json") else BINARY
    for r in registry.RENDERERS
    if r.media_type != "application/json"
}

_NAMED: dict[str, dict[str, Any]] = {}  # schemas of bodies, which no route's signature has
_PROBLEM = {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_TEXT = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
LONE: dict[str, Any] = {"content": {"application/json": {"schema": _TEXT}}}  # `error_shapes.lone`
_FAILED = {
    "type": "object",
    "required": ["success", "message"],
    "properties": {"success": {"type": "boolean"}, "message": {"type": "string"}, "error": {"type": "object"}},
}
UNSUCCESSFUL: dict[str, Any] = {"content": {"application/json": {"schema": _FAILED}}}  # `error_shapes.unsuccessful`
_ID = {"X-Request-ID": {"schema": {"type": "string"}, "description": "the caller's if well formed, else made"}}
TOLD = {
    "X-Orientation": {"schema": {"type": "integer"}, "description": "where the answer is no JSON: its `orientation`"},
    "X-Familiarity": {"schema": {"type": "number"}, "description": "where the answer is no JSON: its `familiarity`"},
    "X-Warning": {"schema": {"type": "string"}, "description": "where the answer is no JSON: its `warnings`"},
}
OFFSET = {"X-Id-Offset": {"schema": {"type": "integer"}, "description": "id_offset, where it was added to ids"}}
_LATER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}


def images(
    options: type[ImageOptions], *bodies: type[BaseModel], form: str, files: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Parameters and body of an operation on images: options come in the query or as fields of the form, `form`.

    bodies  JSON that is taken besides that with images;  files  other files of the form, with what they are

    Defaults stand in words: generated clients send them otherwise, where the form may say something else.
    """
    documents: tuple[type[BaseModel], ...] = (ImageBody, ImagesBody, *bodies)
    fields = {name: {"type": "string", "description": text} for name, text in descriptions(options).items()}
    _NAMED[form] = {
        "title": form,
        "description": "One or several images, and options beside them.",
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            **{name: {"type": "string", "format": "binary", "description": text} for name, text in files.items()},
            **fields,
        },
    }
    return {
        "parameters": _parameters(options),
        "requestBody": {
            "required": True,
            "description": "Told apart by the bytes, whatever Content-Type says. Options may be fields of the form.",
            "content": {
                "multipart/form-data": {"schema": _reference(form)},
                "application/json": {"schema": {"anyOf": [_named(document) for document in documents]}},
                BYTES: BINARY,  # of an image, whatever it is
            },
        },
    }


def archive(options: type[ImageOptions], *, form: str, folder: str) -> dict[str, Any]:
    """Parameters and body of an operation on a zip of images, alone or in a form, or on a folder named in JSON."""
    fields = {name: {"type": "string", "description": text} for name, text in descriptions(options).items()}
    path = {
        "type": "string",
        "description": "a folder below one of TESSERA_ROOTS: its path, or file://; or one below TESSERA_BUCKETS: s3://…",
    }
    for name, first in ((form, {"file": {"type": "string", "format": "binary"}}), (folder, {"path": path})):
        _NAMED[name] = {
            "title": name,
            "type": "object",
            "required": list(first),
            "properties": {**first, **fields},
        }
    return {
        "parameters": _parameters(options),
        "requestBody": {
            "required": True,
            "description": "A zip, a form with one, or the name of a folder; told apart by the bytes.",
            "content": {
                "multipart/form-data": {"schema": _reference(form)},
                "application/json": {"schema": _reference(folder)},
                BYTES: BINARY,  # of a zip
            },
        },
    }


def json_body(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    """A JSON body of a model's fields; one that is required holds at least one of them."""
    schema = _named(model, **({"minProperties": 1} if required else {}))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def files(*media_types: str) -> dict[str, Any]:
    """The answers of a route that gives files: of these types, or as `media_type` has them, as plain bytes."""
    return dict.fromkeys((*media_types, BYTES), BINARY)


def media_type(request: Request, usual: str) -> str:
    """What a file is sent as: its own type, or plain bytes to who asks for those before all."""
    first = request.headers.get("accept", "").partition(",")[0].partition(";")[0]
    return BYTES if first.strip().lower() == BYTES else usual


def fields(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """The schema of an object that may have others besides."""
    return {"type": "object", "properties": properties, **({"required": [*required]} if required else {})}


def free_body(properties: dict[str, Any]) -> dict[str, Any]:
    """A JSON body of a dialect, which may be empty."""
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": fields(properties)}}}}


def in_query(options: type[ImageOptions], *without: str) -> dict[str, Any]:
    """The options that a dialect's address may have."""
    return {"parameters": [one for one in _parameters(options) if one["name"] not in without]}


def in_path(*names: str, also: dict[str, Any] | None = None) -> dict[str, Any]:
    """Names in the path of an operation whose function reads them itself; with what else is said of it."""
    also = also or {}
    own = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {**also, "parameters": [*own, *also.get("parameters", [])]}


def tensors(length: str) -> dict[str, Any]:
    """An Open Inference Protocol call; `length` is the header that says how much of a body is JSON."""
    values = fields({}) | {"additionalProperties": {"type": ["string", "number", "boolean"]}}
    tensor = {
        "name": {"type": "string", "enum": ["IMAGE", "PIXELS"]},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": values,
        "data": {"type": "array", "items": {}},
    }
    output = {"name": {"type": "string", "enum": ["LABELS", "CONFIDENCE", "CLUSTERS_PRESENT"]}, "parameters": values}
    call = {
        "id": {"type": "string"},
        "parameters": values,
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": fields(tensor, "name", "datatype", "shape")},
        "outputs": {"type": "array", "items": fields(output, "name")},
    }
    return {
        "parameters": [
            {
                "name": length,
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "how many of the body's bytes are JSON, where tensors follow it; 0: it is an image file",
            }
        ],
        "requestBody": {
            "required": True,
            "description": "JSON, with the bytes of binary tensors behind it; gzip and deflate are opened.",
            "content": {"application/json": {"schema": fields(call, "inputs")}, "application/octet-stream": BINARY},
        },
    }


def responses(
    *statuses: int,
    ok: dict[str, Any] | None = None,
    headers: dict[str, Any] | None = None,
    refusal: dict[str, Any] = _PROBLEM,
) -> dict[int | str, dict[str, Any]]:
    """The answers a route can give besides its model: other media types and headers of 200, refusals for `statuses`.

    304 is none: it has those headers and nothing else.
    """
    of_keys = (403, 429) if 401 in statuses else ()
    problems: dict[int | str, dict[str, Any]] = {
        status: {
            **(refusal if status != 304 else {}),
            "description": HTTPStatus(status).phrase,
            "headers": {
                **_ID,
                **(_LATER if status in (429, 503) else {}),
                **(headers or {} if status == 304 else {}),
            },
        }
        for status in (*statuses, *of_keys, 421, 500)
    }
    return {200: {"description": "OK", "content": ok or {}, "headers": {**_ID, **(headers or {})}}, **problems}


def accepted(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that begins what goes on: 202 with a Location, problems for `statuses`."""
    problems = responses(*statuses)
    del problems[200]
    place = {"Location": {"schema": {"type": "string"}, "description": "where to ask how far it has come"}}
    return {202: {"description": "Accepted", "headers": {**_ID, **place}}, **problems}


def created(*statuses: int, headers: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that makes something: 201 with these headers, problems for `statuses`."""
    problems = responses(*statuses)
    del problems[200]
    return {201: {"description": "Created", "headers": {**_ID, **headers}}, **problems}


def joined(*parts: dict[str, Any]) -> dict[str, Any]:
    """What several say of an operation; their parameters together."""
    together: dict[str, Any] = {}
    for part in parts:
        together |= {**part, "parameters": [*together.get("parameters", []), *part.get("parameters", [])]}
    return together


def secured(description: dict[str, Any]) -> dict[str, Any]:
    """The description, with the named bodies, and how a key travels; where no keys are configured none is needed."""
    description["components"]["schemas"] |= _NAMED
    for methods in description["paths"].values():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            if BYTES in content:
                content.pop("image/*", None)  # says no more, and generators do not know it
    description["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    description["security"] = [{}, {"bearer": []}, {"header": []}]
    return description


def placed(description: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The description of a server that is shown under a path."""
    return {**description, "servers": [{"url": root_path}]} if root_path else description


def _named(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    """A reference to a model's schema, which has its name from now on. Raises ValueError where another has it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    for name, one in {**inner, model.__name__: schema | more}.items():
        if _NAMED.setdefault(name, one) != one:
            raise ValueError(f"two bodies of the description are named {name}")
    return _reference(model.__name__)


def _parameters(options: type[BaseModel]) -> list[dict[str, Any]]:
    """Options in the query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {key: value for key, value in field.items() if key not in ("description", "default")},
            "description": _with_default(field),
        }
        for name, field in options.model_json_schema()["properties"].items()
    ]


def _with_default(field: dict[str, Any]) -> str:
    default = field.get("default")
    text = str(field["description"])
    return text if default is None else f"{text} (default: {str(default).lower()})"


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
