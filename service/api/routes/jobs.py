"""/jobs: thousands of images by one request, looked at while they run, fetched as one zip.

Knows nothing of how a job runs: what is asked is read in `job_request.py`, jobs are kept in `service/jobs/`.
"""

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from service.api import job_views, openapi
from service.api.dependencies import allowed_caller, state_of
from service.api.job_request import JobBody, JobOptions, options_in_query, options_with, wanted
from service.api.key_settings import ADMIN
from service.api.middleware import problem
from service.api.problems import plain
from service.api.ranges import wanted_range
from service.errors import NotAllowed
from service.jobs.jobs import Jobs

log = logging.getLogger("tessera")

router = APIRouter(tags=["jobs"])
_LOOK = openapi.responses(401, 404, 422, 507)
_PART = {
    "ETag": {"schema": {"type": "string"}, "description": "the same for the same files"},
    "Accept-Ranges": {"schema": {"type": "string"}, "description": "bytes"},
    "Content-Disposition": {"schema": {"type": "string"}, "description": "the zip's file name"},
}


@router.post(
    "/jobs",
    operation_id="createJob",
    summary="Segment all images of a zip, or of a folder below a root, while nobody waits",
    status_code=202,
    response_model=job_views.JobInfo,
    responses=openapi.accepted(400, 401, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra=openapi.archive(JobOptions, form="JobForm", folder="JobFolder"),
)
async def create_job(request: Request) -> Response:
    caller, jobs = _caller(request)
    given, options = options_in_query(request)
    jobs.check(wanted(given, options))  # before the body is asked for
    body = JobBody(request, state_of(request).settings.body_timeout_s)
    await jobs.check_room(caller, body.declared)
    await body.begin()
    if body.is_json:
        place, more = await body.json()
        job = await jobs.begin_at(place, caller, wanted(*options_with(given, more)))
    else:
        async with jobs.upload(caller, body.declared) as upload:
            more = await body.save(upload)
            job = await jobs.begin(upload, caller, wanted(*options_with(given, more)))
    if (trace := request.state.trace) is not None:
        trace.attributes["tessera.job.id"] = job.id
    log.info("%s began job %s, request %s", caller or "somebody", job.id, request.state.request_id)
    request.state.model = job.model
    info = job_views.job_info(request, job)
    return JSONResponse(info.model_dump(), 202, {"location": job_views.location(request, job)})


@router.get(
    "/jobs",
    operation_id="jobs",
    summary="The caller's jobs, newest first",
    response_model=job_views.JobList,
    responses=openapi.responses(401, 422, 507),
)
async def list_jobs(request: Request, query: Annotated[job_views.JobsQuery, Query()]) -> job_views.JobList:
    caller, jobs = _caller(request)
    found = await jobs.listed(_of(caller), query.before, query.limit)
    return job_views.job_list(request, found, query.limit)


@router.get(
    "/jobs/{id}",
    operation_id="job",
    summary="How far a job has come, and which files failed",
    response_model=job_views.JobDetail,
    responses=_LOOK,
)
async def get_job(id: str, request: Request, query: Annotated[job_views.JobQuery, Query()]) -> job_views.JobDetail:
    caller, jobs = _caller(request)
    job = await jobs.get(id, _of(caller))
    failures = await jobs.failures(job, query.after, query.limit) if query.limit else []
    return job_views.job_detail(request, job, failures, query.limit)


@router.get(
    "/jobs/{id}/result",
    operation_id="jobResult",
    summary="What a job that has ended has made, as a zip: a tree like that of its images",
    response_class=Response,
    responses=openapi.responses(304, 401, 404, 409, 416, 422, 507, ok=openapi.files("application/zip"), headers=_PART)
    | {206: {"description": "Part of it", "content": openapi.files("application/zip")}},
)
async def get_result(id: str, request: Request) -> Response:
    caller, jobs = _caller(request)
    job = await jobs.get(id, _of(caller))
    archive = await jobs.result(job)
    tag = f'"{archive.tag}"'
    headers = {
        "etag": tag,
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
        "content-disposition": f'attachment; filename="job-{job.id[:8]}.zip"',
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        part = wanted_range(request.headers, archive.size, tag)
    except ValueError:
        document = plain(416, f"the result has {archive.size} bytes", request.state.request_id)
        return problem(request.scope["state"], document, {"content-range": f"bytes */{archive.size}"})
    start, stop = part or (0, archive.size)
    headers["content-length"] = str(stop - start)
    if part is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{archive.size}"
    status = 200 if part is None else 206
    media_type = openapi.media_type(request, "application/zip")
    if request.state.head:
        return Response(None, status, headers, media_type)
    return StreamingResponse(archive.read(start, stop), status, headers, media_type)


@router.delete(
    "/jobs/{id}",
    operation_id="deleteJob",
    summary="Cancel a job where it has not ended; delete its files, or keep those that there are",
    response_model=job_views.JobInfo,
    responses=_LOOK,
)
async def delete_job(id: str, request: Request, query: Annotated[job_views.DeleteQuery, Query()]) -> job_views.JobInfo:
    caller, jobs = _caller(request)
    job = await jobs.end(await jobs.get(id, _of(caller)), keep=query.keep)
    log.info("%s %s job %s", caller or "somebody", "cancelled" if query.keep else "deleted", job.id)
    return job_views.job_info(request, job)


def _caller(request: Request) -> tuple[str, Jobs]:
    """Who asks, and the jobs here. Raises KeyMissing, NotAllowed."""
    state = state_of(request)
    caller = allowed_caller(request, "infer")
    if not state.jobs.on:
        raise NotAllowed(
            "there are no jobs here (TESSERA_JOB_IMAGES=0); ask image by image, or have the operator allow it"
        )
    return caller, state.jobs


def _of(caller: str) -> str | None:
    """Whose jobs a caller sees: its own; the admin all."""
    return None if caller == ADMIN else caller
