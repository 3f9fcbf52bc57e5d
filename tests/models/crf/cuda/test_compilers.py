"""The kernels meet CUDA's own compilers, for a Hopper GPU, where these are installed. No GPU is needed for that."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.crf.cuda import available, open_device
from models.crf.cuda.cupy_device import available as ask
from models.crf.cuda.device import options, source

CUPY_ADDS = ("-ftz=true", "-arch=sm_90")


def nvrtc() -> ctypes.CDLL | None:
    """The compiler that cupy uses, from its wheel."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in sorted(Path(folder).rglob("libnvrtc.so.*")):
            for part in path.parent.glob("libnvrtc-builtins.so.*"):  # it looks for it by name, not beside itself
                ctypes.CDLL(str(part))
            return ctypes.CDLL(str(path))
    return None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
def test_nvcc_compiles_every_kernel_without_spilling(tmp_path: Path) -> None:
    code = tmp_path / "kernels.cu"
    code.write_text(source())
    told = subprocess.run(
        ["nvcc", *options(1), *CUPY_ADDS, "-Werror", "all-warnings", "-Xptxas=-v", "-cubin", str(code)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    kernels = set(re.findall(r"__global__ void (\w+)", source()))
    assert set(re.findall(r"Compiling entry function '(\w+)' for 'sm_90'", told)) == kernels
    assert set(re.findall(r"(\d+) bytes spill stores", told)) == {"0"}


@pytest.mark.skipif(nvrtc() is None, reason="no NVRTC here: it comes with the `gpu` extra, and with torch for CUDA")
@pytest.mark.parametrize("blocks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nvrtc_compiles_with_the_options_that_cupy_passes(blocks: int) -> None:
    library = nvrtc()
    assert library is not None
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"kernels.cu", 0, None, None) == 0
    given = [option.encode() for option in (*options(blocks), *CUPY_ADDS)]
    failed = library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    assert library.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 10_000
    library.nvrtcDestroyProgram(ctypes.byref(program))


def test_without_cupy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    ask.cache_clear()
    try:
        assert "`gpu` extra" in (available() or "")
        with pytest.raises(RuntimeError, match="`gpu` extra"):
            open_device()
    finally:
        ask.cache_clear()
