"""Label Studio's own code as the judge of a server's predictions: `python label_studio.py URL PHOTO`, in .venv-clients.

Its validator takes each prediction; its brush reader, and its export to PNG and COCO, give back the server's label map.
"""

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import requests
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_from_annotation, decode_rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image, ImageDraw

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image">{labels}</BrushLabels>
<PolygonLabels name="polygon" toName="image" tessera_min_area="0">{labels}</PolygonLabels></View>"""
CONNECT_S, SETUP_S, PREDICT_S = 1.0, 3.0, 100.0


def main(url: str, photo: str) -> None:
    """Raises AssertionError where its code says no."""
    data = Path(photo).read_bytes()
    names = {one["id"]: one["name"] for one in requests.get(f"{url}/clusters", timeout=5).json()["clusters"]}
    config = CONFIG.format(labels="".join(f'<Label value="{name}"/>' for name in names.values()))
    want = np.load(io.BytesIO(requests.post(f"{url}/segment?format=npy", data=data, timeout=60).content))

    setup = requests.post(
        f"{url}/setup", json={"project": "1.1", "schema": config}, timeout=(CONNECT_S, SETUP_S)
    ).json()
    image = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    asked = {
        "tasks": [{"id": 1, "data": {"image": image}}, {"id": 2, "data": {"image": "http://elsewhere/x.png"}}],
        "project": "1.1",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }
    answer = requests.post(f"{url}/predict", json=asked, timeout=(CONNECT_S, PREDICT_S)).json()
    assert len(answer["results"]) == 2
    good, failed = answer["results"]
    assert good["model_version"] == setup["model_version"]
    assert (failed["result"], failed["score"]) == ([], 0)

    interface = LabelInterface(config)
    for prediction in answer["results"]:
        assert interface.validate_prediction(prediction, return_errors=True) == []
    brushes = [one for one in good["result"] if one["type"] == "brushlabels"]
    polygons = [one for one in good["result"] if one["type"] == "polygonlabels"]
    check_brushes(brushes, names, want)
    with tempfile.TemporaryDirectory() as folder:
        check_export(Path(folder), config, good["result"], image, names, want)
        check_coco(Path(folder), config, polygons, image, names, want)
    print(f"{len(brushes)} brush strokes and {len(polygons)} polygons are the label map, to the pixel")


def check_brushes(regions: list[dict[str, Any]], names: dict[int, str], want: np.ndarray) -> None:
    """Each is 255 in all channels where its cluster is, and 0 elsewhere."""
    assert {one["value"]["brushlabels"][0] for one in regions} == {names[i] for i in np.unique(want)}
    for one in regions:
        (id,) = (i for i, name in names.items() if [name] == one["value"]["brushlabels"])
        values = decode_rle(one["value"]["rle"]).reshape(*want.shape, 4)
        assert (values == np.where(want == id, 255, 0)[..., None]).all()
        flat = {
            "type": "brushlabels",
            "original_width": want.shape[1],
            "original_height": want.shape[0],
            **one["value"],
        }
        (layer,) = decode_from_annotation("brush", [flat]).values()
        assert ((layer == 255) == (want == id)).all()


def exported(folder: Path, config: str, result: list[dict[str, Any]], image: str, format: str) -> Path:
    """The folder that its export of one accepted annotation makes."""
    task = {"id": 1, "data": {"image": image}, "annotations": [{"id": 1, "completed_by": 1, "result": result}]}
    (source := folder / "tasks.json").write_text(json.dumps([task]))
    (out := folder / format).mkdir()
    Converter(config, str(folder), download_resources=False).convert(str(source), str(out), format, is_dir=False)
    return out


def check_export(
    folder: Path, config: str, result: list[dict[str, Any]], image: str, names: dict[int, str], want: np.ndarray
) -> None:
    """BRUSH_TO_PNG: one picture for each label."""
    pictures = list(exported(folder, config, result, image, "BRUSH_TO_PNG").glob("*.png"))
    present = np.unique(want)
    assert len(pictures) == len(present)
    for id in present:
        (picture,) = (path for path in pictures if f"-{names[int(id)]}-" in path.name)
        assert ((np.asarray(Image.open(picture)) == 255) == (want == id)).all()


def check_coco(
    folder: Path, config: str, result: list[dict[str, Any]], image: str, names: dict[int, str], want: np.ndarray
) -> None:
    """COCO: the polygons' areas are the clusters'; drawn from the largest on, they are the map."""
    coco = json.loads((exported(folder, config, result, image, "COCO") / "result.json").read_text())
    labels = {one["id"]: one["name"] for one in coco["categories"]}
    ids = {name: id for id, name in names.items()}
    areas: dict[int, float] = {}
    drawn = Image.new("L", (8 * want.shape[1], 8 * want.shape[0]), 255)
    for one in sorted(coco["annotations"], key=lambda one: -one["area"]):
        id = ids[labels[one["category_id"]]]
        areas[id] = areas.get(id, 0) + one["area"]
        (corners,) = one["segmentation"]
        ImageDraw.Draw(drawn).polygon([8 * corner for corner in corners], fill=id)
    for id in np.unique(want):
        assert abs(areas[int(id)] - (want == id).sum()) < 0.01 * want.size / 100
    assert (np.asarray(drawn)[4::8, 4::8] == want).mean() > 0.999


if __name__ == "__main__":
    main(*sys.argv[1:])
