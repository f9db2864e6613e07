"""petastorm 0.12.1 on a current Arrow: the names of pyarrow 14 and numpy 1 that it looks up, where those are gone.

They are put into petastorm's own modules. pyarrow and numpy, which other libraries of the process share, stay as they
are; two names stand in `sys.modules` while petastorm is imported. With the old names at hand nothing is adapted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.training.data.files import DataFile

ADAPTED = find_spec("pyarrow.filesystem") is None
"""Whether petastorm would not even import without this file."""


def filesystem(files: Sequence[DataFile]) -> Any:
    """What petastorm opens these files through, all of one store; None: what it finds by itself."""
    if ADAPTED:
        return _Stored(files)
    return _quoted() if files[0].quoted else None


class _Stored:
    """Files of any store that fsspec knows, by the paths that petastorm makes of their URLs."""

    def __init__(self, files: Sequence[DataFile]) -> None:
        path_of = importlib.import_module("petastorm.fs_utils").get_dataset_path
        self._paths = {path_of(urlparse(file.url)): file.path for file in files}

    def open(self, path: str) -> Any:
        return store.opened(self._paths[path])


def _quoted() -> Any:
    from pyarrow.filesystem import FileSystem

    class Quoted(FileSystem):
        """Local files by quoted paths, which petastorm takes from URLs as they are."""

        pathsep = "/"

        def isdir(self, path: str) -> bool:
            return os.path.isdir(unquote(path))

        def isfile(self, path: str) -> bool:
            return os.path.isfile(unquote(path))

        def exists(self, path: str) -> bool:
            return os.path.exists(unquote(path))

        def open(self, path: str, mode: str = "rb") -> Any:
            return open(unquote(path), mode)

    return Quoted()


class _Piece:
    """A Parquet file, or one of its row groups, as pyarrow.parquet.ParquetDatasetPiece was."""

    def __init__(
        self, path: str, open_file_func: Callable[[str], Any], row_group: int | None = None, partition_keys: Any = ()
    ) -> None:
        self.path, self.row_group, self.partition_keys = path, row_group, partition_keys
        self._open = open_file_func

    def get_metadata(self) -> Any:
        with self._open(self.path) as stream:
            return pq.read_metadata(stream)

    def read(self, columns: set[str], partitions: None) -> Any:
        with self._open(self.path) as stream:
            return pq.ParquetFile(stream).read_row_group(self.row_group, columns=list(columns))


class _Dataset:
    """A list of Parquet files, as pyarrow.parquet.ParquetDataset was; nothing beside them is looked at."""

    metadata = common_metadata = partitions = None

    def __init__(self, path_or_paths: list[str], filesystem: _Stored, **_: Any) -> None:
        self.fs = filesystem
        self.pieces = [_Piece(path, filesystem.open) for path in path_or_paths]


def _with(module: ModuleType, **names: Any) -> ModuleType:
    """A module that has further names, beside the module itself."""
    extended = ModuleType(module.__name__)
    extended.__getattr__ = partial(getattr, module)  # type: ignore[method-assign]
    vars(extended).update(names)
    return extended


@contextmanager
def _imports() -> Iterator[None]:
    """What petastorm imports and never uses here: its own client of HDFS, a class that it compares with."""
    absent: dict[str, dict[str, Any]] = {
        "pyarrow.filesystem": {"LocalFileSystem": _Stored},
        "petastorm.hdfs.namenode": {"HdfsNamenodeResolver": None, "HdfsConnector": None},
    }
    for name, names in absent.items():
        sys.modules[name] = _with(ModuleType(name), **names)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def import_petastorm() -> None:
    """Import petastorm, able to read lists of files. Raises ImportError where it is not installed."""
    if not ADAPTED:
        importlib.import_module("petastorm")
        return
    with _imports():
        importlib.import_module("petastorm")
    dataset = {"pq": _with(pq, ParquetDataset=_Dataset, ParquetDatasetPiece=_Piece)}
    types = {"np": _with(np, unicode_=np.str_, string_=np.bytes_)}
    adapted = {
        "reader": dataset,
        "etl.dataset_metadata": dataset,
        "arrow_reader_worker": dataset | types,
        "unischema": types,
    }
    for name, names in adapted.items():
        vars(importlib.import_module(f"petastorm.{name}")).update(names)
