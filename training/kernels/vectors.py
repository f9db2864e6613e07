"""Short vectors of float32 inside kernels, and what threads need of single numbers: compare-and-swap, release, acquire.

LLVM's loop vectoriser leaves long scalar tails at the widths of embedding rows (1 + 16, 1 + 39 * 4), and numba's index
arithmetic hides contiguous blocks from it. Naming the vectors removes both: ``load(array, at, n)`` is n floats starting
at element ``at`` of a flat array (n a compile-time constant), and ``store``, ``splat``, ``add``, ``sub``, ``mul``,
``div``, ``fma``, ``sqrt``, ``fabs``, ``join``, ``total``, ``reaching``, ``marked``, ``chosen`` work on them. No bounds
are checked: callers validate indices first.

``load``, ``number`` and ``put`` take bfloat16 as well, as an array of int16 that holds its bits.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from fieldwise.training.rounding import FIRST, SECOND, STEP

_FLOAT, _INT16, _INT32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)


class Vector(types.Type):
    """Numba's type of n float32 held in a vector register."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_FLOAT, vector.lanes))


def _pointer(context, builder, kind, array, at):
    """Address of element ``at``, without numba's wrap-around of negative indices."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _call(builder, name, result, arguments, **flags):
    function = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments, **flags)


@intrinsic(prefer_literal=True)
def load(typing, array, at, lanes):
    """``array[at : at + lanes]``"""
    vector = Vector(lanes.literal_value)

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        scalar, size = (_INT16, 2) if array.dtype == types.int16 else (_FLOAT, 4)
        kept = ir.VectorType(scalar, vector.lanes)
        return _widened(builder, builder.load(builder.bitcast(pointer, kept.as_pointer()), align=size))

    return vector(array, types.int64, lanes), code


@intrinsic
def number(typing, array, at):
    """``array[at]``"""

    def code(context, builder, signature, args):
        return _widened(builder, builder.load(_pointer(context, builder, signature.args[0], *args)))

    return types.float32(array, types.int64), code


def _shaped(like, scalar):
    """The type of as many ``scalar`` as the value has, or of one."""
    return ir.VectorType(scalar, like.type.count) if isinstance(like.type, ir.VectorType) else scalar


def _copies(builder, number, lanes):
    empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, number, _INT32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _all(builder, like, number):
    """The number in every lane that ``like`` has."""
    return _copies(builder, number, like.type.count) if isinstance(like.type, ir.VectorType) else number


def _widened(builder, kept):
    """float32 of what an array keeps: itself, or the upper half of its bits."""
    if kept.type != _shaped(kept, _INT16):
        return kept
    bits = builder.zext(kept, _shaped(kept, _INT32))
    sixteen = _all(builder, kept, _INT32(16))
    return builder.bitcast(builder.shl(bits, sixteen), _shaped(kept, _FLOAT))


@intrinsic
def put(typing, array, at, x, step):
    """``array[at : ...] = x``, a number or a vector. Into bfloat16 it is rounded at random, see `training.rounding`."""

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        kept, size = args[2], 4
        if array.dtype == types.int16:
            kept, size = _rounded(builder, args[1], args[2], builder.fptoui(args[3], _INT32)), 2
        builder.store(kept, builder.bitcast(pointer, kept.type.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(array, types.int64, x, types.float32), code


def _rounded(builder, at, x, step):
    """`training.rounding.rounded` of a number or vector at place ``at``."""

    def constant(number):
        return _all(builder, x, _INT32(number))

    place = _all(builder, x, builder.add(builder.trunc(at, _INT32), builder.mul(step, _INT32(STEP))))
    if isinstance(x.type, ir.VectorType):
        place = builder.add(place, ir.Constant(place.type, list(range(x.type.count))))
    noise = builder.mul(place, constant(FIRST))
    noise = builder.mul(builder.xor(noise, builder.lshr(noise, constant(15))), constant(SECOND))
    sixteen = constant(16)
    bits = builder.add(builder.bitcast(x, place.type), builder.lshr(noise, sixteen))
    return builder.trunc(builder.lshr(bits, sixteen), _shaped(x, _INT16))


@intrinsic
def store(typing, array, at, vector):
    """``array[at : at + lanes] = vector``"""

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic(prefer_literal=True)
def splat(typing, number, lanes):
    """``lanes`` copies of one number."""
    vector = Vector(lanes.literal_value)

    def code(context, builder, signature, args):
        return _copies(builder, args[0], vector.lanes)

    return vector(types.float32, lanes), code


@intrinsic
def join(typing, x, y):
    """The lanes of x, then as many of y."""

    def code(context, builder, signature, args):
        both = ir.Constant(ir.VectorType(_INT32, 2 * x.lanes), list(range(2 * x.lanes)))
        return builder.shuffle_vector(args[0], args[1], both)

    return Vector(2 * x.lanes)(x, y), code


def _lanewise(name: str, build: Callable[..., Any], operands: int) -> Any:
    def typed(typing, x, *others):
        return x(*(x,) * operands), lambda context, builder, signature, args: build(builder, *args)

    # numba reads the number of operands off the signature
    forms = {1: lambda t, x: typed(t, x), 2: lambda t, x, y: typed(t, x, y), 3: lambda t, x, y, z: typed(t, x, y, z)}
    function = forms[operands]
    function.__name__ = name
    return intrinsic(function)


def _intrinsic_of(name: str) -> Callable[..., Any]:
    return lambda builder, *args: _call(builder, f"llvm.{name}.v{args[0].type.count}f32", args[0].type, list(args))


add = _lanewise("add", lambda builder, x, y: builder.fadd(x, y), 2)
sub = _lanewise("sub", lambda builder, x, y: builder.fsub(x, y), 2)
mul = _lanewise("mul", lambda builder, x, y: builder.fmul(x, y), 2)
div = _lanewise("div", lambda builder, x, y: builder.fdiv(x, y), 2)
sqrt = _lanewise("sqrt", _intrinsic_of("sqrt"), 1)
fabs = _lanewise("fabs", _intrinsic_of("fabs"), 1)
fma = _lanewise("fma", _intrinsic_of("fma"), 3)
"""fma(x, y, z) = x * y + z"""


def _marked(builder, vector):
    """Lanes whose bits are not those of -0.0."""
    integers = ir.VectorType(_INT32, vector.type.count)
    none = ir.Constant(integers, [-(2**31)] * vector.type.count)
    return builder.icmp_signed("!=", builder.bitcast(vector, integers), none)


chosen = _lanewise("chosen", lambda builder, x, y, z: builder.select(_marked(builder, x), y, z), 3)
"""chosen(x, y, z) = y where x is not -0.0, else z"""


@intrinsic
def marked(typing, x):
    """Whether any lane is not -0.0."""

    def code(context, builder, signature, args):
        lanes = ir.IntType(x.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(_marked(builder, args[0]), lanes), lanes(0))

    return types.boolean(x), code


@intrinsic
def total(typing, vector):
    """Sum of the lanes, pairwise."""

    def code(context, builder, signature, args):
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}f32"
        return _call(builder, name, _FLOAT, [_FLOAT(-0.0), args[0]], fastmath=("reassoc",))

    return types.float32(vector), code


@intrinsic
def take(typing, array, at, seen, then):
    """``array[at] = then`` if it still is ``seen``, as one act among threads; returns whether. int64."""

    def code(context, builder, signature, args):
        result = builder.cmpxchg(
            _pointer(context, builder, signature.args[0], *args[:2]), *args[2:], "acq_rel", "monotonic"
        )
        return builder.extract_value(result, 1)

    return types.boolean(array, types.int64, types.int64, types.int64), code


@intrinsic
def give(typing, array, at, number):
    """``array[at] = number``, after all that this thread wrote before. int64."""

    def code(context, builder, signature, args):
        builder.store_atomic(args[2], _pointer(context, builder, signature.args[0], *args[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def look(typing, array, at):
    """``array[at]``, with all that the thread which gave it wrote before. int64."""

    def code(context, builder, signature, args):
        return builder.load_atomic(_pointer(context, builder, signature.args[0], *args), "acquire", 8)

    return types.int64(array, types.int64), code


@intrinsic
def reaching(typing, x, y):
    """Bits of the lanes in which x >= y, lane 0 the lowest; up to 64 lanes."""

    def code(context, builder, signature, args):
        bits = builder.bitcast(builder.fcmp_ordered(">=", *args), ir.IntType(x.lanes))
        return bits if x.lanes == 64 else builder.zext(bits, ir.IntType(64))

    return types.uint64(x, y), code


@intrinsic
def lowest(typing, bits):
    """Position of the lowest bit that is set, of a uint64 that is not 0."""

    def code(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.uint64), code


@intrinsic
def prefetch(typing, array, at):
    """Ask for the cache line of ``array[at]``; harmless whatever the address."""

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, _INT32(0), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), code
