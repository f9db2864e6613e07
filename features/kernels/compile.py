"""How kernels are compiled: `entry` for the types it names and `kernel` for those it meets, on the first call; `inner`
with its caller."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba.core import types
from numba.core.bytecode import FunctionIdentity
from numba.extending import intrinsic

from fieldwise.features.kernels.cache import CodeFiles, KernelCache, package_of


def _name_apart() -> None:
    """Functions that this process compiles get symbols that no other process's have.

    A symbol is named after the function and its number among those that the process compiled, and compiled code keeps
    its symbols on disk. numba numbers from 1: where two processes compiled one function for different constants, a
    third that loads both finds only one of them under the name, and calls it for both.
    """
    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(8), "big"))


_name_apart()
os.register_at_fork(after_in_child=_name_apart)


inner: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy")
"""Decorator of a kernel's part: compiled and kept with its caller."""


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: compiled on the first call (or with its caller), kept on disk as `features.kernels.cache` says.

    A kernel may close over numbers and strings (they are part of its key on disk), never over compiled functions.
    """
    compiled = inner(function)
    if package_of(function):
        compiled._cache = KernelCache(function)
    return compiled


class Entry:
    """A kernel called from Python: compiled, or loaded, for exactly its signatures when it is first called."""

    def __init__(self, function: Callable[..., Any], signatures: tuple[str, ...]) -> None:
        self.dispatcher, self._signatures, self._loaded = kernel(function), signatures, False
        self._name = function.__name__
        self.load_name = f"{function.__module__}:{self._name}.load"
        update_wrapper(self, function)
        ENTRIES.append(self)

    def __reduce__(self) -> str:
        return self._name  # a global's: a task that is sent elsewhere finds it there

    def __call__(self, *arguments: Any) -> Any:
        if not self._loaded:
            self.load()
        return self.dispatcher(*arguments)

    def load(self) -> None:
        """What a first call does before it calls."""
        with _LOADING:
            if not self._loaded:
                for signature in self._signatures:
                    self.dispatcher.compile(signature)
                self.dispatcher.disable_compile()
                self._loaded = True


ENTRIES: list[Entry] = []
"""Of the modules that are imported."""
_LOADING = threading.RLock()


def entry(*signatures: str) -> Callable[[Callable[..., Any]], Entry]:
    """Decorator of a kernel called from Python, compiled for exactly these signatures; see `Entry`.

    Arrow's buffers are read-only, our own arrays are not: read-only parameters accept both.
    """
    return lambda function: Entry(function, signatures)


def is_kept(function: Any) -> bool:
    """Whether code of a `kernel` lies on disk."""
    files: CodeFiles = function._cache.files
    return files.is_kept()


def _unaligned(bits: int) -> Any:
    @intrinsic
    def load(typingctx: Any, data: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(bits).as_pointer())
            value = builder.load(pointer)
            value.align = 1
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(data, index), codegen

    return load


load32 = _unaligned(32)
"""``load32(bytes, i)``: the 4 bytes from i on, little-endian, as uint64."""
load64 = _unaligned(64)
"""``load64(bytes, i)``: the 8 bytes from i on, little-endian."""


@intrinsic
def store64(typingctx: Any, data: Any, index: Any, value: Any) -> Any:
    """``store64(bytes, i, v)``: v into the 8 bytes from i on, little-endian."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        store = builder.store(args[2], pointer)
        store.align = 1
        return context.get_dummy_value()

    return types.void(data, index, types.uint64), codegen


def _bytes_that(comparison: Callable[[Any, Any, Any], Any], parameters: int) -> Any:
    """64 bytes from ``data[index]`` on, compared at once: bit i tells of byte i."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(8), 64)
        array = context.make_array(signature.args[0])(context, builder, args[0])
        loaded = builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), lanes.as_pointer()), align=1)
        return builder.bitcast(comparison(builder, loaded, args[2:]), ir.IntType(64))

    if parameters == 1:
        return intrinsic(lambda typing, data, index, byte: (types.uint64(data, index, byte), codegen))
    return intrinsic(lambda typing, data, index: (types.uint64(data, index), codegen))


def _equals_byte(builder: Any, loaded: Any, args: Any) -> Any:
    nothing = ir.Constant(loaded.type, ir.Undefined)
    first = builder.insert_element(nothing, args[0], ir.Constant(ir.IntType(32), 0))
    every = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    return builder.icmp_unsigned("==", loaded, builder.shuffle_vector(first, nothing, every))


bytes_equal = _bytes_that(_equals_byte, 1)
"""``bytes_equal(bytes, i, byte)``: which of the 64 bytes from i on equal the uint8, the first one in the lowest bit."""
bytes_high = _bytes_that(lambda builder, loaded, _: builder.icmp_signed("<", loaded, ir.Constant(loaded.type, None)), 0)
"""``bytes_high(bytes, i)``: which of the 64 bytes from i on are above 127, the first one in the lowest bit."""


@intrinsic
def ones(typingctx: Any, word: Any) -> Any:
    """Number of set bits of a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typingctx: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic
def leading_zeros(typingctx: Any, word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen
