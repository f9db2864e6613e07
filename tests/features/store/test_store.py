from __future__ import annotations

import os
import threading

import fsspec
import pytest

from fieldwise.features import store
from fieldwise.features.errors import ConfigError


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """A fresh directory on the local file system, and on a store that is none."""
    if request.param == "local":
        yield str(tmp_path / "deep")
    else:
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()


def test_written_bytes_are_read_back_and_replaced(place):
    path = store.join(place, "a.json")
    store.write_atomic(path, b"one")
    store.write_atomic(path, b"two")
    assert store.read_bytes(path) == b"two"
    assert store.list_sizes(place) == {"a.json": 3}


def test_create_exclusive_leaves_the_standing_file_alone(place):
    path = store.join(place, "manifest.json")
    store.create_exclusive(path, b"first")
    with pytest.raises(FileExistsError):
        store.create_exclusive(path, b"second")
    assert store.read_bytes(path) == b"first"
    assert list(store.list_sizes(place)) == ["manifest.json"]


def test_one_of_many_threads_creates(tmp_path):
    path, won = str(tmp_path / "manifest.json"), []

    def race(number: int) -> None:
        try:
            store.create_exclusive(path, str(number).encode() * 1000)
            won.append(number)
        except FileExistsError:
            return

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_bytes(path) == str(won[0]).encode() * 1000


def test_removing_what_is_gone_is_quiet(place):
    store.write_atomic(store.join(place, "a"), b"x")
    store.remove(store.join(place, "b"))
    store.remove_tree(place)
    store.remove_tree(place)
    assert store.list_sizes(place) == {}
    assert not store.exists(place)


def test_write_new_never_overwrites_nor_revives_a_removed_directory(tmp_path):
    path = str(tmp_path / "part")
    store.write_new(path, b"x")
    with pytest.raises(FileExistsError):
        store.write_new(path, b"y")
    with pytest.raises(FileNotFoundError):  # a straggler of a dead job whose directory was cleaned
        store.write_new(str(tmp_path / "gone" / "part"), b"x")


def test_stamp_tells_replaced_bytes(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"abc")
    before = store.stamp(str(path))
    os.utime(path, ns=(1, 1))
    assert store.stamp(str(path)) != before


@pytest.mark.parametrize("way", ["file", "file/below", "/proc/nope"])
def test_where_no_directory_can_be_made_is_for_the_user_to_mend(tmp_path, way):
    (tmp_path / "file").touch()
    place = str(tmp_path / way)
    with pytest.raises(
        ConfigError, match=r"expected a directory, or a place to make one, found .*Set another workspace"
    ):
        store.make_dir(place)
    with pytest.raises(ConfigError):
        store.write_atomic(f"{place}/x", b"")


def test_places_that_keep_nothing(tmp_path):
    (tmp_path / "file").touch()
    assert (
        store.unfit(str(tmp_path / "not/yet")) is store.unfit(f"file://{tmp_path}") is store.unfit("s3://b/c") is None
    )
    for place in (f"{tmp_path}/file", f"{tmp_path}/file/below", f"file://{tmp_path}/file/x"):
        assert store.unfit(place) == f"{tmp_path}/file, which is no directory"
    assert store.unfit("memory://x") == "memory, which each process has for itself"
    assert "web address" in store.unfit("https://host/x")
