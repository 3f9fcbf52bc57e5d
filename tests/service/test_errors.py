"""The table of refusals: every kind has its status, and only ours is a 500."""

import pytest

from models.errors import TesseraError
from models.io.samples import ImageError, ImageTooLarge, UnsupportedImage
from service.api.problems import STATUS, problem_of, status_of
from service.errors import BadOption, Busy, NetworkFailed, NetworkNotFinite, NotFound, explain, nearest


class Narrower(ImageTooLarge):
    """A kind that the table does not name."""


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ImageError("x"), 400, "image-error"),
        (ImageTooLarge("x"), 413, "image-too-large"),
        (UnsupportedImage("x"), 415, "unsupported-image"),
        (Narrower("x"), 413, "narrower"),
        (NotFound("x"), 404, "not-found"),
        (BadOption("x"), 422, "bad-option"),
        (Busy("x", reason="r"), 503, "busy"),
    ],
)
def test_status_and_document(error: TesseraError, status: int, kind: str) -> None:
    assert status_of(error) == status
    document = problem_of(error, "id")
    assert document == {
        "type": f"urn:tessera:{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": "x",
        "request_id": "id",
    }


def test_what_no_client_causes_is_not_told_to_clients() -> None:
    document = problem_of(TesseraError("/secret/path"), "id")
    assert document["status"] == 500
    assert "secret" not in str(document)
    told = problem_of(NetworkNotFinite("tiny@1: its network answers NaN"), "id")
    assert (told["type"], told["status"]) == ("urn:tessera:network-not-finite", 500)
    assert [kind for kind, status in STATUS.items() if status == 500] == [NetworkFailed]


def test_nearest() -> None:
    assert nearest("fromat", ["format", "k"]) == "; did you mean 'format'?"
    assert nearest("zzz", ["format", "k"]) == ""


def test_explain_names_option_value_and_range() -> None:
    message = "Input should be greater than or equal to 2"
    error = {"loc": ("query", "k"), "type": "greater_than_equal", "msg": message, "input": "1"}
    said = explain([error], {"k": "how many, 2 to K"})
    assert said == "k: should be greater than or equal to 2 (got '1'); how many, 2 to K"
    assert "there are k" in explain([{"loc": ("zzz",), "type": "extra_forbidden", "msg": "", "input": 1}], {"k": ""})
