"""A network begun with what an earlier run has learned: weights alone, no optimizer, no position.

Knows nothing of methods. They are kept as RUN/checkpoints/init.safetensors, so that the run can be resumed before its
first checkpoint, wherever the earlier one has gone.
"""

from pathlib import Path

from torch import Tensor, nn

from models.errors import TesseraError, UsageError
from training.trainer import checkpoint

FILE = "init.safetensors"
_MARK = "module/"


def find(given: Path) -> Path:
    """The checkpoint that --init names: a file, a run's folder, or a bundle in one. Raises UsageError."""
    if given.is_file():
        return given
    inside = [given, *([given.parent] if (given / "manifest.json").is_file() else [])]
    for folder in inside:
        for name in ("checkpoints/last.safetensors", "checkpoint.safetensors"):
            if (folder / name).is_file():
                return folder / name
    if not given.exists():
        raise UsageError(f"--init {given}: there is no such checkpoint or run")
    raise UsageError(
        f"--init {given}: no checkpoint is there; name a run's folder, its bundle while it lies in the run's folder, or"
        " one of the run's checkpoints/*.safetensors"
    )


def backbone(path: Path) -> Path | None:
    """The backbone that was pretrained for the run of a checkpoint, where one was."""
    beside = (folder / "backbone.safetensors" for folder in (path.absolute().parent, path.absolute().parent.parent))
    return next((file for file in beside if file.is_file()), None)


def read(path: Path) -> dict[str, Tensor]:
    """A checkpoint's weights and buffers by name; counters, which say how far it had come, are left out.

    Raises TesseraError.
    """
    tensors, _ = checkpoint.load(path)
    named = {name.removeprefix(_MARK): tensor for name, tensor in tensors.items() if name.startswith(_MARK)}
    if not named:
        raise TesseraError(f"{path} holds no network's weights: name a checkpoint of a training run")
    return {name: tensor for name, tensor in named.items() if tensor.ndim or tensor.is_floating_point()}


def load(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Gives a network the weights. Raises UsageError where they are of another, which says what differs."""
    own = {name: value for name, value in module.state_dict().items() if value.ndim or value.is_floating_point()}
    wrong = [
        f"{name} is {list(weights[name].shape)} there and {list(value.shape)} here"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    wrong += [f"{name} is not there" for name in own if name not in weights]
    wrong += [f"{name} is not here" for name in weights if name not in own]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(
            f"--init {source}: its network is not this run's: {'; '.join(wrong[:3])}{more}. Take the method, backbone"
            " and clusters.k that it was trained with: the recipe.toml in its folder has them (--recipe)"
        )
    module.load_state_dict(weights, strict=False)
