"""POST /segment: bodies, options, bad input."""

import base64
import io
import json
import random
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from starlette.testclient import TestClient

from models import bundle
from models.bundle import Bundle
from models.io.encode import encode
from service.formats import registry
from tests.service.answers import B64, JPEG, PHOTO, PNG, TEXT, labels, problem
from tests.tiny import COLORS

# ---- bodies


def part(name: str, data: bytes, boundary: str = "xyz") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    return head.encode() + data + b"\r\n"


BODIES: dict[str, dict[str, Any]] = {
    "form": {"files": {"image": ("a.png", PNG)}},
    "raw": {"content": PNG},
    "raw, typed": {"content": PNG, "headers": {"content-type": "image/png"}},
    "raw, called JSON": {"content": PNG, "headers": {"content-type": "application/json"}},
    "raw, called a form": {"content": PNG, "headers": {"content-type": "multipart/form-data; boundary=no"}},
    "raw, nonsense type": {"content": PNG, "headers": {"content-type": ";;=💥".encode()}},
    "form without type": {"content": part("image", PNG) + b"--xyz--\r\n"},
    "form of the wrong type": {
        "content": part("image", PNG) + b"--xyz--\r\n",
        "headers": {"content-type": "application/octet-stream"},
    },
    "json": {"json": {"image": B64}},
    "json without type": {"content": json.dumps({"image": B64})},
    "json, data url": {"json": {"image": f"data:image/png;base64,{B64}"}},
    "json, wrapped lines": {"json": {"image": base64.encodebytes(PNG).decode()}},
    "chunked": {"content": (PNG[i : i + 50] for i in range(0, len(PNG), 50))},
}


@pytest.mark.parametrize("name", BODIES)
def test_every_body_gives_the_same_labels(client: TestClient, name: str) -> None:
    expected = labels(client.post("/segment?format=npy", content=PNG))
    assert (labels(client.post("/segment?format=npy", **BODIES[name])) == expected).all()
    # The bands are 20 pixels wide and stand in the order of the ids.
    assert expected[30].tolist() == sorted(expected[30].tolist())
    assert set(expected.ravel()) == {0, 1, 2, 3, 4}


def test_several_images_answer_in_order_and_one_bad_spoils_none(client: TestClient) -> None:
    red = encode(np.full((20, 30, 3), (230, 30, 30), np.uint8), "png")
    files = [("image", ("a", PNG)), ("image", ("b", TEXT)), ("image", ("c", red))]
    answer = client.post("/segment", files=files)
    first, second, third = answer.json()["results"]
    assert (first["width"], first["height"]) == (100, 60)
    assert second["status"] == 400
    assert second["request_id"] == answer.headers["x-request-id"]
    assert [c["name"] for c in third["clusters"]] == ["red"]
    same = client.post("/segment", json={"images": [B64, base64.b64encode(red).decode()]}).json()["results"]
    assert [r["width"] for r in same] == [100, 30]
    assert len(client.post("/segment", json={"images": [B64]}).json()["results"]) == 1


def test_several_images_are_json_only(client: TestClient) -> None:
    answer = client.post("/segment?format=png", json={"images": [B64, B64]})
    assert "json only" in problem(answer, 422)


def test_options_may_be_fields_of_the_form(client: TestClient) -> None:
    answer = client.post("/segment", files={"image": PNG}, data={"format": "png", "k": "2"})
    assert answer.headers["content-type"] == "image/png"
    assert "twice" in problem(client.post("/segment?k=2", files={"image": PNG}, data={"k": "3"}), 422)
    assert "'format'" in problem(client.post("/segment", files={"image": PNG}, data={"fromat": "png"}), 422)


@pytest.mark.parametrize(
    ("send", "status", "says"),
    [
        ({"content": b""}, 400, "empty"),
        ({"content": TEXT}, 400, "not an image"),
        ({"files": {"image": b""}}, 400, "0 bytes"),
        ({"files": {"file": PNG}}, 422, "'image'"),
        ({"data": {"image": "street.jpg"}}, 400, "-F"),
        ({"files": {"image": (None, "street.jpg")}}, 400, "@"),
        ({"files": {"k": (None, "2")}}, 400, "no part called 'image'"),
        ({"content": part("image", PNG)[:60]}, 400, "cut off"),
        ({"content": part("image", PNG)}, 400, "cut off"),
        ({"content": b"--xyz\r\nrubbish", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"{"}, 400, "JSON"),
        ({"content": b'{"image": ' + b"[" * 100_000}, 400, "JSON"),
        ({"json": {"image": "%%%"}}, 400, "base64"),
        ({"json": {"image": "é"}}, 400, "base64"),
        ({"json": {"image": 7}}, 400, "text"),
        ({"json": {"images": []}}, 400, "at least one"),
        ({"json": {"images": "abc"}}, 400, "list"),
        ({"json": {}}, 400, "one key"),
        ({"json": {"image": B64, "images": [B64]}}, 400, "one key"),
        ({"json": [1, 2]}, 400, "JSON, but a list"),
        ({"content": b" [1, 2]"}, 400, "JSON, but a list"),
        ({"json": "x"}, 400, "JSON, but a text"),
        ({"json": 7}, 400, "JSON, but a lone value"),
        ({"content": b"null", "headers": {"content-type": "application/json"}}, 400, "JSON, but a lone value"),
        ({"content": b"[not json"}, 400, "not an image"),
        ({"json": {"image": B64, "format": "png"}}, 422, "query"),
        ({"content": PNG, "headers": {"content-encoding": "gzip"}}, 415, "gzip"),
        ({"content": b"%PDF-1.7 ..."}, 415, "PDF"),
        ({"content": JPEG[:200], "headers": {"content-type": "application/x-www-form-urlencoded"}}, 400, "curl -d"),
        ({"content": part("k", b"2") * 10_000 + b"--xyz--\r\n"}, 413, "parts"),
        ({"content": b"--xyz\r\nContent-Disposition: " + b"a" * 10**6 + b"\r\n\r\n"}, 400, "malformed"),
        ({"files": {"image": PNG, "k": (None, "2" * 10_000)}}, 422, "option of"),
    ],
)
def test_a_bad_body_is_told_what_to_change(client: TestClient, send: dict[str, Any], status: int, says: str) -> None:
    assert says in problem(client.post("/segment", **send), status)


# ---- bad and odd images


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_truncated_jpeg_is_a_problem(client: TestClient, cut: int) -> None:
    problem(client.post("/segment", content=JPEG[: len(JPEG) * cut // 11]), 400)


def png_of(width: int, height: int) -> bytes:
    """A one-bit PNG of zeros: a few kilobytes, however large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_small_file_of_81_megapixels_is_refused_from_its_header(client: TestClient) -> None:
    bomb = png_of(9000, 9000)
    assert len(bomb) < 12_000
    assert "TESSERA_MAX_MPX" in problem(client.post("/segment", content=bomb), 413)


@pytest.mark.timing
def test_its_refusal_costs_nothing(client: TestClient) -> None:
    bomb = png_of(9000, 9000)
    started = time.perf_counter()
    problem(client.post("/segment", content=bomb), 413)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20_000), (20_000, 1), (7, 3)])
def test_odd_sizes_get_labels_of_their_own_size(client: TestClient, height: int, width: int) -> None:
    photo = encode(np.full((height, width, 3), (230, 30, 30), np.uint8), "png")
    got = labels(client.post("/segment?format=npy", content=photo))
    assert got.shape == (height, width)
    assert (got == 0).all()
    assert "smaller than one cell" in client.post("/segment", content=photo).json()["warnings"][0]


def test_cmyk_and_16_bit_are_opened(client: TestClient) -> None:
    expected = labels(client.post("/segment?format=npy", content=PNG))
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(buffer, "JPEG", quality=98)
    assert (labels(client.post("/segment?format=npy", content=buffer.getvalue())) == expected).mean() > 0.95
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PHOTO.astype(np.uint16) * 257, photometric="rgb")
    answer = client.post("/segment?depth=full", content=buffer.getvalue()).json()
    assert answer["depth_rule"].startswith("full")
    gray = Image.fromarray(np.linspace(0, 65535, 6000).reshape(60, 100).astype(np.uint16))
    buffer = io.BytesIO()
    gray.save(buffer, "PNG")
    assert client.post("/segment", content=buffer.getvalue()).json()["depth_rule"].startswith("percentile")


def test_the_answer_has_the_orientation_a_viewer_shows(client: TestClient) -> None:
    photo = Image.fromarray(PHOTO)
    exif = photo.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    answer = client.post("/segment", content=buffer.getvalue()).json()
    assert (answer["width"], answer["height"]) == (60, 100)


# ---- options


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("format=pgn", "did you mean 'png'"),
        ("format=svg", ", ".join(registry.names())),
        ("format=PNG", "did you mean 'png'"),
        ("format=webp", "format=overlay with Accept: image/webp"),
        ("crf=slow", "fast"),
        ("crf_iterations=0", "1 to 50"),
        ("crf_bilateral_srgb=nan", "1 to 255"),
        ("k=1", "2 to"),
        ("k=6", "2 to 5"),
        ("k=abc", "2 to"),
        ("k=", "2 to"),
        ("alpha=1.01", "0 to 1"),
        ("alpha=nan", "0 to 1"),
        ("only=a", "commas"),
        ("only=5", "0 to 4"),
        ("depth=linear", "percentile"),
        ("page=-1", "page"),
        ("bands=red", "4,3,2"),
        ("bands=1,2", "three"),
        ("bands=0", "from 1"),
        ("bands=", "from 1"),
        ("pyramid=0", "full"),
        ("pyramid=half", "auto"),
        ("nodata=255", "keep"),
        ("timeout_ms=0", "milliseconds"),
        ("min_area=-1", "0 to 1000000000"),
        ("id_offset=65001", "0 to 65000"),
        ("id_offset=0.5", "0 to 65000"),
        ("unknown=1.5", "0 to 1"),
        ("unknown=1_0", "0 to 1"),
        ("unknown=nan", "0 to 1"),
        ("palette=gray", "true or false"),
        ("formats=png,jsn", "did you mean 'json'"),
        ("formats=zip", "no format 'zip' to be packed"),
        ("formats=png,", "commas"),
        ("objects=10", "not an option"),
        ("tile=some", "windows"),
        ("aplha=0.5", "did you mean 'alpha'"),
        ("confidnce=true", "did you mean 'confidence'"),
        *[(f"only={digits}", "commas") for digits in ("٣", "𝟙", "１", "1,٣", "𞅀", "1_0", "+1", " 1", "")],
        *[(f"bands={digits}", "4,3,2") for digits in ("٣", "4,3,𝟚", "1_0")],
        *[(f"pyramid={digits}", "auto") for digits in ("1٣", "𝟙", "1_0")],
        *[(f"k={digits}", "2 to") for digits in ("٣", "𝟛", "３", "1_0", "3.5", "1e1")],
        *[(f"page={digits}", "page") for digits in ("٣", "1_0", "𝟙", "9" * 30)],
        *[(f"priority={digits}", "10") for digits in ("٣", "1_0")],
        *[(f"timeout_ms={digits}", "millisec") for digits in ("٣", "1_0", "inf")],
        *[(f"alpha={digits}", "0 to 1") for digits in ("٠", "0_1", "inf", "1e400")],
        *[(f"crf_iterations={digits}", "1 to 50") for digits in ("٣", "1_0")],
    ],
)
def test_an_option_out_of_range_names_itself_and_its_range(client: TestClient, query: str, says: str) -> None:
    detail = problem(client.post(f"/segment?{query}", content=PNG), 422)
    assert says in detail
    assert query.split("=")[0].split("&")[0][:6] in detail or "bilateral" in detail


def test_an_unknown_model_is_404(client: TestClient) -> None:
    assert "did you mean 'tiny'" in problem(client.post("/segment?model=tinny", content=PNG), 404)
    problem(client.post("/segment?model=../../etc/passwd%00", content=PNG), 404)


def test_page_of_a_tiff(client: TestClient) -> None:
    buffer = io.BytesIO()
    red, blue = np.zeros((2, 32, 32, 3), np.uint8) + np.array([[[[230, 30, 30]]], [[[30, 50, 220]]]], np.uint8)
    with tifffile.TiffWriter(buffer) as file:
        file.write(red, photometric="rgb")
        file.write(blue, photometric="rgb")
    answers = [client.post(f"/segment?page={i}", content=buffer.getvalue()).json() for i in (0, 1)]
    assert [(answer["clusters"][0]["name"], answer["pages"]) for answer in answers] == [("red", 2), ("blue", 2)]
    problem(client.post("/segment?page=2", content=buffer.getvalue()), 422)


def tiff(samples: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="minisblack" if samples.ndim == 2 else "rgb", **options)
    return buffer.getvalue()


def kept(client: TestClient, file: bytes) -> Any:
    return labels(client.post("/segment?format=npy&nodata=keep", content=file))


def test_what_is_transparent_holds_no_data(client: TestClient) -> None:
    opacity = np.full((60, 100, 1), 255, np.uint8)
    opacity[:, :50] = 0
    file = encode(np.concatenate([PHOTO, opacity], axis=2), "png")
    answer = client.post("/segment", content=file).json()
    assert answer["valid_fraction"] == 0.5
    assert sum(c["pixels"] for c in answer["clusters"]) == 3000
    assert sum(c["fraction"] for c in answer["clusters"]) == pytest.approx(1)
    assert ((kept(client, file) == 255) == (np.arange(100) < 50)).all()


def test_nan_and_the_no_data_value_are_the_same(client: TestClient) -> None:
    gray = np.linspace(0, 1, 60 * 100, dtype=np.float32).reshape(60, 100)
    nan, value = gray.copy(), gray.copy()
    nan[10:30, 20:70], value[10:30, 20:70] = np.nan, -9999
    files = tiff(nan), tiff(value, extratags=[(42113, "s", 0, "-9999", True)])
    answers = [client.post("/segment", content=file).json() for file in files]
    assert [answer["valid_fraction"] for answer in answers] == [5 / 6, 5 / 6]
    assert answers[0]["clusters"] == answers[1]["clusters"]
    assert (kept(client, files[0]) == kept(client, files[1])).all()
    assert (kept(client, files[0])[10:30, 20:70] == 255).all()
    nothing = client.post("/segment", content=tiff(np.full((60, 100), np.nan, np.float32))).json()
    assert (nothing["clusters"], nothing["valid_fraction"]) == ([], 0.0)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_bands_are_shown_in_the_order_asked_for(client: TestClient, kind: str) -> None:
    def file(pixels: Any) -> bytes:
        return tiff(pixels) if kind == "tiff" else encode(pixels, "png")

    swapped = labels(client.post("/segment?format=npy&bands=3,2,1", content=file(PHOTO)))
    assert (swapped == labels(client.post("/segment?format=npy", content=file(PHOTO[..., ::-1].copy())))).all()
    assert "bands" in problem(client.post("/segment?bands=1,2,4", content=file(PHOTO)), 422)


def test_a_pyramid_is_answered_at_its_full_size_in_every_format(client: TestClient) -> None:
    full = np.repeat(np.repeat(PHOTO, 16, 0), 16, 1)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(full, photometric="rgb", tile=(128, 128), subifds=3)
        for step in (2, 4, 8):
            file.write(full[::step, ::step].copy(), photometric="rgb", tile=(128, 128), subfiletype=1)
    answer = client.post("/segment", content=buffer.getvalue()).json()
    assert (answer["width"], answer["height"], answer["pages"]) == (1600, 960, 1)
    assert any("level" in warning for warning in answer["warnings"])
    found = labels(client.post("/segment?format=npy", content=buffer.getvalue()))
    assert found.shape == (960, 1600)
    assert (found == labels(client.post("/segment?format=npy&pyramid=full", content=buffer.getvalue()))).mean() > 0.99
    shown = client.post("/segment?format=overlay&alpha=0", content=buffer.getvalue())
    assert np.abs(np.asarray(Image.open(io.BytesIO(shown.content))).astype(int) - full).mean() < 3


def test_a_turned_photo_says_so(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", exif=exif)
    answer = client.post("/segment", content=buffer.getvalue()).json()
    assert (answer["width"], answer["height"], answer["orientation"]) == (60, 100, 6)
    assert client.post("/segment?format=png", content=buffer.getvalue()).headers["x-orientation"] == "6"


def test_the_json_answer(client: TestClient) -> None:
    answer = client.post("/segment", content=PNG)
    body = answer.json()
    assert list(body) == [
        "model", "digest", "width", "height", "k", "of", "clusters", "label_map", "valid_fraction", "unknown_fraction",
        "pages", "orientation", "depth_rule", "refined", "familiarity", "familiar", "warnings",
        "timings_ms",
    ]  # fmt: skip
    assert list(body["timings_ms"]) == ["decode", "queue", "encoder", "assign", "crf", "encode"]
    assert list(body["clusters"][0]) == ["id", "name", "color", "pixels", "fraction", "bbox", "confidence"]
    assert answer.headers["x-model"] == f"{body['model']}@{body['digest']}"
    assert [c["pixels"] for c in body["clusters"]] == sorted((c["pixels"] for c in body["clusters"]), reverse=True)
    assert sum(c["fraction"] for c in body["clusters"]) == pytest.approx(1)
    assert sum(c["pixels"] for c in body["clusters"]) == 60 * 100
    ids = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["label_map"]["data"]))))
    for c in body["clusters"]:
        rows, columns = np.nonzero(ids == c["id"])
        x, y, width, height = c["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert c["pixels"] == (ids == c["id"]).sum()
        assert 0 < c["confidence"] <= 1
    for stage in ("decode", "queue", "encoder", "assign", "crf", "encode", "total"):
        assert f"{stage};dur=" in answer.headers["server-timing"]


def test_confidence_adds_the_margin_map(client: TestClient) -> None:
    body = client.post("/segment?confidence=true", content=PNG).json()
    margin = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["confidence_map"]["data"]))))
    assert margin.shape == (60, 100)
    assert margin.dtype == np.uint8
    assert margin[30, 70] > 200  # the middle of the white band: nothing else is near


def test_k_merges_along_the_hierarchy(client: TestClient) -> None:
    fine = labels(client.post("/segment?format=npy", content=PNG))
    table = {5: [0, 1, 2, 3, 4], 4: [0, 1, 1, 3, 4], 3: [3, 1, 1, 3, 4], 2: [3, 4, 4, 3, 4]}
    for k, becomes in table.items():
        coarse = labels(client.post(f"/segment?format=npy&k={k}", content=PNG))
        assert (coarse == np.array(becomes)[fine]).all()
    answer = client.post("/segment?k=2", content=PNG)
    body = answer.json()
    assert body["k"] == 2
    assert "tessera remeasure" in body["warnings"][0]  # an old bundle: its tree ranks centroids
    assert client.get("/clusters/tree").json()["by"] == "centroids"
    assert client.post("/segment?k=5", content=PNG).json()["warnings"] == []
    assert {c["id"] for c in body["clusters"]} == {3, 4}


def test_the_crf_refines_and_says_so(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(PHOTO.astype(int) + rng.normal(0, 25, PHOTO.shape), 0, 255).astype(np.uint8)
    photo = encode(noisy, "png")
    answer = client.post("/segment?crf=true", content=photo)
    assert answer.status_code == 200, answer.text
    assert answer.json()["refined"] is True
    assert answer.json()["timings_ms"]["crf"] > 0
    refined = labels(client.post("/segment?crf=true&format=npy", content=photo))
    truth = np.arange(100) * 5 // 100
    plain = labels(client.post("/segment?format=npy", content=photo))
    assert (refined == truth).mean() >= (plain == truth).mean()
    weak = labels(client.post("/segment?crf=1&crf_bilateral_compat=0&crf_gaussian_compat=0&format=npy", content=photo))
    assert (weak == plain).mean() > 0.95


def test_the_same_bytes_give_the_same_answer(client: TestClient) -> None:
    answers = [client.post("/segment", content=JPEG).json() for _ in range(2)]
    for answer in answers:
        del answer["timings_ms"]
    assert answers[0] == answers[1]


def test_no_mix_of_options_is_ever_a_500(client: TestClient) -> None:
    """Fuzz without a library: random options, known and not, sane and not; the answer is an answer or a problem."""
    dice = random.Random(2)
    values = ["", "0", "1", "-1", "2", "5", "256", "1e9", "nan", "inf", "true", "null", "None", "png", "overlay", "💥",
              "a" * 5000, "%00", "0,1", "1,,2", "[]", "{}", "\\", "';--", "percentile", "full",
              "tiny", "0.5"]  # fmt: skip
    names = ["model", "format", "crf", "crf_iterations", "k", "alpha", "only", "confidence", "depth", "page",
             "timeout_ms", "unknown", "min_area", "id_offset", "palette", "formats", "x", "", "a[b]"]  # fmt: skip
    seen = set()
    for _ in range(150):
        query = [(dice.choice(names), dice.choice(values)) for _ in range(dice.randint(0, 3))]
        answer = client.post("/segment", params=query, content=PNG)
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400, 404, 422, 504), (query, answer.text)
        if answer.status_code != 200:
            problem(answer, answer.status_code)
    assert {200, 422} <= seen


def test_no_damaged_body_is_ever_a_500(client: TestClient) -> None:
    dice = random.Random(3)
    form = part("image", PNG) + b"--xyz--\r\n"
    gif, tiff = io.BytesIO(), io.BytesIO()
    Image.fromarray(PHOTO).save(gif, "GIF")
    tifffile.imwrite(tiff, PHOTO, photometric="rgb", compression="lzw")
    originals = [JPEG, PNG, form, json.dumps({"image": B64}).encode(), gif.getvalue(), tiff.getvalue()]
    for turn in range(240):
        data = bytearray(originals[turn % len(originals)])
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(min(len(data), 400))] = dice.randrange(256)
        answer = client.post("/segment?format=png", content=bytes(data))
        assert answer.status_code in (200, 400, 413, 415, 422), answer.text
        if answer.status_code != 200:
            problem(answer, answer.status_code)


def test_a_second_image_is_compared_without_what_says_where_places_are(
    client: TestClient, make_bundle: Any, serve: Any
) -> None:
    """Of the tiny bundle's three channels red is said to say where a place is."""
    other = np.ascontiguousarray(PHOTO[:, ::-1])
    both = [("image", ("a.png", PNG)), ("image", ("b.png", encode(other, "png")))]
    ask = "/similar?x=10&y=30&format=npy"
    plain = labels(client.post(ask, files=both))  # of red in the other image
    assert plain.shape == (60, 100)
    np.testing.assert_allclose(plain, labels(client.post(ask, content=PNG))[:, ::-1], atol=1e-4)
    told = bundle.rewrite(Bundle.load(make_bundle("told")), {}, positions=np.eye(3, dtype=np.float32)[:, :1])
    with serve(bundles=(told.path,)) as server:
        for alone in ("/segment?format=npy", "/segment?format=confidence", "/segment?crf=true&format=npy", ask):
            assert server.post(alone, content=PNG).content == client.post(alone, content=PNG).content
        across = labels(server.post(ask, files=both))
        colors = {
            name: across[30, x]
            for name, x in zip(("black", "white", "blue", "green", "red"), range(10, 100, 20), strict=True)
        }
        for name, color in COLORS.items():  # of green and blue alone
            one, two = (np.array(value[1:]) / 127.5 - 1 for value in (COLORS["red"], color))
            assert colors[name] == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=0.02)
        assert "outside" in problem(server.post("/similar?x=100&y=3", files=both), 422)
        assert "second one" in problem(server.post(ask, files=[*both, both[0]]), 422)
