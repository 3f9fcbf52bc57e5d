"""What came of teaching, told and noted: agreement, milliseconds, megabytes; a warning where the student is large.

Knows nothing of how any of it was measured.
"""

from models.bundle import Bundle
from models.terminal.progress import say
from training.config import facts
from training.config.run import Run
from training.distillation.comparison import Comparison

LARGE_MB = 12.0  # of a student's bundle, all files of it
_TOLD = 3  # of the clusters that the student gets worst


def give(run: Run, found: Comparison, teacher: Bundle, student: Bundle) -> None:
    """Tells all of it, and notes it for the report."""
    names = [cluster.name for cluster in student.manifest.clusters]
    megabytes = {who: _bytes_of(bundle) / 1e6 for who, bundle in (("teacher", teacher), ("student", student))}
    for line in lines(found, names, megabytes):
        say(run.console, line)
    rounded = {who: round(mb, 2) for who, mb in megabytes.items()}
    facts.note(run, "student", found.facts() | {"teacher": teacher.ref, "names": names, "mb": rounded})
    if megabytes["student"] > LARGE_MB:
        graph = student.encoder_path.stat().st_size / 1e6
        text = f"the student's bundle has {megabytes['student']:.1f} MB, {graph:.1f} of them its network"
        option = "student.backbone=resnet10t" if graph > LARGE_MB else "export.exemplars=0"
        facts.warn(run, "student", None, f"{text}: more than {LARGE_MB:.0f} are large", option)


def lines(found: Comparison, names: list[str], megabytes: dict[str, float]) -> list[str]:
    """The same for people."""
    part = found.table.sum(1) / max(1, found.table.sum())
    shares = sorted((share, k) for k, share in enumerate(found.by_cluster) if share is not None)
    worst = ", ".join(f"{names[k]} {share:.0%} (it has {part[k]:.1%} of them)" for share, k in shares[:_TOLD])
    (height, width), (tall, wide) = found.teacher.size, found.student.size
    sizes = f"{width}×{height}" if (height, width) == (tall, wide) else f"{width}×{height} and {wide}×{tall}"
    threads = f"{found.threads} thread{'s' * (found.threads != 1)}"
    return [
        f"student and teacher agree on {found.agreement:.1%} of the pixels of {found.images} images that the student"
        f" has not seen; least on {worst}",
        f"an image takes the teacher {found.teacher.ms:.1f} ms, the student {found.student.ms:.1f} ms (median, {sizes}"
        f" pixels, {threads})",
        f"the teacher's bundle has {megabytes['teacher']:.1f} MB, the student's {megabytes['student']:.1f} MB",
    ]


def _bytes_of(bundle: Bundle) -> int:
    """Of all files."""
    return sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
