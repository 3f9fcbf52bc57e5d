"""The model of the zoo: every image is sent to a server, and comes back as a `fo.Segmentation`.

In FiftyOne 0 is background: a mask's values are the clusters' ids and 1; 0 is where the image holds no data.
"""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
from PIL import Image

_TIMEOUT_S = 120
_TRIES = 5
_AT_ONCE = 4


class TesseraModel(fom.Model):  # type: ignore[misc]
    """A model that is somewhere else.

    url      of the server;  key  where it wants one; None: TESSERA_KEY of the environment
    options  as `POST /segment` takes them: model, k, crf …
    """

    def __init__(self, url: str = "http://localhost:8000", key: str | None = None, **options: Any) -> None:
        self._url = url.rstrip("/")
        self._key = key or os.environ.get("TESSERA_KEY")
        self._options = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in options.items()
        }

    @property
    def media_type(self) -> str:
        """What it is shown."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Images of any size go together."""
        return False

    @property
    def transforms(self) -> None:
        """Pixels are sent as they are."""
        return None

    @property
    def preprocess(self) -> bool:
        """There is nothing to do to them."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        pass

    @property
    def mask_targets(self) -> dict[int, str]:
        """What a mask's values mean, for `dataset.default_mask_targets`: the clusters' names as they are now."""
        query = {"model": self._options["model"]} if "model" in self._options else {}
        clusters = json.loads(self._ask("/clusters", query))["clusters"]
        return {cluster["id"] + 1: cluster["name"] for cluster in clusters}

    def predict(self, arg: np.ndarray) -> fo.Segmentation:
        """One image, uint8 [H, W, 3] or [H, W]."""
        file = io.BytesIO()
        Image.fromarray(np.asarray(arg)).save(file, "PNG", compress_level=1)
        answer = json.loads(self._ask("/segment", {**self._options, "format": "json"}, file.getvalue()))
        ids = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["label_map"]["data"]))))
        return fo.Segmentation(mask=ids + np.uint8(1))  # ids end at 254, and 255, no data, becomes 0

    def predict_all(self, args: Iterable[np.ndarray]) -> list[fo.Segmentation]:
        """Several, a few of them at once: the server puts them into batches."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.predict, args))

    def _ask(self, path: str, query: dict[str, Any], body: bytes | None = None) -> bytes:
        """An answer; where the server is busy the question is asked again when it says. Raises RuntimeError."""
        headers = {"Content-Type": "image/png"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(f"{self._url}{path}?{urllib.parse.urlencode(query)}", body, headers)
        for more in reversed(range(_TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                said = error.read()
                if error.code not in (429, 503) or not more:
                    raise RuntimeError(f"{self._url}: {_detail(said)}") from None
                time.sleep(min(float(error.headers.get("Retry-After", 1)), 10))
            except OSError as error:
                raise RuntimeError(
                    f"{self._url} cannot be reached ({error}); is `tessera serve` running there?"
                ) from None
        raise AssertionError


def _detail(said: bytes) -> str:
    try:
        return str(json.loads(said)["detail"])
    except (ValueError, KeyError, TypeError):
        return said[:200].decode("utf-8", "replace")
