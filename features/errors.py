"""The errors a user can meet. Every message says what was expected, what was found, where, and what to do.

The class decides the exit code of a job (see ``jobs``): 2 the user mends config, input or model reference;
3 a threshold refused; 1 anything else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

from fieldwise.features.redact import redacted
from fieldwise.features.terminal import printable


class FieldwiseError(ValueError):
    """An error with a complete message: ``where: expected E, found F. Fix.`` One printable line, whatever it tells of.

    Args:
        where: the place: a config key, a file with line or byte, a field, a model reference.
        expected: what would have been right.
        found: what was there instead.
        fix: what the user can do about it, one sentence.
    """

    exit_code = 1
    kept = ""
    """Characters of messages that are not printable, but stay."""

    def __init__(self, where: str, *, expected: str, found: str, fix: str) -> None:
        parts = (printable(redacted(part), kept=self.kept) for part in (where, expected, found, fix))
        self.where, self.expected, self.found, self.fix = parts
        end = "" if self.found.endswith(".") else "."  # libraries end their words with one, cut values with three
        super().__init__(f"{self.where}: expected {self.expected}, found {self.found}{end} {self.fix}")

    @property
    def facts(self) -> dict[str, object]:
        """What the message is made of, for programs."""
        parts = {"where": self.where, "expected": self.expected, "found": self.found, "fix": self.fix}
        return {"error": type(self).__name__, "exit_code": self.exit_code, **parts}

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Errors cross process borders (Spark workers, ranks) whole."""
        return (_rebuild, (type(self), self.where, self.expected, self.found, self.fix))


def _rebuild(cls: type[FieldwiseError], where: str, expected: str, found: str, fix: str) -> FieldwiseError:
    return cls(where, expected=expected, found=found, fix=fix)


class ConfigError(FieldwiseError):
    """A config key is unknown, missing, of the wrong type, or contradicts another."""

    exit_code = 2


class InputError(FieldwiseError):
    """Source data cannot serve: missing file or column, duplicate join keys, an empty split, one class only."""

    exit_code = 2


class ArtifactError(FieldwiseError):
    """A snapshot, spec, bundle or model reference is missing, damaged, or belongs to another spec."""

    exit_code = 2


class RefusedError(FieldwiseError):
    """A threshold stopped the job on purpose: bad-row fraction, drift, promotion gate."""

    exit_code = 3


class IntegrityError(FieldwiseError):
    """Rows or bytes that were promised are not there: checksum, row count or replica mismatch, a non-finite loss."""

    exit_code = 1


class DivergedError(IntegrityError):
    """Training has left the finite numbers, and would again: the user mends its settings."""

    exit_code = 2


class RankLostError(IntegrityError):
    """Another rank died or fell silent. Training can go on from its last checkpoint."""


class ClusterError(FieldwiseError):
    """Spark could not finish: its JVM or an executor died. The same command again may."""


class StorageError(FieldwiseError):
    """A disk is full, or a limit on the size of files is reached."""


class StoreError(FieldwiseError):
    """An object store does not answer, or not as it should. The same command again goes on once it does."""


class AccessError(FieldwiseError):
    """An object store answers, and refuses who asks, or has no such bucket: the user mends credentials or the URL."""

    exit_code = 2


class TrackingError(FieldwiseError):
    """The MLflow server does not answer, or does not take what it is told. What it should have got is kept."""


class CredentialsError(TrackingError):
    """The MLflow server answers, and refuses who asks."""


class DamagedError(IntegrityError):
    """A published file is no longer what its manifest promises: the user builds or copies it again."""

    exit_code = 2


class ShortOfMemoryError(FieldwiseError):
    """There is less memory than a command asks for."""


class GoneError(FieldwiseError):
    """A file or directory was removed while a command needed it."""


class BusyError(FieldwiseError):
    """Another process is at the same work."""


class DefectError(FieldwiseError):
    """Our own mistake: ``fix`` is its traceback, in lines."""

    kept = "\n"


def storage_error(error: Exception, where: str | None = None) -> FieldwiseError | None:
    """A failed write in our words (of a library that keeps the number in its text, too); None for other errors."""
    written = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(written[1]) if written else None
    where = where or str(getattr(error, "filename", None) or "output")
    if number == errno.EFBIG:
        fix = "Raise the limit on the size of files (`ulimit -f`), or write to another file system."
        return StorageError(where, expected="room to write", found=os.strerror(number), fix=fix)
    if number in (errno.ENOSPC, errno.EDQUOT):
        fix = "Free some: nothing half-written is left, and the same command goes on from what was finished."
        return StorageError(where, expected="room to write", found=os.strerror(number), fix=fix)
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        fix = "Set another workspace or output, or mend the permissions."
        return ConfigError(where, expected="a place to write", found=os.strerror(number), fix=fix)
    if number == errno.ENAMETOOLONG:
        where, fix = f"{where[:80]}...", "Shorten it."
        return ConfigError(where, expected="a name that the file system takes", found=os.strerror(number), fix=fix)
    return None


def known_error(error: Exception) -> FieldwiseError | None:
    """An error in our words where it is one of ours, of a disk, of memory, or of what somebody removed; None for a
    defect."""
    if isinstance(error, FieldwiseError):
        return error
    return store_error(error) or storage_error(error) or _gone(error) or _short(error)


_STORES = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}
"""Libraries below fsspec, by whose classes errors of a store are told: none of them need be installed."""
_STRANGER = re.compile(r"Credential|Authentication|Unauthorized|SSOToken|TokenRetrieval|ProfileNotFound|RefreshError")


def store_error(error: BaseException) -> FieldwiseError | None:
    """An object store's refusal or silence in our words; None for other errors."""
    own = next((each for each in (error, error.__cause__) if type(each).__module__.split(".")[0] in _STORES), None)
    if own is None:
        return None
    found = " ".join(f"{type(own).__name__}: {own}".split())[:300]
    response = getattr(own, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    refused = isinstance(error, PermissionError) or getattr(own, "status", None) in (401, 403)
    if refused or _STRANGER.search(type(own).__name__):
        fix = "Mend the credentials, or ask for the right: docs/places.md says which, and where they are set."
        return AccessError("the object store", expected="credentials that it accepts", found=found, fix=fix)
    if code == "NoSuchBucket":
        fix = "Make the bucket, or correct the URL and the endpoint."
        return AccessError("the object store", expected="a bucket that is there", found=found, fix=fix)
    if isinstance(error, FileNotFoundError):
        fix = "It was removed meanwhile: run the command again, or make first what it needs."
        return GoneError("the object store", expected="what was there", found=found, fix=fix)
    fix = "Run the same command again once it answers: nothing half-written is visible."
    return StoreError("the object store", expected="an answer", found=found, fix=fix)


def _short(error: Exception) -> FieldwiseError | None:
    if not isinstance(error, MemoryError):
        return None
    fix = "Ask for less (model.dim, model.pair_buckets, buckets of fields, training.batch_size), or free some."
    return ShortOfMemoryError("memory", expected="room", found=str(error) or "none left", fix=fix)


def _gone(error: Exception) -> FieldwiseError | None:
    """Places are absolute here: a relative name that is missing is our own slip, or a program that is not installed."""
    place = str(getattr(error, "filename", None) or "")
    if not (isinstance(error, FileNotFoundError | NotADirectoryError) and os.path.isabs(place)):
        return None
    fix = "It was removed meanwhile: run the command again, or make first what it needs."
    return GoneError(place, expected="what was there", found=os.strerror(error.errno or errno.ENOENT), fix=fix)


def told(error: FieldwiseError) -> dict[str, str]:
    """An error as JSON carries it."""
    fields = {"where": error.where, "expected": error.expected, "found": error.found, "fix": error.fix}
    return {"class": type(error).__name__, **fields}


def retold(fields: Mapping[str, str], who: str | None = None) -> FieldwiseError:
    """An error that ``told`` has told; ``who`` met it, where that was not this process."""
    kind = globals().get(fields["class"], FieldwiseError)
    if not (isinstance(kind, type) and issubclass(kind, FieldwiseError)):
        kind = FieldwiseError
    where = fields["where"] if who is None else f"{who}: {fields['where']}"
    return kind(where, expected=fields["expected"], found=fields["found"], fix=fields["fix"])
