"""What is done of many images, in a file that grows by a line for each: whoever goes on knows what is left to do.

Knows nothing of pixels, or of how an answer is made. A line is written when an image's answers are on the disk; of a
process that was killed the last line may be cut, and does not count.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from models.errors import UsageError
from service.formats import registry
from service.offline.outputs import Log, Outputs
from service.offline.sources import Item

_VERSION = 1


class Order(NamedTuple):
    """What is made of every image: it is the same for all of one folder.

    model    name@digest12;  digest  of the bundle, all of it
    formats  a file each;    options  those that differ from their defaults
    """

    model: str
    digest: str
    formats: tuple[str, ...]
    options: Mapping[str, Any]


class Record(NamedTuple):
    """The last that happened to an image: done, perhaps with warnings, or failed for a reason."""

    size: int
    stamp: str
    stem: str
    failed: str | None = None
    warnings: tuple[str, ...] = ()
    store: bool = False


@dataclass
class Journal:
    """Of the outputs in one place, open for more. `begin` opens it.

    records  source → what became of it
    """

    outputs: Outputs
    records: dict[str, Record]
    _log: Log

    @classmethod
    def begin(cls, outputs: Outputs, order: Order, *, overwrite: bool = False) -> Self:
        """The journal of a place, gone on with, or begun where there is none.

        overwrite  what was done there is done anew: the files that the journal knows are removed

        Raises UsageError where answers of another order are there; one that made none gives way.
        """
        log = outputs.log()
        head, records, whole = _read(log)
        if head is not None and overwrite:
            _remove(outputs, head, records)
            head = None
        difference = head and _difference(head, _plain(order))
        if difference and _empty(records):
            head = None
        if head is None:
            records = {}
            log.start(json.dumps({"journal": _VERSION, **_plain(order)}).encode() + b"\n")
        elif difference:
            raise UsageError(
                f"{outputs.where} holds answers of another order: {difference}; name another --out, or give"
                " --overwrite to have them made anew"
            )
        else:
            log.go_on(whole)
        return cls(outputs, records, log)

    def is_done(self, item: Item, files: Sequence[str]) -> bool:
        """Whether an image was done as it is now, and its answers, `files` below the folder, are there."""
        record = self.records.get(item.source)
        same = record is not None and record.failed is None and (record.size, record.stamp) == (item.size, item.stamp)
        return same and all(map(self.outputs.there, files))

    def note(self, item: Item, stem: str, failed: str | None = None, warnings: Sequence[str] = ()) -> None:
        """An image's answers are on the disk, or it failed. Raises DiskFull, OSError."""
        record = self.records[item.source] = Record(item.size, item.stamp, stem, failed, tuple(warnings), item.store)
        line = {"source": item.source, **{name: value for name, value in record._asdict().items() if value}}
        self._log.append(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Nothing more is noted."""
        self._log.close()


def known(outputs: Outputs, formats: Sequence[str]) -> dict[str, str] | None:
    """Source → what its outputs are called, of a place whose journal was begun; None: it was not.

    None also for one without an answer, of other formats: none of theirs can be its own.

    Raises UsageError where it is damaged.
    """
    head, records, _ = _read(outputs.log())
    if head is None or (_empty(records) and sorted(head.get("formats", ())) != sorted(formats)):
        return None
    return {source: record.stem for source, record in records.items()}


def _empty(records: Mapping[str, Record]) -> bool:
    """Whether no image was answered."""
    return all(record.failed is not None for record in records.values())


def _plain(order: Order) -> dict[str, Any]:
    return {**order._asdict(), "formats": list(order.formats), "options": dict(order.options)}


def _read(log: Log) -> tuple[dict[str, Any] | None, dict[str, Record], int]:
    """The first line, None where there is no journal; the last word on each image; how many bytes are whole lines."""
    if (data := log.read()) is None:
        return None, {}, 0
    whole = data.rfind(b"\n") + 1
    first, *lines = data[:whole].splitlines() or [b""]
    head = _object(first)
    if head.get("journal") != _VERSION:
        raise UsageError(f"{log.where} is damaged, or of another version of Tessera: name another --out, or remove it")
    records: dict[str, Record] = {}
    for told in map(_object, lines):
        if {"source", "stamp", "stem"} <= told.keys():
            record = Record(
                told.get("size", 0),
                told["stamp"],
                told["stem"],
                told.get("failed"),
                tuple(told.get("warnings", ())),
                told.get("store", False),
            )
            records[told["source"]] = record
    return head, records, whole


def _object(line: bytes) -> dict[str, Any]:
    """What a line says; nothing where it is damaged."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between two orders, in words; None where nothing does."""
    if before["digest"] != now["digest"]:
        return f"they are by {before['model']}, and this is {now['model']}"
    if sorted(before["formats"]) != sorted(now["formats"]):
        return f"they are {', '.join(before['formats'])}, and this is {', '.join(now['formats'])}"
    for name in sorted({*before["options"], *now["options"]}):
        was, is_now = (order["options"].get(name, "as by default") for order in (before, now))
        if was != is_now:
            return f"{name} was {was}, and is {is_now}"
    return None


def _remove(outputs: Outputs, head: Mapping[str, Any], records: Mapping[str, Record]) -> None:
    """Removes the files of an order that was done before, none of which lies elsewhere."""
    before = outputs.of([format for format in head["formats"] if format in registry.offline_names()])
    for record in records.values():
        for file in before.files(record.stem, store=record.store):
            before.remove(file, store=record.store)
