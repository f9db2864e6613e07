"""Negatives follow the stated law, none is a known pair, and a draw depends on its row alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.config import FeatureConfig, NegativesConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.log import LogReader
from fieldwise.features.source.negatives import Negatives, known_pairs, pair_hashes, read_items
from fieldwise.features.source.raw import split_ranges

USERS, ITEMS = 400, 12


def write(folder: Path) -> FeatureConfig:
    """Every user has watched three of twelve films; films have a genre, users an age in the log."""
    draw = np.random.default_rng(1)
    lines = [f"u{u},{20 + u % 50},f{f:02d},1" for u in range(USERS) for f in draw.permutation(ITEMS)[:3]]
    (folder / "log.csv").write_text("user,age,film,watched\n" + "\n".join(draw.permutation(lines)) + "\n")
    films = [f"f{f:02d},g{f % 4}" for f in range(ITEMS)]
    (folder / "films.csv").write_text("film,genre\n" + "\n".join(draw.permutation(films)) + "\n")
    (folder / "genres.csv").write_text("film,studio\n" + "\n".join(f"f{f:02d},s{f}" for f in range(ITEMS)) + "\n")
    return FeatureConfig.model_validate(
        {
            "source": {"path": "log.csv"},
            "join": [{"path": "genres.csv", "on": "film"}],
            "label": "watched",
            "fields": [{"name": name, "kind": "hash", "buckets": 50} for name in ("user", "age", "film", "studio")],
            "negatives": {"items": {"path": "films.csv"}, "context": "user", "item": "film"},
        }
    )


def drawn(folder: Path, config: FeatureConfig, counts: list[int], size: int = 1 << 20, **more: object) -> pa.Table:
    """All negatives of the log, by their rows and places in the file."""
    settings = NegativesConfig.model_validate({**config.model_dump()["negatives"], **more})
    reader = LogReader(config, str(folder))
    items = read_items(settings, str(folder), reader.columns)
    batches = [
        b for rng in split_ranges(config.source, list_files(config.source, str(folder)), size) for b in reader.read(rng)
    ]
    known = np.unique(np.concatenate([known_pairs(settings, batch.columns) for batch in batches]))
    negatives = Negatives.of(settings, items, np.array(counts), known)
    parts = []
    for batch in batches:
        found, positive = negatives.rows(reader, batch, 0)
        assert (found.label == 0).all()
        np.testing.assert_array_equal(found.positions, batch.positions[positive])
        parts.append(
            pa.table(found.columns.batch(["user", "age", "film", "studio"])).append_column(
                "at", pa.array(found.positions)
            )
        )
    return pa.concat_tables(parts).sort_by([("at", "ascending"), ("film", "ascending")])


@pytest.mark.parametrize(("by", "power"), [("uniform", 0.0), ("popularity^0.75", 0.75), ("popularity", 1.0)])
def test_frequencies_follow_the_law(tmp_path: Path, by: str, power: float) -> None:
    """Chi-squared with 11 degrees of freedom; nothing is excluded here, so the law is the weights' own."""
    config, counts = write(tmp_path), [*range(1, ITEMS + 1)]
    films = drawn(tmp_path, config, counts, by=by, exclude=None, per_positive=40)["film"].to_pylist()
    found = np.bincount([int(film[1:]) for film in films], minlength=ITEMS)
    weight = np.array(counts, float) ** power
    expected = weight / weight.sum() * len(films)
    assert len(films) == USERS * 3 * 40
    assert ((found - expected) ** 2 / expected).sum() < 31.3  # exceeded once in a thousand


def test_none_is_known_and_the_rest_is_the_rows(tmp_path: Path) -> None:
    config = write(tmp_path)
    log = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    known, ages = {(user, film) for user, _, film, _ in log}, {user: age for user, age, _, _ in log}
    rows = drawn(tmp_path, config, [1] * ITEMS).to_pylist()
    assert len(rows) == 4 * len(log)
    assert not {(row["user"], row["film"]) for row in rows} & known
    assert all(row["age"] == ages[row["user"]] for row in rows)  # the context's columns are the row's
    assert all(row["studio"] == f"s{int(row['film'][1:])}" for row in rows)  # side tables are joined by the new id


def test_a_draw_depends_on_its_row_alone(tmp_path: Path) -> None:
    config = write(tmp_path)
    whole = drawn(tmp_path, config, [*range(1, 13)])
    assert drawn(tmp_path, config, [*range(1, 13)], size=500).equals(whole)


def test_a_context_that_has_everything_gets_none(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "log.csv").write_text("user,age,film,watched\n" + "".join(f"u,1,f{f:02d},1\n" for f in range(ITEMS)))
    assert drawn(tmp_path, config, [1] * ITEMS).num_rows == 0


def test_items_that_cannot_serve(tmp_path: Path) -> None:
    config = write(tmp_path)
    settings = config.negatives
    assert settings is not None
    for text, told in (("film,genre\n", "found none"), ("film,genre\n,g\nf,g\n", "found one without"),
                       ("film,genre\nf,g\nf,h\n", "found 'f' again")):  # fmt: skip
        (tmp_path / "films.csv").write_text(text)
        with pytest.raises(InputError, match=told):
            read_items(settings, str(tmp_path), ["film"])
    write(tmp_path)
    items = read_items(settings, str(tmp_path), ["film"])
    with pytest.raises(InputError, match="expected items that are positives of the training rows"):
        Negatives.of(settings, items, np.zeros(ITEMS, np.int64), np.empty(0, np.uint64))


def test_pairs_are_told_apart() -> None:
    one, other = xxh64_array(pa.array(["a", "b"])), xxh64_array(pa.array(["b", "a"]))
    assert len({*pair_hashes(one, other).tolist(), *pair_hashes(one, one).tolist()}) == 4
    columns = Columns({"c": pa.array([1, 1, 2]), "i": pa.array(["x", "x", "x"])}, 3)
    config = NegativesConfig.model_validate({"items": {"path": "x"}, "context": "c", "item": "i"})
    texts = Columns({"c": pa.array(["1", "2"]), "i": pa.array(["x", "x"])}, 2)
    np.testing.assert_array_equal(known_pairs(config, columns), known_pairs(config, texts))
