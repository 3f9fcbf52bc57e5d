"""A FiftyOne model zoo source: this folder, with its `manifest.json`. FiftyOne copies it, and calls these functions.

It needs nothing of Tessera's, and nothing that FiftyOne does not install; the model itself runs on a server.
"""

import json
from pathlib import Path
from typing import Any

from .zoo import TesseraModel


def download_model(model_name: str, model_path: str) -> None:
    """There is nothing to fetch: a file stands where FiftyOne looks for one, with the arguments `load_model` takes."""
    Path(model_path).write_text(json.dumps({"url": "http://localhost:8000"}) + "\n", encoding="utf-8")


def load_model(model_name: str, model_path: str, **kwargs: Any) -> TesseraModel:
    """The model, with the arguments of the file at `model_path`, and those given here before them."""
    return TesseraModel(**{**json.loads(Path(model_path).read_text(encoding="utf-8")), **kwargs})


def resolve_input(model_name: str, ctx: Any) -> Any:
    """A form in FiftyOne's app that asks where the server is."""
    from fiftyone.operators import types

    inputs = types.Object()
    inputs.str("url", default="http://localhost:8000", label="Server", description="of Tessera; its key is TESSERA_KEY")
    return types.Property(inputs)
