"""/openapi.json: what generators of clients need of it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.answers import PNG

GENERATED = re.compile(r"application/(.*\+)?json|application/octet-stream|text/.*")  # as openapi-python-client has it
OURS = ("images", "clusters", "classes", "models", "probes", "jobs")  # dialects' bodies are as they are


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    described = client.get("/openapi.json").json()
    assert isinstance(described, dict)
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_operations_have_ids_of_their_own_and_a_tag(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids)) > 10
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9]*", id) for id in ids)
    assert all(len(operation["tags"]) == 1 for _, operation in operations(document))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        place: Any = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
        assert place["type"] == "object", reference


def test_bodies_have_named_schemas(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            assert kind == "multipart/form-data" or GENERATED.fullmatch(kind), (where, kind)
            if kind == "application/octet-stream":
                continue
            if operation["tags"][0] in OURS:
                for schema in media["schema"].get("anyOf", [media["schema"]]):
                    assert set(schema) == {"$ref"}, (where, kind)
    form = document["components"]["schemas"]["SegmentForm"]
    assert form["required"] == ["image"]
    assert form["properties"]["image"]["items"] == {"type": "string", "format": "binary"}
    assert {"format", "k", "crf"} < set(form["properties"])


def test_an_operation_of_several_bodies_has_an_option(document: dict[str, Any]) -> None:
    """Without one, openapi-python-client imports no name for what is left out of it."""
    for where, operation in operations(document):
        if len(operation.get("requestBody", {}).get("content", {})) > 1:
            assert any(not one["required"] for one in operation.get("parameters", [])), where


def test_every_answer_is_one_that_a_generated_client_can_read(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for status, answer in operation["responses"].items():
            kinds = list(answer.get("content", {}))
            if kinds:
                assert any(GENERATED.fullmatch(kind) for kind in kinds), (where, status, kinds)
            elif status != "304":
                raise AssertionError(f"{where} says nothing of what {status} answers")
    assert next(iter(document["paths"]["/segment"]["post"]["responses"]["200"]["content"])) == "application/json"


def test_no_schema_has_a_field_of_its_own_name(document: dict[str, Any]) -> None:
    """In what openapi-python-client makes of it, one variable would be two things."""
    for name, schema in document["components"]["schemas"].items():
        own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        assert own not in schema.get("properties", {}), name


def test_files_come_as_plain_bytes_to_who_asks_for_those(client: TestClient) -> None:
    plain = {"accept": "application/octet-stream"}
    for method, path, body in [("POST", "/similar?x=1&y=1", PNG), ("GET", "/clusters/0/exemplars/0", b"")]:
        usual = client.request(method, path, content=body)
        asked = client.request(method, path, content=body, headers=plain)
        assert usual.headers["content-type"].startswith("image/")
        assert asked.headers["content-type"] == "application/octet-stream"
        assert usual.content == asked.content
