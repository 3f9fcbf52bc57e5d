"""The Open Inference Protocol, judged by `tritonclient` as it is, against a server on loopback."""

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.service.answers import JPEG, PHOTO, PNG, TEXT
from tests.service.process import ask
from tests.tiny import bands

triton: Any = pytest.importorskip("tritonclient.http")
from tritonclient.http import aio  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address, concurrency=4) as own:
        yield own


@pytest.fixture(scope="module")
def expected(address: str) -> Any:
    """The label map of the photo, by POST /segment."""
    status, body = ask(int(address.split(":")[1]), "POST", "/segment?format=npy", PNG)
    assert status == 200
    return np.load(io.BytesIO(body))


def files(*images: bytes, binary: bool = True) -> list[Any]:
    tensor = triton.InferInput("IMAGE", [len(images)], "BYTES")
    values = list(images) if binary else [base64.b64encode(image) for image in images]
    return [tensor.set_data_from_numpy(np.array(values, object), binary_data=binary)]


def pixels(*images: Any, binary: bool = True) -> list[Any]:
    stacked = np.stack(images)
    return [triton.InferInput("PIXELS", list(stacked.shape), "UINT8").set_data_from_numpy(stacked, binary_data=binary)]


def outputs(binary: bool, *names: str) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("tiny", "2")
    assert client.get_server_metadata()["name"] == "tessera"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    known = client.get_model_metadata("tiny")
    assert known["versions"] == ["1"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in known["inputs"] + known["outputs"]] == [
        ("IMAGE", "BYTES", [-1]),
        ("PIXELS", "UINT8", [-1, -1, -1, 3]),
        ("LABELS", "INT32", [-1, -1, -1]),
        ("CONFIDENCE", "FP32", [-1, -1, -1]),
        ("CLUSTERS_PRESENT", "INT32", [-1, -1]),
    ]
    digest = known["parameters"]["digest"]
    assert client.get_model_metadata(f"tiny@{digest}") == client.get_model_metadata("tiny", digest) == known
    config = client.get_model_config("tiny")
    assert config["max_batch_size"] == 0
    assert [one["data_type"] for one in config["input"]] == ["TYPE_STRING", "TYPE_UINT8"]


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_every_way_of_asking_gives_the_same_map(client: Any, expected: Any, binary: bool, encoding: str | None) -> None:
    how = {"request_compression_algorithm": encoding, "response_compression_algorithm": encoding}
    for inputs in (files(PNG, binary=binary), pixels(PHOTO, binary=binary)):
        for wanted in (None, outputs(binary, "LABELS", "CLUSTERS_PRESENT"), outputs(not binary, "LABELS")):
            found = client.infer("tiny", inputs, outputs=wanted, **how)
            assert np.array_equal(found.as_numpy("LABELS"), expected[None])
            assert found.as_numpy("LABELS").dtype == np.int32
            if wanted is None:
                assert found.as_numpy("CONFIDENCE").shape == (1, 60, 100)
                assert found.as_numpy("CONFIDENCE").dtype == np.float32
                assert 0 <= found.as_numpy("CONFIDENCE").min() < found.as_numpy("CONFIDENCE").max() <= 1
            else:
                assert found.as_numpy("CONFIDENCE") is None


def test_binary_and_json_in_one_answer(client: Any, expected: Any) -> None:
    wanted = outputs(True, "LABELS") + outputs(False, "CONFIDENCE", "CLUSTERS_PRESENT")
    found = client.infer("tiny", files(PNG), outputs=wanted, request_id="mine/1")
    both = client.infer("tiny", files(PNG))
    assert found.get_response()["id"] == "mine/1"
    assert "id" not in both.get_response()
    assert [one["name"] for one in found.get_response()["outputs"]] == ["LABELS", "CONFIDENCE", "CLUSTERS_PRESENT"]
    for name in ("LABELS", "CONFIDENCE", "CLUSTERS_PRESENT"):
        assert np.array_equal(found.as_numpy(name), both.as_numpy(name))
    assert sorted(found.as_numpy("CLUSTERS_PRESENT")[0]) == sorted(np.unique(expected))


def test_several_images_are_one_tensor(client: Any) -> None:
    two = bands(60, 100, (4, 4, 4, 4, 0))
    for inputs in (pixels(PHOTO, two), pixels(PHOTO, two, binary=False)):
        found = client.infer("tiny", inputs)
        assert found.as_numpy("LABELS").shape == (2, 60, 100)
        assert found.as_numpy("CLUSTERS_PRESENT").shape == (2, 5)
        assert found.as_numpy("CLUSTERS_PRESENT")[1].tolist() == [4, 0, -1, -1, -1]
        alone = client.infer("tiny", pixels(two)).as_numpy("LABELS")
        assert np.array_equal(found.as_numpy("LABELS")[1:], alone)
    assert client.infer("tiny", files(PNG, JPEG, PNG)).as_numpy("CONFIDENCE").shape == (3, 60, 100)


def test_options_are_parameters(client: Any) -> None:
    found = client.infer("tiny", files(PNG), parameters={"k": 2, "crf": "fast"})
    assert len(np.unique(found.as_numpy("LABELS"))) == 2
    swapped = client.infer("tiny", pixels(PHOTO[..., ::-1].copy()), parameters={"bands": "3,2,1"})
    assert np.array_equal(swapped.as_numpy("LABELS"), client.infer("tiny", pixels(PHOTO)).as_numpy("LABELS"))


def test_priority_and_timeout(client: Any) -> None:
    assert client.infer("tiny", files(PNG), priority=1, timeout=20_000_000).as_numpy("LABELS") is not None
    with pytest.raises(InferenceServerException, match=r"no answer within 0\.001 s") as late:
        client.infer("tiny", pixels(bands(1500, 1500)), timeout=1)
    assert late.value.status() == "504"


def test_refusals_are_their_exceptions_with_our_words(client: Any) -> None:
    for inputs, how, status, says in (
        (files(TEXT), {}, "400", "image"),
        (files(PNG, TEXT), {}, "400", "image 1: "),
        (files(PNG, b""), {}, "400", "image 1: the image is empty"),
        (pixels(PHOTO), {"parameters": {"k": 99}}, "422", "k: 99 is out of range"),
        (pixels(PHOTO), {"parameters": {"page": 1}}, "422", "no pages"),
        (files(PNG), {"parameters": {"format": "png"}}, "422", "own form"),
        (files(PNG), {"parameters": {"confidance": True}}, "422", "did you mean 'confidence'"),
        (files(PNG), {"sequence_id": 7}, "400", "send no sequences"),
        (files(PNG), {"outputs": [triton.InferRequestedOutput("LABELS", class_count=2)]}, "400", "classification"),
        (files(PNG), {"outputs": outputs(True, "MASKS")}, "400", "no output 'MASKS'"),
        (files(PNG), {"model_version": "7"}, "404", "no model 'tiny@7'"),
    ):
        with pytest.raises(InferenceServerException, match=says) as refused:
            client.infer("tiny", inputs, **how)
        assert refused.value.status() == status
    with pytest.raises(InferenceServerException, match="no model 'nothing'; there is tiny"):
        client.infer("nothing", files(PNG))
    with pytest.raises(InferenceServerException, match="memory is not shared"):
        client.get_system_shared_memory_status()


def test_images_of_several_sizes_are_no_tensor(client: Any) -> None:
    import imagecodecs

    other = imagecodecs.png_encode(bands(50, 100))
    with pytest.raises(InferenceServerException, match=r"of image 0 is \[60,100\], of image 1 \[50,100\]") as refused:
        client.infer("tiny", files(PNG, other))
    assert refused.value.status() == "400"
    present = client.infer("tiny", files(PNG, other), outputs=outputs(True, "CLUSTERS_PRESENT"))
    assert present.as_numpy("CLUSTERS_PRESENT").shape == (2, 5)


def test_many_at_once(client: Any, expected: Any) -> None:
    asked = [client.async_infer("tiny", files(PNG) if i % 2 else pixels(PHOTO), request_id=str(i)) for i in range(24)]
    for i, one in enumerate(asked):
        found = one.get_result(timeout=20)
        assert found.get_response()["id"] == str(i)
        assert np.array_equal(found.as_numpy("LABELS")[0], expected)


def test_the_repository_and_its_key(client: Any) -> None:
    assert client.get_model_repository_index() == [{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]
    with pytest.raises(InferenceServerException, match="TESSERA_ADMIN_KEY is needed"):
        client.load_model("tiny")
    client.load_model("tiny", headers=ADMIN)
    with pytest.raises(InferenceServerException, match="no bundle folder 'nothing'"):
        client.load_model("nothing", headers=ADMIN)
    with pytest.raises(InferenceServerException, match="a bundle is loaded as it stands"):
        client.load_model("tiny", headers=ADMIN, config="{}")
    with pytest.raises(InferenceServerException, match="is the only model here"):
        client.unload_model("tiny", headers=ADMIN)
    with pytest.raises(InferenceServerException, match="TESSERA_ADMIN_KEY is needed"):
        client.unload_model("tiny")


def test_statistics_count_what_was_done(client: Any) -> None:
    (before,) = client.get_inference_statistics("tiny")["model_stats"]
    fresh = bands(48, 72, (3, 1, 0))
    for _ in range(3):
        client.infer("tiny", pixels(fresh, fresh))
    with pytest.raises(InferenceServerException):
        client.infer("tiny", files(TEXT))
    (after,) = client.get_inference_statistics()["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 1

    def more(name: str, what: str = "count") -> int:
        return int(after["inference_stats"][name][what] - before["inference_stats"][name][what])

    assert (more("success"), more("fail"), more("cache_hit"), more("cache_miss")) == (3, 1, 5, 1)
    assert more("success", "ns") > more("compute_output", "ns") > 0
    assert after["last_inference"] >= before["last_inference"]


def test_their_asynchronous_client(address: str, expected: Any) -> None:
    async def scenario() -> None:
        async with aio.InferenceServerClient(address) as own:
            assert await own.is_server_live()
            assert await own.is_model_ready("tiny")
            assert (await own.get_model_repository_index())[0]["state"] == "READY"
            for encoding in (None, "gzip", "deflate"):
                how = {"request_compression_algorithm": encoding, "response_compression_algorithm": encoding}
                found = await own.infer("tiny", pixels(PHOTO), **how)
                assert np.array_equal(found.as_numpy("LABELS")[0], expected)
            several = await asyncio.gather(*(own.infer("tiny", files(PNG)) for _ in range(8)))
            assert all(np.array_equal(one.as_numpy("LABELS")[0], expected) for one in several)
            with pytest.raises(InferenceServerException, match="no model"):
                await own.infer("nothing", files(PNG))

    asyncio.run(scenario())
