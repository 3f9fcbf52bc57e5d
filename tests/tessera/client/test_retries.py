"""When a request comes again, and what becomes of one that does not: against a server that was told what to say."""

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from tessera import AsyncClient, Client
from tessera.client import Busy, ClientError, NoAnswer, Refused, Retries, TimedOut
from tessera.client.retries import retry_after_s
from tests.tessera.client.scripted import Reply, answer, busy, drip, drop, half, scripted

QUICK = Retries(6, first_s=0.01, longest_s=0.02)
MODELS = answer("200 OK", b'{"models":[]}', content_type="application/json")
UNLOADED = answer("200 OK", b'{"default":"a@1"}', content_type="application/json")


def call(kind: str, url: str, name: str = "models", *arguments: Any, **settings: Any) -> Any:
    """One call of either client."""
    settings = {"retries": QUICK, "timeout": 5.0} | settings
    if kind == "sync":
        with Client(url, **settings) as client:
            return getattr(client, name)(*arguments)

    async def ask() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await getattr(client, name)(*arguments)

    return asyncio.run(ask())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
@pytest.mark.parametrize(
    "replies",
    [
        [busy(), MODELS],
        [answer("429 Too Many Requests", retry_after="0"), busy(), MODELS],
        [drop, MODELS],
        [half, half, MODELS],
        [answer("502 Bad Gateway", b"<html>"), MODELS],
    ],
    ids=["503", "429 and 503", "dropped", "cut off", "a gateway"],
)
def test_what_is_refused_for_now_or_breaks_comes_again(kind: str, replies: list[Reply]) -> None:
    with scripted(replies) as server:
        assert call(kind, server.url) == ()
    assert len(server.requests) == len(replies)
    assert len(set(server.requests)) == 1


def test_retry_after_is_waited_for() -> None:
    with scripted([busy("1"), MODELS]) as server:
        call("sync", server.url)
    assert 1.0 <= server.times[1] - server.times[0] < 1.6


@both
def test_a_wait_beyond_the_deadline_is_not_begun(kind: str) -> None:
    began = time.monotonic()
    with scripted([busy("30")]) as server, pytest.raises(Busy) as refused:
        call(kind, server.url)
    assert time.monotonic() - began < 2
    assert (refused.value.status, refused.value.detail, refused.value.request_id) == (503, "full", "r1")
    assert refused.value.retry_after_s == 30


@both
def test_the_deadline_holds_for_all_tries_together(kind: str) -> None:
    began = time.monotonic()
    with scripted([drip, drip]) as server, pytest.raises(TimedOut, match=r"within 0\.3 s"):
        call(kind, server.url, timeout=0.3)
    assert time.monotonic() - began < 1.5


@both
def test_tries_are_counted(kind: str) -> None:
    with scripted([busy()] * 3) as server, pytest.raises(Busy):
        call(kind, server.url, retries=Retries(2, first_s=0.01))
    with scripted([drop] * 3) as broken, pytest.raises(NoAnswer, match="tried 3 times"):
        call(kind, broken.url, retries=Retries(2, first_s=0.01))
    assert len(server.requests) == len(broken.requests) == 3


@both
def test_what_may_have_been_done_does_not_come_again(kind: str) -> None:
    with scripted([drop]) as server, pytest.raises(NoAnswer, match="tried once"):
        call(kind, server.url, "unload_model", "a")
    with scripted([busy(), UNLOADED]) as server:
        assert call(kind, server.url, "unload_model", "a") == "a@1"


@both
def test_nobody_there(kind: str) -> None:
    with scripted([]) as server:
        pass
    with pytest.raises(NoAnswer, match="tried 3 times"):
        call(kind, server.url, retries=Retries(2, first_s=0.01))


@both
@pytest.mark.parametrize("retries", [0, 2])
def test_other_refusals_come_once_and_say_who_spoke(kind: str, retries: int) -> None:
    page = answer("413 Content Too Large", b"<html>\n  <h1>nginx</h1></html>", content_type="text/html")
    with scripted([page]) as server, pytest.raises(Refused) as refused:
        call(kind, server.url, retries=retries)
    assert str(refused.value).startswith("413 ")
    assert refused.value.detail == "<html> <h1>nginx</h1></html>"
    moved = answer("308 Permanent Redirect", location="https://example.org/")
    with scripted([moved]) as server, pytest.raises(Refused, match=r"https://example.org/: name that address"):
        call(kind, server.url)


@both
def test_an_answer_of_another_program_is_said_as_such(kind: str) -> None:
    with scripted([answer("200 OK", b"[1]")]) as server, pytest.raises(ClientError, match="is this a Tessera server"):
        call(kind, server.url)


def test_connections_are_kept() -> None:
    with scripted([MODELS] * 5) as server, Client(server.url) as client:
        for _ in range(5):
            client.models()
    assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_opened_anew() -> None:
    with scripted([MODELS, drop, MODELS]) as server, Client(server.url, retries=QUICK) as client:
        assert client.models() == client.models() == ()
    assert len(server.requests) == 3


def test_waits_grow_and_are_never_in_step() -> None:
    retries = Retries(first_s=1.0, longest_s=8.0)
    waits = [[retries.wait_s(tried, None) for _ in range(50)] for tried in (1, 2, 3, 9)]
    for drawn, most in zip(waits, (1.0, 2.0, 4.0, 8.0), strict=True):
        assert most / 2 <= min(drawn) < max(drawn) <= most
        assert len(set(drawn)) > 40
    assert all(3.0 <= retries.wait_s(1, 3.0) <= 3.75 for _ in range(50))


@pytest.mark.parametrize(("ahead_s", "low", "high"), [(60, 50, 61), (-60, 0, 0)])
def test_retry_after_is_seconds_or_a_date(ahead_s: int, low: float, high: float) -> None:
    assert retry_after_s({"retry-after": "7"}) == 7
    seconds = retry_after_s({"retry-after": formatdate(time.time() + ahead_s, usegmt=True)})
    assert seconds is not None
    assert low <= seconds <= high


@pytest.mark.parametrize("value", ["", "soon", "-3", "1e9", "٣"])
def test_another_retry_after_is_passed_over(value: str) -> None:
    assert retry_after_s({"retry-after": value}) is None
