"""Rows of the op table: elementwise operations and activations."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import scipy.special

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops import activation
from ..ops import elementwise as e
from ..ops.leaf import custom_gradient, imatrix, ivector, matrix, tensor, vector
from .table import (
    ALL,
    BOOL,
    FLOATS,
    INTEGERS,
    NUMBERS,
    Array,
    Bad,
    Case,
    Sample,
    binary,
    operands,
    strided,
    unary,
    values,
)

SOME = ("float16", "float32", "float64", "int8", "int32", "uint16", "int64", "bool")


def torch(path: str, **options: Any) -> Callable[..., Any]:
    """A function of PyTorch, which is imported when it is called."""

    def call(*xs: Any) -> Any:
        module: Any = importlib.import_module("torch")
        return reduce(getattr, path.split("."), module)(*xs, **options)

    return call


def special(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    """One operand: zeros, infinities, NaN, the smallest and largest numbers."""
    info = np.finfo(dtype)
    big, tiny = float(info.max), [float(info.smallest_subnormal), float(info.smallest_normal)]
    signed = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, big, np.inf, *tiny]
    return [np.array([*signed, *(-s for s in signed), np.nan]).astype(dtype)]


def special_pairs(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    """Two operands: every pair of special values."""
    (x,) = special(rng, dtype)
    return [np.repeat(x, x.size), np.tile(x, x.size)]


def in_float(f: Callable[..., Array]) -> Callable[..., Array]:
    """A reference computed in float64, given in the dtype of NumPy's math functions."""
    return lambda *xs: np.asarray(f(*(x.astype(np.float64) for x in xs))).astype(
        e.float_of(xs[0].dtype)
    )


# one operand ----------------------------------------------------------------------------------
def smooth(
    name: str,
    reference: Callable[..., Any],
    low: float = -2.0,
    high: float = 2.0,
    *,
    via: str | None = None,
    ulp: float = 4,
) -> list[Case]:
    """A function from floats to floats: on [low, high), and at special values."""
    build = getattr(e, name)
    return [
        Case(
            name, build, reference, unary(low, high), SOME, (name,), ulp=ulp, each=True,
            torch=torch(via or name),
        ),
        Case(f"{name} special", build, reference, [special], wrt=(), ulp=ulp, each=True),
    ]  # fmt: skip


SMOOTH: list[Case] = [
    *smooth("exp", np.exp),
    *smooth("expm1", np.expm1),
    *smooth("log", np.log, 0.2, 3),
    *smooth("log1p", np.log1p, -0.8, 2),
    *smooth("log2", np.log2, 0.2, 3),
    *smooth("log10", np.log10, 0.2, 3),
    *smooth("sqrt", np.sqrt, 0.2, 3),
    *smooth("rsqrt", lambda x: 1 / np.sqrt(x), 0.2, 3),
    *smooth("sin", np.sin),
    *smooth("cos", np.cos),
    *smooth("tan", np.tan, -1.3, 1.3),
    *smooth("arcsin", np.arcsin, -0.9, 0.9),
    *smooth("arccos", np.arccos, -0.9, 0.9),
    *smooth("arctan", np.arctan),
    *smooth("sinh", np.sinh),
    *smooth("cosh", np.cosh),
    *smooth("tanh", np.tanh),
    *smooth("arcsinh", np.arcsinh),
    *smooth("arccosh", np.arccosh, 1.2, 3),
    *smooth("arctanh", np.arctanh, -0.9, 0.9),
    *smooth("erf", in_float(scipy.special.erf)),
    *smooth("sigmoid", in_float(scipy.special.expit)),
    *smooth("softplus", in_float(lambda x: np.logaddexp(x, 0)), via="nn.functional.softplus"),
]

LGAMMA: list[Case] = [
    Case(
        "lgamma", e.lgamma, in_float(scipy.special.gammaln),
        [*unary(0.3, 4), operands((5,), low=-0.9, high=-0.1)], SOME, ("lgamma",),
        torch=torch("lgamma"),
    ),
    Case("lgamma special", e.lgamma, in_float(scipy.special.gammaln), [special], wrt=(), each=True),
    Case(
        "digamma", e.digamma, in_float(scipy.special.digamma), unary(0.3, 4), FLOATS,
        ("polygamma",), torch=torch("digamma"),
        torch_grad=False,  # PyTorch's is good to 9 digits only
    ),
    Case(
        "polygamma", lambda x: e.polygamma(x, order=2),
        in_float(lambda x: scipy.special.polygamma(2, x)), unary(0.5, 4), (*FLOATS, "int16"),
        ("polygamma",), torch=lambda x: x.polygamma(2),
    ),
]  # fmt: skip

UNARY: list[Case] = [
    Case("neg", e.neg, np.negative, unary(), NUMBERS, ("neg",), ulp=0, torch=torch("neg")),
    Case("abs", e.abs, np.abs, unary(), ALL, ("abs",), ulp=0, torch=torch("abs")),
    Case("square", e.square, np.square, unary(), ALL, ("square",), ulp=0, torch=torch("square")),
    Case("sign", e.sign, np.sign, unary(), NUMBERS, ("sign",), wrt=(), ulp=0, torch=torch("sign")),
    Case("floor", e.floor, np.floor, unary(), ALL, ("floor",), wrt=(), ulp=0, torch=torch("floor")),
    Case("ceil", e.ceil, np.ceil, unary(), ALL, ("ceil",), wrt=(), ulp=0, torch=torch("ceil")),
    Case("trunc", e.trunc, np.trunc, unary(), ALL, ("trunc",), wrt=(), ulp=0, torch=torch("trunc")),
    Case("round", e.round, np.round, unary(), NUMBERS, ("round",), wrt=(), ulp=0,
         torch=torch("round")),
    Case("round halves", lambda x: e.round(x * 0.5), lambda x: np.round(x * x.dtype.type(0.5)),
         [operands((9,), low=-8, high=8)], ("float32",), wrt=(), ulp=0),
    Case("round to digits", lambda x: e.round(x, 2), lambda x: np.round(x, 2), unary(),
         ("float32", "float64", "int16"), wrt=(), ulp=0),
    Case("round to hundreds", lambda x: e.round(x, -2), lambda x: np.round(x, -2),
         unary(-900, 900), ("float32", "float64", "int64"), wrt=(), ulp=0),
    Case("reciprocal", e.reciprocal, lambda x: 1 / x, unary(0.3, 2), SOME,
         torch=torch("reciprocal")),
    Case("relu", e.relu, lambda x: np.maximum(x, x.dtype.type(0)), unary(), ALL, ("relu",), ulp=0,
         torch=torch("relu")),
    Case("logical_not", e.logical_not, np.logical_not, unary(), ALL, ("logical_not",), wrt=(),
         ulp=0, torch=torch("logical_not")),
    Case("bitwise_not", e.bitwise_not, np.invert, unary(), INTEGERS + BOOL, ("bitwise_not",),
         ulp=0),
    Case("operators", lambda x: (-x, +x, abs(x)), lambda x: (-x, x, abs(x)), unary(), NUMBERS,
         ("neg", "abs"), ulp=0),
    Case("invert", lambda x: ~x, lambda x: ~x, unary(), INTEGERS + BOOL, ulp=0),
    Case("stop_gradient", e.stop_gradient, lambda x: x, unary(), ALL, ("stop_gradient",), wrt=(),
         ulp=0, torch=lambda x: x.detach()),
    Case("custom_gradient",
         lambda x: custom_gradient(e.sin(x), [x], lambda g, y, x: (g * e.cos(x),)), np.sin,
         unary(), FLOATS, ("override_gradient",), torch=torch("sin")),
    Case("isnan", e.isnan, np.isnan, unary(), ALL, ("isnan",), wrt=(), torch=torch("isnan")),
    Case("isinf", e.isinf, np.isinf, unary(), ALL, ("isinf",), wrt=(), torch=torch("isinf")),
    Case("isfinite", e.isfinite, np.isfinite, unary(), ALL, ("isfinite",), wrt=(),
         torch=torch("isfinite")),
]  # fmt: skip

UNARY_SPECIAL: list[Case] = [
    Case(f"{name} special", getattr(e, name), reference, [special], wrt=(), ulp=0)
    for name, reference in dict[str, Callable[..., Any]]({
        "neg": np.negative, "abs": np.abs, "square": np.square, "sign": np.sign,
        "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.round,
        "reciprocal": lambda x: 1 / x, "relu": lambda x: np.maximum(x, x.dtype.type(0)),
        "logical_not": np.logical_not, "isnan": np.isnan, "isinf": np.isinf,
        "isfinite": np.isfinite,
    }).items()
]  # fmt: skip


# two operands ---------------------------------------------------------------------------------
def two(
    name: str,
    reference: Callable[..., Any],
    dtypes: Sequence[str],
    low: float = -2.0,
    high: float = 2.0,
    *,
    via: str | None = None,
    wrt: Sequence[int] | None = None,
    ulp: float = 0,
    pairs: bool = True,
) -> list[Case]:
    """A function of two operands: broadcast in every way, and at all pairs of special values."""
    build = getattr(e, name)
    ordinary = Case(
        name, build, reference, binary(low, high), dtypes, (name,), wrt=wrt, ulp=ulp, each=True,
        torch=torch(via) if via else None,
    )  # fmt: skip
    rare = Case(f"{name} special", build, reference, [special_pairs], wrt=(), ulp=ulp, each=True)
    return [ordinary, rare] if pairs else [ordinary]


BINARY: list[Case] = [
    *two("add", np.add, ALL, via="add"),
    *two("sub", np.subtract, NUMBERS, via="sub"),
    *two("mul", np.multiply, ALL, via="mul"),
    *two("div", np.divide, ALL, 0.4, 2, via="div"),
    *two("floordiv", np.floor_divide, ALL, wrt=(), via="floor_divide"),
    *two("mod", np.mod, ALL, via="remainder"),
    *two("pow", np.power, FLOATS, 0.3, 2, via="pow", ulp=4),
    *two("maximum", np.maximum, ALL, via="maximum"),
    *two("minimum", np.minimum, ALL, via="minimum"),
    *two("arctan2", np.arctan2, SOME, via="arctan2", ulp=4),
    *two("hypot", np.hypot, SOME, via="hypot", ulp=4),
    *two("logaddexp", np.logaddexp, SOME, via="logaddexp", ulp=4),
    *two("equal", np.equal, ALL, wrt=(), via="eq"),
    *two("not_equal", np.not_equal, ALL, wrt=(), via="ne"),
    *two("less", np.less, ALL, wrt=(), via="lt"),
    *two("less_equal", np.less_equal, ALL, wrt=(), via="le"),
    *two("greater", np.greater, ALL, wrt=(), via="gt"),
    *two("greater_equal", np.greater_equal, ALL, wrt=(), via="ge"),
    *two("logical_and", np.logical_and, ALL, wrt=(), via="logical_and"),
    *two("logical_or", np.logical_or, ALL, wrt=(), via="logical_or"),
    *two("logical_xor", np.logical_xor, ALL, wrt=(), via="logical_xor"),
    *two("bitwise_and", np.bitwise_and, INTEGERS + BOOL, pairs=False),
    *two("bitwise_or", np.bitwise_or, INTEGERS + BOOL, pairs=False),
    *two("bitwise_xor", np.bitwise_xor, INTEGERS + BOOL, pairs=False),
]


def zero_divisors(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    """Integers divided by 0, by -1 and with every combination of signs."""
    low = -7 if dtype.kind == "i" else 0
    a, b = np.meshgrid(np.arange(low, 8), np.arange(max(low, -3), 4))
    return [a.ravel().astype(dtype), b.ravel().astype(dtype)]


INTEGER: list[Case] = [
    Case("floordiv integers", e.floordiv, np.floor_divide, [zero_divisors], INTEGERS, ulp=0),
    Case("mod integers", e.mod, np.mod, [zero_divisors], INTEGERS, ulp=0),
    Case("div integers", e.div, np.divide, [zero_divisors], INTEGERS, ulp=0),
    Case("pow integers", e.pow, np.power, binary(0, 6), INTEGERS + BOOL, ulp=0),
    Case("extremes", lambda x: (x + x, x * x, -x, abs(x), x - 1),
         lambda x: (x + x, x * x, -x, abs(x), x - x.dtype.type(1)),
         [lambda rng, dtype: [np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)]],
         INTEGERS, ulp=0),
]  # fmt: skip


# promotion ------------------------------------------------------------------------------------
def mixed(other: str, low: float = -2.0, high: float = 2.0) -> Sample:
    """Two operands, the second of another dtype."""
    return lambda rng, dtype: [
        values(rng, dtype, (2, 3), low, high), values(rng, np.dtype(other), (3,), low, high),
    ]  # fmt: skip


MIXED = [mixed(d) for d in ("bool", "int8", "uint8", "int64", "uint64", "float16", "float64")]

PROMOTION: list[Case] = [
    Case("add mixed", e.add, np.add, MIXED, ALL, wrt=(), ulp=0),
    Case("mul mixed", e.mul, np.multiply, MIXED, ALL, wrt=(), ulp=0),
    Case("div mixed", e.div, np.divide, MIXED, ALL, wrt=(), ulp=0),
    Case("maximum mixed", e.maximum, np.maximum, MIXED, ALL, wrt=(), ulp=0),
    Case("less mixed", e.less, np.less, MIXED, ALL, wrt=(), ulp=0),
    Case("arctan2 mixed", e.arctan2, np.arctan2, MIXED, (*FLOATS, "int32", "bool"), wrt=(),
         each=True),
    Case("weak float", lambda x: (x + 1.5, 1.5 - x, x * 0.1, x / 2.5, 1.5 / (x + 4.0)),
         lambda x: (x + 1.5, 1.5 - x, x * 0.1, x / 2.5, 1.5 / (x + 4.0)), unary(), ALL, ulp=0),
    Case("weak int", lambda x: (x + 2, 3 - x, 2 * x, x // 2, 7 // (x + 3), x % 2, x / 2),
         lambda x: (x + 2, 3 - x, 2 * x, x // 2, 7 // (x + 3), x % 2, x / 2), unary(), ALL,
         wrt=(), ulp=0),
    Case("weak bool", lambda x: (x + True, x * False), lambda x: (x + True, x * False), unary(),
         ALL, ulp=0),
    Case("weak int powers", lambda x: (x**0, x**1, x**2, x**3, 2**x),
         lambda x: (*(np.power(x, n) for n in range(4)), np.power(2, x)), unary(0, 4), ALL,
         each=True),
    Case("weak float powers", lambda x: (x**0.5, x**-1.0, x**2.5, 1.5**x, 0.0**x),
         lambda x: (*(np.power(x, p) for p in (0.5, -1.0, 2.5)), np.power(1.5, x),
                    np.power(0.0, x)), unary(0.3, 3), ALL, each=True),
    Case("weak comparison", lambda x: (x < 1, x <= 0.5, x > 0, x >= 1, e.equal(x, 1)),
         lambda x: (x < 1, x <= 0.5, x > 0, x >= 1, x == 1), unary(), ALL, wrt=(), ulp=0),
    Case("comparison out of range", lambda x: (x < 300, x > -300, e.equal(x, 2**70), x <= -(2**65)),
         lambda x: (x < 300, x > -300, x == 2**70, x <= -(2**65)), unary(0, 4), INTEGERS, wrt=()),
    Case("arrays on the left", lambda x: (np.ones(3, np.float32) * x, np.float64(2) - x),
         lambda x: (np.ones(3, np.float32) * x, np.float64(2) - x), [operands((2, 3))], ALL, ulp=0),
    Case("bit operators", lambda a, b: (a & b, a | b, a ^ b, a & 1, 1 | b, 1 ^ a),
         lambda a, b: (a & b, a | b, a ^ b, a & 1, 1 | b, 1 ^ a), binary(), INTEGERS + BOOL, ulp=0),
]  # fmt: skip


# selection and cast ---------------------------------------------------------------------------
def choice(*shapes: tuple[int, ...]) -> Sample:
    """A bool condition and two operands."""
    return lambda rng, dtype: [
        values(rng, np.dtype(bool), shapes[0], 0, 1),
        *(values(rng, dtype, s, -2, 2) for s in shapes[1:]),
    ]


def cast_case(target: str) -> Case:
    """From every dtype to `target`; the gradient is checked where no digits are lost."""
    return Case(
        f"cast to {target}", lambda x: x.astype(target), lambda x: x.astype(target), unary(0, 100),
        ALL, ("cast",), wrt=None if target == "float64" else (), ulp=0,
        torch=(lambda x: x.double()) if target == "float64" else None,
    )  # fmt: skip


SELECTION: list[Case] = [
    Case("where", e.where, np.where,
         [choice((2, 3), (2, 3), (2, 3)), choice((), (2, 3), (3,)), choice((4, 1), (3,), ()),
          choice((), (), ()), choice((0, 3), (3,), (1, 1)), choice((2, 1, 3), (5, 1), (1,))],
         ALL, ("where",), ulp=0, torch=torch("where")),
    Case("where mixed", e.where, np.where,
         [lambda rng, dtype: [rng.integers(0, 2, 3), *mixed("int16")(rng, dtype)]], ALL, wrt=(),
         ulp=0),
    Case("where scalars", lambda c, x: (e.where(c, x, 1.5), e.where(c, 0, x)),
         lambda c, x: (np.where(c, x, 1.5), np.where(c, 0, x)), [choice((2, 3), (3,))], ALL, ulp=0),
    Case("where special", lambda a, b: e.where(a > b, a, b), lambda a, b: np.where(a > b, a, b),
         [special_pairs], wrt=(), ulp=0),
    *(cast_case(d) for d in ALL),
    Case("clip", lambda x: e.clip(x, -0.7, 1.1), lambda x: np.clip(x, -0.7, 1.1), unary(), FLOATS,
         ulp=0, torch=lambda x: x.clamp(-0.7, 1.1)),
    Case("clip integers", lambda x: e.clip(x, 1, 2), lambda x: np.clip(x, 1, 2), unary(0, 5),
         INTEGERS, ulp=0),
    Case("clip below", lambda x: e.clip(x, 0.3), lambda x: np.clip(x, 0.3, None), unary(), FLOATS,
         ulp=0, torch=lambda x: x.clamp(min=0.3)),
    Case("clip above", lambda x: e.clip(x, high=0.3), lambda x: np.clip(x, None, 0.3), unary(),
         FLOATS, ulp=0, torch=lambda x: x.clamp(max=0.3)),
    Case("clip by nodes", e.clip, np.clip,
         [lambda rng, dtype: [values(rng, dtype, (4, 3), -2, 2), values(rng, dtype, (3,), -1, 0),
                              values(rng, dtype, (4, 1), 0, 1)]],
         FLOATS, ulp=0, torch=lambda x, a, b: x.clamp(a, b)),
    Case("clip special", lambda x: e.clip(x, -1.0, 2.0), lambda x: np.clip(x, -1.0, 2.0), [special],
         wrt=(), ulp=0),
]  # fmt: skip


# activations ----------------------------------------------------------------------------------
def negative_part(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0, x, f(np.minimum(x, 0)))


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

ACTIVATIONS: list[Case] = [
    Case("leaky_relu", lambda x: activation.leaky_relu(x, 0.2),
         in_float(negative_part(lambda x: 0.2 * x)), unary(), FLOATS,
         torch=torch("nn.functional.leaky_relu", negative_slope=0.2)),
    Case("elu", lambda x: activation.elu(x, 1.3),
         in_float(negative_part(lambda x: 1.3 * np.expm1(x))), unary(), FLOATS,
         torch=torch("nn.functional.elu", alpha=1.3)),
    Case("selu", activation.selu,
         in_float(lambda x: SELU_SCALE * negative_part(lambda v: SELU_ALPHA * np.expm1(v))(x)),
         unary(), FLOATS, torch=torch("nn.functional.selu")),
    Case("silu", activation.silu, in_float(lambda x: x * scipy.special.expit(x)), unary(), FLOATS,
         torch=torch("nn.functional.silu")),
    Case("gelu", activation.gelu, in_float(lambda x: x * scipy.special.ndtr(x)), unary(), FLOATS,
         others=8, torch=torch("nn.functional.gelu")),
    Case("gelu approximate", lambda x: activation.gelu(x, approximate=True),
         in_float(lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
         unary(), FLOATS, torch=torch("nn.functional.gelu", approximate="tanh")),
    Case("elu of far values", activation.elu, in_float(negative_part(np.expm1)),
         [strided((3, 4), low=-900, high=900)], FLOATS, wrt=()),
]  # fmt: skip

CASES: list[Case] = [
    *SMOOTH, *LGAMMA, *UNARY, *UNARY_SPECIAL, *BINARY, *INTEGER, *PROMOTION, *SELECTION,
    *ACTIVATIONS,
]  # fmt: skip


HALF: Any = 0.5  # a number of digits it cannot be

BAD: list[Bad] = [
    Bad("sub of bools", lambda: tensor("m", bool, 3) - tensor("n", bool, 3), DTypeError, "bools"),
    Bad("neg of a bool", lambda: -tensor("m", bool), DTypeError, "does not take bools"),
    Bad("sign of a bool", lambda: e.sign(tensor("m", bool)), DTypeError, "does not take bools"),
    Bad("bits of floats", lambda: matrix("x") & 1, DTypeError, "integers or bools, got float32"),
    Bad("shapes", lambda: matrix("x", shape=(2, 3)) + matrix("y", shape=(2, 4)), ShapeError,
        r"\[2, 3\] and \[2, 4\] do not broadcast: axis 1 is 3 in one and 4 in another"),
    Bad("three shapes", lambda: e.where(tensor("c", bool, 2), vector("x", shape=3), 0.0),
        ShapeError, "do not broadcast"),
    Bad("too many operands", lambda: e.exp(vector("x"), vector("y")), ArgumentError,
        r"takes 1 operand\(s\), got 2"),
    Bad("too few operands", lambda: e.add(vector("x")), ArgumentError, "takes 2"),
    Bad("too few comparands", lambda: e.less(vector("x")), ArgumentError, "missing .* 'b'"),
    Bad("unknown parameter", lambda: e.exp(vector("x"), axis=1), ArgumentError, "'axis'"),
    Bad("where without a choice", lambda: e.where(tensor("c", bool), 1.0), ArgumentError,
        "missing a required argument: 'b'"),
    Bad("negative power of integers", lambda: ivector("i") ** -1, ArgumentError, "make one"),
    Bad("polygamma order", lambda: e.polygamma(vector("x"), order=-1), ArgumentError, "order must"),
    Bad("scalar out of range", lambda: tensor("x", "uint8", 3) + 300, DTypeError, "300"),
    Bad("text", lambda: vector("x") + "1", DTypeError, "give numbers"),
    Bad("complex", lambda: e.exp(np.array([1j])), DTypeError, "complex128 is not supported"),
    Bad("round decimals", lambda: e.round(vector("x"), HALF), ArgumentError, "must be an int"),
    Bad("cast to text", lambda: imatrix("i").astype("U3"), DTypeError, "not supported"),
    Bad("cast to nothing", lambda: imatrix("i").astype("float31"), DTypeError, "not a dtype"),
    Bad("clip shapes", lambda: e.clip(vector("x", shape=3), np.zeros(2, np.float32)), ShapeError,
        "do not broadcast"),
]  # fmt: skip
