"""`tessera doctor`: what is installed, which engine would run and why, what is missing and what brings it.

Imports nothing that may be missing before it has said so. Knows nothing of how anything that it looks at is done.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from models.extras import brings

ROOT = Path(__file__).resolve().parents[2]
_DISTRIBUTION = "tessera-segmentation"
_EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpu": ("serving on a CPU", ("onnxruntime",)),
    "gpu": ("serving on an NVIDIA GPU", ("onnxruntime", "cupy")),
    "openvino": ("a second engine for Intel's processors", ("openvino",)),
    "training": ("training", ("torch", "timm", "safetensors", "onnxscript", "scipy", "skimage", "tensorboard")),
    "geo": ("GeoTIFF and GeoPackage with their coordinates", ("rasterio", "pyogrio")),
    "zarr": ("OME-Zarr", ("zarr",)),
    "remote": ("buckets: s3, gs, az", ("fsspec", "s3fs", "gcsfs", "adlfs")),
    "hub": ("tessera pull and push", ("huggingface_hub",)),
    "mcp": ("tessera mcp", ("mcp",)),
    "ray": ("many machines: replicas, tessera segment --engine ray", ("ray", "pyarrow")),
    "otel": ("traces of requests: TESSERA_TRACES", ("opentelemetry.sdk", "opentelemetry.exporter")),
    "heic": ("HEIC, as phones write it", ("pi_heif",)),
    "dicom": ("DICOM, as hospitals write it", ("pydicom",)),
    "crf": ("the papers' own CRF", ("pydensecrf",)),
}
_NEEDED = (
    "numpy", "PIL", "pydantic", "imagecodecs", "zlib_ng", "numba", "fastapi", "starlette", "uvicorn", "h11",
    "httptools", "orjson", "python_multipart", "prometheus_client", "typer", "rich", "httpx", "onnx",
)  # fmt: skip
_TOLD = ("numpy", "pillow", "imagecodecs", "numba", "fastapi", "uvicorn", "onnx", "onnxruntime", "onnxruntime-gpu",
         "openvino", "torch")  # fmt: skip
_GPU_S = 10.0
_ANSWER_S = 2.0  # from who listens on the port
_LIVE_BYTES = 64
_LITTLE_BYTES = 2**30
_MARKS = {"good": "✓", "absent": "·", "warning": "!", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state  good; absent (nobody needs it); warning (serving works, and less well); bad (serving cannot work)
    mend   the command, or the setting, that changes it
    """

    what: str
    state: Literal["good", "absent", "warning", "bad"]
    said: str
    mend: str = ""


def main() -> None:
    """The command. Exit code 1 where serving could not work."""
    parser = argparse.ArgumentParser(
        prog="tessera doctor",
        description="What is installed, which engine would run and why, what is missing and what brings it. Exit code 1"
        " where serving could not work.",
        epilog="$ tessera doctor --bundle runs/photos/bundle",
    )
    parser.add_argument("--bundle", type=Path, action="append", metavar="DIR", help="in place of the default")
    parser.add_argument("--host", default="127.0.0.1", help="where a server would listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    given = parser.parse_args()
    findings = list(examine(given.bundle or [], given.host, given.port))
    if given.json:
        print(json.dumps({"serves": serves(findings), "findings": [asdict(one) for one in findings]}, indent=1))
    else:
        print(told(findings))
    sys.exit(0 if serves(findings) else 1)


def serves(findings: Sequence[Finding]) -> bool:
    """Whether nothing stands in the way."""
    return not any(finding.state == "bad" for finding in findings)


def told(findings: Sequence[Finding]) -> str:
    """A line for each finding, and what to type below it."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.state]} {finding.what:{width}}  {finding.said}")
        if finding.mend and finding.state != "absent":
            lines.append(f"  {'':{width}}  → {finding.mend}")
    if absent := [finding for finding in findings if finding.state == "absent" and finding.mend]:
        width = max(len(finding.said) for finding in absent)
        lines += ["", *(f"  {finding.said:{width}}  {finding.mend}" for finding in absent)]
    lines += ["", "serving works here" if serves(findings) else "serving does not work here: see ✗"]
    return "\n".join(lines)


def examine(bundles: Sequence[Path], host: str, port: int) -> Iterator[Finding]:
    """Everything, in order; what needs something that is missing is left out."""
    yield from _installed()
    missing = [name for name in _NEEDED if util.find_spec(name) is None]
    if missing:
        yield Finding("packages", "bad", f"not installed: {', '.join(missing)}", brings(""))
        return
    yield Finding("packages", "good", ", ".join(filter(None, map(_version, _TOLD))))
    yield from _extras()
    yield from _machine()
    yield from _gpu()
    yield from _kernels()
    yield from _service(bundles, host, port)


def _installed() -> Iterator[Finding]:
    version = _version(_DISTRIBUTION) or f"a bare checkout in {ROOT}"
    yield Finding("tessera", "good", f"{version}, Python {platform.python_version()}, {platform.platform()}")


def _version(distribution: str) -> str | None:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return None


def _extras() -> Iterator[Finding]:
    for extra, (purpose, modules) in _EXTRAS.items():
        missing = [module for module in modules if not _there(module)]
        if not missing:
            yield Finding(f"extra {extra}", "good", purpose)
        elif extra == "cpu":
            yield Finding("extra cpu", "bad", f"{purpose}: onnxruntime is not installed", brings("cpu"))
        else:
            some = f" ({', '.join(missing)} missing)" if len(missing) < len(modules) else ""
            yield Finding(f"extra {extra}", "absent", f"{purpose}{some}", brings(extra))


def _there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def _machine() -> Iterator[Finding]:
    from models import hardware

    cores = f"{hardware.cores()} of {os.cpu_count()} cores"
    yield Finding("processor", "good", f"{cores}, {hardware.processor()}")
    free = hardware.available_bytes()
    if free is not None:
        little = free < _LITTLE_BYTES
        said = f"{free / 2**30:.1f} GiB that this process may still take"
        mend = "a smaller TESSERA_MAX_MPX, TESSERA_CACHE_BYTES and TESSERA_MAX_QUEUE_SIZE" if little else ""
        yield Finding("memory", "warning" if little else "good", said, mend)


def _gpu() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding("GPU", "absent", "no NVIDIA driver (nvidia-smi)")
        return
    try:
        asked = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=_GPU_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("GPU", "warning", f"nvidia-smi fails: {error}", "look at the driver; the CPU serves meanwhile")
        return
    yield Finding("GPU", "good" if found else "absent", found.replace("\n", "; ") or "none that the driver knows")


def _kernels() -> Iterator[Finding]:
    from models.crf.cpu import jit_cache
    from models.native import bindings

    if bindings.compiled():
        yield Finding("C kernels", "good", "compiled")
    else:
        said = "not compiled: numpy does their work, several times slower"
        yield Finding("C kernels", "warning", said, f"install a C compiler, then {_DISTRIBUTION} anew")
    if jit_cache.ready():
        yield Finding("CRF", "good", "compiled")
    else:
        yield Finding("CRF", "good", "compiled beside the server at its first start, for some seconds")


def _service(bundles: Sequence[Path], host: str, port: int) -> Iterator[Finding]:
    from models.errors import TesseraError
    from service.api import binding
    from service.engines import check_installed, kinds
    from service.settings import Settings, check_bundles

    try:
        settings = Settings.from_env(os.environ)
        if bundles:
            settings = settings.model_copy(update={"bundles": tuple(bundles)})
        check_bundles(settings)
        given = sorted(name for name in os.environ if name.startswith("TESSERA_"))
        yield Finding("settings", "good", ", ".join(given) or "defaults, no TESSERA_ variable is set")
    except TesseraError as error:
        yield Finding("settings", "bad", str(error))
        return
    yield _tried("state", lambda: _writable(settings.state), "set TESSERA_STATE to a folder that can be written")
    try:
        yield _tried(f"port {port}", lambda: _free(binding.check_free, host, port), "tessera serve --port N")
    except binding.PortTaken:
        yield _taken(host, port)
    installed = [f"{name} ({kind.versions})" for name, kind in kinds().items() if kind.versions and _offered(name)]
    if not installed:
        yield Finding("engines", "bad", "none is installed", brings("cpu"))
        return
    yield Finding("engines", "good", ", ".join(installed))
    yield _tried("engine", lambda: _named(settings.engine, lambda: check_installed(settings)), "TESSERA_ENGINE=auto")
    for folder in settings.bundles:
        yield _tried(f"bundle {folder.name}", partial(_served, folder, settings), "")
    if settings.canary is not None:
        yield _tried(f"canary {settings.canary.name}", partial(_served, settings.canary, settings), "")


def _offered(engine: str) -> bool:
    """Whether the onnxruntime that is installed was built for a GPU's engine; others need no more than their module."""
    from service.engines import onnxruntime_cuda

    provider = {"cuda": onnxruntime_cuda.CUDA, "tensorrt": onnxruntime_cuda.TENSORRT}.get(engine)
    return provider is None or onnxruntime_cuda.offered(provider)


def _tried(what: str, look: Callable[[], str], mend: str) -> Finding:
    """What is looked at, or why it cannot be used. Raises PortTaken."""
    from models.errors import TesseraError
    from service.api.binding import PortTaken

    try:
        return Finding(what, "good", look())
    except PortTaken:
        raise
    except (TesseraError, OSError) as error:
        return Finding(what, "bad", str(error), mend)


def _writable(state: Path) -> str:
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=state):
        return f"{state} can be written"


def _free(check: Callable[[str, int], None], host: str, port: int) -> str:
    check(host, port)
    return f"nobody listens on {host}"


def _taken(host: str, port: int) -> Finding:
    """Who listens there: a server of ours, which is well, or another program, beside which one serves elsewhere."""
    import httpx

    at = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    who = ""
    for scheme in ("http", "https"):
        try:
            with httpx.Client(verify=False, trust_env=False, timeout=_ANSWER_S) as client:
                where = httpx.URL(scheme=scheme, host=at, port=port, path="/livez")
                with client.stream("GET", where) as answer:
                    if answer.status_code == 200 and next(answer.iter_raw(_LIVE_BYTES), b"") == b'{"live":true}':
                        said = f"a Tessera server answers on {at} already; another one takes --port"
                        return Finding(f"port {port}", "good", said)
                    who = who or ascii(answer.headers.get("server", ""))[1:61].rstrip("'")
        except (httpx.HTTPError, httpx.InvalidURL):
            continue
    said = f"another program{f' ({who})' if who else ''} listens on {at}: a server wants another port"
    return Finding(f"port {port}", "warning", said, "tessera serve --port N")


def _named(engine: str, check: Callable[[], None]) -> str:
    check()
    return "auto: the fastest of those whose labels are right" if engine == "auto" else f"TESSERA_ENGINE={engine}"


def _served(folder: Path, settings: object) -> str:
    """What a server does before it says it is ready, with this bundle. Raises TesseraError."""
    from models.inference import AGREEMENT, self_test
    from service.repository.proving import Prover
    from service.repository.trust import TrustList
    from service.repository.verification import read
    from service.settings import Settings

    assert isinstance(settings, Settings)
    bundle = read(folder, TrustList(settings.trust))
    prover = Prover(settings)
    try:
        engine = prover.open(bundle)
        try:
            self_test(bundle, engine, AGREEMENT if engine.exact else 0.95)
            why = f": {engine.note}" if engine.note else ""
            trust = "trusted by its digest" if settings.trust else "no TESSERA_TRUST: any sound bundle is served"
            return f"{bundle.ref} on {engine.provider} by {engine.name}{why}; {trust}"
        finally:
            engine.close()
    finally:
        prover.close()
