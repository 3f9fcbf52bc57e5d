"""The state folder's database on a failing machine: damaged, full, locked, replaced. What was acknowledged is there."""

import asyncio
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.bundle import Bundle
from service.errors import NotKept
from service.repository import database
from service.repository.change_store import ChangeStore, Kept
from service.repository.cluster_changes import Said

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChangeStore]:
    store = ChangeStore(tmp_path)
    yield store
    store.close()


def say(store: ChangeStore, bundle: Bundle, cluster: int, name: str) -> None:
    asyncio.run(store.update(bundle, lambda kept, number: {**kept.record, (cluster, "name"): Said(name, number)}))


def names(store: ChangeStore, bundle: Bundle) -> dict[int, object]:
    record = asyncio.run(store.look(bundle.digest, Kept(), 5)).record
    return {cluster: said.value for (cluster, _), said in record.items()}


def reopened(folder: Path, bundle: Bundle) -> dict[int, object]:
    """What a server finds that starts now."""
    store = ChangeStore(folder)
    try:
        return names(store, bundle)
    finally:
        store.close()


def test_what_is_written_is_there_and_looked_at_once(store: ChangeStore, bundle: Bundle) -> None:
    say(store, bundle, 1, "grass")
    kept = asyncio.run(store.look(bundle.digest, Kept()))
    assert kept.record == {(1, "name"): Said("grass", kept.sequence)}
    assert asyncio.run(store.look(bundle.digest, kept)) is kept
    say(store, bundle, 2, "lake")
    later = asyncio.run(store.look(bundle.digest, kept))
    assert later.sequence > kept.sequence
    assert names(store, bundle) == {1: "grass", 2: "lake"}
    assert reopened(store.file.parent, bundle) == {1: "grass", 2: "lake"}


def test_the_file_alone_is_the_whole_state(store: ChangeStore, bundle: Bundle, tmp_path: Path) -> None:
    say(store, bundle, 1, "grass")
    assert [file.name for file in tmp_path.iterdir()] == ["state.sqlite3"]
    shutil.copytree(tmp_path, copy := tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    assert reopened(copy, bundle) == {1: "grass"}


def _header(content: bytearray) -> None:
    content[:100] = bytes(100)


def _garbage(content: bytearray) -> None:
    content[:] = random.Random(0).randbytes(len(content))


def _half(content: bytearray) -> None:
    del content[len(content) // 2 :]


def _payload(content: bytearray) -> None:
    content[content.rindex(b'"grass"') + 1] ^= 1


@pytest.mark.parametrize("spoil", [_header, _garbage, _half, _payload])
@pytest.mark.parametrize("running", [False, True])
def test_a_damaged_file_is_moved_aside_and_a_new_one_begins(
    bundle: Bundle,
    tmp_path: Path,
    spoil: Callable[[bytearray], None],
    running: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = ChangeStore(tmp_path)
    say(store, bundle, 1, "grass")
    say(store, bundle, 2, "lake")
    if not running:
        store.close()
        store = ChangeStore(tmp_path)
    content = bytearray(store.file.read_bytes())
    spoil(content)
    store.file.write_bytes(content)
    say(store, bundle, 3, "sky")
    assert names(store, bundle)[3] == "sky"
    if spoil is _payload and running:  # what it has read it need not read again, and writes once more
        assert names(store, bundle) == {1: "grass", 2: "lake", 3: "sky"}
        store.close()
        return
    if spoil is _payload:
        assert names(store, bundle) == {2: "lake", 3: "sky"}  # what can still be read is kept, what is not true is not
    assert (tmp_path / "state.sqlite3.damaged-1").read_bytes() == content
    assert "state.sqlite3 is damaged" in caplog.text
    assert "damaged-1" in caplog.text
    assert store.writable
    store.close()
    assert reopened(tmp_path, bundle)[3] == "sky"


@pytest.mark.parametrize("beside", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("content", [b"", b"garbage", bytes(5000), random.Random(1).randbytes(40_000)])
def test_a_damaged_journal_takes_nothing_along(bundle: Bundle, tmp_path: Path, beside: str, content: bytes) -> None:
    store = ChangeStore(tmp_path)
    say(store, bundle, 1, "grass")
    store.close()
    time.sleep(0.02)
    (tmp_path / f"state.sqlite3{beside}").write_bytes(content)
    store = ChangeStore(tmp_path)
    assert names(store, bundle) == {1: "grass"}
    say(store, bundle, 2, "lake")
    store.close()
    assert reopened(tmp_path, bundle) == {1: "grass", 2: "lake"}


def test_an_empty_file_begins_anew_and_says_so(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"")
    store = ChangeStore(tmp_path)
    say(store, bundle, 1, "grass")
    store.close()
    assert "state.sqlite3 is empty" in caplog.text
    assert reopened(tmp_path, bundle) == {1: "grass"}


def test_a_server_whose_file_another_one_moved_aside_goes_on_with_the_new_one(bundle: Bundle, tmp_path: Path) -> None:
    one, other = ChangeStore(tmp_path), ChangeStore(tmp_path)
    say(one, bundle, 1, "grass")
    assert names(other, bundle) == {1: "grass"}
    one.file.rename(tmp_path / "elsewhere")
    say(one, bundle, 2, "lake")
    say(other, bundle, 3, "sky")
    assert names(one, bundle) == names(other, bundle) == {2: "lake", 3: "sky"}
    one.close()
    other.close()


def test_a_file_of_a_newer_version_is_left_alone(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as newer:
        newer.execute("PRAGMA user_version = 99")
        newer.execute("CREATE TABLE other (x)")
    content = (tmp_path / "state.sqlite3").read_bytes()
    store = ChangeStore(tmp_path)
    assert names(store, bundle) == {}
    with pytest.raises(NotKept, match="newer version"):
        say(store, bundle, 1, "grass")
    store.close()
    assert (tmp_path / "state.sqlite3").read_bytes() == content
    assert "newer version" in caplog.text


@pytest.mark.parametrize("full", ["no pages", "no bytes"])
def test_a_full_disk_refuses_changes_and_nothing_else_until_there_is_room(
    store: ChangeStore, bundle: Bundle, full: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> None:
        store._thread.submit(store._disconnect).result()

    say(store, bundle, 1, "grass")
    long = "x" * 4000
    with monkeypatch.context() as patched:
        if full == "no pages":
            connect = database._connection

            def small(file: Path) -> sqlite3.Connection:
                connection = connect(file)
                connection.execute(f"PRAGMA max_page_count = {store.file.stat().st_size // 4096}")
                return connection

            patched.setattr(database, "_connection", small)
            again()
        else:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, most[1]))
        try:
            for _ in range(2):
                with pytest.raises(NotKept, match=r"full|disk I/O"):
                    say(store, bundle, 2, long)
                assert not store.writable
                assert names(store, bundle) == {1: "grass"}
        finally:
            if full == "no bytes":
                resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert caplog.text.count("cannot be written") == 1
    again()
    say(store, bundle, 2, long)
    assert store.writable
    assert names(store, bundle) == {1: "grass", 2: long}
    assert reopened(store.file.parent, bundle) == {1: "grass", 2: long}


def test_a_file_that_another_holds_is_waited_for_and_then_given_up(
    store: ChangeStore, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(store, bundle, 1, "grass")
    with closing(sqlite3.connect(store.file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(NotKept, match="another server holds it"):
            asyncio.run(store.look(bundle.digest, Kept()))
        with pytest.raises(NotKept, match="another server holds it"):
            asyncio.run(store.write(lambda connection: None, 0.2))
        assert time.monotonic() - began < 3
        assert not store.writable
        other.execute("ROLLBACK")
    say(store, bundle, 2, "lake")
    assert names(store, bundle) == {1: "grass", 2: "lake"}


def test_work_that_waited_too_long_is_never_done_later(
    store: ChangeStore, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_GRACE_S", 0.05)
    say(store, bundle, 1, "grass")

    def slow(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE store SET probes = 77")
        time.sleep(0.4)

    with pytest.raises(NotKept, match="does not answer"):
        asyncio.run(store.write(slow, 0.1))
    assert not store.writable
    ((probes,),) = asyncio.run(
        store.read(lambda connection: connection.execute("SELECT probes FROM store").fetchall(), 5)
    )
    assert probes == 0


def test_the_event_loop_goes_on_while_the_disk_is_slow(store: ChangeStore) -> None:
    async def work() -> int:
        write = asyncio.ensure_future(store.write(lambda connection: time.sleep(0.2)))
        turns = 0
        while not write.done():
            await asyncio.sleep(0.005)
            turns += 1
        await write
        return turns

    assert asyncio.run(work()) > 10


_WRITER = """
import asyncio, sys
from pathlib import Path
from models.bundle import Bundle
from service.repository.change_store import ChangeStore
from service.repository.cluster_changes import Said

async def work(bundle, store, cluster):
    for i in range(int(sys.argv[4])):
        await store.update(bundle, lambda kept, n: {**kept.record, (cluster, f"f{i}"): Said(i, n)})
        print(i, flush=True)
    store.close()

asyncio.run(work(Bundle.load(Path(sys.argv[1])), ChangeStore(Path(sys.argv[2])), int(sys.argv[3])))
"""


def writer(bundle: Bundle, state: Path, cluster: int, changes: int) -> subprocess.Popen[str]:
    """A process that says something new of a cluster again and again, and prints what was acknowledged."""
    arguments = [sys.executable, "-c", _WRITER, str(bundle.path), str(state), str(cluster), str(changes)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_at_any_moment_loses_no_acknowledged_change(bundle: Bundle, tmp_path: Path) -> None:
    moment = random.Random(0)
    for kill in range(3):
        with writer(bundle, tmp_path, kill, 10**6) as running:
            assert running.stdout is not None
            assert running.stdout.readline()
            time.sleep(moment.uniform(0, 0.1))
            running.kill()
            acknowledged = [0, *(int(line) for line in running.stdout if line.endswith("\n"))]
        store = ChangeStore(tmp_path)
        record = asyncio.run(store.look(bundle.digest, Kept(), 5)).record
        store.close()
        for i in acknowledged:
            assert record[kill, f"f{i}"].value == i
        assert len(acknowledged) <= sum(cluster == kill for cluster, _ in record) <= len(acknowledged) + 1


def test_processes_that_begin_at_once_lose_none_of_each_others_changes(bundle: Bundle, tmp_path: Path) -> None:
    state = tmp_path / "state"  # which none of them finds there
    writers = [writer(bundle, state, cluster, 20) for cluster in range(2)]
    assert [one.communicate(timeout=60)[0].split()[-1] for one in writers] == ["19", "19"]
    store = ChangeStore(state)
    record = asyncio.run(store.look(bundle.digest, Kept(), 5)).record
    store.close()
    assert {key: said.value for key, said in record.items()} == {(c, f"f{i}"): i for c in range(2) for i in range(20)}
    assert len({said.sequence for said in record.values()}) == 40
