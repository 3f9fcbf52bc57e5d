"""A row of float32 at a time, for numba: the few vector operations that the CRF's inner loops need.

Knows nothing of images, lattices or labels.

numba leaves vectorizing to the compiler, which cannot keep a row of unknown length in registers and must suspect that
any two rows overlap. Here 8, 16 or 32 floats are one value. The compiler lowers it to whatever the machine has: 32
floats are two AVX-512 registers, four AVX, eight SSE or NEON. Loads need no alignment, and check no bounds.

The width is part of the type, so each width is compiled by itself. A function learns it from an argument `unit`: a
tuple of 3, 4 or 5 zeros stands for 8, 16 or 32, because a tuple's length is part of its type.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

UNITS = ((0,) * 3, (0,) * 4, (0,) * 5)
ONE, FOUR = (), (0,) * 2  # for single numbers, and for as many as fit where rows are many


def unit_for(channels: int) -> tuple[int, ...]:
    """The smallest unit that holds so many channels, or the largest there is."""
    return next((unit for unit in UNITS if channels <= 1 << len(unit)), UNITS[-1])


class Vector(types.Type):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Vector({width})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, _vector(fe_type.width))


_f32 = ir.FloatType()
_i32 = ir.IntType(32)
_pointer = ir.PointerType()


def _vector(width: int) -> ir.VectorType:
    return ir.VectorType(_f32, width)


def _integers(width: int, values: Any) -> ir.Constant:
    return ir.Constant(ir.VectorType(_i32, width), values)


def _pointer_to(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(builder.module.declare_intrinsic(name, (), kind), arguments)


def _broadcast(builder: Any, scalar: Any, width: int) -> Any:
    empty = ir.Constant(_vector(width), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, scalar, _i32(0)), empty, _integers(width, None))


def _fused(builder: Any, width: int, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fmuladd.v{width}f32", _vector(width), [a, b, c])


def _rounded(builder: Any, row: Any) -> Any:
    return _call(builder, f"llvm.rint.v{row.type.count}f32", row.type, [row])


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _emit(build: Callable[..., Any]) -> Callable[..., Any]:
    """What numba calls for the code of an operation that needs its operands alone: build(builder, *operands)."""
    return lambda context, builder, signature, operands: build(builder, *operands)


@intrinsic  # type: ignore[untyped-decorator]
def at(typing: Any, array: Any, offset: Any) -> Any:
    """One value of a contiguous array, counted flat. Plain indexing would first test every index for below zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer_to(context, builder, signature.args[0], *args))

    return array.dtype(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing: Any, array: Any, offset: Any, unit: Any) -> Any:
    """Calls a row of a flat array into the cache, and does not wait for it."""
    width, line = 1 << len(unit), 64 // (array.dtype.bitwidth // 8)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for start in range(0, width, line):
            offset = builder.add(args[1], ir.Constant(args[1].type, start))
            address = builder.bitcast(_pointer_to(context, builder, signature.args[0], args[0], offset), _pointer)
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, _i32(0), _i32(3), _i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, unit), generate


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, offset: Any, unit: Any) -> Any:
    """One unit of a flat float32 array, from offset on."""
    lanes = Vector(1 << len(unit))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _pointer_to(context, builder, signature.args[0], args[0], args[1])
        return builder.load(builder.bitcast(address, _vector(lanes.width).as_pointer()), align=4)

    return lanes(array, types.intp, unit), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, offset: Any, values: Any) -> Any:
    """The same the other way."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _pointer_to(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(address, args[2].type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), generate


@intrinsic  # type: ignore[untyped-decorator]
def fill(typing: Any, value: Any, unit: Any) -> Any:
    """The same value in every lane."""
    lanes = Vector(1 << len(unit))
    return lanes(types.float32, unit), _emit(lambda builder, value, unit: _broadcast(builder, value, lanes.width))


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing: Any, factor: Any, values: Any, addend: Any) -> Any:
    """factor (a scalar) · values + addend, fused where the machine can."""
    return values(types.float32, values, values), _emit(
        lambda builder, a, b, c: _fused(builder, values.width, _broadcast(builder, a, values.width), b, c)
    )


@intrinsic  # type: ignore[untyped-decorator]
def times(typing: Any, factor: Any, values: Any) -> Any:
    """factor (a scalar) · values, rounded."""
    return values(types.float32, values), _emit(
        lambda builder, a, b: builder.fmul(_broadcast(builder, a, values.width), b)
    )


@intrinsic  # type: ignore[untyped-decorator]
def nearest(typing: Any, values: Any) -> Any:
    """Each lane's nearest integer; the even one where two are as near."""
    return values(values), _emit(_rounded)


def _lane_by_lane(build: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def operation(typing: Any, a: Any, b: Any) -> Any:
        return a(a, a), _emit(build)

    return operation


add = _lane_by_lane(lambda builder, a, b: builder.fadd(a, b))
subtract = _lane_by_lane(lambda builder, a, b: builder.fsub(a, b))
maximum = _lane_by_lane(_larger)
less = _lane_by_lane(lambda builder, a, b: builder.uitofp(builder.fcmp_ordered("<", a, b), a.type))  # 1 where a < b


@intrinsic  # type: ignore[untyped-decorator]
def where(typing: Any, key: Any, value: Any, found: Any, other: Any) -> Any:
    """found in each lane where key is the scalar value, else other."""

    def build(builder: Any, key_row: Any, wanted: Any, found_row: Any, other_row: Any) -> Any:
        same = builder.fcmp_ordered("==", key_row, _broadcast(builder, wanted, key.width))
        return builder.select(same, found_row, other_row)

    return key(key, types.float32, key, key), _emit(build)


@intrinsic  # type: ignore[untyped-decorator]
def first_lane(typing: Any, values: Any, value: Any) -> Any:
    """The first lane that is the scalar value; the width where none is."""

    def build(builder: Any, row: Any, wanted: Any) -> Any:
        same = builder.fcmp_ordered("==", row, _broadcast(builder, wanted, values.width))
        bits = builder.zext(builder.bitcast(same, ir.IntType(values.width)), ir.IntType(64))
        bits = builder.or_(bits, ir.Constant(bits.type, 1 << values.width))
        return builder.cttz(bits, ir.Constant(ir.IntType(1), 1))

    return types.int64(values, types.float32), _emit(build)


def _across_lanes(combine: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def fold(typing: Any, values: Any) -> Any:
        def build(builder: Any, row: Any) -> Any:
            half = values.width // 2
            while half:  # upper half onto lower half, until one is left
                order = _integers(values.width, [(lane + half) % values.width for lane in range(values.width)])
                row = combine(builder, row, builder.shuffle_vector(row, row, order))
                half //= 2
            return builder.extract_element(row, _i32(0))

        return types.float32(values), _emit(build)

    return fold


highest = _across_lanes(_larger)  # the largest lane
total = _across_lanes(lambda builder, a, b: builder.fadd(a, b))  # the sum of the lanes, always in the same order


@intrinsic  # type: ignore[untyped-decorator]
def exp(typing: Any, values: Any) -> Any:
    """e to the power of each lane, for lanes ≤ 88; relative error below 3e-7, exactly 0 below −87.

    e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ½ ln 2: n goes into the exponent bits, e^r is a Taylor series.
    """
    width = values.width

    def constant(value: float) -> ir.Constant:
        return ir.Constant(_vector(width), [value] * width)

    def build(builder: Any, x: Any) -> Any:
        inside = builder.fcmp_ordered(">", x, constant(-87.0))
        x = builder.select(inside, x, constant(-87.0))
        n = _rounded(builder, builder.fmul(x, constant(1 / math.log(2))))
        r = _fused(builder, width, n, constant(-0.693359375), x)  # ln 2 in two parts; n times the first is exact
        r = _fused(builder, width, n, constant(0.693359375 - math.log(2)), r)
        series = constant(1 / math.factorial(6))
        for power in range(5, -1, -1):
            series = _fused(builder, width, series, r, constant(1 / math.factorial(power)))
        biased = builder.add(builder.fptosi(n, ir.VectorType(_i32, width)), _integers(width, [127] * width))
        scale = builder.bitcast(builder.shl(biased, _integers(width, [23] * width)), x.type)
        return builder.select(inside, builder.fmul(series, scale), constant(0.0))

    return values(values), _emit(build)
