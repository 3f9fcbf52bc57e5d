"""Decoders whose memory and time no header bounds, each run in a process of its own that has limits.

What a file of theirs asks for may be more memory or more time than its header says: where it is more than was granted,
that process ends, and this one does not.

Knows nothing of headers, of what is shown. The process costs about 0.15 s.
"""

import contextlib
import ctypes
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from models.io.samples import ImageError, ImageTooLarge
from models.types import Array

Codec = Callable[[bytes], Array]

HERE_BYTES = 8  # of a pixel, that this process holds for it beside what was granted: the answer, twice while it arrives
_CPU_S = 30  # seconds of one core, where less is not said
_FAILED, _DAMAGED, _TOO_LARGE = 1, 3, 4  # exit codes; the first is Python's own
_PDEATHSIG = 1  # of prctl
_log = logging.getLogger(__name__)


def decode(data: bytes, codec: str, granted_bytes: int, granted_s: int = _CPU_S, needed_bytes: int = 0) -> Array:
    """The samples that a codec (`JPEG XL`, `AVIF`, `HEIC`, `JPEG-LS`) makes of a file: read-only [H, W] or [H, W, C].

    granted_bytes, granted_s  of memory, the samples included, and of a core's time
    needed_bytes              that a sound file of this size may need
    Raises ImageTooLarge where it needs more memory or time, ImageError where it cannot read the file. Some codecs fail
    in the same way for both: where more may be needed than was granted, that is taken to be the reason.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from models.io.apart import main; main()"
    command = [sys.executable, "-c", code, codec, str(granted_bytes), str(granted_s), str(os.getpid())]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=10 + 2 * granted_s, env=environment)
    except subprocess.TimeoutExpired:
        raise ImageTooLarge(
            f"decoding this {codec} file takes longer than {10 + 2 * granted_s} s: send a JPEG or PNG"
        ) from None
    if done.returncode in (_DAMAGED, -signal.SIGSEGV):  # a codec that got no memory says so in no other way
        if needed_bytes > granted_bytes:
            raise ImageTooLarge(
                f"decoding a {codec} file of this size may take {needed_bytes / 1e6:.0f} MB, and did not succeed in"
                f" {granted_bytes / 1e6:.0f} MB, or it is damaged: send a smaller image, or a JPEG or PNG"
            )
        raise ImageError(
            f"the {codec} file is damaged or truncated, or larger than its header says; send it again, or as JPEG or"
            " PNG"
        )
    if done.returncode == _FAILED:  # of our own making, not of the file's
        _log.error("the process that decodes %s failed: %s", codec, done.stderr.decode(errors="replace")[-500:])
        raise ImageError(f"this {codec} file could not be decoded here; send it as JPEG or PNG")
    if done.returncode:  # told so, or ended by the system
        raise ImageTooLarge(
            f"decoding this {codec} file takes more than {granted_bytes / 1e6:.0f} MB or {granted_s} s of a core:"
            " send a smaller image, or a JPEG or PNG"
        )
    end = done.stdout.index(b"\n")
    kind, *shape = done.stdout[:end].decode().split()
    return np.frombuffer(done.stdout, kind, offset=end + 1).reshape([int(side) for side in shape])


def _jpegxl() -> Codec:
    from imagecodecs import jpegxl_decode

    return lambda data: np.asarray(jpegxl_decode(data, index=0, numthreads=1))


def _avif() -> Codec:
    from PIL import AvifImagePlugin, Image, ImageOps

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None

    def decode(data: bytes) -> Array:
        image = Image.open(io.BytesIO(data), formats=("AVIF",))
        image.info.pop("xmp", None)  # Pillow makes EXIF of the file's own turn; XMP has no say in it
        return np.asarray(ImageOps.exif_transpose(image))

    return decode


def _heic() -> Codec:
    from pi_heif import open_heif, options

    options.DECODE_THREADS = min(4, os.cpu_count() or 1)

    def decode(data: bytes) -> Array:
        file = open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        image = file[file.primary_index]
        return np.array(image)  # its memory ends with it

    return decode


def _jpeg_ls() -> Codec:
    from imagecodecs import jpegls_decode

    return lambda data: np.asarray(jpegls_decode(data))


_CODECS: dict[str, Callable[[], Codec]] = {"JPEG XL": _jpegxl, "AVIF": _avif, "HEIC": _heic, "JPEG-LS": _jpeg_ls}


def main() -> None:
    """The other process: codec, bytes, seconds and who asks as arguments, the file on stdin, the samples on stdout."""
    end_with(int(sys.argv[4]))
    codec, data = _CODECS[sys.argv[1]](), sys.stdin.buffer.read()
    limit(int(sys.argv[2]), int(sys.argv[3]))  # what loading the codec took is not counted
    try:
        samples = np.ascontiguousarray(codec(data))
    except MemoryError:
        sys.exit(_TOO_LARGE)
    except Exception:  # the codecs raise what their parsers meet
        sys.exit(_DAMAGED)
    sys.stdout.buffer.write(f"{samples.dtype.str} {' '.join(map(str, samples.shape))}\n".encode())
    sys.stdout.buffer.write(samples.data)


def end_with(parent: int) -> None:
    """Has the system end this process when the one with this id is gone, however it ends (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(_FAILED)


def limit(granted_bytes: int, granted_s: int) -> None:
    """So much more address space and time of a core than this process has taken, where the system can."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + granted_s
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as pages:
            held = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + granted_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
