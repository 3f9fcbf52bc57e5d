"""What Label Studio's server asks: its bodies, as they are described, and as they are read.

Knows nothing of how an answer is made. What it sends besides is passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, Field

from service.api.protocols.label_studio import clicks, labeling_config
from service.api.protocols.label_studio.labeling_config import Control, LabelingConfig
from service.api.protocols.parameters import options_of
from service.errors import BadBody, BadOption, quoted
from service.inference.options import Options

_MOST_TASKS = 1000


class SetupBody(BaseModel):
    """What Label Studio sends when a project is connected. Nothing of it is kept."""

    schema_: str | None = Field(default=None, alias="schema", description="the labeling configuration, XML")


class ValidateBody(BaseModel):
    """A labeling configuration, XML."""

    config: str


class PredictBody(BaseModel):
    """What predictions are asked for."""

    tasks: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=_MOST_TASKS,
        description="`data` of each has its images' addresses, under the keys that the labeling configuration names",
    )
    label_config: str = Field(description="XML")
    params: dict[str, Any] = Field(default={}, description="`context`: what was clicked, while somebody labels")


class Prediction(BaseModel):
    """One task's prediction; none has `error`, and a version of its own: it is asked for again."""

    result: list[dict[str, Any]]
    score: float = Field(description="mean margin, 0 to 1")
    model_version: str
    warnings: list[str] = Field(default=[], description="what was left out")
    error: str | None = None


class Predictions(BaseModel):
    """One for each task, in their order."""

    results: list[Prediction]
    model_version: str


@dataclass(frozen=True)
class Asked:
    """A /predict: `tasks` holds each one's data, `prompt` what was clicked."""

    tasks: list[dict[str, Any]]
    config: LabelingConfig
    prompt: clicks.Prompt | None


def read(data: bytes) -> Asked:
    """A /predict's body. Raises BadBody, BadOption."""
    asked = document_of(data)
    tasks = asked.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise BadBody('"tasks" is a list of at least one task')
    if len(tasks) > _MOST_TASKS:
        raise BadOption(f"tasks: {len(tasks)} in one request; {_MOST_TASKS} are the most")
    data_of = [task.get("data") if isinstance(task, dict) else None for task in tasks]
    config = labeling_config.parse(text_at(asked, "label_config"))
    params = asked.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    prompt = clicks.read(context)
    if prompt is not None and len(tasks) > 1:
        raise BadOption(f"params.context: the clicks are of one task, and there are {len(tasks)}")
    return Asked([one if isinstance(one, dict) else {} for one in data_of], config, prompt)


def document_of(data: bytes) -> dict[str, Any]:
    """A JSON object; empty bytes are one without keys. Raises BadBody."""
    try:
        read = orjson.loads(data or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadBody(f"the body is no JSON: {error}") from None
    if not isinstance(read, dict):
        raise BadBody("the body is JSON, but no object")
    return read


def text_at(document: Mapping[str, Any], key: str) -> str:
    """The text under a key. Raises BadOption where there is none."""
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise BadOption(
            f"{quoted(key)} is missing, or no text: it has the labeling configuration, or an image's address"
        )
    return value


def chosen_by(controls: Sequence[Control]) -> Options:
    """The options that the controls' attributes choose, together. Raises BadOption."""
    chosen: dict[str, str] = {}
    for control in controls:
        for name, value in control.options.items():
            if chosen.setdefault(name, value) != value:
                raise BadOption(f"label_config: tessera_{name} has two values; one request has one")
    model = chosen.pop("model", None)
    return options_of(chosen, model=model)


def model_of(setup: Mapping[str, Any]) -> str | None:
    """The model that a /setup's configuration names; a project may have none yet, or one without images.

    Raises BadOption for a schema that is no text.
    """
    schema = setup.get("schema")
    if schema is None:
        return None
    if not isinstance(schema, str):
        raise BadOption("schema: the labeling configuration is a text")
    try:
        return chosen_by(labeling_config.parse(schema).controls).model
    except BadOption:
        return None
