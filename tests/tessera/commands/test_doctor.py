"""`tessera doctor`: what it finds, and when it says that serving does not work."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.extras import brings
from tessera.commands import doctor
from tests.tessera.client.scripted import scripted

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TESSERA_THREADS", "1")


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tessera doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, dict[str, str]]:
    code = ask(monkeypatch, "--json", *arguments)
    document = json.loads(capsys.readouterr().out)
    assert document["serves"] == (code == 0)
    return {finding["what"]: finding for finding in document["findings"]}


def test_a_bundle_is_tried_as_a_server_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> None:
    port = str(free_port())
    findings = found(monkeypatch, capsys, "--bundle", str(tiny_bundle), "--port", port)
    assert all(finding["state"] != "bad" for finding in findings.values())
    assert findings["bundle tiny"]["said"].startswith("tiny@")
    assert "on cpu by " in findings["bundle tiny"]["said"]
    assert "onnxruntime" in findings["engines"]["said"]
    assert "cores" in findings["processor"]["said"]
    assert ask(monkeypatch, "--bundle", str(tiny_bundle), "--port", port) == 0
    assert "serving works here" in capsys.readouterr().out


def test_what_stands_in_the_way_is_named_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESSERA_TRUST", str(tmp_path / "trust"))
    (tmp_path / "trust").write_text("0" * 64 + "  another\n")
    monkeypatch.setenv("TESSERA_CANARY", str(tiny_bundle.parent / "absent"))
    assert "absent" in found(monkeypatch, capsys, "--bundle", str(tiny_bundle))["settings"]["said"]
    monkeypatch.delenv("TESSERA_CANARY")
    findings = found(monkeypatch, capsys, "--bundle", str(tiny_bundle), "--host", "192.0.2.1")
    assert findings["port 8000"]["state"] == "bad"
    assert "is not in trust" in findings["bundle tiny"]["said"]
    monkeypatch.setenv("TESSERA_WORKRES", "3")
    assert "did you mean" in found(monkeypatch, capsys)["settings"]["said"]


def test_a_port_of_a_server_of_ours_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Path, url: str
) -> None:
    port = url.rpartition(":")[2]
    findings = found(monkeypatch, capsys, "--bundle", str(tiny_bundle), "--port", port)
    assert findings[f"port {port}"]["state"] == "good"
    assert "a Tessera server answers on 127.0.0.1" in findings[f"port {port}"]["said"]
    assert all(finding["state"] != "bad" for finding in findings.values())


@pytest.mark.parametrize(
    ("says", "name"),
    [
        (b"HTTP/1.1 200 OK\r\nserver: Shop/2\r\ncontent-length: 2\r\n\r\n{}", "(Shop/2)"),
        (b"220 mail\r\n", "another program listens"),
    ],
)
def test_a_port_of_another_program_is_a_warning(monkeypatch: pytest.MonkeyPatch, says: bytes, name: str) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_S", 0.2)
    with scripted([says, says]) as other:
        port = int(other.url.rpartition(":")[2])
        finding = doctor._taken("127.0.0.1", port)
    assert (finding.state, finding.mend) == ("warning", "tessera serve --port N")
    assert name in finding.said
    assert doctor.serves([finding])


def test_missing_extras_have_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None if name in ("zarr", "onnxruntime") else there(name))
    findings = {finding.what: finding for finding in doctor._extras()}
    assert findings["extra zarr"].state == "absent"
    assert findings["extra zarr"].mend == brings("zarr")
    assert findings["extra cpu"].state == "bad"
    assert not doctor.serves(list(findings.values()))
    assert brings("zarr") in doctor.told(list(findings.values()))


def test_it_says_what_is_missing_where_nothing_is_installed() -> None:
    code = "import sys; sys.argv = ['tessera', 'doctor']; from tessera.cli import main; main()"
    bare = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert bare.returncode == 1, bare.stderr
    assert "not installed: numpy, PIL" in bare.stdout
    assert brings("") in bare.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
