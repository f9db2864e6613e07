"""The one expression grammar of labels, weights and filters, evaluated through pyarrow.

    rating >= 4        event == "click" and not is_bot        price * 0.01        c in [1, 2]        x is not null

Operators: ``or and not``, ``== != < <= > >=``, ``in [..]``, ``not in [..]``, ``is null``, ``is not null``,
``+ - * / %``, brackets. Operands: numbers, quoted texts, ``true false null``, columns (in backticks where the name is
no word). A column beside a text is compared as text, anywhere else it reads as a number (``true``/``false`` as 1/0).
Null and empty are null, and null spreads as in SQL (``and``/``or`` by Kleene). There are no functions, attributes or
subscripts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError
from features.text import Columns, canonical, numbers

Bool = npt.NDArray[np.bool_]
MAX_LENGTH = 4000
_COMPARE = {
    ast.Eq: pc.equal, ast.NotEq: pc.not_equal, ast.Lt: pc.less, ast.LtE: pc.less_equal,
    ast.Gt: pc.greater, ast.GtE: pc.greater_equal,
}  # fmt: skip
_ARITHMETIC = {ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: pc.divide}
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class Expression:
    """A checked expression. ``columns``: raw columns it reads, in first use. Picklable."""

    def __init__(self, text: str, key: str = "expression") -> None:
        """Raises ConfigError naming ``key`` for what the grammar does not have."""
        self.text, self._key = text, key
        self._quoted: list[str] = []
        self._names: dict[str, None] = {}
        self._tree = self._parse(text)
        self._check(self._tree)
        self.columns = tuple(self._names)

    def _parse(self, text: str) -> ast.expr:
        if len(text) > MAX_LENGTH:
            raise self._error(f"{len(text)} characters", f"Keep it below {MAX_LENGTH}.")

        def quote(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0]
            self._quoted.append(match[1])
            return f" _column_{len(self._quoted) - 1}_ "

        try:
            source = re.sub(r"`([^`]+)`|\"[^\"]*\"|'[^']*'", quote, text).strip()
            return ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error(repr(text), f"It does not parse: {error.args[0] if error.args else error}.") from None

    def _error(self, found: str, fix: str) -> ConfigError:
        return ConfigError(self._key, expected="an expression such as `rating >= 4`", found=found, fix=fix)

    def _column(self, node: ast.Name) -> str:
        match = re.fullmatch(r"_column_(\d+)_", node.id)
        return self._quoted[int(match[1])] if match and int(match[1]) < len(self._quoted) else node.id

    def _check(self, node: ast.expr) -> None:
        """Only the grammar's nodes pass; everything else is named and refused."""
        if isinstance(node, ast.Name):
            if node.id not in _LITERALS:
                self._names[self._column(node)] = None
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
            return
        if isinstance(node, ast.BoolOp):
            return self._check_all(node.values)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.UAdd):
            return self._check(node.operand)
        if isinstance(node, ast.BinOp) and (type(node.op) in _ARITHMETIC or isinstance(node.op, ast.Mod)):
            return self._check_all([node.left, node.right])
        if isinstance(node, ast.Compare):
            self._check(node.left)
            for op, right in zip(node.ops, node.comparators, strict=True):
                self._check_comparison(op, right)
            return
        found = ast.unparse(node)
        raise self._error(found, f"{type(node).__name__} is not part of the grammar.")

    def _check_all(self, nodes: Sequence[ast.expr]) -> None:
        for node in nodes:
            self._check(node)

    def _check_comparison(self, op: ast.cmpop, right: ast.expr) -> None:
        if isinstance(op, ast.In | ast.NotIn):
            values = [_literal(e) for e in right.elts] if isinstance(right, ast.List) else []
            texts = sum(isinstance(v, str) for v in values)
            if not values or None in values or texts not in (0, len(values)):
                raise self._error(ast.unparse(right), "`in` takes a list of numbers or a list of texts.")
        elif isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Name | ast.Constant) and _literal(right) is None):
                raise self._error(ast.unparse(right), "`is` takes null or not null.")
        elif type(op) in _COMPARE:
            self._check(right)

    def evaluate(self, batch: pa.RecordBatch | pa.Table | Columns) -> tuple[pa.Array, Bool]:
        """(values, bad): bool or float64 array of the batch's length, and rows with a value that reads as no number."""
        columns = Columns.of(batch)
        run = _Run(self, columns)
        values = run.value(self._tree)
        if not isinstance(values, pa.Array):
            values = pa.array(np.full(columns.rows, np.nan if values is None else float(values)), from_pandas=True)
        return values, run.bad


def _literal(node: ast.expr) -> Any:
    """Value of a literal; a marker that equals nothing for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _LITERALS:
        return _LITERALS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        return -value if isinstance(value, int | float) else None
    return None


class _Run:
    """One evaluation over one batch."""

    def __init__(self, expression: Expression, columns: Columns) -> None:
        self._expression, self._columns = expression, columns
        self.bad = np.zeros(columns.rows, np.bool_)

    def value(self, node: ast.expr) -> Any:
        """An array (float64 or bool) or a Python scalar."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return _LITERALS[node.id] if node.id in _LITERALS else self._number(self._name(node))
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            values = [_truth(self.value(v)) for v in node.values]
            result = values[0]
            for value in values[1:]:
                result = join(result, value)
            return result
        if isinstance(node, ast.UnaryOp):
            value = self.value(node.operand)
            if isinstance(node.op, ast.Not):
                return pc.invert(_truth(value))
            return value if isinstance(node.op, ast.UAdd) else pc.negate(_float(value))
        if isinstance(node, ast.BinOp):
            left, right = _float(self.value(node.left)), _float(self.value(node.right))
            if isinstance(node.op, ast.Mod):
                return pc.subtract(left, pc.multiply(right, pc.floor(pc.divide(left, right))))
            return _ARITHMETIC[type(node.op)](left, right)
        assert isinstance(node, ast.Compare)
        operands = [node.left, *node.comparators]
        results = [self._compare(op, operands[i], operands[i + 1]) for i, op in enumerate(node.ops)]
        result = results[0]
        for other in results[1:]:
            result = pc.and_kleene(result, other)
        return result

    def _name(self, node: ast.Name) -> str:
        return self._expression._column(node)

    def _number(self, name: str) -> pa.Array:
        array = self._columns.array(name)
        if pa.types.is_boolean(array.type):
            return array
        values, bad = numbers(array, self._columns.where(name))
        if bad.any():
            rows = np.flatnonzero(bad)
            words = pc.utf8_lower(canonical(array.take(pa.array(rows))))
            true, false = (np.array(pc.equal(words, word), dtype=np.bool_) for word in ("true", "false"))
            values[rows[true]], values[rows[false]] = 1.0, 0.0
            bad[rows[true | false]] = False
            self.bad |= bad
        return pa.array(values, from_pandas=True)

    def _text(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id not in _LITERALS:
            name = self._name(node)
            array = canonical(self._columns.array(name), self._columns.where(name))
            return pc.if_else(pc.equal(pc.binary_length(array), 0), pa.scalar(None, array.type), array)
        value = _literal(node)
        if isinstance(value, str) or value is None:
            return pa.scalar(value, pa.string())
        raise self._expression._error(ast.unparse(node), "A text can only be compared with a column or a text.")

    def _compare(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Any:
        if isinstance(op, ast.Is | ast.IsNot):
            value = self._text(left) if isinstance(left, ast.Name) else self.value(left)
            return pc.is_valid(value) if isinstance(op, ast.IsNot) else pc.is_null(value)
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(right, ast.List)
            values = [_literal(e) for e in right.elts]
            text = isinstance(values[0], str)
            known = self._text(left) if text else _float(self.value(left))
            choices = pa.array(values, known.type) if text else pa.array([float(v) for v in values])
            inside = pc.if_else(pc.is_valid(known), pc.is_in(known, value_set=choices), pa.scalar(None, pa.bool_()))
            return pc.invert(inside) if isinstance(op, ast.NotIn) else inside
        if isinstance(_literal(left), str) or isinstance(_literal(right), str):
            a, b = self._text(left), self._text(right)
            return _COMPARE[type(op)](a, b)
        return _COMPARE[type(op)](_float(self.value(left)), _float(self.value(right)))


def _float(value: Any) -> Any:
    if isinstance(value, pa.Array | pa.Scalar):
        return pc.cast(value, pa.float64())
    return pa.scalar(None if value is None else float(value), pa.float64())


def _truth(value: Any) -> Any:
    if isinstance(value, pa.Array | pa.Scalar):
        return value if pa.types.is_boolean(value.type) else pc.not_equal(value, 0.0)
    return pa.scalar(None if value is None else bool(value), pa.bool_())


def compile(text: str, key: str = "expression") -> Expression:
    """The expression of a config key. Raises ConfigError."""
    return Expression(text, key)
