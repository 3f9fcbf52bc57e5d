"""Checkpoints of strangers: every tensor is read, nothing is run, and what is no checkpoint is named."""

import argparse
import io
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.nets.checkpoints import inert_pickle
from models.nets.checkpoints.inert_pickle import PickleError
from models.nets.checkpoints.reader import ForeignCheckpointError, read_tensors

ZIP, CHAIN = True, False


class Unknown:
    """A class that a stranger's program has and we do not."""

    def __init__(self) -> None:
        self.secret = {"tensor": torch.ones(2)}


class Runs:
    """Its pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def saved(value: object, path: Path, zipped: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "matrix": torch.randn(3, 5, generator=generator),
        "slice": base[1:3, 2:],
        "transposed": base.t(),
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "number": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "empty": torch.empty(0, 3),
    }


@pytest.mark.parametrize("zipped", [ZIP, CHAIN])
def test_plain_files_are_read_as_torch_reads_them(zipped: bool, tmp_path: Path) -> None:
    path = saved(OrderedDict(tensors()), tmp_path / "w.pth", zipped)
    wanted = torch.load(path, weights_only=True)
    found = read_tensors(path)
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride()
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("zipped", [ZIP, CHAIN])
def test_what_is_no_tensor_is_left_and_tensors_are_found_in_any_depth(zipped: bool, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    circle: list[Any] = [torch.zeros(1)]
    circle.append(circle)
    whole = {
        "state_dict": network.state_dict(),
        "hyper_parameters": Unknown(),
        "args": argparse.Namespace(lr=0.1),
        "callbacks": {Unknown: {"best": torch.tensor(1.0)}},
        "optimizer": {"state": defaultdict(dict, {0: {"step": 1, "mean": torch.ones(2)}})},
        "numbers": [np.float64(3), np.zeros(3), {1, 2}, complex(1, 2), slice(3), b"x", 2**80, 0.5],
        "parameter": nn.Parameter(torch.ones(3)),
        "circle": circle,
        "epoch": 3,
    }
    found = read_tensors(saved(whole, tmp_path / "w.ckpt", zipped))
    assert set(found) == {
        *(f"state_dict.{key}" for key in network.state_dict()), "optimizer.state.0.mean", "parameter", "circle.0",
    }  # fmt: skip
    assert torch.equal(found["state_dict.0.weight"], network[0].weight)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_since_python_2_is_understood(protocol: int, tmp_path: Path) -> None:
    value = {"a": torch.ones(2), "b": [Unknown(), frozenset([1]), bytearray(b"x"), "ä" * 300], "c": (1, 2, 3, 4)}
    torch.save(value, tmp_path / "w.pth", pickle_protocol=protocol)
    assert torch.equal(read_tensors(tmp_path / "w.pth")["a"], torch.ones(2))


def test_other_files_with_tensors(tmp_path: Path) -> None:
    codebook = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "modular.npy", codebook)
    assert torch.equal(read_tensors(tmp_path / "modular.npy")[""], torch.from_numpy(codebook))
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert set(read_tensors(tmp_path / "w.safetensors")) == {"a"}
    assert read_tensors(saved(torch.ones(3), tmp_path / "bare.pth", ZIP))[""].shape == (3,)


def attacks(mark: Path) -> dict[str, bytes]:
    """Pickles that would write the file `mark`, or put code where something later calls it, if anything ran them."""
    command = f"echo run > {mark}".encode()
    write = f"__import__('pathlib').Path({str(mark)!r}).write_text('run')".encode()
    chain = (  # getattr(__import__("os"), "system")(command)
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'" + command + b"'\ntR."
    )
    return {
        "posix system": b"cposix\nsystem\n(S'" + command + b"'\ntR.",
        "os system, instance": b"(S'" + command + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + command + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\n(S'" + command + b"'\nt\x81.",
        "newobj with keywords": b"\x80\x04cos\nsystem\n(S'" + command + b"'\nt}\x92.",
        "eval": b'c__builtin__\neval\n(S"' + write + b'"\ntR.',
        "exec, protocol 4": b'\x80\x04\x8c\x08builtins\x8c\x04exec\x93(S"' + write + b'"\ntR.',
        "getattr chain": chain,
        "dotted name": b"\x80\x04\x8c\x05torch\x8c\x0e_utils.os.exec\x93)R.",
        "set state": b"ccollections\nOrderedDict\n)R}S'__setstate__'\ncposix\nsystem\nsb(S'" + command + b"'\ntb.",
        "state of a known function": b"ctorch._utils\n_rebuild_tensor\n(N}S'__code__'\nNstb.",
        "attributes of a class": b"ccollections\nOrderedDict\n(N}S'__call__'\ncposix\nsystem\nstb.",
        "extension": b"\x80\x02\x82\x01)R.",
        "subclass around a call": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'" + command + b"'\ntNtR.",
        "python's own": pickle.dumps(Runs(eval, write.decode())),
    }


def archive_of(pickled: bytes, path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in parts.items():
            archive.writestr(f"archive/data/{name}", data)
    return path


@pytest.mark.parametrize("attack", attacks(Path("x")))
def test_malicious_pickles_do_nothing(attack: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickled = attacks(mark)[attack]
    loaded = inert_pickle.load(io.BytesIO(pickled))
    assert loaded.value == {} or isinstance(loaded.value, inert_pickle.Inert | inert_pickle.Name)
    with pytest.raises(ForeignCheckpointError, match="no tensors"):
        read_tensors(archive_of(pickled, tmp_path / "w.pth"))
    assert not mark.exists()


def test_the_same_attack_is_real(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(attacks(mark)["posix system"])  # what the test above would look like if something ran
    assert mark.exists()


@pytest.mark.parametrize("zipped", [ZIP, CHAIN])
def test_a_bomb_beside_tensors_stays_where_it_is(zipped: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bomb = Runs(eval, f"__import__('pathlib').Path({str(mark)!r}).write_text('run')")
    found = read_tensors(saved({"state_dict": {"a": torch.ones(2)}, "x": bomb}, tmp_path / "w.pth", zipped))
    assert set(found) == {"state_dict.a"}
    assert not mark.exists()


def declared(size: str, stride: str, *, offset: str = "I0\n", count: str = "I4\n", kind: str = "FloatStorage") -> bytes:
    """The pickle of one tensor over a storage of four numbers, with parts of it to choose."""
    storage = f"(S'storage'\nctorch\n{kind}\nS'0'\nS'cpu'\n{count}tQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{size}{stride}I00\nNtR.".encode()


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (declared("(I5\nt", "(I1\nt"), "5 elements, where 4"),
        (declared("(I2\nt", "(I4\nt"), "2 elements, where 4"),
        (declared("(I1\nt", "(I1\nt", offset="I4\n"), "where 4"),
        (declared("(I1000000\nI1000000\nt", "(I0\nI0\nt"), "where 4 are stored"),
        (declared("(I-1\nt", "(I1\nt"), "no list of numbers"),
        (declared("(I1\nt", "(I-1\nt"), "no list of numbers"),
        (declared("(I1\nt", "(I1\nI1\nt"), "no list of numbers"),
        (declared("(S'x'\nt", "(I1\nt"), "no list of numbers"),
        (declared("(" + "I1\n" * 65 + "t", "(" + "I1\n" * 65 + "t"), "65 dimensions"),
        (declared("I4\n", "I1\n"), "as none can be"),
        (declared("(I1\nt", "(I1\nt", count="I-4\n"), "two ways"),
        (declared("(I1\nt", "(I1\nt", count="L1000000000000L\n"), "of 4000000000000 bytes"),
        (b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\n(S'v'\nI3\nI2\nttQ.", "lies outside"),
        (b"(S'a'\nNd", "not a whole pickle"),
        (b"(S'a'\nd.", "a key without a value"),
        (b"tR.", "not a whole pickle"),
        (b"g7\n.", "not a whole pickle"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x86.", "too little on the stack"),
        (b"Nb.", "too little on the stack"),
        (b"", "not a whole pickle"),
        (b"\xff\xff", "not a whole pickle"),
    ],
)
def test_what_no_tensor_can_be_is_refused(pickled: bytes, said: str, tmp_path: Path) -> None:
    path = archive_of(pickled, tmp_path / "w.pth", **{"0": bytes(16)})
    with pytest.raises(ForeignCheckpointError, match=said):
        read_tensors(path)


def test_sound_declarations_of_the_same_form_are_read(tmp_path: Path) -> None:
    numbers = np.arange(4, dtype="<f4").tobytes()
    path = archive_of(declared("(I2\nI2\nt", "(I1\nI2\nt"), tmp_path / "w.pth", **{"0": numbers})
    assert read_tensors(path)[""].tolist() == [[0, 2], [1, 3]]
    unknown = archive_of(declared("(I1\nt", "(I1\nt", kind="QInt8Storage"), tmp_path / "q.pth", **{"0": numbers})
    with pytest.raises(ForeignCheckpointError, match="no tensors"):
        read_tensors(unknown)


def test_a_deep_nest_of_containers_ends(tmp_path: Path) -> None:
    depth = 50_000
    pickled = b"(" * depth + b"t" * depth + b"."
    with pytest.raises(ForeignCheckpointError, match="no tensors"):
        read_tensors(archive_of(pickled, tmp_path / "w.pth"))
    with pytest.raises(PickleError):
        inert_pickle.load(io.BytesIO(b"(" * depth))


@pytest.mark.parametrize("zipped", [ZIP, CHAIN])
def test_a_file_cut_short_anywhere_is_refused(zipped: bool, tmp_path: Path) -> None:
    whole = saved(tensors(), tmp_path / "w.pth", zipped).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 60)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ForeignCheckpointError, match=r"cut\.pth"):
            read_tensors(tmp_path / "cut.pth")


@pytest.mark.parametrize("zipped", [ZIP, CHAIN])
def test_a_file_with_any_byte_changed_is_read_or_refused(zipped: bool, tmp_path: Path) -> None:
    whole = saved({"a": torch.ones(2), "b": torch.zeros(2, 2)}, tmp_path / "w.pth", zipped).read_bytes()
    for at in range(0, len(whole), 7):
        (tmp_path / "w.pth").write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            read_tensors(tmp_path / "w.pth")
        except ForeignCheckpointError as error:
            assert "w.pth" in str(error)  # noqa: PT017  # either way is right, another error is not


def test_files_that_are_something_else_are_called_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for content, said in [
        (b"", "an empty one"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"hello", "neither torch's nor safetensors"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ForeignCheckpointError, match=said):
            read_tensors(path)
    with pytest.raises(ForeignCheckpointError, match="no such file"):
        read_tensors(tmp_path / "none.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ForeignCheckpointError, match=r"holds no data\.pkl"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N" * 10_000_000)
    with pytest.raises(ForeignCheckpointError, match="longer than the file"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N.")
        archive.comment = bytes(100)
    with pytest.raises(ForeignCheckpointError, match="compressed"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{part}", "N.")
    with pytest.raises(ForeignCheckpointError, match="TorchScript"):
        read_tensors(path)
    np.save(path.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ForeignCheckpointError, match="not a readable"):
        read_tensors(path.with_suffix(".npy"))


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = archive_of(declared("(I1\nt", "(I1\nt"), tmp_path / "w.pth", **{"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(ForeignCheckpointError, match="big-endian"):
        read_tensors(path)
