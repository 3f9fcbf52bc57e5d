"""Watches a stage's log values for signs of collapse, and says once in words what happens and what would help.

Knows nothing of methods: it reads the names that training/losses/collapse.py gives.
"""

from collections.abc import Mapping

from torch import Tensor

from training.config import facts
from training.config.run import Run
from training.trainer.stage import Stage

_CHECKS = 20  # in a stage
_FROM = 0.25  # of a stage: before, random weights are all that is seen
_IN_A_ROW = 2
MOST_IN_ONE = 0.9  # of the places in one cluster
MOST_ALIKE = 0.98  # mean cosine
_LEAST_ALIKE = 0.02  # mean cosine of neighbors and of random images, with nothing alike within one either


class Watch:
    """Looks at one step in so many: two bad ones in a row are told, once."""

    def __init__(self, run: Run) -> None:
        self._run, self._seen = run, dict[str, int]()

    def __call__(self, stage: Stage, step: int, losses: Mapping[str, Tensor]) -> None:
        """After a step: what it lost and logged."""
        every = max(1, stage.steps // _CHECKS)
        if step < _FROM * stage.steps or step % every:
            return
        for kind, text in _wrong({name: losses[name] for name in losses if name.startswith("log/")}).items():
            key = f"{stage.name}: {kind}"
            self._seen[key] = self._seen.get(key, 0) + 1 if text else 0
            if self._seen[key] == _IN_A_ROW:
                facts.warn(self._run, stage.name, step, text, stage.remedy)


def _wrong(logged: Mapping[str, Tensor]) -> dict[str, str]:
    """What is wrong, by kind; an empty text where nothing is."""
    found = {"one": "", "alike": "", "apart": ""}
    if (share := _value(logged, "largest_cluster")) is not None and share > MOST_IN_ONE:
        found["one"] = f"one cluster takes {share:.0%} of all places"
    if (alike := _value(logged, "code_similarity")) is not None and alike > MOST_ALIKE:
        found["alike"] = f"the codes of all places are alike (mean cosine {alike:.2f}): there is nothing to cluster"
    near = [_value(logged, name) for name in ("knn_similarity", "rand_similarity", "self_near_1")]
    if all(value is not None and value < _LEAST_ALIKE for value in near):
        found["apart"] = "no two places have codes that are alike, not even in one image: everything repels everything"
    return found


def _value(logged: Mapping[str, Tensor], name: str) -> float | None:
    value = logged.get(f"log/{name}")
    return None if value is None else float(value)
