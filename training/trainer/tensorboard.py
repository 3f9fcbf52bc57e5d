"""What metrics.jsonl holds, once more as TensorBoard's events.

Knows nothing of stages or checkpoints. Steps count through all stages of a training, so that what a resumed one does
again replaces what it had written.
"""

from collections.abc import Mapping
from pathlib import Path


class Events:
    """Events of one training below a folder; without one, none.

    step  where the training goes on: what was written of later steps no longer counts
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # half a second to import, and only runs have a folder

            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl: STAGE/NAME, each at its step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, step)

    def flush(self) -> None:
        """To the disk: before a checkpoint, so that none knows of steps that are in no file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Nothing more comes."""
        if self._writer is not None:
            self._writer.close()
