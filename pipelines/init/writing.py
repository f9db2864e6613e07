"""The files of init, all of them or none, and none that is there written over."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fieldwise.features import store
from fieldwise.features.errors import DefectError, FieldwiseError
from fieldwise.features.files.listing import list_files
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.init import draft as drafts
from fieldwise.pipelines.init.draft import Draft
from fieldwise.pipelines.init.keyed import Made
from fieldwise.pipelines.init.places import require_free


def write(draft: Draft, made: Mapping[str, Made], target: str) -> list[str]:
    """Tables first, the config last; none of them if the config would not load."""
    directory, stem = os.path.dirname(target), Path(target).stem
    store.make_dir(directory)
    written: list[str] = []
    trial = os.path.join(directory, f".{stem}.{uuid.uuid4().hex}.yaml")
    try:
        paths = {what: os.path.join(directory, f"{stem}-{what}.{table.suffix}") for what, table in made.items()}
        require_free(*paths.values())
        for what, table in made.items():
            path = paths[what]
            _create(path, table.data)
            written.append(path)
        text = drafts.text_of(draft, directory).encode()
        _create(trial, text)
        _require_runs(trial)
        _create(target, text)
        return [target, *written]
    except BaseException:
        for path in written:
            with suppress(OSError):
                os.unlink(path)
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(trial)


def _create(path: str, data: bytes) -> None:
    try:
        store.create_exclusive(path, data)
    except FileExistsError:
        require_free(path)


def _require_runs(file: str) -> None:
    """What was written loads, and the sources have its columns. DefectError otherwise: nobody wrote it but we."""
    try:
        config = load_config(file)
        require_columns(config, list_files(config.source, config.base))
    except FieldwiseError as error:
        fix = "Please report it, with the names of the columns."
        raise DefectError("init", expected="a config that runs", found=str(error), fix=fix) from error
