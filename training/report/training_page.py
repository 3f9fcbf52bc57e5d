"""What a run was and what it found: numbers for report.json, and one page to look at.

Knows nothing of methods: it shows what the log, the statistics, the run's noted facts and the bundle hold. The page is
one file without scripts; every name in it is escaped. Where the run keeps exemplars private, no photo is in it either.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Bundle
from training.config import recipe as recipes
from training.config.facts import noted
from training.config.run import Run
from training.data.images import Images
from training.data.left_out import sentences
from training.export.corpus_stats import CorpusStats
from training.report import cluster_sections, photo_sections, run_sections, verdict
from training.report.html import left_out, page, section
from training.report.machine import machine
from training.report.next_steps import next_steps
from training.report.run_sections import AXES, span
from training.trainer.loop import read_log

_RUNNERS_UP = 3


def facts(
    images: Images,
    stats: CorpusStats,
    device: torch.device,
    log: Sequence[dict[str, Any]],
    seconds: Mapping[str, float],
    agreement: float | None = None,
) -> dict[str, Any]:
    """report.json: fractions 0..1, seconds; `hungarian` only where there is ground truth. No photo's name is in it.

    log        the lines of the training, if there was one;  seconds  of its parts
    agreement  of the clusterings that the network was distilled from
    """
    last = {stage: list(lines)[-1] for stage, lines in groupby(log, key=lambda line: line["stage"])}
    seconds_by_cluster = np.argsort(-stats.second, axis=1, kind="stable")[:, :_RUNNERS_UP]
    found: dict[str, Any] = {
        "images": len(images),
        "skipped": len(images.skipped),
        "measured_on": stats.images,
        "device": device.type,
        "machine": machine(device),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "usage": {"entropy": stats.entropy, "fractions": stats.fractions.tolist()},
        "presence": stats.presence.tolist(),
        "stability": stats.stability,
        "similarity": stats.similarity,
        "familiarity": stats.photos.quantiles,
        "near_duplicates": len(stats.photos.near_duplicates()),
        "runners_up": [
            [(int(other), round(float(stats.second[k, other]), 3)) for other in others if stats.second[k, other] > 0]
            for k, others in enumerate(seconds_by_cluster)
        ],
        "losses": {s: {n: v for n, v in line.items() if n not in AXES} for s, line in last.items()},
    }
    if agreement is not None:
        found["agreement"] = agreement
    if stats.scores is not None:
        classes = images.class_names
        found["hungarian"] = {
            "miou": stats.scores.miou,
            "accuracy": stats.scores.accuracy,
            "iou": {n: None if np.isnan(v) else float(v) for n, v in zip(classes, stats.scores.iou, strict=True)},
            "class_of_cluster": [classes[c] if c >= 0 else None for c in stats.scores.match.tolist()],
        }
    return found


def page_of(bundle: Bundle, recipe: str, run: Run, *, folder: Path | None = None) -> str:
    """report.html of a bundle; `recipe` is shown as it stands. What a run did not note is left out.

    folder  of the run as commands name it, where that is not `run.folder`
    """
    found, log, unused = bundle.report(), read_log(run.log), _not_used(run)
    curve, balance, photos = noted(run, "k_curve"), noted(run, "balance"), noted(run, "photos") or {}
    stages, aligned, student = noted(run, "stages"), noted(run, "aligned"), noted(run, "student")
    found_by = run_sections.found_without_labels(noted(run, "merging"), noted(run, "crops"))
    equal = (noted(run, "folder") or {}).get("duplicates")
    odd = photo_sections.familiarity(found, photos, run) + (photo_sections.copies(equal) if equal else "")
    sections = [
        _head(bundle, found),
        section("In short", _verdict(bundle, found, log, run, curve, folder or run.folder)),
        section("Photos and their maps", photo_sections.beside_their_maps(bundle, run, photos.get("varied", []))),
        section("Clusters", cluster_sections.sheet(bundle, found, private=not run.recipe.export.exemplars)),
        section("What becomes one", cluster_sections.tree(bundle)),
        section("Parts and crops", found_by) if found_by else "",
        section("Student and teacher", run_sections.student(student)) if student else "",
        section("Carried over", run_sections.carried_over(aligned)) if aligned else "",
        section("How many clusters", run_sections.number_of_clusters(curve)) if curve else "",
        section("Training", run_sections.curves(log)),
        section("Balance", run_sections.balance(balance)) if balance else "",
        section("Similarity of codes", run_sections.similarity(found)),
        section("Familiar and odd photos", odd) if odd else "",
        section("Against ground truth", run_sections.scores(found)) if "hungarian" in found else "",
        section("Left out", unused) if unused else "",
        section("Time and memory", run_sections.costs(found["seconds"], stages)),
        section("Machine and versions", run_sections.facts_table(found.get("machine", {}))),
        section("Recipe", f"<details><summary>every value</summary><pre>{escape(recipe)}</pre></details>"),
    ]
    return page(f"{bundle.manifest.name}: what was found", "".join(sections))


def _not_used(run: Run) -> str:
    """Files of other kinds in words, and those that could not be read with the reasons."""
    told = [*run.images.notes, *(one.partition(": ")[2] for one in sentences(run.images.left_out))]
    said = "".join(f"<li>{escape(one)}</li>" for one in told)
    skipped = [(run.images.names.of(one.path), one.reason) for one in run.images.skipped]
    return (f"<ul>{said}</ul>" if said else "") + (left_out(skipped, "skipped.txt") if skipped else "")


def _head(bundle: Bundle, found: dict[str, Any]) -> str:
    manifest = bundle.manifest
    cards = [
        (f"{len(manifest.clusters)}", "clusters"),
        (f"{found['images']}", f"images, {found['skipped']} left out" if found["skipped"] else "images"),
        (span(sum(found["seconds"].values())), f"on {found['device']}"),
        (f"{found['usage']['entropy']:.2f}", "evenness of use (1: all alike)"),
        (f"{found['stability']:.2f}", "stability over seeds (1: the same)"),
        (f"{found['onnx']['labels_equal']:.2%}", "of labels: ONNX = torch"),
    ]
    if "agreement" in found:
        cards.append((f"{found['agreement']:.1%}", "of pixels on which the clusterings agree"))
    if "student" in found:
        cards.append((f"{found['student']['agreement']:.1%}", "of unseen pixels labelled as by the teacher"))
    if "hungarian" in found:
        cards.append((f"{found['hungarian']['miou']:.1%}", "mIoU after matching"))
    numbers = "".join(f"<div><b>{escape(n)}</b><span>{escape(what)}</span></div>" for n, what in cards)
    return (
        f"<header><h1>{escape(manifest.name)}</h1><p>{escape(manifest.method)} on {escape(manifest.provenance.data)};"
        f" seed {manifest.provenance.seed}; {escape(manifest.provenance.created)};"
        f' <code>{escape(bundle.ref)}</code></p><div class="cards">{numbers}</div></header>'
    )


def _verdict(
    bundle: Bundle, found: dict[str, Any], log: list[dict[str, Any]], run: Run, curve: Any, folder: Path
) -> str:
    warned = verdict.warnings(found, log, recipes.page_of(run.recipe), noted(run, "warnings") or [])
    wrong = "".join(
        f"<li>{escape(one.text)}{f' {escape(one.help)}' if one.help else ''}"
        f"{f': <code>--set {escape(one.option)}</code>' if one.option else '.' if one.help else ''}</li>"
        for one in warned
    )
    option = next((one.option for one in warned if one.option), "")
    proposed = curve.get("proposed") if curve and curve.get("proposed") != len(bundle.manifest.clusters) else None
    steps = "".join(
        f"<li>{escape(step.what)}<pre>{escape(step.command)}</pre></li>"
        for step in next_steps(run, bundle.path, folder, option=option, k=proposed)
    )
    return (
        f"<dl><dt>What was found</dt><dd>{escape(verdict.what_was_found(found))}</dd>"
        f"<dt>Is K right?</dt><dd>{escape(verdict.is_k_right(found, curve))}</dd>"
        f"<dt>What went wrong?</dt><dd>{f'<ul class=warned>{wrong}</ul>' if wrong else 'Nothing that shows.'}</dd>"
        f'<dt>What to type next</dt><dd><ol class="steps">{steps}</ol></dd></dl>'
    )
