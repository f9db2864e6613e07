"""A directory of a store and its copy on this machine; copies of single files; locks without a kernel."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError, ConfigError
from fieldwise.features.store import lock
from fieldwise.features.store.copies import IDLE_SECONDS, Copies, OtherBytesError
from fieldwise.features.store.lock import locked
from fieldwise.features.store.mirror import Mirror


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


def test_what_is_pushed_is_there_for_the_next_one(place: str, tmp_path: Path) -> None:
    with Mirror(f"{place}/fm-1", str(tmp_path / "here")) as here:
        (here.local / "checkpoints").mkdir()
        (here.local / "checkpoints" / "state-1").write_bytes(b"1")
        (here.local / "checkpoints" / ".draft.tmp").write_bytes(b"half")
        here.push()
        (here.local / "checkpoints" / "state-1").unlink()
        (here.local / "checkpoints" / "state-2").write_bytes(b"2")
        here.push()
        assert here.told(f"kept in {here.local}/x") == f"kept in {place}/fm-1/x"
        unpushed = here.local / "lost"
        unpushed.write_bytes(b"")
    assert not here.local.exists()
    with Mirror(f"{place}/fm-1", str(tmp_path / "there")) as there:
        assert [path.name for path in sorted(there.local.rglob("*")) if path.is_file()] == ["state-2", "lost"]


def test_a_local_directory_is_worked_in_itself(tmp_path: Path) -> None:
    with Mirror(str(tmp_path / "fm-1")) as mirror:
        assert mirror.local == tmp_path / "fm-1"
        assert mirror.told("as it is") == "as it is"


def test_a_bundle_is_whole_whenever_its_description_is_there(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mirror(f"{place}/fm-1", str(tmp_path / "here")) as mirror:
        bundle = mirror.local / "bundle"
        bundle.mkdir()
        for text in (b"old", b"new one"):
            (bundle / "weights").write_bytes(text)
            (bundle / "model.json").write_bytes(text)
            seen = []
            fs = type(fsspec.filesystem("memory"))
            plain = fs.pipe_file

            def watched(self, path, *arguments, plain=plain, seen=seen, **more):
                seen.append((path.rpartition("/")[2], store.exists(f"{place}/fm-1/bundle/model.json")))
                return plain(self, path, *arguments, **more)

            monkeypatch.setattr(fs, "pipe_file", watched)
            mirror.push()
            monkeypatch.setattr(fs, "pipe_file", plain)
            assert seen == [("weights", False), ("model.json", False)]


def test_a_store_that_fails_is_said_and_asked_again(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise fsspec.exceptions.FSTimeoutError("no answer")

    with Mirror(f"{place}/fm-1", str(tmp_path)) as mirror:
        (mirror.local / "a").write_bytes(b"1")
        with monkeypatch.context() as failing:
            failing.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
            mirror.push()
        assert store.list_sizes(f"{place}/fm-1") == {}
    assert store.list_sizes(f"{place}/fm-1") == {"a": 1}


def test_a_key_that_leads_elsewhere_is_refused(place: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.store[f"/{tmp_path.name}/fm-1/../../evil"] = fs.store.get("x") or type("F", (), {"size": 1})()
    name = f"/{tmp_path.name}/fm-1/../../evil"
    found = type(fs).find
    try:
        type(fs).find = lambda self, path, **_: [name]  # type: ignore[method-assign]
        with pytest.raises(ArtifactError, match="a file below"), Mirror(f"{place}/fm-1", str(tmp_path)):
            pass
    finally:
        type(fs).find = found  # type: ignore[method-assign]


def test_one_at_a_time_on_a_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.random, "uniform", lambda *_: 0.001)
    at_it, most, done = [0], [0], []

    def work() -> None:
        for _ in range(5):
            with locked(f"{place}/x.lock", "x", expected="one", fix="Wait."):
                at_it[0] += 1
                most[0] = max(most[0], at_it[0])
                at_it[0] -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(done), store.list_sizes(place)) == ([1], 3, {})
    with (
        locked(f"{place}/x.lock", "x", expected="one", fix="Wait."),
        pytest.raises(BusyError, match=r"found the lease memory://.*x\.lock\.[0-9a-f]{16}\. Wait\. .*remove that file"),
        locked(f"{place}/x.lock", "x", expected="one", fix="Wait.", patience=0),
    ):
        pass


def test_a_dead_holder_is_passed_over(place: str) -> None:
    store.write_atomic(f"{place}/x.lock.1", b'{"host": "' + lock_host() + b'", "pid": 999999999, "start": 1}')
    with locked(f"{place}/x.lock", "x", expected="one", fix="Wait.", patience=0):
        assert "x.lock.1" not in store.list_sizes(place)


def lock_host() -> bytes:
    from fieldwise.features.process import machine

    return machine().encode()


def test_copies_are_checked_shared_and_bounded(place: str, tmp_path: Path) -> None:
    digests = {}
    for name in "abc":
        content = name.encode() * 1000
        store.write_atomic(f"{place}/{name}", content)
        digests[name] = hashlib.sha256(content).hexdigest()
    copies = Copies(str(tmp_path / "own"), room=2000)
    first = copies.get(f"{place}/a", digests["a"])
    assert (first.stays, first.path.read_bytes()) == (True, b"a" * 1000)
    store.remove(f"{place}/a")
    assert Copies(str(tmp_path / "own")).get(f"{place}/a", digests["a"]) == first  # of another process
    assert copies.get(f"{place}/b", digests["b"]).stays
    third = copies.get(f"{place}/c", digests["c"])
    assert not third.stays  # no room, and nothing is idle
    third.path.unlink()
    os.utime(first.path, (0, os.stat(first.path).st_mtime - 2 * IDLE_SECONDS))
    assert copies.get(f"{place}/c", digests["c"]).stays
    assert copies.find(digests["a"]) is None
    (tmp_path / "own/files" / digests["b"]).write_bytes(b"damage")
    again = Copies(str(tmp_path / "own"), room=2000)
    assert again.get(f"{place}/b", digests["b"]).path.read_bytes() == b"b" * 1000
    with pytest.raises(OtherBytesError, match=digests["c"]):
        again.get(f"{place}/c", digests["a"])
    with pytest.raises(FileNotFoundError):
        again.get(f"{place}/none", digests["a"])
    assert sorted(path.name for path in (tmp_path / "own/files").iterdir()) == sorted([digests["b"], digests["c"]])


def test_others_may_not_write_into_the_scratch(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match=r"training\.scratch: expected a directory of one's own"):
        Copies(str(tmp_path / "open")).find("0" * 64)


@pytest.mark.parametrize("replace", [False, True])
def test_what_was_taken_away_meanwhile_is_not_published(
    place: str, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, path = f"{place}/day/data-1", f"{place}/day/manifest.json"
    store.write_atomic(f"{content}/part", b"x")
    if replace:
        store.write_atomic(path, b"former")
    write = "write_atomic" if replace else "create_exclusive"
    plain = getattr(store, write)

    def late(where: str, data: bytes) -> None:
        if where == path:
            monkeypatch.setattr(store, write, plain)
            store.move_aside(content, "dead-1")
        plain(where, data)

    monkeypatch.setattr(store, write, late)
    with pytest.raises(FileNotFoundError):
        store.publish(path, b"mine", content=content, replace=replace)
    assert (store.read_bytes(path) if replace else store.exists(path)) == (b"former" if replace else False)
    with pytest.raises(FileNotFoundError):
        store.publish(path, b"mine", content=content, replace=replace)
    store.move_back(content, content)
    store.publish(path, b"mine", content=content, replace=replace)
    assert store.read_bytes(path) == b"mine"


def test_a_snapshot_goes_out_of_sight_and_comes_back(place: str) -> None:
    day = f"{place}/day"
    store.write_atomic(f"{day}/manifest.json", b"m")
    store.write_atomic(f"{day}/data-1/part", b"x")
    assert store.move_aside(day, "retired-1") == day
    assert store.is_aside(day)
    assert not store.exists(f"{day}/manifest.json")
    store.move_back(day, day)
    assert (store.is_aside(day), store.read_bytes(f"{day}/manifest.json")) == (False, b"m")
    store.move_aside(day, "retired-1")
    store.remove_tree(day)
    assert store.list_sizes(day) == {}
    with pytest.raises(FileNotFoundError):
        store.move_aside(day, "retired-1")
