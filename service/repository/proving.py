"""Proof that a bundle's network is harmless: it repeats the golden image in a process of its own, which has limits.

A network that allocates, spins or crashes ends that process, and this one goes on. What passed once is remembered, by
digest, processor and versions, and not proved again.

Knows nothing of what the process does (`proving_process.py`), or of how a network is served.
"""

import logging
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

from models import hardware
from models.bundle import Bundle, BundleError
from models.bundle_files import shown
from service import engines
from service.engines import Engine
from service.engines.base import version
from service.metrics import tessera_version
from service.remembered import Remembered
from service.repository.proving_process import ENVIRONMENT, NO_MEMORY, PROVED, REFUSED
from service.settings import Settings

log = logging.getLogger("tessera")

# The process gives way to whatever is served: where every core is busy it gets a tenth of one. What hangs without
# using its time is therefore ended later than what spins.
_NICE = 10
_PATIENCE = 2
_FILE_COPIES = 4  # of the network's bytes: read, parsed, laid out, and once more while that is done
_TIME_IS_UP = getattr(signal, "SIGXCPU", 24)
_PROCESS = "service.repository.proving_process"
_LIBRARIES = ("onnx", "onnxruntime", "openvino")


class Prover:
    """Proves bundles, one process for each that is not known yet. `close` ends those that run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = Remembered(_file(settings), "the proof of a bundle is not remembered, it will be made again")
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, bundle: Bundle) -> Engine:
        """The engine that the settings name, of a network that is proved. Raises BundleError, EngineError."""
        self.prove(bundle)
        return engines.open_engine(bundle, self._settings)

    def prove(self, bundle: Bundle) -> None:
        """Raises BundleError where the network breaks a rule, the limits, or its process."""
        key = _key(bundle)
        if self._known.get(key):
            return
        said = self._run(bundle)
        if said:
            raise BundleError(f"{bundle.ref}: {said}")
        self._known.put(key, {"bundle": bundle.ref})

    def close(self) -> None:
        """Ends what runs; nothing is proved any more."""
        with self._lock:
            self._closed.set()
            for process in self._running:
                process.kill()

    def _run(self, bundle: Bundle) -> str | None:
        """What is wrong with a bundle; None: nothing."""
        seconds, patience = self._settings.proof_s, 10 + _PATIENCE * self._settings.proof_s
        granted = self._settings.proof_bytes + _FILE_COPIES * bundle.encoder_path.stat().st_size
        script = (
            f"import gc, os, sys; gc.disable(); getattr(os, 'nice', id)({_NICE}); sys.path[:] = {sys.path!r};"
            f" from {_PROCESS} import main; main()"
        )
        command = [sys.executable, "-c", script, str(bundle.path.resolve()), bundle.digest, str(granted), str(seconds)]
        with self._lock:
            if self._closed.is_set():
                return "the server stops"
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, **ENVIRONMENT},
            )
            self._running.add(process)
        try:
            verdict, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"its network has not repeated the golden image within {patience} s (TESSERA_PROOF_S={seconds})"
        finally:
            with self._lock:
                self._running.discard(process)
        ended = process.returncode
        last = verdict.rpartition("\n")[2]  # a library may have printed before
        if ended == 0 and last == PROVED:
            return None
        if ended == REFUSED:
            return shown(last, 400).removeprefix(f"{bundle.ref}: ")
        if ended == NO_MEMORY:
            return (
                f"its network takes more memory than the {granted / 2**20:.0f} MB granted to prove it"
                f" (TESSERA_PROOF_BYTES={self._settings.proof_bytes})"
            )
        if ended == -_TIME_IS_UP:
            return f"its network takes longer than {seconds} s of a core for the golden image (TESSERA_PROOF_S)"
        if self._closed.is_set():
            return "the server stops"
        log.error("%s: the process that proves it ended with %s: %s", bundle.ref, ended, errors[-1000:])
        return f"its network ended the process that was to prove it (exit status {ended})"


def _file(settings: Settings) -> Path:
    return settings.state / "proofs.json"


def _key(bundle: Bundle) -> str:
    """What a proof holds for."""
    versions = [f"tessera {tessera_version()}", f"python {platform.python_version()}"]
    return "; ".join([bundle.digest, hardware.processor(), *versions, *filter(None, map(version, _LIBRARIES))])
