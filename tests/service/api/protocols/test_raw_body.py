"""Bodies of dialects: of any type, compressed, small ones empty; never more than is allowed."""

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.api import content_encoding
from service.errors import BadBody, BodyTooLarge, UnsupportedEncoding
from tests.service.answers import PNG
from tests.service.server import Serve

FOLDED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "bare deflate": lambda data: zlib.compress(data)[2:-4],
}


def unfold(data: bytes, encoding: str, most: int = 2**26) -> bytes:
    return content_encoding.unfold(data, content_encoding.encoding_of(encoding.split()[-1]), max_bytes=most)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=4096), times=st.integers(1, 600), encoding=st.sampled_from(sorted(FOLDED)))
def test_what_was_compressed_comes_back(data: bytes, times: int, encoding: str) -> None:
    assert unfold(FOLDED[encoding](data * times), encoding) == data * times


@settings(max_examples=40, deadline=None)
@given(data=st.binary(min_size=8, max_size=512), cut=st.integers(1, 6), encoding=st.sampled_from(sorted(FOLDED)))
def test_what_is_cut_or_damaged_is_told(data: bytes, cut: int, encoding: str) -> None:
    folded = FOLDED[encoding](data)
    for damaged in (folded[:-cut], folded + b"\0" * cut, b""):
        with pytest.raises(BadBody):
            unfold(damaged, encoding)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=256), encoding=st.sampled_from(["gzip", "deflate"]))
def test_noise_is_refused(data: bytes, encoding: str) -> None:
    with suppress(BadBody):
        assert isinstance(unfold(data, encoding), bytes)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_held(encoding: str) -> None:
    bomb = FOLDED[encoding](b"\0" * 2**26)
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="more than the 16 MiB"):
        unfold(bomb, encoding, 2**28)
    with pytest.raises(BodyTooLarge, match="more than the 1 MiB"):
        unfold(bomb, encoding, 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20
    assert unfold(FOLDED[encoding](b"\0" * 2**24), encoding) == b"\0" * 2**24  # as much as any body may


@pytest.mark.parametrize("header", ["br", "gzip, gzip", "zstd", "gzip;q=1", "identity, gzip"])
def test_other_encodings_are_refused(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate and identity are"):
        content_encoding.encoding_of(header)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.2, deflate;q=0.5", "deflate"),
        ("gzip;q=0", ""),
        ("identity, gzip;q=0.5", ""),
        ("gzip;q=x, br", ""),
        ("GZIP", "gzip"),
    ],
)
def test_an_answer_is_compressed_where_that_is_asked_for(accept: str, chosen: str) -> None:
    assert content_encoding.chosen(accept, 2**20) == chosen
    assert content_encoding.chosen(accept, 100) == ""
    if chosen:
        parts = content_encoding.folded([b"ab" * 500, b"c" * 500], chosen)
        assert unfold(b"".join(parts), chosen) == b"ab" * 500 + b"c" * 500


def test_a_compressed_photo_is_a_photo(client: TestClient) -> None:
    plain = client.post("/hf", content=PNG).json()
    for encoding in ("gzip", "deflate", "identity"):
        body = FOLDED.get(encoding, bytes)(PNG)
        assert client.post("/hf", content=body, headers={"content-encoding": encoding}).json() == plain


def test_what_unfolds_is_counted_among_all_bodies(serve: Serve) -> None:
    with serve(max_bodies_bytes=2**20, max_body_bytes=2**21) as own:
        answer = own.post("/hf", content=gzip.compress(b"\0" * 2**20), headers={"content-encoding": "gzip"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "uploads" in answer.json()["error"]
        answer = own.post("/hf", content=gzip.compress(b"\0" * 2**22), headers={"content-encoding": "gzip"})
        assert answer.status_code == 413
        assert own.post("/hf", content=PNG).status_code == 200
