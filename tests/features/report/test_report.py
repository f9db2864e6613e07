"""The data report: what is counted, what is estimated, and how far rows have moved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.columns.vocabulary import Vocabulary
from fieldwise.features.errors import ArtifactError
from fieldwise.features.fields.base import Fit
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec, FittedField
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.kernels.counts import count_slots, sum_groups
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.report.drift import Distribution, compare, group_starts, shift
from fieldwise.features.report.page import page
from fieldwise.features.report.report import (
    Day,
    Report,
    bucket_advice,
    collided_share,
    distinct_values,
    field_report,
    suggested_buckets,
    table,
    tally_field,
)


def fitted(**keys: object) -> FittedField:
    config = HashField.model_validate({"kind": "hash", "name": "f"} | keys)
    return FeatureSpec.assemble([config], {"f": config.fit(None)}).fields[0]


def by_index(negatives: list[int], positives: list[int]) -> np.ndarray:
    return np.array([negatives, positives], np.int32).T.copy()


def test_counts_by_label_and_index() -> None:
    counts = np.zeros((6, 2), np.int32)
    count_slots(np.array([1, 2, 5, 5, 0, 3], np.int32), np.array([0, 1, 1, 0, 0, 1], np.uint8), counts)
    assert counts.T.tolist() == [[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 1]]


def test_a_tally_leaves_padding_out_and_weighs_kept_negatives() -> None:
    field = fitted(buckets=4)
    training = by_index([9, 4, 2, 10, 0, 0, 6], [9, 0, 0, 5, 1, 0, 0])
    held_out = by_index([0, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0])
    tally = tally_field(field, training, held_out, negative_rate=0.5)
    assert (tally.values, tally.missing, tally.unseen, tally.used) == (30, 5, 2, 3)
    assert [(v.index, v.count, v.positives) for v in tally.top] == [(3, 15, 5), (6, 7, 0), (4, 1, 1)]
    assert tally.groups == [8, 4, 25, 1, 0, 12]  # training rows only: positives + 2 * negatives


def test_one_look_finds_what_sorting_finds() -> None:
    rng = np.random.default_rng(5)
    for size in (4, 12, 40, 3000):
        counts = rng.poisson(rng.exponential(2, (size, 1)), (size, 2)).astype(np.int64)
        starts = group_starts(fitted(buckets=size - 3))
        groups, top = np.zeros((len(starts), 2), np.int64), np.zeros(10, np.int64)
        used = sum_groups(counts, starts, groups, top)
        total = counts.sum(1)
        assert used == np.count_nonzero(total[3:])
        assert (groups == np.add.reduceat(counts, starts)).all()
        most = [i for i in 3 + np.argsort(-total[3:], kind="stable") if total[i]][:10]
        assert top.tolist() == most + [0] * (10 - len(most))


@pytest.mark.parametrize("per_bucket", [0.01, 0.5, 2.0, 5.0])
def test_linear_counting_finds_the_distinct_values(per_bucket: float) -> None:
    buckets = 20_000
    n = int(buckets * per_bucket)
    used = len(np.unique(np.random.default_rng(0).integers(0, buckets, n)))
    error = math.sqrt(buckets * (math.exp(per_bucket) - per_bucket - 1))
    assert abs(distinct_values(used, buckets) - n) < 4 * error + 1
    assert distinct_values(buckets, buckets) == round(buckets * math.log(buckets))  # full: at least


def test_collisions_by_the_birthday_formula() -> None:
    rng = np.random.default_rng(1)
    n, buckets = 3000, 8192
    load = np.bincount(rng.integers(0, buckets, n), minlength=buckets)
    found = load[load > 1].sum() / n
    assert collided_share(n, buckets) == pytest.approx(found, abs=0.03)
    assert (collided_share(1, 10), collided_share(2, 10)) == (0.0, pytest.approx(0.1))
    enough = suggested_buckets(n)
    assert collided_share(n, enough) <= 0.01 < collided_share(n, enough // 2)


@pytest.mark.parametrize(
    ("buckets", "distinct", "rows", "advice"),
    [
        (65_536, 300, 40_000, ""),
        (50_000, 34_000, 100_000, "leave it: 2.9 rows a value are too few to learn it from"),
        (1_024, 700, 70_000, "worth it: "),
        (4_096, 700, 70_000, "worth a try if memory allows: "),
        (256, 3_000, 60_000, "too few: every bucket holds several values"),
    ],
)
def test_more_buckets_where_they_are_worth_it(buckets: int, distinct: int, rows: int, advice: str) -> None:
    counts = np.zeros((buckets + 3, 2), np.int32)
    place = np.random.default_rng(1).integers(0, buckets, distinct) + 3
    np.add.at(counts[:, 0], np.resize(place, rows), 1)
    field = fitted(buckets=buckets)
    spec = FeatureSpec.assemble([field.config], {"f": field.config.fit(None)})
    report = field_report(spec, field, tally_field(field, counts, None, None))
    found = bucket_advice(report)
    assert found.startswith(advice)
    assert bool(found) == bool(advice)


def test_groups_cover_every_index_once() -> None:
    for values in (1, 7, 256, 257, 100_000):
        many = group_starts(fitted(buckets=values))
        assert many[:3].tolist() == [1, 2, FIRST]
        assert (np.diff(many) > 0).all()
        assert many[-1] < FIRST + values
        assert len(many) == 2 + min(values, 256)


def test_psi_is_the_formula_and_chance_is_what_equal_samples_show() -> None:
    p, q = np.array([100.5, 300.5]) / 401, np.array([200.5, 200.5]) / 401
    assert shift([100, 300], [200, 200]).psi == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert shift([100, 300], [100, 300]).psi == 0.0
    rng = np.random.default_rng(2)
    share = np.full(20, 0.05)
    drawn = [shift(rng.multinomial(5000, share).tolist(), rng.multinomial(800, share).tolist()) for _ in range(300)]
    assert np.mean([s.psi for s in drawn]) == pytest.approx(drawn[0].chance, rel=0.1)
    assert drawn[0].chance == pytest.approx(19 * (1 / 5000 + 1 / 800))
    assert np.mean([s.excess for s in drawn]) < drawn[0].chance / 4  # thresholds do not see small samples as drift
    assert 0.0 in [s.excess for s in drawn]


def test_drift_shows_in_the_field_that_moved_and_in_no_other() -> None:
    rng = np.random.default_rng(3)

    def day(item: np.ndarray, unseen: int, positives: int) -> Distribution:
        counted = [0, unseen, *np.bincount(item, minlength=256).tolist()]
        calm = [10, 0, *rng.multinomial(20_000, np.full(256, 1 / 256)).tolist()]
        return Distribution(
            spec_digest="s", label=[20_000 - positives, positives], fields={"item": counted, "user": calm}
        )

    head = lambda scale: np.minimum(rng.exponential(scale, 20_000), 255).astype(int)  # noqa: E731
    base = day(head(20), 100, 2000)
    same, moved = compare(base, day(head(20), 110, 2020), "base"), compare(base, day(head(60), 3000, 4000), "base")
    assert same.fields["item"].excess < 0.01
    assert same.label.excess < 0.001
    assert moved.fields["item"].excess > 0.5
    assert moved.fields["user"].excess < 0.01
    assert moved.label_rate == (0.1, 0.2)
    assert moved.label.psi == pytest.approx((0.2 - 0.1) * math.log(2) + (0.8 - 0.9) * math.log(8 / 9), rel=1e-3)
    other = base.model_copy(update={"spec_digest": "t"})
    with pytest.raises(ArtifactError, match="feature spec s, found spec t"):
        compare(base, other, "base")
    assert (base + base).label == [36_000, 4000]


def test_the_report_reads_back_and_people_can_read_it(tmp_path: Path) -> None:
    config = HashField(kind="hash", name="item", buckets=8)
    spec = FeatureSpec.assemble([config], {"item": config.fit(None)})
    counts = by_index([0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
    tally = tally_field(spec["item"], counts, None, None)
    rows = Distribution(spec_digest=spec.digest, label=[8, 2], fields={"item": tally.groups})
    report = Report(
        rows=10, fields={"item": field_report(spec, spec["item"], tally)}, days=[], distribution=rows,
        drift=compare(rows, rows, "itself"),
    )  # fmt: skip
    report.save(str(tmp_path / "report.json"))
    assert Report.load(str(tmp_path / "report.json")) == report
    _, line, advice, label = table(report)
    assert advice.startswith("  buckets of item: leave it: ")
    assert line.split() == ["item", "hash", "~2", "10.000%", "0.000%", "12.5%", "128", "0.000", "bucket", "0", "70.0%"]
    assert label.startswith("  label rate 20.0000%, expected 20.0000%")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a data report of format 1"):
        Report.load(str(tmp_path / "report.json"))


def test_the_page_is_whole_and_escapes_what_the_log_says(tmp_path: Path) -> None:
    config = VocabularyField(kind="vocabulary", name="<b>", min_count=1)
    values = Vocabulary(pa.array(["<script>", "x"], pa.large_string()), np.array([3, 1]))
    spec = FeatureSpec.assemble([config], {"<b>": Fit(2, vocabulary=values)})
    counts = by_index([0, 1, 0, 5, 0], [0, 0, 0, 2, 1])
    tally = tally_field(spec["<b>"], counts, None, None)
    rows = Distribution(spec_digest=spec.digest, label=[6, 3], fields={"<b>": tally.groups})
    days = [Day(day=f"2026-01-0{n}", rows=9, positives=n, rate=n / 9) for n in (1, 2, 3)]
    report = Report(
        rows=9, fields={"<b>": field_report(spec, spec["<b>"], tally)}, days=days, distribution=rows,
        drift=compare(rows, rows, "itself"),
    )  # fmt: skip
    text = page(report, "a & b")
    assert "<script" not in text
    assert "&lt;script&gt;</bdi> <small>77.8%, 28.57% positive" in text
    assert text.count("<rect") == 4
    assert text.count("<circle") == 6, "rate and rows of three days"
    assert text.count("<tr>") == 2
