"""Records that a workspace keeps for its own later commands: JSON objects that tell themselves whether they are whole.

A record holds its own SHA-256 under ``seal``: what a disk, a broken copy or an editor has changed is found when it is
read, not where a key is missed. Records of earlier versions have none, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.store import bounded

SEAL = "seal"


def write_record(path: str, record: dict[str, Any]) -> None:
    """Create or replace a record, whole or not at all."""
    store.write_atomic(path, sealed(record))


def sealed(record: dict[str, Any]) -> bytes:
    """A record's bytes."""
    return (json.dumps({**record, SEAL: digest_of(record)}, indent=1, sort_keys=True) + "\n").encode()


def read_record(path: str, what: str, fix: str, newer: Collection[str] = ()) -> dict[str, Any] | None:
    """A record without its seal; None where there is no file.

    Args:
        newer: keys that no version wrote before there were seals: a record that has them lost its own.

    Raises ArtifactError, which says what was expected and the ``fix``, for one that is damaged.
    """
    try:
        content = bounded.read(path, fix=fix)
    except FileNotFoundError:
        return None
    record = bounded.parse(content, path, fix)
    edited = record.pop(SEAL) != digest_of(record) if SEAL in record else not record.keys().isdisjoint(newer)
    if edited:
        raise ArtifactError(path, expected=what, found="it changed since it was written", fix=fix)
    return record


def digest_of(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
