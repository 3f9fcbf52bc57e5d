"""The test pictures inside other projects' source packages, decoded by us and shown by ImageMagick and GDAL.

    python -m benchmarks.peer_files [PART …]        PART: only files whose path holds it

Downloads the packages by name, without building them, into runs/peer-files. Each file is decoded in a process that may
be ended: nothing but ImageError and its kin may come out, nothing may take 5 s, and what is shown must get the labels,
by the embedded model, that it gets as another reader shows it, within 0.97. What differs for a reason stands in
EXCEPTIONS.
Needs `convert` (ImageMagick 6 or 7) and rasterio. Exit status 1 where a line is BAD.
"""

import fnmatch
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any

import numpy as np
from PIL import Image, ImageCms

PACKAGES = ("pillow", "imagecodecs", "pydicom", "scikit-image", "pillow-heif")
FOLDER = Path("runs/peer-files")
NOT_PICTURES = re.compile(
    r"\.(py|pyi|pyx|pxd|c|h|cpp|hpp|cc|hh|md|rst|txt|toml|cfg|ini|in|build|json|yml|yaml|html|css|js|ttf|otf|pcf|bdf|pil"
    r"|sh|ps1|cmake|lock|spec|icc|icm|csv|xml|bat|diff|patch|pub|npy|npz|tpl|template|typed|woff2|dump|fli|flc|ipynb)$"
)
SLOWEST_S, LEAST = 5.0, 0.97
MEMORY_BYTES = 4 * 2**30  # of the process that decodes: more is a fault

# Files that are not shown as others show them: what they are, and why.
_ALPHA = "ImageMagick leaves the transparency out"
_WINDOW = "ImageMagick knows no window, no signs and no padding of DICOM"
_GAMMA = "its gAMA says linear light, in which ImageMagick mixes it with white; mixed as sRGB here, as in browsers"
EXCEPTIONS = {
    "pydicom/*/693_J2KI.dcm": _WINDOW,
    "pydicom/*/J2K_pixelrep_mismatch.dcm": _WINDOW,
    "pydicom/*/JPEG2000.dcm": _WINDOW,
    "pydicom/*/MR_small_jp2klossless.dcm": _WINDOW,
    "pydicom/*/SC_jpeg_no_color_transform.dcm": "RGB inside JPEG, which ImageMagick takes for YCbCr; pydicom's pixels",
    "pydicom/*/SC_rgb_jpeg.dcm": "RGB inside JPEG, which ImageMagick takes for YCbCr; pydicom's pixels",
    "imagecodecs/*/rgb24.jp2": "its ICC profile is of a display with gamma 1.8, which the others leave out",
    "imagecodecs/*/ycbc.j2k": "YCbCr by its halved bands; ImageMagick shows it as RGB",
    "imagecodecs/*/rgb.tiled.jpeg.u2.tif": "12-bit JPEG in tiles, as tifffile has it; ImageMagick shows other colors",
    "imagecodecs/*/rgba.u1.strict_disabled.avif": _ALPHA,
    "pillow/*/avif/transparency.avif": _ALPHA,
    "pillow/*/avif/xmp_tags_orientation.avif": "its ICC profile, which ImageMagick's reader of AVIF leaves out",
    "pillow-heif/*/heif/LA_*": _ALPHA,
    "pillow-heif/*/heif/RGBA_*": _ALPHA,
    "pillow-heif/*/heif/L_*": "a smooth ramp of 128 pixels, of which a level's rounding moves .03 of the labels",
    "pillow-heif/*/heif_other/empty_icc.heic": "another enlargement of colors: 1.9 levels in the mean",
    "pillow-heif/*/heif_special/guitar_cw90.hif": "of limited range, which ImageMagick 6 shows without spreading it",
    "scikit-image/*/page.png": "its gray ICC profile has another curve than sRGB, which the others leave out",
    "pillow/*/bmp/b/badrle.bmp": "damaged on purpose: where the damage begins each reader goes on in its own way",
    "pillow/*/bmp/b/pal8badindex.bmp": "indices beyond its palette, which are black here",
    "pillow/*/bmp/q/pal8os2v2.bmp": "a palette of OS/2, which the others read with shifted colors",
    "pillow/*/mmap_error.bmp": "a palette, which GDAL leaves out; ImageMagick does not read it",
    "pillow/*/i_trns.png": "16 bits of which the lowest 8 are used: stretched here, nearly black elsewhere",
    "pillow/*/pil123p.png": _GAMMA,
    "pillow/*/pil123rgba.png": _GAMMA,
    "pillow/*/truncated_end_chunk.png": "GDAL shows noise; ImageMagick nothing",
    "pillow/*/tiff_gray_2_4_bpp/hopper?I*.tif": "white is zero, which the others do not invert below 8 bits",
    "pillow/*/hopper.Lab.tif": "CIELab of D50 by littleCMS: 2.5 levels in the mean from ImageMagick's",
    "pillow/*16bit_RGBa.tiff": "stretched, then shown on white; ImageMagick's is shown on white, then stretched",
}


def fetch() -> None:
    """The source packages, each in a folder of its own. Their build systems are not run: a stand-in names them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    stand_in = """
from pathlib import Path
class Backend:
    def get_requires_for_build_wheel(self, settings=None):
        return []
    def prepare_metadata_for_build_wheel(self, folder, settings=None):
        lines = Path("PKG-INFO").read_text("utf-8").splitlines()[:9]
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        target = Path(folder, f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info")
        target.mkdir()
        lines = ("Metadata-Version: 2.1", f"Name: {fields['Name']}", f"Version: {fields['Version']}", "")
        Path(target, "METADATA").write_text("\\n".join(lines))
        return target.name
    def build_wheel(self, *_, **__):
        raise SystemExit("nothing is built here")
__legacy__ = Backend()
get_requires_for_build_wheel = __legacy__.get_requires_for_build_wheel
prepare_metadata_for_build_wheel = __legacy__.prepare_metadata_for_build_wheel
build_wheel = __legacy__.build_wheel
"""
    for package in PACKAGES:
        if list((FOLDER / package).glob("*.tar.gz")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            for module in ("mesonpy.py", "setuptools/build_meta.py", "flit_core/buildapi.py"):
                Path(folder, module).parent.mkdir(exist_ok=True)
                Path(folder, module).write_text(stand_in)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command += ["--no-build-isolation", "--dest", str(FOLDER / package), package]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": folder})


def pictures() -> Iterator[Path]:
    """Every file in the packages that may be a picture, unpacked."""
    for package in PACKAGES:
        (archive,) = (FOLDER / package).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                inside = Path(*Path(member.name).parts[1:])
                if not member.isfile() or ".." in inside.parts or NOT_PICTURES.search(inside.name.lower()):
                    continue
                if not inside.suffix:
                    continue
                path = FOLDER / package / "files" / inside
                if not path.exists():
                    content = tar.extractfile(member)
                    assert content is not None
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
                yield path


def as_others_show_it(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """RGB uint8 [H, W, 3] by ImageMagick, with the profile and without, and by GDAL."""
    profile = FOLDER / "srgb.icc"
    if not profile.exists():
        profile.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    on_white = ["-coalesce"] if path.suffix == ".gif" else []
    on_white += ["-auto-orient", "-background", "white", "-alpha", "remove", "-alpha", "off"]
    for more in ([], ["-profile", str(profile)]):
        command = ["convert", "-quiet", f"{path}[0]", *on_white, *more, "-colorspace", "sRGB", "-depth", "8", "png24:-"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=30)
            with Image.open(io.BytesIO(done.stdout)) as image:
                yield "ImageMagick", np.asarray(image.convert("RGB"))
        except Exception:  # ImageMagick says nothing, or what Pillow does not read
            continue
    try:
        import rasterio

        with rasterio.open(path) as file:
            bands = file.read(list(range(1, min(file.count, 4) + 1)), masked=True)
            if file.count < 3:
                bands = bands[[0, 0, 0]]
            yield "GDAL", _full(np.moveaxis(bands[:3].filled(bands.max()), 0, -1))
    except Exception:  # GDAL's drivers raise what they meet
        return


def _full(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return samples
    low, high = float(samples.min()), float(samples.max())
    return np.rint((samples.astype(np.float32) - low) * 255 / max(high - low, 1e-9)).astype(np.uint8)


def stretched(rgb: np.ndarray) -> np.ndarray:
    """By the rule for deep samples."""
    low, high = np.percentile(rgb, (2, 98))
    return np.rint(((rgb - low) * 255 / max(high - low, 1e-9)).clip(0, 255)).astype(np.uint8)


def worker() -> None:
    """Paths on stdin, a line of JSON each on stdout."""
    import resource

    from models.bundle import Bundle
    from models.inference import segment
    from models.io.decode import decode
    from models.io.samples import ImageError
    from service.engines import open_engine
    from service.settings import Settings, embedded

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    bundle = Bundle.load(embedded()[0])
    encode = open_engine(bundle, Settings(engine="onnxruntime"))
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        answer: dict[str, Any] = {}
        began = time.perf_counter()
        try:
            shown = decode(path.read_bytes())
            answer["seconds"] = time.perf_counter() - began
            answer["status"], answer["size"], answer["warnings"] = "shown", shown.size, shown.warnings
            labels, best = segment(bundle, encode, shown.image), {}
            for who, theirs in as_others_show_it(path):
                if theirs.shape != shown.image.shape:
                    best.setdefault(f"{who} of {theirs.shape[1]}×{theirs.shape[0]}", 0.0)
                    continue
                for one in (theirs, stretched(theirs)):
                    agree = float((segment(bundle, encode, one) == labels).mean())
                    best[who] = max(best.get(who, 0.0), agree)
            answer["agree"] = best
        except ImageError as error:
            answer["status"], answer["says"] = type(error).__name__, str(error)
        except BaseException as error:
            answer["status"], answer["says"] = "FAULT", repr(error)
        answer.setdefault("seconds", time.perf_counter() - began)
        print(json.dumps(answer), flush=True)


def _started() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.peer_files", "--worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Decodes every file, prints a line each, and what was found at the end."""
    fetch()
    process, counts, bad = _started(), {}, 0
    for path in pictures():
        name = str(path.relative_to(FOLDER)).replace("files/", "", 1)
        if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
            continue
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        ready, _, _ = select([process.stdout], [], [], 120)
        line = process.stdout.readline() if ready else ""
        if not line:
            process.kill()
            process = _started()
            line = json.dumps({"status": "FAULT", "says": "ended, or took longer than 120 s", "seconds": 120})
        answer = json.loads(line)
        agree = max(answer.get("agree", {}).values(), default=None)
        reason = next((why for pattern, why in EXCEPTIONS.items() if fnmatch.fnmatch(name, pattern)), None)
        wrong = answer["status"] == "FAULT" or answer["seconds"] > SLOWEST_S or (agree is not None and agree < LEAST)
        mark = "ok" if not wrong else "known" if reason else "BAD"
        bad += mark == "BAD"
        counts[answer["status"]] = counts.get(answer["status"], 0) + 1
        seen = f"{agree:.3f}" if agree is not None else "    -"
        told = answer.get("says") or answer.get("agree")
        print(f"{mark:5} {answer['seconds']:6.2f} s {seen} {name}  {told} {reason or ''}")
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; {bad} BAD")
    sys.exit(bad > 0)


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["--worker"] else main()
