"""The one expression grammar of labels, weights and filters, evaluated through pyarrow.

    rating >= 4        event == "click" and not is_bot        price * 0.01        c in [1, 2]        x is not null

Operators: ``or and not``, ``== != < <= > >=``, ``in [..]``, ``not in [..]``, ``is null``, ``is not null``,
``+ - * / %``, brackets. Operands: numbers, quoted texts, ``true false null``, columns (in backticks where the name is
no word). A column beside a text is compared as text, anywhere else it reads as a number (``true``/``false`` as 1/0).
Numbers are compared as in Python: integers exactly whatever their size, others as float64 (see
``features.columns.exact``). Null and empty are null, and null spreads as in SQL (``and``/``or`` by Kleene). There are
no functions, attributes or subscripts.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
import warnings
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool
from fieldwise.features.columns import exact
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.exact import Number
from fieldwise.features.columns.text import canonical, numbers
from fieldwise.features.errors import ConfigError

MAX_LENGTH = 4000
MOST_OPERATIONS = 100
"""Operators and lists of one expression: what walks its tree calls itself for each that lies in another."""
_BEYOND = 1024
"""Bits of a whole number that no float64 comes near."""
_SHOWN = 80
_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: (pc.equal, operator.eq), ast.NotEq: (pc.not_equal, operator.ne),
    ast.Lt: (pc.less, operator.lt), ast.LtE: (pc.less_equal, operator.le),
    ast.Gt: (pc.greater, operator.gt), ast.GtE: (pc.greater_equal, operator.ge),
}  # fmt: skip


def _modulo(left: Any, right: Any) -> Any:
    """Of the sign of ``right``, as in Python."""
    return pc.subtract(left, pc.multiply(right, pc.floor(pc.divide(left, right))))


_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: (pc.add, operator.add), ast.Sub: (pc.subtract, operator.sub), ast.Mult: (pc.multiply, operator.mul),
    ast.Div: (pc.divide, operator.truediv), ast.Mod: (_modulo, operator.mod),
}  # fmt: skip
"""By float64 columns, and by Python's numbers; see ``features.columns.exact``."""
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class Expression:
    """A checked expression. ``columns``: raw columns it reads, in first use. Picklable."""

    def __init__(self, text: str, key: str = "expression") -> None:
        """Raises ConfigError naming ``key`` for what the grammar does not have."""
        self.text, self._key = text, key
        self._quoted: list[str] = []
        self._names: dict[str, None] = {}
        self._tree = self._parse(text)
        self._require_small(self._tree)
        self._check(self._tree)
        self.columns = tuple(self._names)

    @property
    def meaning(self) -> tuple[str, ...]:
        """The same for texts that differ in blanks and brackets only."""
        return (ast.dump(self._tree), *self._quoted)

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # what it takes is told by what comes out
                return ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            told = f"It does not parse: {error.args[0] if error.args else error}.".replace("..", ".")
            raise self._error(repr(text), _habit(text) or told) from None

    def _require_small(self, tree: ast.expr) -> None:
        """Refuse what is nested too deep to be walked, and numbers that nothing compares with."""
        operations = 0
        for node in ast.walk(tree):
            operations += _operations(node)
            value = node.value if isinstance(node, ast.Constant) else None
            whole = isinstance(value, int) and value.bit_length() > _BEYOND
            if whole or (isinstance(value, float) and math.isinf(value)):
                raise self._error("a number beyond 1.8e308", "Write one that float64 holds.")
        if operations > MOST_OPERATIONS:
            raise self._error(f"{operations} operations", f"Keep it to {MOST_OPERATIONS}, or write a column for it.")

    def _error(self, found: str, fix: str) -> ConfigError:
        found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
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
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
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
        if isinstance(values, pa.Scalar):
            values = pa.array([values.as_py()] * columns.rows, values.type)
        return values, run.bad


_HABITS = (
    (r"(?<![=!<>])=(?![=])", "Compare by two signs: `==`."),
    (r"<>", "Write `!=`."),
    (r"(?<![\w.])0\d", "Write numbers without leading zeros; put dates and codes in quotes."),
    (r"&&|\|\||\b(?:AND|OR|NOT|IN|IS|NULL)\b", "Write `and`, `or`, `not`, `in`, `is null` in small letters."),
)
"""What people are used to from other languages, and its remedy."""


def _habit(text: str) -> str:
    """The remedy for what does not parse, where it is a known habit."""
    bare = re.sub(r"`[^`]+`|\"[^\"]*\"|'[^']*'", "x", text)
    told = next((remedy for pattern, remedy in _HABITS if re.search(pattern, bare)), "")
    named = re.match(r"\s*([^\W\d][^=<>]*?)\s*(?:$|[=<>!]+)", bare)
    if told or named is None or not re.search(r"\W", named[1]) or re.search(r"\b(?:and|or|not|in|is)\b", named[1]):
        return told
    return f"Put a name that is no word in backticks: `` `{named[1]}` {bare[named.end(1) :].strip() or '>= 4'} ``."


def _operations(node: ast.AST) -> int:
    """Of a node alone. The sign of a number is part of it."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.Compare):
        return len(node.ops)
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return 0
    return int(isinstance(node, ast.expr) and not isinstance(node, ast.Name | ast.Constant))


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

    def value(self, node: ast.expr) -> pa.Array | pa.Scalar:
        """Bool where the node is a truth, else float64."""
        if isinstance(node, ast.Name) and node.id not in _LITERALS:
            array = self._columns.array(self._name(node))
            return array if pa.types.is_boolean(array.type) else self._number(node).floats
        if isinstance(node, ast.Compare | ast.BoolOp) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        ):
            return self._truth(node)
        return self._number(node).floats

    def _truth(self, node: ast.expr) -> pa.Array | pa.Scalar:
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return reduce(join, [self._truth(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self._truth(node.operand))
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            found = [self._compare(op, operands[i], operands[i + 1]) for i, op in enumerate(node.ops)]
            return reduce(pc.and_kleene, found)
        values = self.value(node)
        return values if pa.types.is_boolean(values.type) else pc.not_equal(values, 0.0)

    def _number(self, node: ast.expr) -> Number:
        if isinstance(node, ast.Name) and node.id not in _LITERALS:
            return self._column(self._name(node))
        if isinstance(node, ast.Constant | ast.Name):
            value = _literal(node)
            if isinstance(value, str):
                raise self._expression._error(ast.unparse(node), "A text can only be compared with a column or a text.")
            return exact.constant(value)
        if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
            number = self._number(node.operand)
            return exact.negated(number) if isinstance(node.op, ast.USub) else number
        if isinstance(node, ast.BinOp):
            return exact.arithmetic(self._number(node.left), self._number(node.right), *_ARITHMETIC[type(node.op)])
        return exact.of_floats(self._truth(node))

    def _name(self, node: ast.Name) -> str:
        return self._expression._column(node)

    def _column(self, name: str) -> Number:
        array = self._columns.array(name)
        if pa.types.is_boolean(array.type):
            return exact.of_floats(array)
        values, bad = numbers(array, self._columns.where(name))
        if bad.any():
            rows = np.flatnonzero(bad)
            words = pc.ascii_lower(canonical(array.take(pa.array(rows))))
            true, false = (np.array(pc.equal(words, word), dtype=np.bool_) for word in ("true", "false"))
            values[rows[true]], values[rows[false]] = 1.0, 0.0
            bad[rows[true | false]] = False
            self.bad |= bad
        return exact.column(pa.array(values, from_pandas=True), array)

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
            if isinstance(values[0], str):
                known = self._text(left)
                inside = pc.is_in(known, value_set=pa.array(values, known.type))
                inside = pc.if_else(pc.is_valid(known), inside, pa.scalar(None, pa.bool_()))
            else:
                inside = exact.among(self._number(left), values)
            return pc.invert(inside) if isinstance(op, ast.NotIn) else inside
        fast, slow = _COMPARE[type(op)]
        if isinstance(_literal(left), str) or isinstance(_literal(right), str):
            return fast(self._text(left), self._text(right))
        return exact.compare(self._number(left), self._number(right), fast, slow)


def quoted(name: str) -> str | None:
    """A column as expressions name it: in backticks where it is no word; None for a name that they cannot hold."""
    if name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name not in _LITERALS:
        return name if not name.startswith("_column_") else f"`{name}`"
    return f"`{name}`" if name and "`" not in name else None


def among(word: str, values: Sequence[str]) -> str:
    """Whether a column, as `quoted` names it, holds one of some texts, those left out that expressions cannot hold.

    >>> among("event", ["buy", "click"])
    'event in ["buy", "click"]'
    """
    texts = [f'"{value}"' for value in values if not set('"\\`') & set(value)]
    return f"{word} == {texts[0]}" if len(texts) == 1 else f"{word} in [{', '.join(texts)}]"


def compile(text: str, key: str = "expression") -> Expression:
    """The expression of a config key. Raises ConfigError."""
    return Expression(text, key)
