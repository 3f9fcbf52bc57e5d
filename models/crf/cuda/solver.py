"""The launches of a batch: lattices, then mean field. From a table of images to answers on the device.

Knows nothing of what callers hand in: refiner.py is its door. The kernels are in lattice.cu, mean_field.cu and grid.cu;
memory.py counts the bytes. The host waits once, to learn how many vertices the lattices have.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import Device, DeviceArray, Program
from models.crf.cuda.memory import OutOfMemory, Shaped, Workspace, back, front, needs, powers, runs
from models.crf.cuda.structs import CORNERS
from models.crf.cuda.validation import check_status
from models.crf.params import CRFParams

Arrays = dict[str, DeviceArray]
THREADS = 128
WARPS = 8  # of a block in splat
HELPERS = 64  # blocks of an image that sum its long lists
FULL = 4294967040.0  # a row's one: the largest float below 2^32
PLACES = 2  # in the hash table, for each pixel: photos have at most about 1.1 vertices a pixel
MORE_PLACES = 6  # times, where that is not enough: noise has up to 6 vertices a pixel


@dataclass(frozen=True)
class Job:
    """A batch.

    table        IMAGE [images]; where they lie in the batch is filled in on the way
    entering     GRID [images], from scores to the CRF's size;  leaving  from there to labels
    labels       K;  temperature  times the scores
    """

    table: NDArray[Any]
    entering: NDArray[Any]
    leaving: NDArray[Any]
    labels: int
    temperature: float
    params: CRFParams

    @property
    def blocks(self) -> int:
        return -(-self.labels // 32)


class Field:
    """Runs jobs on one device, one after the other, in memory that it keeps: at most `budget` bytes."""

    def __init__(self, device: Device, budget: int) -> None:
        self._device = device
        self._budget = budget
        self._front, self._back = Workspace(device), Workspace(device)

    @property
    def nbytes(self) -> int:
        return self._front.nbytes + self._back.nbytes

    def run(self, job: Job) -> None:
        """Queues all that the job needs. Raises CRFError and OutOfMemory."""
        self._run(job, slice(0, len(job.table)), PLACES)

    def _run(self, job: Job, which: slice, places: int) -> None:
        table = job.table[which]
        for group in runs(len(table), lambda run: 2 * needs(front(table[run], job.blocks, places)) <= self._budget):
            own = slice(which.start + group.start, which.start + group.stop)
            arrays = self._embed(job, own, places)
            status = self._device.download(arrays["status"])
            check_status(status, own, of=len(job.table))
            if status["full"].any():
                self._run(job, own, MORE_PLACES * places)
                continue
            job.table["vertices"][own] = status["vertices"]
            for alone in self._solve(job, own, places, arrays):
                self._front.release()  # it may have grown for others: this image gets all there is
                self._run(job, alone, places)

    def _embed(self, job: Job, which: slice, places: int) -> Arrays:
        table = job.table[which]
        pixels = table["height"] * table["width"]
        table["pixel"] = np.cumsum(pixels) - pixels
        slots = powers(pixels * places)
        table["mask"], table["slot"] = slots - 1, np.cumsum(slots) - slots
        wanted = front(table, job.blocks, places)
        self._make_room(needs(wanted), self._front, self._back, table)
        arrays = self._front.carve(wanted)
        for name in ("table", "status", "reserved", "long_counts"):
            self._device.fill(arrays[name], 0)
        images = self._device.upload(table)
        program, over = self._device.program(job.blocks), blocks_for(int(pixels.max()), THREADS, len(table))
        lattice = (arrays[name] for name in ("table", "ids", "vertex", "weight", "status"))
        deviations = np.float32(job.params.bilateral_sxy), np.float32(job.params.bilateral_srgb)
        program.prepared("embed", over, THREADS, images, *lattice, *deviations)()
        grids, rows = self._device.upload(job.entering[which]), (arrays[name] for name in ("unary", "steps", "rows"))
        numbers = np.int32(job.labels), np.float32(job.temperature)
        program.prepared("enter_scores", over, THREADS, images, grids, *rows, *numbers)()
        return arrays

    def _solve(self, job: Job, which: slice, places: int, arrays: Arrays) -> list[slice]:
        """Refines a group, in parts where needed; the images for which the others left too little memory come back."""
        table, left_over = job.table[which], []
        exact = len(table) == 1 and self._front.nbytes == needs(front(table, job.blocks, places))

        def fits(run: slice) -> bool:
            return needs(_back(job, table[run])) <= self._budget - self._front.nbytes

        for part in runs(len(table), fits):
            own = table[part]
            if not fits(part) and not exact:
                left_over.append(slice(which.start + part.start, which.start + part.stop))
                continue
            own["vertex"] = np.cumsum(own["vertices"]) - own["vertices"]
            wanted = _back(job, own)
            self._make_room(needs(wanted), self._back, self._front, own)
            inside = arrays | self._back.carve(wanted) | {"images": self._device.upload(own)}
            for name in ("reserved", "long_counts"):
                inside[name] = arrays[name].part(part.start, (len(own),))
            program = self._device.program(job.blocks)
            self._build(program, job, own, inside)
            rows = self._iterate(program, job, own, inside)
            leaving = job.leaving[which][part]
            over = blocks_for(int((leaving["rows"] * leaving["columns"]).max()), THREADS, len(leaving))
            given = inside["images"], self._device.upload(leaving), rows, np.int32(job.labels)
            program.prepared("label_rows", over, THREADS, *given)()
        return left_over

    def _make_room(self, needed: int, mine: Workspace, other: Workspace, table: NDArray[Any]) -> None:
        """The two workspaces together stay within the budget."""
        if mine is self._front and max(needed, mine.nbytes) + other.nbytes > self._budget:
            other.release()
        if max(needed, mine.nbytes) + other.nbytes > self._budget:
            height, width = int(table["height"][0]), int(table["width"][0])
            raise OutOfMemory(
                f"the CRF of an image of {height}×{width} needs {(needed + other.nbytes) / 1e6:.0f} MB on the device"
                f" and may take {self._budget / 1e6:.0f} MB; give it more memory, or a smaller image"
            )

    def _build(self, program: Program, job: Job, table: NDArray[Any], arrays: Arrays) -> None:
        """Lattices: who is whose neighbor, normalized weights, and the points of every vertex."""
        images, vertex, weight = arrays["images"], arrays["vertex"], arrays["weight"]
        degree, mass, scaled, pairs = arrays["degree"], arrays["mass"], arrays["scaled"], arrays["pairs"]
        for array in (degree, mass, scaled):
            self._device.fill(array, 0)
        self._device.fill(pairs, 0xFF)  # -1: no neighbor
        pixels = blocks_for(int((table["height"] * table["width"]).max()), THREADS, len(table))
        places = blocks_for(int(table["mask"].max()) + 1, THREADS, len(table))
        vertices = blocks_for(int(table["vertices"].max()), THREADS, len(table))
        total = np.int64(table["vertices"].sum())

        program.prepared("connect", pixels, THREADS, images, arrays["ids"], vertex, weight, degree, mass)()
        program.prepared("join", places, THREADS, images, arrays["table"], arrays["ids"], pairs, total)()
        blurred = self._smooth(program, arrays, mass, None)
        program.prepared("normalize", pixels, THREADS, images, vertex, weight, blurred, scaled)()
        blurred = self._smooth(program, arrays, scaled, arrays["blends"])
        lists = (arrays[name] for name in ("first", "reserved", "longs", "long_counts"))
        program.prepared("reserve", vertices, THREADS, images, degree, *lists)()
        lists = (arrays[name] for name in ("first", "degree", "edges"))
        compat = np.float32(job.params.bilateral_compat)
        program.prepared("fill", pixels, THREADS, images, vertex, weight, scaled, blurred, *lists, compat)()

    def _smooth(self, program: Program, arrays: Arrays, mass: DeviceArray, blends: DeviceArray | None) -> DeviceArray:
        """The masses after all directions; where blends are wanted, also what each direction mixes."""
        source, target, total = arrays["blurred"], arrays["blurring"], mass.size
        for axis in range(CORNERS):
            source, target = target, source
            pairs = arrays["pairs"].part(axis * total, (total,))
            blend = blends.part(axis * total, (total,)) if blends else None
            first = mass if axis == 0 else None
            program.prepared(
                "smooth", blocks_for(total, THREADS, 1), THREADS, pairs, first, source, target, blend, np.int64(total)
            )()
        return target

    def _iterate(self, program: Program, job: Job, table: NDArray[Any], arrays: Arrays) -> DeviceArray:
        """All iterations; the rows where the last marginals will lie, until more is asked for."""
        total = int(table["vertices"].sum())
        splats = HELPERS + -(-int(table["vertices"].max()) * job.blocks // WARPS), len(table)
        blurs = blocks_for(total * job.blocks * 4, 2 * THREADS, 1)
        updates = blocks_for(int((table["height"] * table["width"]).max()) * 4, 2 * THREADS, len(table))
        images, values, blurred = arrays["images"], arrays["values"], arrays["other_values"]
        lists = [arrays[name] for name in ("edges", "first", "degree", "longs", "long_counts")]
        axes = [[arrays[name].part(axis * total, (total,)) for name in ("pairs", "blends")] for axis in range(CORNERS)]
        given = [arrays[name] for name in ("vertex", "weight", "values", "unary", "steps")]
        gaussian, iterations = np.float32(job.params.gaussian_compat / FULL), job.params.iterations

        numbers = gaussian, np.int32(job.labels), np.int32(iterations > 0)

        blurring = []
        for axis in axes:
            blurring.append(program.prepared("blur", blurs, 2 * THREADS, *axis, values, blurred, np.int64(total)))
            values, blurred = blurred, values  # six times: the last values are where the first were
        turns = []
        for old, new in permutations((arrays["rows"], arrays["other_rows"])):
            splat = program.prepared("splat", splats, 32 * WARPS, images, *lists, old, values, np.int32(HELPERS))
            update = program.prepared("update", updates, 2 * THREADS, images, *given, old, new, *numbers)
            turns.append(([splat, *blurring, update] if iterations else [update], new))
        for turn in range(max(1, iterations)):
            launches, answer = turns[turn % 2]
            for launch in launches:
                launch()
        return answer


def _back(job: Job, table: NDArray[Any]) -> dict[str, Shaped]:
    return back(int(table["vertices"].sum()), job.blocks)


def blocks_for(tasks: int, threads: int, images: int) -> tuple[int, int]:
    """The grid in which every image gets a thread for each of so many tasks."""
    return max(1, -(-tasks // threads)), images
