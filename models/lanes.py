"""Sixteen float32 at a time, for numba: the few vector operations that the CRF's inner loops need.

Knows nothing of images, lattices or labels.

numba leaves vectorizing to the compiler, which cannot keep a row of unknown length in registers and must suspect that any
two rows overlap. Here a cache line of sixteen floats is a value of its own. The compiler lowers it to whatever the
machine has: one AVX-512 register, two AVX, four SSE or NEON. All loads may be unaligned.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

WIDTH = 16
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """njit, without Python's lock, kept on disk where that is possible.

    numba looks for a folder to write in (NUMBA_CACHE_DIR, beside the source, the user's cache) and raises where there is
    none, as under a read-only root. Then the code is compiled anew in each process.
    """
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


class Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()
_f32 = ir.FloatType()
_i32 = ir.IntType(32)
_vector = ir.VectorType(_f32, WIDTH)
_integers = ir.VectorType(_i32, WIDTH)


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _vector)


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _vector.as_pointer())


def _call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(builder.module.declare_intrinsic(name, (), kind), arguments)


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_vector, ir.Undefined), scalar, ir.Constant(_i32, 0))
    return builder.shuffle_vector(one, ir.Constant(_vector, ir.Undefined), ir.Constant(_integers, None))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_vector, [value] * WIDTH)


@intrinsic  # type: ignore[untyped-decorator]
def at(typing: Any, array: Any, offset: Any) -> Any:
    """One value of a contiguous array, counted flat. Plain indexing would first test every index for below zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, offset: Any) -> Any:
    """Sixteen values of a flat float32 array from offset on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return lanes(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, offset: Any, values: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def fill(typing: Any, value: Any) -> Any:
    """The same value in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return lanes(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing: Any, factor: Any, values: Any, addend: Any) -> Any:
    """factor (a scalar) · values + addend, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "llvm.fma.v16f32", _vector, [_splat(builder, args[0]), args[1], args[2]])

    return lanes(types.float32, lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def add(typing: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return lanes(lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def maximum(typing: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return lanes(lanes, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def highest(typing: Any, values: Any) -> Any:
    """The largest of the sixteen."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fold(builder, args[0], lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return types.float32(lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(typing: Any, values: Any) -> Any:
    """The sum of the sixteen, always added in the same order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fold(builder, args[0], builder.fadd)

    return types.float32(lanes), generate


def _fold(builder: Any, values: Any, combine: Callable[[Any, Any], Any]) -> Any:
    for half in (8, 4, 2, 1):  # upper half onto lower half, until one is left
        order = [(lane + half) % WIDTH for lane in range(WIDTH)]
        values = combine(values, builder.shuffle_vector(values, values, ir.Constant(_integers, order)))
    return builder.extract_element(values, ir.Constant(_i32, 0))


@intrinsic  # type: ignore[untyped-decorator]
def exp(typing: Any, values: Any) -> Any:
    """e to the power of each lane, for lanes ≤ 88; about 2 units in the last place, 0 below −87.

    e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ½ ln 2: n goes into the exponent bits, e^r is a Taylor polynomial.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def fused(a: Any, b: Any, c: Any) -> Any:
            return _call(builder, "llvm.fma.v16f32", _vector, [a, b, c])

        floor = _constant(-87.0)
        inside = builder.fcmp_ordered(">", args[0], floor)
        x = builder.select(inside, args[0], floor)
        n = _call(builder, "llvm.rint.v16f32", _vector, [builder.fmul(x, _constant(1 / math.log(2)))])
        r = fused(n, _constant(-0.693359375), x)  # ln 2 in two parts: the first has nine bits, so n times it is exact
        r = fused(n, _constant(0.693359375 - math.log(2)), r)
        series = _constant(1 / math.factorial(6))
        for power in range(5, -1, -1):
            series = fused(series, r, _constant(1 / math.factorial(power)))
        exponent = builder.add(builder.fptosi(n, _integers), ir.Constant(_integers, [127] * WIDTH))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(_integers, [23] * WIDTH)), _vector)
        return builder.select(inside, builder.fmul(series, scale), _constant(0.0))

    return lanes(lanes), generate
