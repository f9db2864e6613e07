"""What stands in a lock's place, and a disk that has no room for its few bytes."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from fieldwise.features.errors import ArtifactError, known_error
from fieldwise.features.store.lock import locked


def test_what_is_no_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "directory").mkdir()
    for name in ("link", "directory"):
        told = rf"{name}: expected a lock of ours, found a {name}\. Remove it\."
        with pytest.raises(ArtifactError, match=told), locked(tmp_path / name, "here", expected="one", fix="Wait."):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_may_not_grow_is_named(tmp_path: Path) -> None:
    """As under `ulimit -f`, and as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with (
            pytest.raises(OSError, match="File too large") as failed,
            locked(tmp_path / "lock", "here", expected="one", fix="Wait."),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.errno == errno.EFBIG
    found = known_error(failed.value)
    assert found is not None
    assert found.exit_code == 1
    assert str(found).startswith(f"{tmp_path}/lock: expected room to write, found File too large. Raise the limit")
