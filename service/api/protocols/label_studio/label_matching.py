"""Which label of a configuration is meant for which cluster.

Knows nothing of XML, of pixels.
"""

import re
from collections.abc import Iterable, Sequence

from service.api.protocols.label_studio.labeling_config import Label

_NUMBERED = re.compile(r"cluster[ _-]?([0-9]{1,3})", re.IGNORECASE)


def matched(labels: Sequence[Label], names: Sequence[str]) -> dict[int, str]:
    """Cluster → what results call its label: by the label's alias, else the cluster's name, else `cluster_NN`.

    names  of the clusters; letters' case counts only where two labels differ in nothing else
    """
    ways: tuple[tuple[str, list[tuple[str, Label]]], ...] = (
        ("alias", [(label.alias, label) for label in labels if label.alias]),
        ("value", [(label.value, label) for label in labels if label.value]),
    )
    found: dict[int, str] = {}
    for _, said in ways:
        exact, folded = dict(reversed(said)), {text.casefold(): label for text, label in reversed(said)}
        for cluster, name in enumerate(names):
            if cluster not in found and (label := exact.get(name) or folded.get(name.casefold())):
                found[cluster] = label.name
        for text, label in said:
            number = _number(text)
            if number is not None and number < len(names):
                found.setdefault(number, label.name)
    return found


def unmatched(names: Sequence[str], present: Iterable[int], found: dict[int, str]) -> str:
    """A sentence for people: what was seen and has no label; empty where everything has."""
    left = sorted(set(present) - found.keys())
    if not left:
        return ""
    shown = ", ".join(f"{names[i]!r} (or cluster_{i:02d})" for i in left[:8])
    more = f" and {len(left) - 8} more" if len(left) > 8 else ""
    return f"no label for {shown}{more}: give a <Label> that value, or that alias"


def _number(text: str) -> int | None:
    numbered = _NUMBERED.fullmatch(text)
    return int(numbered[1]) if numbered else None
