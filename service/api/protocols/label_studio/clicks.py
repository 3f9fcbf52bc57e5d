"""Clicks of a labeler: the pixels that an answer is to be like, and the tool that draws it.

Knows nothing of HTTP, of networks.
"""

from typing import Any, NamedTuple

from service.api.protocols.label_studio.labeling_config import Control, LabelingConfig
from service.errors import BadOption, quoted

_MOST = 32


class Click(NamedTuple):
    """Where somebody clicked, in percent of the image's width and height, and whether it is what they mean."""

    x: float
    y: float
    meant: bool

    def pixel(self, size: tuple[int, int]) -> tuple[int, int]:
        """Column and row in an image of size (H, W)."""
        height, width = size
        return min(int(self.x * width / 100), width - 1), min(int(self.y * height / 100), height - 1)


class Prompt(NamedTuple):
    """What a labeler points at: the clicks, on which image tag, of which size (H, W), with which label chosen."""

    clicks: list[Click]
    image: str
    size: tuple[int, int]
    label: str


def read(context: object) -> Prompt | None:
    """The clicks in a request's `params.context`; None where it has none. Raises BadOption for what is malformed."""
    if not isinstance(context, dict) or not context.get("result"):
        return None
    results = context["result"]
    try:
        clicks = [one for one in results if str(one["type"]).startswith("keypoint")]
        if not clicks:
            return None
        places = [_click(one) for one in clicks[:_MOST]]
        last = clicks[-1]
        size = int(last["original_height"]), int(last["original_width"])
        if min(size) < 1 or not any(place.meant for place in places):
            raise ValueError
        return Prompt(places, str(last["to_name"]), size, _label(last["value"]))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise BadOption(
            "params.context: a click is a result of type keypointlabels with original_width and original_height, whose"
            " value has x and y in percent; one of them at least is of what is meant"
        ) from None


def _click(result: dict[str, Any]) -> Click:
    x, y = float(result["value"]["x"]), float(result["value"]["y"])
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise ValueError
    return Click(x, y, result.get("is_positive", 1) not in (0, False))


def _label(value: dict[str, Any]) -> str:
    return str(next((value[key][0] for key in ("keypointlabels", "labels") if value.get(key)), ""))


def tool_of(config: LabelingConfig, prompt: Prompt) -> tuple[Control, str]:
    """The brush that a mask is drawn with, and the label it gets. Raises BadOption where there is none."""
    brushes = [control for control in config.of(prompt.image) if control.kind == "brushlabels"]
    for control in brushes:
        if any(prompt.label == label.name for label in control.labels):
            return control, prompt.label
    if not brushes:
        raise BadOption(f"label_config: clicks on {quoted(prompt.image)} make a mask, which needs <BrushLabels> for it")
    raise BadOption(
        f"label_config: <BrushLabels> has no label {quoted(prompt.label)}, which was chosen for the click; add it there"
    )
