"""Options of a request as options of a command: the same names, the same words, made from the same model.

Knows nothing of what they mean.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel

_TRUTH = ("true", "false", "yes", "no", "on", "off", "1", "0")


def parameters(model: type[BaseModel], without: Collection[str]) -> list[inspect.Parameter]:
    """A parameter for each of a model's fields: text, or None where it is not given; the model reads it."""
    return [
        option(name, str | None, None, help=_help(model, name), metavar=_metavar(model, name), show_default=False)
        for name in model.model_fields
        if name not in without
    ]


def option(name: str, type_: Any, default: Any, **how: Any) -> inspect.Parameter:
    """A parameter that typer shows as --name, with the other words of `typer.Option`."""
    made = typer.Option(f"--{name.replace('_', '-')}", **how)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, made])


def spelled_out(words: Sequence[str], model: type[BaseModel], without: Collection[str]) -> list[str]:
    """What was typed, with `true` behind every option that can be said alone, such as --crf."""
    spelled: list[str] = []
    for word, behind in zip(words, [*words[1:], ""], strict=True):
        spelled.append(word)
        name = word.removeprefix("--").replace("-", "_")
        if (
            word.startswith("--")
            and name not in without
            and behind.lower() not in (_alone(model, name) or [behind.lower()])
        ):
            spelled.append("true")
    return spelled


def taken(model: type[BaseModel], given: Mapping[str, str | None]) -> list[str]:
    """What the options take that were, or may have been, said alone: a word that was typed behind may be meant so."""
    told = []
    for name in (name for name, value in given.items() if value == "true" and _alone(model, name)):
        words = ("true", "false") if (kind := model.model_fields[name].annotation) is bool else get_args(kind)
        told.append(f"--{name.replace('_', '-')} takes {', '.join(words[:-1])} or {words[-1]}, and alone means true")
    return told


def _alone(model: type[BaseModel], name: str) -> tuple[str, ...]:
    """What may stand behind an option that can also be said alone; nothing for any other."""
    if name not in model.model_fields:
        return ()
    kind = model.model_fields[name].annotation
    if kind is bool:
        return _TRUTH
    return (*_TRUTH, *get_args(kind)) if "true" in get_args(kind) else ()


def _help(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    text, default = (field.description or "").rstrip("."), field.default
    if default is None or default == "":
        return f"{text}."
    return f"{text}; default {str(default).lower() if isinstance(default, bool) else default}."


def _metavar(model: type[BaseModel], name: str) -> str:
    kind = model.model_fields[name].annotation
    kinds = get_args(kind) or (kind,)
    if kind is bool:
        return "[true|false]"
    if all(isinstance(one, str) for one in kinds):
        return f"[{'|'.join(kinds)}]"
    return "INTEGER" if int in kinds else "NUMBER" if float in kinds else "TEXT"
