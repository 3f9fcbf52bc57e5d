"""What taking positions out of features is worth for finding the same thing in other drives: precision of 20 neighbors.

    python -m benchmarks.debias [BUNDLE] [--data ../shared/data/camvid] [--steps 1200] [--no-keep]

Networks: a bundle's code (where a recipe says so, two columns are the place) and, where its graph names them, its
backbone's features; a small ViT of random weights whose positions are MAE's, sines and cosines of rows and columns, and
so strong that features are mostly place; and one with learned position embeddings, which learns here, in about five
minutes of one core, to fill in masked patches of the training frames (MAE, arXiv:2111.06377).

Images: CamVid's training frames as they are; and pieces of them, a random one of each, turned by quarter turns at
random, in which place means nothing. Of every image some cells are drawn; for each the 20 most alike by cosine among
the cells of other drives are looked up. Precision is the share of these that show the cell's class: over cells, and as
the mean of classes. Place is how far these lie from the cell's place, in image sides; of cells drawn by chance it is in
the first row. Tables is the same for whole images, as STEGO's table of neighbors compares them: means of features, the
7 most alike among other drives, and the share of pixels of one class in both (the sum of the smaller shares).

Labels are read here and nowhere else; nothing is chosen by them. Written to benchmarks/results/debias.json, with what
the projection would cost as a third output of the bundle's graph that nobody asks for, in turns with the graph as it
is, on one thread of onnxruntime, and what it costs on the host (`--only-cost`: these alone, and nothing is written).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from rich.console import Console
from safetensors import torch as safetensors
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import load, machine
from models import debias
from models.bundle import Bundle
from models.errors import TesseraError
from models.nets.backbone import VitBackbone
from models.preprocess import IMAGENET, InputSpec, resize
from models.types import Array
from service.settings import embedded
from training.data import datasets
from training.data.datasets.camvid import drive
from training.data.images import Images
from training.data.label_maps import IGNORED
from training.evaluation.exported import Exported
from training.export.positions import one_color

SIZE = (240, 320)
NEAREST, TABLE = 20, 7
CELLS, QUERIES = 60, 4000  # cells drawn of an image, and queries among all
TAKEN = (0, 1, 2, 4, 8, 16, 32)
_PIECE = (0.3, 0.6)  # of a frame's height and width
_SMALL, _PATCH, _CHANNELS, _BLOCKS, _HEADS = (120, 160), 8, 96, 4, 4  # the small ViT, and what it sees
_VISIBLE, _BATCH = 0.25, 16

Network = Callable[[Array], Array]  # pixels uint8 [H, W, 3] → [C, h, w]


class Picture(NamedTuple):
    """RGB uint8 [H, W, 3] of SIZE, its label map uint8 [H, W], and which drive it is of."""

    image: Array
    labels: Array
    drive: str


class Cells(NamedTuple):
    """Some cells of many images: features float32 [n, C], class, place (y, x) in 0..1, and number of the drive."""

    features: Array
    label: Array
    place: Array
    drive: Array


def frames(images: Images) -> Iterator[Picture]:
    """Each frame at SIZE."""
    for i, path in enumerate(images.paths):
        yield Picture(resize(images[i], SIZE), shrunk(images.labels(i), SIZE), drive(path))


def pieces(images: Images) -> Iterator[Picture]:
    """A random piece of each frame, turned by random quarter turns, at SIZE."""
    for i, path in enumerate(images.paths):
        random = np.random.default_rng([1, i])
        turns, share = int(random.integers(4)), random.uniform(*_PIECE)
        image, labels = (np.rot90(one, turns) for one in (images[i], images.labels(i)))
        height, width = image.shape[:2]
        across = share * min(width, height * SIZE[1] / SIZE[0])
        h, w = round(across * SIZE[0] / SIZE[1]), round(across)
        top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
        cut = (slice(top, top + h), slice(left, left + w))
        yield Picture(resize(np.ascontiguousarray(image[cut]), SIZE), shrunk(labels[cut], SIZE), drive(path))


def shrunk(labels: Array, size: tuple[int, int]) -> Array:
    """The label in the middle of each place of a grid, uint8 of that size."""
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(int) for n, of in zip(size, labels.shape, strict=True))
    return np.asarray(labels[rows][:, columns])


def drawn(network: Network, pictures: list[Picture]) -> tuple[Cells, Array]:
    """CELLS labelled cells of each picture, and the mean features of each picture [n, C]."""
    found: list[tuple[Array, Array, Array, Array]] = []
    means, numbers = [], {name: n for n, name in enumerate(sorted({one.drive for one in pictures}))}
    for i, one in enumerate(pictures):
        features = network(one.image)
        means.append(features.mean((1, 2)))
        grid = features.shape[1:]
        labels = shrunk(one.labels, (grid[0], grid[1]))
        known = np.flatnonzero(labels.ravel() != IGNORED)
        if not len(known):
            continue
        at = np.random.default_rng([2, i]).choice(known, min(CELLS, len(known)), replace=False)
        place = np.stack([(at // grid[1] + 0.5) / grid[0], (at % grid[1] + 0.5) / grid[1]], axis=1)
        flat = features.reshape(len(features), -1).T
        found.append((flat[at], labels.ravel()[at], place, np.full(len(at), numbers[one.drive])))
    parts = [np.concatenate(column) for column in zip(*found, strict=True)]
    return Cells(parts[0].astype(np.float32), *parts[1:]), np.stack(means).astype(np.float32)


def alike(features: Array, drives: Array, queries: Array, count: int) -> Array:
    """Of each query the `count` rows of other drives that are most like it by cosine: int [q, count]."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = []
    for block in np.array_split(queries, max(1, len(queries) // 500)):
        cosines = unit[block] @ unit.T
        cosines[drives[block][:, None] == drives[None]] = -np.inf
        found.append(np.argpartition(-cosines, count, axis=1)[:, :count])
    return np.concatenate(found)


def precision(cells: Cells, features: Array) -> dict[str, float]:
    """What the neighbors of QUERIES cells show, and where they lie."""
    queries = np.random.default_rng(3).choice(len(cells.label), min(QUERIES, len(cells.label)), replace=False)
    near = alike(features, cells.drive, queries, NEAREST)
    same = (cells.label[near] == cells.label[queries, None]).mean(axis=1)
    of = cells.label[queries]
    away = np.linalg.norm(cells.place[near] - cells.place[queries, None], axis=2).mean()
    classes = float(np.mean([same[of == c].mean() for c in np.unique(of)]))
    return {"precision": round(float(same.mean()), 4), "of classes": round(classes, 4), "place": round(float(away), 4)}


def by_chance(cells: Cells) -> float:
    """How far cells of other drives lie from one, in the mean."""
    random = np.random.default_rng(4)
    one, other = random.integers(len(cells.label), size=(2, 100_000))
    apart = cells.drive[one] != cells.drive[other]
    return round(float(np.linalg.norm(cells.place[one] - cells.place[other], axis=1)[apart].mean()), 4)


def tables(means: Array, pictures: list[Picture], classes: int) -> float:
    """The share of pixels of one class that a picture and its neighbors in other drives have in common."""
    counts = [np.bincount(one.labels[one.labels != IGNORED], minlength=classes)[:classes] for one in pictures]
    shares = np.stack([count / max(1, count.sum()) for count in counts])
    names = sorted({one.drive for one in pictures})
    drives = np.array([names.index(one.drive) for one in pictures])
    near = alike(means, drives, np.arange(len(means)), TABLE)
    return round(float(np.minimum(shares[near], shares[:, None]).sum(axis=2).mean()), 4)


def measured(name: str, network: Network, sets: dict[str, list[Picture]], classes: int) -> dict[str, Any]:
    """One network's rows, printed as they come."""
    said = network(one_color(InputSpec(size=SIZE, multiple=1), IMAGENET))
    most = debias.directions(said, "auto").shape[1]
    values = np.linalg.svd(_centered(said), compute_uv=False) ** 2
    rows: dict[str, Any] = {"channels": len(said), "auto": most}
    rows["share of variance"] = {r: round(float(values[:r].sum() / values.sum()), 4) for r in TAKEN[1:]}
    print(f"{name}: {len(said)} channels, auto takes {most}; {rows['share of variance']}")
    for kind, pictures in sets.items():
        cells, means = drawn(network, pictures)
        rows[kind] = {"place by chance": by_chance(cells)}
        for r in sorted({*TAKEN, most}):
            try:
                along = debias.directions(said, r) if r else None
            except TesseraError:
                break
            kept, tabled = (x if along is None else debias.without(x.T, along).T for x in (cells.features, means))
            row = precision(cells, kept) | {"tables": tables(tabled, pictures, classes)}
            rows[kind][r] = row
            print(f"  {kind:7} less {r:3}: " + ", ".join(f"{what} {value:.3f}" for what, value in row.items()))
    return rows


def _centered(said: Array) -> Array:
    flat = said.reshape(len(said), -1).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=0)
    return np.asarray(unit - unit.mean(axis=1, keepdims=True))


class Filling(nn.Module):
    """A small ViT, and what fills in the patches that were hidden from it."""

    def __init__(self) -> None:
        super().__init__()
        shape: dict[str, Any] = {"embed_dim": _CHANNELS, "depth": _BLOCKS, "num_heads": _HEADS}
        self.vit = VisionTransformer(img_size=_SMALL, patch_size=_PATCH, num_classes=0, **shape)
        self.hidden = nn.Parameter(torch.zeros(1, 1, _CHANNELS))
        count = _SMALL[0] * _SMALL[1] // _PATCH**2
        self.places = nn.Parameter(torch.randn(1, count, _CHANNELS) * 0.02)
        self.decoder = nn.TransformerEncoderLayer(_CHANNELS, _HEADS, 2 * _CHANNELS, 0.0, batch_first=True)
        self.pixels = nn.Linear(_CHANNELS, 3 * _PATCH**2)

    def loss(self, x: Tensor, order: Tensor) -> Tensor:
        """x float32 [B, 3, H, W]; order int64 [B, T], the first of which are visible."""
        vit, keep = self.vit, round(_VISIBLE * order.shape[1])
        tokens = vit.patch_embed(x) + vit.pos_embed[:, 1:]
        tokens = tokens.gather(1, order[:, :keep, None].expand(-1, -1, _CHANNELS))
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1)
        seen = vit.norm(vit.blocks(torch.cat([first, tokens], 1)))[:, 1:]
        all_of = torch.cat([seen, self.hidden.expand(len(x), order.shape[1] - keep, -1)], 1)
        places = self.places.expand(len(x), -1, -1).gather(1, order[..., None].expand(-1, -1, _CHANNELS))
        wanted = F.unfold(x, _PATCH, stride=_PATCH).transpose(1, 2)
        wanted = (wanted - wanted.mean(2, keepdim=True)) / (wanted.var(2, keepdim=True) + 1e-6).sqrt()
        wanted = wanted.gather(1, order[..., None].expand(-1, -1, wanted.shape[2]))
        return F.mse_loss(self.pixels(self.decoder(all_of + places))[:, keep:], wanted[:, keep:])


def untrained() -> VitBackbone:
    """The ViT of random weights, its positions sines and cosines of rows and columns, as MAE's are."""
    torch.manual_seed(0)
    vit = Filling().vit
    rows, columns = (side // _PATCH for side in _SMALL)
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).flatten(1)
    turns = places[:, None] / 10_000 ** (torch.arange(_CHANNELS // 4) / (_CHANNELS // 4))[None, :, None]
    table = torch.cat([turns.sin(), turns.cos()], 1).flatten(0, 1).T
    with torch.no_grad():
        vit.pos_embed[:, 1:] = table
    return VitBackbone(vit, family="timm").eval()


def trained(pictures: list[Picture], steps: int, kept: Path) -> VitBackbone:
    """`Filling`'s ViT after so many steps on the pictures and their mirror images; from the file once it is there."""
    torch.manual_seed(0)
    network, random = Filling(), torch.Generator().manual_seed(0)
    backbone = VitBackbone(network.vit, family="timm").eval()
    if kept.exists():
        network.vit.load_state_dict(safetensors.load_file(kept))
        return backbone
    network.train()
    images = torch.from_numpy(np.stack([resize(one.image, _SMALL) for one in pictures]))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, max(1, steps), pct_start=0.1)
    count = _SMALL[0] * _SMALL[1] // _PATCH**2
    for step in range(steps):
        some = torch.randint(len(images), (_BATCH,), generator=random)
        x = normalized(images[some])
        mirrored = torch.rand(_BATCH, generator=random) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
        loss = network.loss(x, torch.rand(_BATCH, count, generator=random).argsort(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    safetensors.save_file(network.vit.state_dict(), kept)
    return VitBackbone(network.vit, family="timm").eval()


def normalized(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] as a backbone takes it."""
    mean, std = (255 * torch.tensor(one) for one in (IMAGENET.mean, IMAGENET.std))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def of_torch(backbone: VitBackbone) -> Network:
    """A backbone as a `Network`."""

    def features(pixels: Array) -> Array:
        with torch.inference_mode():
            x = normalized(torch.from_numpy(resize(pixels, _SMALL).copy())[None])
            return np.asarray(backbone(x)[0].numpy())

    return features


def cost(bundle: Bundle, repeats: int = 200) -> dict[str, float]:
    """Milliseconds of an image whose scores alone are asked for, and of the projection on the host; medians."""
    dim, network = bundle.manifest.code.dim, bundle.encoder_bytes()
    model = onnx.load_from_string(network)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(dim, dtype=np.float32)[..., None, None], "kept"))
    model.graph.node.append(helper.make_node("Conv", ["code", "kept"], ["match"]))
    model.graph.output.append(next(one for one in model.graph.output if one.name == "code"))
    model.graph.output[-1].name = "match"
    runs = {"graph": Exported(network, threads=1), "graph with match": Exported(model.SerializeToString(), threads=1)}
    pixels = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    code, times = runs["graph"](pixels, code=True).code, {name: list[float]() for name in (*runs, "host")}
    assert code is not None  # it was asked for
    along = np.eye(dim, dtype=np.float32)[:, :2]
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.process_time()
            run(pixels)
            times[name].append(1000 * (time.process_time() - began))
        began = time.process_time()
        debias.without(code[0], along)
        times["host"].append(1000 * (time.process_time() - began))
    found = {name: round(statistics.median(each[repeats // 10 :]), 2) for name, each in times.items()}
    print(", ".join(f"{name} {value} ms" for name, value in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", nargs="?", type=Path, default=embedded()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    parser.add_argument("--steps", type=int, default=1200, help="of the small ViT")
    parser.add_argument("--runs", type=Path, default=Path("runs/debias"), help="where its weights are kept")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    parser.add_argument("--only-cost", action="store_true", help="of the projection, in the graph and on the host")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    milliseconds = cost(bundle)
    if given.only_cost:
        return
    images = datasets.open("camvid", given.data, split="train", console=Console(quiet=True))
    sets = {"frames": list(frames(images)), "pieces": list(pieces(images))}
    exported = Exported(bundle.encoder_bytes(), features=True, threads=torch.get_num_threads())
    networks: dict[str, Network] = {f"{bundle.manifest.name}, code": lambda pixels: exported.answer(pixels).code}
    if exported.features:
        networks[f"{bundle.manifest.name}, features"] = lambda pixels: np.asarray(exported.answer(pixels).features)
    networks["small ViT, random weights"] = of_torch(untrained())
    networks[f"small ViT, {given.steps} steps"] = of_torch(
        trained(sets["frames"], given.steps, given.runs / f"vit-{given.steps}.safetensors")
    )
    results = {name: measured(name, network, sets, len(images.class_names)) for name, network in networks.items()}
    if not given.no_keep:
        found = {
            "what": f"python -m benchmarks.debias --steps {given.steps}",
            "bundle": bundle.ref,
            "machine": machine.describe(),
            "milliseconds": milliseconds,
            "results": results,
        }
        (load.RESULTS / "debias.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
