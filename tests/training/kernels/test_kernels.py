"""Compiled kernels against the reference in float64: scores, losses and gradients, on random shapes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.errors import IntegrityError
from fieldwise.training.kernels import linear, scores, updates
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.models.base import Model, build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.loss import logloss
from fieldwise.training.ranks.world import World
from fieldwise.training.step.exchange import Exchange, Union
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import DIRECT, Compact, Lookup, can_be_direct, columns_apart
from fieldwise.training.step.loss import Loss
from fieldwise.training.step.optim import OPTIMIZERS, RowOptimizer, build_optimizer
from fieldwise.training.step.table import EmbeddingTable
from tests.training.models.test_models import multi_valued, random_slots

SMALL, ODD, MULTI = (Layout.single([7]), 1), (Layout.single([4, 9, 3, 5, 8, 6]), 5), (multi_valued(), 17)
REST = Layout.single([4, 9, 3, 5, 8, 6, 7]), 4
# few, because each is a compilation of seconds: one field; rows below 16 lanes; many values a field, rows with a rest;
# vectors that fill a register four at a time, and fields that are left over
PROBLEMS = [("lr", ODD), ("poly2", MULTI), ("fm", ODD), ("fm", MULTI)]
PROBLEMS += [("ffm", SMALL), ("ffm", ODD), ("ffm", MULTI), ("ffm", REST)]


class Case:
    """A random problem: model, rows, a looked-up batch, labels, weights."""

    def __init__(self, kind: str, layout: Layout, dim: int, rows: int, seed: int, padding: float, scale: float) -> None:
        self.model = build_model(settings_of(kind, dim=dim, pair_buckets=31), layout)
        self.slots = random_slots(layout, rows, seed, padding)
        self.found: Compact = Lookup(layout, self.model.pair_buckets)(self.slots)
        generator = torch.Generator().manual_seed(seed)
        self.rows = scale * torch.randn(len(self.found.ids), self.model.width, generator=generator)
        # labels of 0 and 1 have gradients that cancel out up to rounding, of which Adagrad makes a whole step
        self.label = torch.rand(rows, generator=generator)
        self.weight = torch.rand(rows, generator=generator)

    def reference(self) -> tuple[Model, torch.Tensor]:
        """The same model in float64, and its leaf."""
        model = build_model(self.model.settings, self.model.layout, fused=False).double()
        with torch.no_grad():
            model.bias.copy_(self.model.bias)
        return model, self.rows.double().requires_grad_()

    def absolute_terms(self, by_logit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of absolute terms of logits and of gradients: the model on absolute values."""
        model, rows = self.reference()
        rows = rows.detach().abs().requires_grad_()
        with torch.no_grad():
            model.bias.abs_()
        logits = model(rows, self.found.index, self.found.factor)
        if type(model).__name__ == "FM":  # its identity subtracts squares, which are terms too
            pooled = rows.new_zeros(len(logits), model.layout.fields, model.width)
            weighted = rows[self.found.index] * self.found.factor.double()[..., None]
            pooled = pooled.index_add(1, model.field_of_slot, weighted)[..., 1:]
            logits = logits + pooled.square().sum((1, 2))
        logits.backward(by_logit.abs().double())
        assert rows.grad is not None
        return logits.detach(), rows.grad


cases = st.builds(
    lambda problem, *rest: Case(problem[0], *problem[1], *rest),
    st.sampled_from(PROBLEMS),
    st.sampled_from([1, 2, 130, 301]),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.05, 1.0]),
)


@settings(max_examples=40, deadline=None)
@given(cases, st.booleans())
def test_scores_and_gradients_equal_the_reference(case: Case, weighted: bool) -> None:
    weight, total = (case.weight, float(case.weight.sum())) if weighted else (None, float(len(case.label)))
    model, leaf = case.reference()
    expected = model(leaf, case.found.index, case.found.factor)
    double = None if weight is None else weight.double()
    value = logloss(expected, case.label.double(), double, total)
    by_logit, by_leaf, by_bias = torch.autograd.grad(value, [expected, leaf, model.bias], retain_graph=True)
    logit_terms, grad_terms = case.absolute_terms(by_logit)

    rows = case.rows.clone().requires_grad_()
    logits = case.model(rows, case.found.index, case.found.factor)
    assert ((logits - expected).abs() <= 1e-5 * logit_terms).all()
    logits.backward(by_logit.float())
    assert rows.grad is not None
    assert ((rows.grad - by_leaf).abs() <= 1e-5 * grad_terms).all()

    rows = case.rows.clone().requires_grad_()
    case.model.bias.grad = None
    loss, scores = Loss(case.model)(rows, case.found.index, case.found.factor, case.label, weight, total)
    (3.0 * loss).backward()
    assert rows.grad is not None
    assert case.model.bias.grad is not None
    assert loss.item() == pytest.approx(value.item(), rel=1e-5)
    assert ((scores - expected).abs() <= 1e-5 * logit_terms).all()
    # the slope w (p - y) inherits the logit's rounding
    slack = 1e-5 * (1 + float(logit_terms.max()))
    assert ((rows.grad / 3.0 - by_leaf).abs() <= slack * grad_terms + 1e-9).all()
    assert case.model.bias.grad.item() / 3.0 == pytest.approx(by_bias.item(), abs=slack)


def start_alike(tables: list[EmbeddingTable], optimizers: list[RowOptimizer]) -> None:
    """The next step begins without the rounding by which the last one's ways differ."""
    tables[1].weight.copy_(tables[0].weight)
    optimizers[1].load_state_dict(optimizers[0].state_dict())


@settings(max_examples=25, deadline=None)
@given(cases, st.booleans())
def test_the_fused_step_equals_loss_and_optimizer(case: Case, weighted: bool) -> None:
    weight, total = (case.weight, float(case.weight.sum())) if weighted else (None, float(len(case.label)))
    tables = [EmbeddingTable(case.model.rows, case.model.width, seed=5, scale=0.3) for _ in range(2)]
    optimizers = [build_optimizer("adagrad", table) for table in tables]
    for _ in range(2):
        rows = tables[0].gather(case.found.ids)
        case.model.bias.grad = None
        loss, scores = Loss(case.model)(rows, case.found.index, case.found.factor, case.label, weight, total)
        loss.backward()
        assert rows.grad is not None
        assert case.model.bias.grad is not None
        by_bias = case.model.bias.grad.item()
        optimizers[0].step(tables[0], case.found.ids, rows.grad, 0.1, 0.01)
        exchange = Exchange(World(), tables[1].rows)
        step = FusedStep(case.model, tables[1], optimizers[1], exchange)
        union = exchange.union(case.found, len(case.label), total)
        fused_loss, count, fused_scores = step(
            case.found, union, case.label.numpy(), weight if weight is None else weight.numpy(), 0.1, 0.01
        )
        assert count == len(case.label)
        assert fused_loss == pytest.approx(loss.item(), rel=1e-6)
        assert case.model.bias.grad.item() == pytest.approx(by_bias, rel=1e-5, abs=1e-9)
        assert torch.equal(scores, fused_scores)
        assert torch.allclose(tables[0].weight, tables[1].weight, atol=1e-6)
        start_alike(tables, optimizers)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 70, 300, 1500]),
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from([(0, 2000), (0, 200_000), (40, 20), (3001, 300)]),
)
def test_a_step_without_a_lookup_equals_one_with(
    rows: int, seed: int, weighted: bool, optimizer: str, sizes: tuple[int, int]
) -> None:
    """Of sparse and dense batches, of columns with rows of their own (lr) and without (poly2)."""
    pair_buckets, largest = sizes
    layout = Layout.single([3, 50, 7, largest])
    model, draw = (
        build_model(settings_of("poly2" if pair_buckets else "lr", pair_buckets=pair_buckets), layout),
        np.random.default_rng(seed),
    )
    tables = [EmbeddingTable(model.rows, 1) for _ in range(2)]
    lookups = [Lookup(layout, pair_buckets), Lookup(layout, pair_buckets)]
    lookups[1].direct = True
    steps = [FusedStep(model, t, build_optimizer(optimizer, t), Exchange(World(), t.rows)) for t in tables]
    for _ in range(3):
        slots = np.stack([(s * draw.random(rows) ** 3).astype(np.int32).clip(1) for s in layout.size_of_slot], axis=1)
        label = draw.random(rows).astype(np.float32)
        weight = draw.choice(np.array([0, 0.5, 3], np.float32), rows) if weighted else None
        before, found, grads = tables[1].weight.clone(), [], []
        for lookup, step in zip(lookups, steps, strict=True):
            compact = lookup(slots)
            assert compact.direct == lookup.direct
            found.append(step(compact, Union(compact.ids, None, rows, float(rows), 0), label, weight, 0.1, 0.01))
            grads.append(model.bias.grad.clone())
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
        assert found[0][1] == found[1][1] == rows
        torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-4, atol=1e-5)
        untouched = torch.ones(model.rows, dtype=torch.bool)
        untouched[lookups[0](slots).ids] = False
        assert torch.equal(tables[1].weight[untouched], before[untouched])
        for name, state in steps[0].optimizer.state.items():
            torch.testing.assert_close(state, steps[1].optimizer.state[name], rtol=1e-4, atol=1e-7)
        start_alike(tables, [step.optimizer for step in steps])


@pytest.mark.parametrize(
    ("kind", "pair_buckets", "rare"), [("lr", 0, 2000), ("lr", 0, 12_000_000), ("poly2", 300, 50), ("fm", 0, 2000)]
)
@pytest.mark.parametrize("batch", [65_536, 262_144])
def test_a_frequent_row_of_a_long_batch_is_summed_to_the_last_digits(
    kind: str, pair_buckets: int, rare: int, batch: int
) -> None:
    """Against float64, a value in nearly all rows: by the logloss in one pass, and by each way of a step.

    Labels are alike, so nothing cancels out, and sums of float32 lose the same direction again and again.
    """
    layout, draw = Layout.single([3, rare]), np.random.default_rng(batch)
    model = build_model(settings_of(kind, dim=3, pair_buckets=pair_buckets), layout)
    slots = np.stack([np.where(draw.random(batch) < 0.99, 1, 2), draw.integers(1, rare, batch)], axis=1).astype(
        np.int32
    )
    label, table = np.zeros(batch, np.float32), EmbeddingTable(model.rows, model.width)
    table.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(2))
    found, before = Lookup(layout, pair_buckets)(slots), table.weight.double()
    reference = build_model(model.settings, layout, fused=False).double()
    leaf = before[found.ids].requires_grad_()
    logloss(reference(leaf, found.index, found.factor), torch.zeros(batch).double(), None, float(batch)).backward()
    assert leaf.grad is not None
    frequent = int((found.ids == 1).nonzero())
    expected = leaf.grad[frequent]

    rows = table.gather(found.ids).requires_grad_()
    Loss(model)(rows, found.index, found.factor, torch.from_numpy(label), None, float(batch))[0].backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad[frequent].double(), expected, rtol=1e-6, atol=0)
    for direct in {False, model.width == 1}:
        again, lookup = EmbeddingTable(model.rows, model.width), Lookup(layout, pair_buckets)
        lookup.direct = direct
        step = FusedStep(model, again, build_optimizer("sgd", again), Exchange(World(), again.rows))
        compact = lookup(slots)
        for _ in range(2):  # the second finds what the first has left of its sums
            again.weight.copy_(table.weight)
            step(compact, Union(compact.ids, None, batch, float(batch), 0), label, None, 1000.0)
            moved = (before[1] - again.weight[1].double()) / 1000.0
            torch.testing.assert_close(moved, expected, rtol=1e-6, atol=0)


def test_an_optimizer_without_state_has_none_touched(tmp_path: Path) -> None:
    """Its state is an empty array; what lies behind it here is read-only, so a write would end the process."""
    rows = 1 << 12
    (tmp_path / "behind").write_bytes(bytes(rows * 4))
    state = np.memmap(tmp_path / "behind", np.float32, "r")[:0]
    values, lanes = np.ones(rows, np.float32), np.full((1, rows), -0.0, np.float32)
    lanes[0, rows - 20] = 2.0
    linear.lane_rows("sgd")(0, rows, values, lanes, (state,), np.array([0.5, 0.0], np.float32))
    assert np.flatnonzero(values != 1.0).tolist() == [rows - 20]
    assert values[rows - 20] == 0.0
    assert np.signbit(lanes).all()


def test_where_a_step_needs_no_lookup() -> None:
    single = Layout.single([1000, 3000])
    assert columns_apart(single, 0)
    assert not columns_apart(single, 10)
    assert can_be_direct(single, 1, 0, batch=1, threads=8)
    assert not can_be_direct(single, 2, 0, batch=100_000, threads=2)
    assert not can_be_direct(single, 1, DIRECT // 6, batch=DIRECT, threads=2)  # 3 lanes, and as many of lost digits
    assert can_be_direct(single, 1, DIRECT // 6 - 4000, batch=DIRECT, threads=2)
    assert can_be_direct(single, 1, 2000, batch=1000, threads=2)  # 3 columns of 1,000 rows, 6,000 table rows, 3 lanes
    assert not can_be_direct(single, 1, 2001, batch=1000, threads=2)
    assert can_be_direct(single, 1, 14_000, batch=1000, threads=1)
    assert not can_be_direct(single, 1, 14_001, batch=1000, threads=1)


def test_slopes_too_small_to_sum_count_as_none() -> None:
    """Their sum would end as -0.0 where tiny numbers count as 0, as if the row had not been touched."""
    layout = Layout.single([30])
    model, table = build_model(settings_of("lr"), layout), EmbeddingTable(layout.rows, 1)
    table.weight.fill_(1.0)
    lookup = Lookup(layout)
    lookup.direct = True
    step = FusedStep(model, table, build_optimizer("sgd", table), Exchange(World(), table.rows))
    compact = lookup(np.ones((3, 1), np.int32))
    label, weight = np.array([[0.0, 1.0, 0.0], [8e-38, 2.5e-37, 1.0]], np.float32)
    step(compact, Union(compact.ids, None, 3, 1.0, 0), label, weight, 0.1, 0.5)
    slope = 1 / (1 + math.exp(-1.0))
    assert table.weight[1].item() == pytest.approx(1 - 0.1 * (slope + 0.5), rel=1e-6)


def test_gradient_by_logit_may_be_anything() -> None:
    """The interaction is an autograd citizen: twice the loss, or another loss altogether, works."""
    case = Case("ffm", *ODD, 50, 3, 0.2, 1.0)
    model, leaf = case.reference()
    model(leaf, case.found.index, case.found.factor).square().sum().backward()
    rows = case.rows.clone().requires_grad_()
    case.model(rows, case.found.index, case.found.factor).square().sum().backward()
    assert rows.grad is not None
    assert leaf.grad is not None
    assert torch.allclose(rows.grad.double(), leaf.grad, rtol=1e-3, atol=1e-3 * float(leaf.grad.abs().max()))


def test_a_logit_that_is_not_finite_shows_and_spoils_no_other_row() -> None:
    layout = Layout.single([4, 5])
    model = build_model(settings_of("fm", dim=5), layout)
    table = EmbeddingTable(model.rows, model.width, seed=1, scale=0.1)
    table.weight[1] = float("inf")  # field 0, value 1
    before = table.weight.clone()
    slots = np.array([[1, 1], [2, 2], [3, 2]], np.int32)
    found = Lookup(layout)(slots)
    exchange = Exchange(World(), table.rows)
    step = FusedStep(model, table, build_optimizer("adagrad", table), exchange)
    loss, _, logits = step(found, exchange.union(found, 3, 3.0), np.ones(3, np.float32), None, 0.1)
    assert not np.isfinite(loss)
    assert torch.isfinite(logits).tolist() == [False, True, True]
    assert torch.equal(table.weight[1], before[1])
    assert torch.equal(table.weight[4 + 1], before[4 + 1])
    assert torch.isfinite(table.weight[2:]).all()
    assert not torch.equal(table.weight[2], before[2])


def test_extreme_logits_have_a_finite_loss() -> None:
    model = build_model(settings_of("lr"), Layout.single([4]))
    found = Lookup(model.layout)(np.array([[1], [2]], np.int32))
    loss, _ = Loss(model)(
        torch.tensor([[500.0], [-500.0]]), found.index, found.factor, torch.tensor([0.0, 0.0]), None, 2.0
    )
    assert loss.item() == pytest.approx(250.0)


def test_an_index_outside_the_rows_is_refused() -> None:
    model = build_model(settings_of("fm", dim=3), Layout.single([4, 5]))
    found = Lookup(model.layout)(np.array([[1, 1]], np.int32))
    with pytest.raises(IntegrityError, match=r"positions in \[0, 1\), found 0 to 1"):
        model(torch.zeros(1, model.width), found.index, found.factor)


def test_every_kernel_has_its_user_and_its_test() -> None:
    assert {kind for kind, model in MODELS.items() if model.score} == {kind for kind, _ in PROBLEMS}
    assert {model.score for model in MODELS.values()} - {None} == set(scores.SCORES)
    assert {optimizer.rule for optimizer in OPTIMIZERS.values()} == set(updates.RULES)
