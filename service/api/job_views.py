"""A job as its routes show it.

Knows nothing of how it runs.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Request
from pydantic import Field

from service.inference.options import Frozen
from service.jobs.job import Job, State
from service.jobs.store import Failure


class JobProgress(Frozen):
    """How far a job has come."""

    total: int | None = Field(description="images; null until they are counted")
    done: int = Field(description="images that are settled, those that failed among them")
    failed: int
    rate: float | None = Field(description="images a second, the mean while it ran")
    eta_s: float | None = Field(description="seconds that the rest takes at this rate; null while it does not run")


class JobFailure(Frozen):
    """An image of which there is no answer, and why."""

    file: str
    reason: str


class JobInfo(Frozen):
    """One job."""

    id: str
    state: Literal["queued", "running", "paused", "done", "failed", "cancelled"] = Field(
        description="paused: it goes on by itself once what `note` says is changed; failed: as a whole"
    )
    note: str | None = Field(description="why it is paused, or has failed")
    owner: str = Field(description="the name of the key that began it; empty where nobody needs one")
    model: str = Field(description="name@digest12, from its beginning to its end")
    formats: list[str]
    options: dict[str, str]
    source: str | None = Field(description="the folder that is read, as it was written; null for an upload")
    created: str = Field(description="RFC 3339, by the server's clock")
    progress: JobProgress
    bytes: int = Field(description="that it keeps on the disk")
    result: str = Field(description="where its zip is, once it has ended")


class JobDetail(JobInfo):
    """One job, with some of its failures."""

    failures: list[JobFailure] = Field(description="by the file's name, 100 at a time unless `limit` says otherwise")
    failures_after: str | None = Field(description="what to give as `after` for those that follow; null: these are all")


class JobList(Frozen):
    """Jobs, the latest first."""

    jobs: list[JobInfo]
    before: int | None = Field(description="what to give as `before` for those that follow; null: these are all")


class JobsQuery(Frozen):
    """Which jobs are listed."""

    before: int | None = Field(default=None, ge=0, le=2**53, description="those that follow; as the list before said")
    limit: int = Field(default=50, ge=1, le=500, description="1 to 500")


class JobQuery(Frozen):
    """Which of a job's failures are listed."""

    after: str = Field(default="", max_length=4096, description="those that follow; as the answer before said")
    limit: int = Field(default=100, ge=0, le=1000, description="0 to 1000")


class DeleteQuery(Frozen):
    """What is left of a job that is cancelled."""

    keep: bool = Field(default=False, description="true: it is cancelled, and what there is of its result is kept")


def job_list(request: Request, jobs: list[Job], limit: int) -> JobList:
    return JobList(
        jobs=[JobInfo(**_facts(request, job)) for job in jobs], before=jobs[-1].number if len(jobs) == limit else None
    )


def job_info(request: Request, job: Job) -> JobInfo:
    return JobInfo(**_facts(request, job))


def job_detail(request: Request, job: Job, failures: list[Failure], limit: int) -> JobDetail:
    more = failures[-1].file if failures and len(failures) == limit else None
    return JobDetail(
        **_facts(request, job),
        failures=[JobFailure(file=failure.file, reason=failure.reason) for failure in failures],
        failures_after=more,
    )


def location(request: Request, job: Job) -> str:
    """The path of a job."""
    return f"{request.scope.get('root_path', '')}/jobs/{job.id}"


def _facts(request: Request, job: Job) -> dict[str, Any]:
    rate = job.done / job.worked_s if job.done and job.worked_s > 0 else None
    running = job.state is State.RUNNING and rate is not None and job.total is not None
    return {
        "id": job.id,
        "state": job.state,
        "note": job.note or None,
        "owner": job.owner,
        "model": job.model,
        "formats": list(job.formats),
        "options": dict(job.options),
        "source": job.source or None,
        "created": datetime.fromtimestamp(job.created, UTC).isoformat(timespec="seconds"),
        "progress": JobProgress(
            total=job.total,
            done=job.done,
            failed=job.failed,
            rate=rate and round(rate, 3),
            eta_s=round((job.total - job.done) / rate, 1) if running and rate and job.total is not None else None,
        ),
        "bytes": job.bytes,
        "result": f"{location(request, job)}/result",
    }
