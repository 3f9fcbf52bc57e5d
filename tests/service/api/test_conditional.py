"""If-Match and If-None-Match as RFC 9110 has them."""

import pytest
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request

from service.api import conditional
from service.errors import PreconditionFailed


class Answer(BaseModel):
    name: str = "road"


def request(*headers: tuple[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "method": "GET", "headers": raw})


TAG = conditional.tagged(request(), Answer(name="road")).headers["etag"]


def test_a_tag_is_of_the_answer_alone() -> None:
    assert conditional.changed(Answer(name="road")).headers["etag"] == TAG
    assert conditional.changed(Answer(name="lake")).headers["etag"] != TAG
    assert TAG.startswith('"')
    assert TAG.endswith('"')


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (TAG, True),
        ("*", True),
        (f"W/{TAG}", True),  # weak comparison
        (f'"other", {TAG}', True),
        (f'"with,comma",W/"x" ,, {TAG}', True),
        ('"other"', False),
        (TAG.strip('"'), False),
        (f"w/{TAG}", False),
        ('"open', False),
        ("", False),
        (f"{TAG}{TAG}", False),
    ],
)
def test_who_has_the_answer_gets_304(value: str, known: bool) -> None:
    answer = conditional.tagged(request(("If-None-Match", value)), Answer(name="road"))
    assert answer.status_code == (304 if known else 200)
    assert answer.headers["etag"] == TAG
    assert answer.body == (b"" if known else b'{"name":"road"}')


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ([TAG], True),
        (["*"], True),
        (['"other"', TAG], True),  # two lines are one list
        ([f"W/{TAG}"], False),  # strong comparison
        (['"other"'], False),
        ([""], False),
        ([TAG.strip('"')], False),
    ],
)
def test_a_change_is_made_to_what_was_seen(values: list[str], same: bool) -> None:
    given = request(*(("If-Match", value) for value in values))
    for attempt in (
        lambda: conditional.check_unchanged(given.headers, Answer(name="road")),
        lambda: conditional.tagged(given, Answer(name="road")),
    ):
        if same:
            attempt()
        else:
            with pytest.raises(PreconditionFailed, match="ETag"):
                attempt()


def test_without_conditions_all_goes_on() -> None:
    conditional.check_unchanged(Headers(), Answer())


def test_a_change_that_must_not_meet_what_was_seen() -> None:
    with pytest.raises(PreconditionFailed, match="If-None-Match"):
        conditional.check_unchanged(request(("If-None-Match", TAG)).headers, Answer(name="road"))
    conditional.check_unchanged(request(("If-None-Match", TAG)).headers, Answer(name="lake"))
