"""The feature spec: the fitted, frozen description of all fields. Data only: spec.json and vocabulary.parquet."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import FailFast

from fieldwise.features import store
from fieldwise.features.columns.vocabulary import Vocabulary
from fieldwise.features.errors import ArtifactError, ConfigError, store_error
from fieldwise.features.fields import AnyField, check_fields
from fieldwise.features.fields.base import MAX_VALUES, Fit
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.schema import Strict
from fieldwise.features.store import bounded

SPEC_FILE, VOCABULARY_FILE = "spec.json", "vocabulary.parquet"
_INTACT, _FIX = "an intact spec.json and vocabulary.parquet", "Publish or copy it again whole."
MOST_VOCABULARY_BYTES = 1 << 30
"""Of vocabulary.parquet, looked at before it is read."""
_NAMED = {0: "padding", 1: "missing", 2: "unseen"}


class FittedField(Strict):
    """One field as fitted. Table row of a local index: ``offset`` + local, local in [0, ``size``)."""

    config: AnyField
    values: int
    """Distinct values, buckets or bins; ``size`` is 3 more."""
    offset: int
    first_slot: int
    edges: Annotated[tuple[float, ...], FailFast()] = ()
    """Only where they were fitted; given and formulaic ones follow from ``config``."""
    vocabulary: str | None = None
    """SHA-256 of the field's vocabulary (see ``Vocabulary.digest``)."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def kind(self) -> str:
        return self.config.kind

    @property
    def size(self) -> int:
        return FIRST + self.values

    @property
    def slots(self) -> int:
        return self.config.slots

    @property
    def pooling(self) -> str:
        return "mean" if self.config.mean else "sum"


class _Document(Strict):
    """What ``spec.json`` holds."""

    version: int
    hash: str
    fields: Annotated[tuple[FittedField, ...], FailFast()]


class FeatureSpec:
    """Fields in table order with their vocabularies; picklable, immutable.

    Attributes: ``fields``; ``rows`` of the embedding table; ``slots`` S; ``digest`` SHA-256 hex over canonical JSON.
    """

    def __init__(self, fields: Sequence[FittedField], vocabularies: Mapping[str, Vocabulary]) -> None:
        self.fields = tuple(fields)
        self.vocabularies = dict(vocabularies)
        self._by_name = {field.name: field for field in self.fields}
        self.slots = sum(field.slots for field in self.fields)
        self.rows = max((field.offset + field.size for field in self.fields), default=0)
        self.digest = hashlib.sha256(self._canonical()).hexdigest()

    @staticmethod
    def assemble(configs: Sequence[AnyField], fits: Mapping[str, Fit]) -> FeatureSpec:
        """Lays fields out one after another; a field that shares takes its owner's fit and offset."""
        check_fields(configs)
        offsets: dict[str, int] = {}
        rows = 0
        for config in configs:
            if config.source == config.name:
                offsets[config.name] = rows
                rows += FIRST + fits[config.name].values
        fields, first_slot = [], 0
        for config in configs:
            fit = fits[config.source]
            digest = fit.vocabulary.digest if fit.vocabulary is not None else None
            fields.append(
                FittedField(
                    config=config, values=fit.values, offset=offsets[config.source], first_slot=first_slot,
                    edges=fit.edges if config.needs_fit else (), vocabulary=digest,
                )
            )  # fmt: skip
            first_slot += config.slots
        return FeatureSpec(fields, {name: fit.vocabulary for name, fit in fits.items() if fit.vocabulary is not None})

    def __getitem__(self, name: str) -> FittedField:
        return self._by_name[name]

    @property
    def slot_names(self) -> list[str]:
        return [f"slot_{i:04d}" for i in range(self.slots)]

    @property
    def raw_columns(self) -> tuple[str, ...]:
        """Raw columns the encoder reads, in first use."""
        return tuple(dict.fromkeys(column for field in self.fields for column in field.config.columns))

    def fit_of(self, name: str) -> Fit:
        owner = self[self[name].config.source]
        if not owner.config.needs_fit:
            return owner.config.fit(None)
        return Fit(owner.values, owner.edges, self.vocabularies.get(owner.name))

    def value_of(self, field: str, local: int) -> str:
        """What a local index means: a vocabulary value, a bin's range, a bucket's number, missing, unseen, padding."""
        fitted = self[field]
        if not 0 <= local < fitted.size:
            raise IndexError(f"local index {local} of field {field!r} is outside [0, {fitted.size})")
        return _NAMED[local] if local < FIRST else fitted.config.describe(self.fit_of(field), local - FIRST)

    def _canonical(self) -> bytes:
        document = _Document(version=1, hash="xxh64-42", fields=self.fields).model_dump(mode="json")
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def save(self, directory: str) -> None:
        """Writes both files into ``directory`` (any fsspec URL); equal specs give equal bytes."""
        fs, root = store.resolve(directory)
        fs.makedirs(root, exist_ok=True)
        document = self._canonical()
        if len(document) > bounded.MOST_BYTES:  # what could not be loaded is not written
            fix = "Use fewer quantiles, or fewer fields."
            found = f"{len(document):,}"
            expected = f"a spec of {bounded.MOST_BYTES:,} bytes at most"
            raise ConfigError("fields", expected=expected, found=found, fix=fix)
        with fs.open(f"{root}/{SPEC_FILE}", "wb") as file:
            file.write(document)
        with fs.open(f"{root}/{VOCABULARY_FILE}", "wb") as file, pq.ParquetWriter(file, _SCHEMA) as writer:
            for name, vocabulary in self.vocabularies.items():
                writer.write_table(_vocabulary_table(name, vocabulary), row_group_size=_GROUP_ROWS)

    @staticmethod
    def load(directory: str) -> FeatureSpec:
        """Reads and verifies: layout, sizes, edges, and every vocabulary against its SHA-256. Raises ArtifactError."""
        fs, root = store.resolve(directory)
        where = f"feature spec {directory}"
        try:
            content = bounded.read(store.join(directory, SPEC_FILE))
            document = bounded.validated(content, _Document, where, _INTACT, _FIX, short_forms=True)
            facts = fs.info(f"{root}/{VOCABULARY_FILE}")
            if facts["type"] != "file" or int(facts["size"] or 0) > MOST_VOCABULARY_BYTES:
                raise _damaged(where, f"a vocabulary that is no file of at most {MOST_VOCABULARY_BYTES:,} bytes")
            vocabularies = _vocabularies(where, document, fs.cat_file(f"{root}/{VOCABULARY_FILE}"))
        except FileNotFoundError as error:
            raise _damaged(where, f"no file {error.filename or error}") from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if store_error(error) is not None:  # which passes
                raise
            raise _damaged(where, str(error).partition("\n")[0]) from error
        if (document.version, document.hash) != (1, "xxh64-42"):
            raise _damaged(where, f"version {document.version}, hash {document.hash}")
        fits = {
            field.name: _fit(where, field, vocabularies)
            for field in document.fields
            if field.config.source == field.name
        }
        try:
            spec = FeatureSpec.assemble([field.config for field in document.fields], fits)
        except (ValueError, KeyError) as error:
            raise _damaged(where, str(error)) from error
        if spec.fields != document.fields:
            raise _damaged(where, "sizes, offsets or vocabularies other than those the spec names")
        return spec


_SCHEMA = pa.schema(
    [("field", pa.string()), ("index", pa.int32()), ("value", pa.large_string()), ("count", pa.int64())]
)


_GROUP_ROWS = 1 << 20
_READ = pa.schema(
    [(f.name, pa.dictionary(pa.int32(), pa.string()) if f.name in ("field", "value") else f.type) for f in _SCHEMA]
)


def _vocabulary_table(name: str, vocabulary: Vocabulary) -> pa.Table:
    n = len(vocabulary)
    columns = [
        pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [name]).cast(pa.string()),
        pa.array(np.arange(FIRST, FIRST + n, dtype=np.int32)),
        vocabulary.values,
        pa.array(vocabulary.counts, pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _vocabularies(where: str, document: _Document, content: bytes) -> dict[str, Vocabulary]:
    """The vocabularies of a file, in memory that follows from its size.

    A few bytes of a hostile Parquet file may stand for billions of rows, or for one text times a million. So what is
    read is no more than the spec names, one row group after the other, values as a dictionary (which holds each text
    once) until they are known to be distinct, and compressed by nothing that unfolds a thousandfold.
    """
    sizes = {field.name: field.values for field in document.fields if field.vocabulary is not None}
    parts: dict[str, list[tuple[pa.Array, pa.Array]]] = {name: [] for name in sizes}
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=["field", "value"])
    metadata = file.metadata
    if not file.schema_arrow.remove_metadata().equals(_READ, check_metadata=False):
        raise _damaged(where, "other columns in the vocabulary file")
    if metadata.num_rows > sum(sizes.values()):
        raise _damaged(where, "more vocabulary than the spec names")
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        codecs = {group.column(at).compression for at in range(group.num_columns)}
        if group.num_rows > _GROUP_ROWS or not codecs <= {"SNAPPY", "UNCOMPRESSED"}:
            raise _damaged(where, f"a vocabulary in row groups of {group.num_rows:,} rows, {', '.join(sorted(codecs))}")
        if group.num_rows == 0:
            continue
        table = file.read_row_group(number).combine_chunks()
        fields, values = (table[name].combine_chunks() for name in ("field", "value"))
        name = fields[0].as_py()
        index = table["index"].to_numpy()
        first = FIRST + sum(len(part) for part, _ in parts.get(name, ()))
        if name not in sizes or len(fields.dictionary) != 1 or table["count"].null_count or fields.null_count:
            raise _damaged(where, f"a vocabulary of {name!r}, mixed or unknown")
        if len(values.dictionary) != len(values) or values.null_count:
            raise _damaged(where, f"values of field {name!r} that occur twice")
        if not np.array_equal(index, np.arange(first, first + len(index))):
            raise _damaged(where, f"a vocabulary of field {name!r} out of order")
        parts[name].append((values.dictionary_decode().cast(pa.large_string()), table["count"].combine_chunks()))
    return {
        name: Vocabulary(
            pa.concat_arrays([values for values, _ in found] or [pa.array([], pa.large_string())]),
            pa.concat_arrays([counts for _, counts in found] or [pa.array([], pa.int64())]).to_numpy(),
        )
        for name, found in parts.items()
    }


def _fit(where: str, field: FittedField, vocabularies: Mapping[str, Vocabulary]) -> Fit:
    """A field's fit as the files tell it, checked against itself."""
    edges: Any = np.array(field.edges)
    if not 0 <= field.values <= MAX_VALUES or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise _damaged(where, f"impossible sizes or edges of field {field.name!r}")
    if field.vocabulary is None:
        return Fit(len(edges) + 1, field.edges) if field.config.needs_fit else field.config.fit(None)
    vocabulary = vocabularies[field.name]
    if len(vocabulary) != field.values or vocabulary.digest != field.vocabulary:
        raise _damaged(where, f"a vocabulary of field {field.name!r} that differs from its SHA-256")
    return Fit(field.values, vocabulary=vocabulary)


def _damaged(where: str, found: str) -> ArtifactError:
    return ArtifactError(where, expected=_INTACT, found=found, fix=_FIX)
