"""Servers of one fleet within one process."""

from pathlib import Path

from service.fleet import page
from service.fleet.unix_fleet import UnixFleet


def fleets(folder: Path, count: int = 2) -> list[UnixFleet]:
    names = [str(number + 1) for number in range(count)]
    page.create(folder, names)
    return [UnixFleet(folder, names, name) for name in names]
