"""FiftyOne's own zoo as the judge of our source for it: `python fiftyone_zoo.py URL PHOTO`, in .venv-clients.

The source is registered from an archive, as `register_zoo_model_source` takes one; FiftyOne needs no database for that.
"""

import functools
import http.server
import io
import os
import shutil
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

HOME = tempfile.mkdtemp()
os.environ.update(FIFTYONE_MODEL_ZOO_DIR=f"{HOME}/zoo", FIFTYONE_CONFIG_PATH=f"{HOME}/config.json", HOME=HOME)

import fiftyone as fo  # noqa: E402
import fiftyone.core.models as fom  # noqa: E402
import fiftyone.zoo as foz  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

SOURCE = Path(__file__).resolve().parents[2] / "tessera" / "integrations" / "fiftyone"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Hands out a folder's files."""

    def log_message(self, *_: object) -> None:
        pass


def main(url: str, photo: str) -> None:
    """Raises AssertionError where its code says no."""
    shutil.make_archive(f"{HOME}/served/tessera", "zip", SOURCE)
    handler = functools.partial(Quiet, directory=f"{HOME}/served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        foz.register_zoo_model_source(f"http://127.0.0.1:{server.server_port}/tessera.zip")
        server.shutdown()
    assert "tessera-segmentation" in foz.list_zoo_models()
    model = foz.load_zoo_model("tessera-segmentation", url=url)
    assert isinstance(model, fom.Model)
    assert model.media_type == "image"

    pixels = np.asarray(Image.open(photo).convert("RGB"))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with urllib.request.urlopen(f"{url}/segment?format=npy", file.getvalue(), timeout=60) as answer:
        want = np.load(io.BytesIO(answer.read()))
    found = model.predict(pixels)
    assert isinstance(found, fo.Segmentation)
    assert (found.get_mask() == want.astype(int) + 1).all(), "0 is FiftyOne's background"
    first, second = model.predict_all([pixels, pixels[::-1]])
    assert (first.mask == found.mask).all()
    assert second.mask.shape == found.mask.shape
    targets = model.mask_targets
    assert set(np.unique(found.mask)) <= targets.keys()
    assert 0 not in targets
    coarse = foz.load_zoo_model("tessera-segmentation", url=url, k=2).predict(pixels)
    assert len(np.unique(coarse.mask)) <= 2
    gone, said = foz.load_zoo_model("tessera-segmentation", url="http://127.0.0.1:1"), ""
    try:
        gone.predict(pixels)
    except RuntimeError as error:
        said = str(error)
    assert "tessera serve" in said
    shutil.rmtree(HOME)
    print(f"a mask of {len(np.unique(found.mask))} values, none of them 0, to the pixel")


if __name__ == "__main__":
    main(*sys.argv[1:])
