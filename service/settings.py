"""What the operator may choose: the environment, read once at start, as `Settings`.

Knows nothing of what the values are used for.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import UsageError
from models.hardware import share
from service.errors import explain, nearest, quoted
from service.logs import LogFormat

PREFIX = "TESSERA_"
_DAY = 86400
_MANY = 10**6
_BYTES = 2**50
EngineName = Literal["auto", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-bf16", "cuda", "tensorrt"]
CRFName = Literal["dense", "pydensecrf"]
PRETRAINED = Path(__file__).parents[1] / "models" / "pretrained"
# What Kubernetes tells a container of a Service that is named tessera or tessera-…: TESSERA_PORT and the like.
_SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


class SettingsError(UsageError):
    """A TESSERA_ variable that cannot be used."""


class Settings(BaseModel):
    """Each field is the variable TESSERA_<NAME>. Sizes count bytes; times end in their unit.

    bundles            folders, separated as in PATH; the first is the default model
    state              where names and colors given with PATCH are kept; servers may share it
    models             the folder whose bundles POST /models/{name}/load may name; none: no loading over HTTP
    max_model_bytes    of all networks held at once
    canary             a folder too: of a bundle that answers a share of who names no model, in the default's stead
    canary_share       percent of them, by a hash of their images
    engine             what runs the networks; auto measures what is installed, once, and remembers
    threads            of the network on a CPU; 0 = as many as there are cores
    gpu_bytes          of device memory the networks may take; 0 = all of it. The CRF takes up to 576 MB beside them
    workers            threads that decode and encode images; 0 = one per core
    max_bytes          of one image file
    max_body_bytes     of one request, several images or base64 together
    max_bodies_bytes   of all requests being read at once
    max_images         in one request
    max_queue_size     images inside, from decoding to answer: queued, running and rendered ones
    max_queue_mpx      the same images, in megapixels of their source
    max_working_bytes  that large images hold while they are decoded, all together; the rest is refused with 503
    max_key_images     of the same images, those of one key: beyond it that caller waits, and nobody else
    max_requests       requests answered at once, probes apart
    max_connections    open at once; beyond it the one that has rested longest is closed, and who comes while none
                       rests is answered to probes only
    max_client_connections  the same of one client's address
    max_unread_bytes   of answers that clients have not taken yet; beyond it the one that waits longest is closed
    max_batch_size     0 = by provider: 1 on a CPU, where batches only cost; 16 on a GPU
    max_batch_mpx      megapixels of one batch at the network's size
    header_timeout_s   for a request's headers to arrive;  body_timeout_s  for its body
    write_timeout_s    in which a client takes its answer, or at least 64 KiB more of it
    cache_bytes        of network answers kept for the same image asked again; 0 switches that, and the sharing of
                       identical requests, off
    timeout_s          from the last byte of a request to its answer
    keep_alive_s       that a connection may rest between requests
    lame_duck_s        after SIGTERM, in which everything is served and only /readyz says no: for balancers to see it;
                       None: 2, or 0 where the server listens on loopback
    drain_s            after SIGTERM, the lame duck included, until whatever is left is ended
    engine_timeout_s   of one run of a network: one that takes longer hangs, and a fresh engine takes its place
    access_log         a line for every request; refusals and failures are logged either way
    log                text, for people, or json, an object a line
    traces             whether requests are traced; OpenTelemetry's own variables say how, and where to
    crf                who answers crf=true: `dense`, ours, or `pydensecrf`, in a process for each worker
    crf_timeout_s      a CRF that takes longer, waiting for its turn included, is left out, with a warning
    keys               who may ask: name=secret, or name:infer=secret, separated by commas; empty: everybody
    keys_file          the same, or one a line, in a file; read again on SIGHUP
    admin_key          who may load and unload models; empty: nobody.  admin_key_file  the same in a file
    hosts              names the server answers to, separated by commas, besides those of loopback
    origins            whose pages' scripts may ask, separated by commas, besides the server's own
    trusted_proxies    addresses and networks whose X-Forwarded-For says whom they ask for
    trust              a file of the digests of the bundles that may be served; none: any that is sound
    label_studio_url   of the one Label Studio whose tasks' images are fetched; empty: none are
    label_studio_key   of a user of it who may see them
    proof_s            of one core, that the process which proves a bundle's network may take
    proof_bytes        that it may hold besides four times the network's file
    jobs               the folder of jobs' uploads and results; none: `jobs` in the state folder
    job_images         of jobs, worked on at once beside everybody's requests; 0: no jobs here
    job_share          of the turns that jobs' images take while requests wait for theirs, 0 to 1
    max_job_bytes      of one upload, and of what it unpacks to
    max_job_files      of one job
    max_key_jobs       of one key that are not finished
    max_key_job_bytes  that jobs of one key keep on the disk, uploads and results together
    job_free_bytes     of the disk that jobs leave free; with less, jobs pause and uploads are refused with 507
    job_days           that a finished job is kept, counted while the server runs
    roots              folders, separated as in PATH, that requests may name paths below
    max_file_mpx       megapixels of one file below them, which is read in windows
    buckets            folders of object stores, separated by commas, that jobs may read: s3://photos/2026,gs://maps
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bundles: tuple[Path, ...] = ()
    state: Path = Field(default_factory=lambda: user_state(os.environ))
    models: Path | None = None
    max_model_bytes: int = Field(default=4 * 2**30, ge=2**20, le=_BYTES)
    canary: Path | None = None
    canary_share: float = Field(default=5.0, gt=0, le=100)
    engine: EngineName = "auto"
    threads: int = Field(default=0, ge=0, le=1024)
    gpu_bytes: int = Field(default=0, ge=0, le=_BYTES)
    workers: int = Field(default=0, ge=0, le=1024)
    max_bytes: int = Field(default=32 * 2**20, ge=1024, le=_BYTES)
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024, le=_BYTES)
    max_bodies_bytes: int = Field(default=2**30, ge=2**20, le=_BYTES)
    max_mpx: float = Field(default=50.0, gt=0, le=_MANY)
    max_side_px: int = Field(default=32768, ge=1, le=_MANY)
    max_images: int = Field(default=64, ge=1, le=_MANY)
    max_queue_size: int = Field(default=128, ge=1, le=_MANY)
    max_queue_mpx: float = Field(default=512.0, gt=0, le=_MANY)
    max_working_bytes: int = Field(default=4 * 2**30, ge=2**20, le=_BYTES)
    max_key_images: int = Field(default=64, ge=1, le=_MANY)
    max_requests: int = Field(default=512, ge=1, le=_MANY)
    max_connections: int = Field(default=4096, ge=1, le=_MANY)
    max_client_connections: int = Field(default=1024, ge=1, le=_MANY)
    max_unread_bytes: int = Field(default=64 * 2**20, ge=2**16, le=_BYTES)
    max_batch_size: int = Field(default=0, ge=0, le=_MANY)
    max_batch_mpx: float = Field(default=8.0, gt=0, le=_MANY)
    cache_bytes: int = Field(default=64 * 2**20, ge=0, le=_BYTES)
    header_timeout_s: float = Field(default=10.0, gt=0, le=_DAY)
    body_timeout_s: float = Field(default=30.0, gt=0, le=_DAY)
    write_timeout_s: float = Field(default=10.0, gt=0, le=_DAY)
    timeout_s: float = Field(default=60.0, gt=0, le=_DAY)
    engine_timeout_s: float = Field(default=60.0, gt=0, le=_DAY)
    crf: CRFName = "dense"
    crf_timeout_s: float = Field(default=10.0, gt=0, le=_DAY)
    keep_alive_s: int = Field(default=75, ge=0, le=_DAY)
    lame_duck_s: float | None = Field(default=None, ge=0, le=_DAY)
    drain_s: int = Field(default=25, ge=0, le=_DAY)
    access_log: bool = True
    log: LogFormat = "text"
    traces: bool = False
    keys: str = Field(default="", repr=False)
    keys_file: Path | None = None
    admin_key: str = Field(default="", repr=False)
    admin_key_file: Path | None = None
    hosts: str = ""
    origins: str = ""
    trusted_proxies: str = ""
    trust: Path | None = None
    label_studio_url: str = ""
    label_studio_key: str = Field(default="", repr=False)
    proof_s: int = Field(default=300, ge=1, le=_DAY)
    proof_bytes: int = Field(default=2 * 2**30, ge=2**20, le=_BYTES)
    jobs: Path | None = None
    job_images: int = Field(default=2, ge=0, le=_MANY)
    job_share: float = Field(default=0.1, gt=0, le=1)
    max_job_bytes: int = Field(default=16 * 2**30, ge=1024, le=_BYTES)
    max_job_files: int = Field(default=100_000, ge=1, le=_MANY)
    max_key_jobs: int = Field(default=8, ge=1, le=_MANY)
    max_key_job_bytes: int = Field(default=64 * 2**30, ge=1024, le=_BYTES)
    job_free_bytes: int = Field(default=2**30, ge=0, le=_BYTES)
    job_days: float = Field(default=7.0, gt=0, le=_MANY)
    roots: tuple[Path, ...] = ()
    max_file_mpx: float = Field(default=10_000.0, gt=0, le=_MANY)
    buckets: str = ""

    @property
    def job_every(self) -> int:
        """While requests wait, one turn of so many is the jobs'."""
        return max(1, round(1 / self.job_share))

    def shared(self, number: int, of: int) -> "Settings":
        """Those of one of so many workers: what each holds for itself is divided, what they count together is not."""
        amounts = ("threads", "workers", "gpu_bytes", "cache_bytes", "max_model_bytes", "max_unread_bytes")
        given = {name: total for name in amounts if (total := getattr(self, name))}  # 0 stays what it means
        return self.model_copy(update={name: share(total, number, of) for name, total in given.items()})

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`. Raises SettingsError, naming the variable and what it takes."""
        ours = {k[len(PREFIX) :]: v for k, v in environ.items() if k.startswith(PREFIX) and v}
        if "KUBERNETES_SERVICE_HOST" in environ:
            ours = {name: value for name, value in ours.items() if not _SERVICE_LINK.fullmatch(name)}
        given = {name.lower(): value for name, value in ours.items()}
        for name in given:
            if name not in cls.model_fields:
                known = [PREFIX + field.upper() for field in cls.model_fields]
                raise SettingsError(f"{PREFIX}{name.upper()} is not a setting{nearest(PREFIX + name.upper(), known)}")
        bundles, roots = given.pop("bundles", ""), given.pop("roots", "")
        try:
            settings = cls.model_validate(
                {
                    **given,
                    "bundles": tuple(Path(p) for p in bundles.split(os.pathsep) if p) or embedded(),
                    "roots": tuple(Path(p) for p in roots.split(os.pathsep) if p),
                    "state": Path(given["state"]) if "state" in given else user_state(environ),
                }
            )
        except ValidationError as error:
            named = [{**e, "loc": (PREFIX + str(e["loc"][0]).upper(),)} for e in error.errors()]
            raise SettingsError(explain(named, {})) from None
        if settings.models and not settings.models.is_dir():
            raise SettingsError(f"{PREFIX}MODELS: {settings.models} is no folder")
        for root in settings.roots:
            if not root.is_dir():
                raise SettingsError(f"{PREFIX}ROOTS: {root} is no folder")
        return settings


def embedded() -> tuple[Path, ...]:
    """The bundles that come with the repository; the first by name is the embedded default."""
    return tuple(sorted(folder.parent for folder in PRETRAINED.glob("*/manifest.json")))


def user_state(environ: Mapping[str, str]) -> Path:
    """Where this user's programs keep state: $XDG_STATE_HOME/tessera or ~/.local/state/tessera."""
    home = environ.get("HOME") or "~"
    return Path(environ.get("XDG_STATE_HOME") or Path(home).expanduser() / ".local" / "state") / "tessera"


def check_bundles(settings: Settings) -> None:
    """Raises UsageError for a bundle, or a canary, that cannot be one."""
    for folder in (*settings.bundles, *([settings.canary] if settings.canary else [])):
        if not folder.is_dir():
            what = "is a file; name the folder that holds manifest.json" if folder.exists() else "is no bundle folder"
            raise UsageError(f"{quoted(str(folder))} {what}; train one, or name another with --bundle")
        if not (folder / "manifest.json").exists() and (inside := sorted(folder.glob("*/manifest.json"))):
            raise UsageError(f"{quoted(str(folder))} is no bundle, but holds one: name {quoted(str(inside[0].parent))}")
    if (canary := settings.canary) is None:
        return
    if not (canary / "manifest.json").exists():
        raise UsageError(f"the canary {quoted(str(canary))} is no bundle: it has no manifest.json")
    if any(canary.resolve() == folder.resolve() for folder in settings.bundles):
        raise UsageError(f"the canary {quoted(str(canary))} is served already: name another bundle's folder")
