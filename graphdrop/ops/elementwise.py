"""Elementwise operations: one line each.

Operands are promoted to one dtype and broadcast.  A gradient is written as if all operands had the
result's shape; autodiff sums it back over broadcast axes.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, GraphdropError
from ..graph import Node, current_origin
from ..op import Op, VjpRule, as_node, composed, constant_value, explain, op, promoted
from ..types import TensorType, as_dtype, broadcast_shapes

_BOOL = np.dtype(bool)


def float_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The float dtype in which NumPy's math functions work on `dtype`."""
    if dtype.kind == "f":
        return dtype
    return np.dtype({1: np.float16, 2: np.float32}.get(dtype.itemsize, np.float64))


def int_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f":
        raise DTypeError(
            f"needs integers or bools, got {dtype}; compare first, or cast with gd.cast(x, 'int64')"
        )
    return dtype


def numeric_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As is, but for bool, which arithmetic does not take."""
    if dtype == _BOOL:
        raise DTypeError("does not take bools; cast them, or use logical operations")
    return dtype


def counting_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As is, but bools are counted in int8, as NumPy does in x // y, x % y and x**y."""
    return np.dtype(np.int8) if dtype == _BOOL else dtype


def same(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype


def to_bool(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return _BOOL


DTypeRule = Callable[[np.dtype[Any]], np.dtype[Any]]


def coerce(values: Sequence[Any], dtype: np.dtype[Any]) -> list[Node]:
    """Nodes of one dtype from nodes, scalars and arrays."""
    return [
        cast(v, dtype) if isinstance(v, Node) else cast(as_node(v, _literal_dtype(v, dtype)), dtype)
        for v in values
    ]


def _literal_dtype(value: Any, dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    # a Python scalar takes the operation's dtype; arrays keep theirs and are cast
    return dtype if isinstance(value, (bool, int, float)) else None


def elementwise(
    name: str,
    arity: int,
    *,
    vjp: VjpRule | None = None,
    operands: DTypeRule = same,
    result: DTypeRule = same,
    doc: str = "",
) -> Op:
    """Declare an elementwise op.

    `operands` maps the promoted dtype to the one the operands are cast to (or raises), `result`
    maps that to the result's.
    """

    def rule(*xs: TensorType) -> TensorType:
        dtype = xs[0].dtype
        if any([x.dtype != dtype for x in xs]):  # noqa: C419  # a list is twice as fast here
            raise DTypeError(f"operands must have one dtype, got {[x.dtype.name for x in xs]}")
        operands(dtype)
        dtype, shape = result(dtype), broadcast_shapes(*[x.shape for x in xs])
        for x in xs:
            if x.shape is shape and x.dtype is dtype:
                return x  # one type for many nodes
        return TensorType(dtype, shape)

    def prepare(*values: Any) -> tuple[list[Node], dict[str, Any]]:
        if len(values) != arity:
            raise ArgumentError(f"takes {arity} operand(s), got {len(values)}")
        return coerce(values, operands(promoted(*values))), {}

    rule.__doc__ = doc
    made = Op(name, rule, elementwise=True)
    made.prepare(prepare)
    if vjp is not None:
        made.vjp(vjp)
    return made


@op(name="cast")
def _cast(x: TensorType, *, dtype: np.dtype[Any]) -> TensorType:
    """The same values in another dtype, as NumPy's astype: floats to integers truncate."""
    return x.with_dtype(dtype)


_cast.elementwise = True


@_cast.vjp
def _(g: Node, y: Node, x: Node, *, dtype: np.dtype[Any]) -> Sequence[Node | None]:
    return (cast(g, x.dtype) if x.tensor_type.is_float and y.tensor_type.is_float else None,)


def cast(x: Any, dtype: Any) -> Node:
    """`x` as `dtype`; the node itself when it already is.

    Floats become integers without their fraction.  What no integer of the dtype is near (NaN, too
    large) has no defined result, as in NumPy, and backends differ in it.
    """
    if isinstance(x, Node) and x.dtype is dtype:
        return x  # what nearly all calls come to
    try:
        node, dtype = as_node(x), as_dtype(dtype)
    except GraphdropError as error:
        raise explain("cast", error, (x, dtype), current_origin()) from None
    return node if node.dtype == dtype else _cast.make((node,), {"dtype": dtype})


def true_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """True division of integers gives float64, whatever their width."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


# arithmetic ---------------------------------------------------------------------------------
add: Op = elementwise("add", 2, vjp=lambda g, y, a, b: (g, g), doc="a + b; logical or for bools.")
sub: Op = elementwise(
    "sub", 2, operands=numeric_of, vjp=lambda g, y, a, b: (g, neg(g)), doc="a - b."
)
mul: Op = elementwise(
    "mul", 2, vjp=lambda g, y, a, b: (g * b, g * a), doc="a * b; logical and for bools."
)
div: Op = elementwise(
    "div", 2, operands=true_of, vjp=lambda g, y, a, b: (g / b, neg(g * y / b)),
    doc="a / b; integers give float64.",
)  # fmt: skip
floordiv: Op = elementwise(
    "floordiv", 2, operands=counting_of, vjp=lambda g, y, a, b: (None, None),
    doc="floor(a / b), as NumPy: integer division by zero gives 0.",
)  # fmt: skip
mod: Op = elementwise(
    "mod", 2, operands=counting_of, vjp=lambda g, y, a, b: (g, neg(g * floordiv(a, b))),
    doc="The remainder with the sign of b; of integers by zero 0.",
)  # fmt: skip
neg: Op = elementwise("neg", 1, operands=numeric_of, vjp=lambda g, y, x: (neg(g),), doc="-x.")
pow: Op = elementwise(
    "pow", 2, operands=counting_of, vjp=lambda g, y, a, b: _pow_vjp(g, y, a, b),
    doc="a to the power b. Integers take no negative powers. The gradient by b is NaN where a < 0.",
)  # fmt: skip
maximum: Op = elementwise(
    "maximum", 2, vjp=lambda g, y, a, b: _share(g, greater(a, b), equal(a, b)),
    doc="The larger; NaN if either is. At a tie the gradient is halved.",
)  # fmt: skip
minimum: Op = elementwise(
    "minimum", 2, vjp=lambda g, y, a, b: _share(g, less(a, b), equal(a, b)),
    doc="The smaller; NaN if either is. At a tie the gradient is halved.",
)  # fmt: skip
abs: Op = elementwise("abs", 1, vjp=lambda g, y, x: (g * sign(x),), doc="|x|.")
sign: Op = elementwise(
    "sign", 1, operands=numeric_of, vjp=lambda g, y, x: (None,), doc="-1, 0 or 1; NaN for NaN."
)
floor: Op = elementwise("floor", 1, vjp=lambda g, y, x: (None,), doc="Largest integer <= x.")
ceil: Op = elementwise("ceil", 1, vjp=lambda g, y, x: (None,), doc="Smallest integer >= x.")
_round: Op = elementwise(
    "round", 1, operands=numeric_of, vjp=lambda g, y, x: (None,),
    doc="Nearest integer, halves to even.",
)  # fmt: skip
trunc: Op = elementwise("trunc", 1, vjp=lambda g, y, x: (None,), doc="x without its fraction.")
square: Op = elementwise(
    "square", 1, operands=counting_of, vjp=lambda g, y, x: (g * 2 * x,), doc="x*x."
)


@pow.prepare
def _(a: Any, b: Any) -> tuple[list[Node], dict[str, Any]]:
    operands = coerce((a, b), counting_of(promoted(a, b)))
    known = constant_value(operands[1])
    if known is not None and known.dtype.kind == "i" and (known < 0).any():
        raise ArgumentError(
            "integers have no negative integer powers; make one operand a float, say x ** -1.0"
        )
    return operands, {}


def _pow_vjp(g: Node, y: Node, a: Node, b: Node) -> Sequence[Node | None]:
    known = constant_value(b)
    if known is not None and known.ndim == 0 and known != 0:
        power = known.item()
        if power == 2:
            return g * 2 * a, None
        return (g if power == 1 else g * power * pow(a, power - 1)), None
    # 0 ** -1 is infinite, but 0 ** 0 has slope 0
    base = where(logical_and(equal(a, 0), equal(b, 0)), 1, a)
    return g * b * pow(base, b - 1), g * y * log(where(equal(a, 0), 1, a))


def _share(g: Node, wins: Node, tie: Node) -> tuple[Node, Node]:
    half = g * 0.5
    return where(tie, half, where(wins, g, 0)), where(tie, half, where(wins, 0, g))


# exponentials and roots -----------------------------------------------------------------------
exp: Op = elementwise("exp", 1, operands=float_of, vjp=lambda g, y, x: (g * y,), doc="e to the x.")
expm1: Op = elementwise(
    "expm1",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g * (y + 1),),
    doc="exp(x) - 1, exact near 0.",
)
log: Op = elementwise(
    "log", 1, operands=float_of, vjp=lambda g, y, x: (g / x,), doc="Natural logarithm."
)
log1p: Op = elementwise(
    "log1p",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g / (x + 1),),
    doc="log(1 + x), exact near 0.",
)
log2: Op = elementwise(
    "log2",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g / (x * math.log(2)),),
    doc="Base-2 logarithm.",
)
log10: Op = elementwise(
    "log10",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g / (x * math.log(10)),),
    doc="Base-10 logarithm.",
)
logaddexp: Op = elementwise(
    "logaddexp", 2, operands=float_of, vjp=lambda g, y, a, b: _logaddexp_vjp(g, a, b),
    doc="log(exp(a) + exp(b)), without overflow.",
)  # fmt: skip
sqrt: Op = elementwise(
    "sqrt", 1, operands=float_of, vjp=lambda g, y, x: (g / (2 * y),), doc="Square root."
)
rsqrt: Op = elementwise(
    "rsqrt", 1, operands=float_of, vjp=lambda g, y, x: (g * -0.5 * y / x,), doc="1 / sqrt(x)."
)

hypot: Op = elementwise(
    "hypot", 2, operands=float_of, vjp=lambda g, y, a, b: _hypot_vjp(g, y, a, b),
    doc="sqrt(a*a + b*b), without overflow; where that is 0, so is the gradient.",
)  # fmt: skip


def _hypot_vjp(g: Node, y: Node, a: Node, b: Node) -> Sequence[Node | None]:
    length = where(equal(y, 0), 1, y)
    return g * a / length, g * b / length


def _logaddexp_vjp(g: Node, a: Node, b: Node) -> Sequence[Node | None]:
    # two equal infinities have no difference
    gap = where(logical_and(equal(a, b), isinf(a)), 0, a - b)
    return g * sigmoid(gap), g * sigmoid(neg(gap))


# trigonometric and hyperbolic -----------------------------------------------------------------
sin: Op = elementwise(
    "sin", 1, operands=float_of, vjp=lambda g, y, x: (g * cos(x),), doc="Sine of radians."
)
cos: Op = elementwise(
    "cos", 1, operands=float_of, vjp=lambda g, y, x: (neg(g * sin(x)),), doc="Cosine of radians."
)
tan: Op = elementwise(
    "tan", 1, operands=float_of, vjp=lambda g, y, x: (g * (1 + y * y),), doc="Tangent."
)
arcsin: Op = elementwise(
    "arcsin", 1, operands=float_of, vjp=lambda g, y, x: (g * rsqrt(1 - x * x),), doc="Inverse sine."
)
arccos: Op = elementwise(
    "arccos",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (neg(g * rsqrt(1 - x * x)),),
    doc="Inverse cosine.",
)
arctan: Op = elementwise(
    "arctan", 1, operands=float_of, vjp=lambda g, y, x: (g / (1 + x * x),), doc="Inverse tangent."
)
arctan2: Op = elementwise(
    "arctan2", 2, operands=float_of,
    vjp=lambda g, y, a, b: (g * b / (a * a + b * b), neg(g * a / (a * a + b * b))),
    doc="The angle of the point (b, a), in (-pi, pi].",
)  # fmt: skip
sinh: Op = elementwise(
    "sinh", 1, operands=float_of, vjp=lambda g, y, x: (g * cosh(x),), doc="Hyperbolic sine."
)
cosh: Op = elementwise(
    "cosh", 1, operands=float_of, vjp=lambda g, y, x: (g * sinh(x),), doc="Hyperbolic cosine."
)
tanh: Op = elementwise(
    "tanh", 1, operands=float_of, vjp=lambda g, y, x: (g * (1 - y * y),), doc="Hyperbolic tangent."
)
arcsinh: Op = elementwise(
    "arcsinh",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g * rsqrt(x * x + 1),),
    doc="Inverse sinh.",
)
arccosh: Op = elementwise(
    "arccosh",
    1,
    operands=float_of,
    vjp=lambda g, y, x: (g * rsqrt(x * x - 1),),
    doc="Inverse cosh.",
)
arctanh: Op = elementwise(
    "arctanh", 1, operands=float_of, vjp=lambda g, y, x: (g / (1 - x * x),), doc="Inverse tanh."
)

# special functions ----------------------------------------------------------------------------
erf: Op = elementwise(
    "erf", 1, operands=float_of,
    vjp=lambda g, y, x: (g * (2 / math.sqrt(math.pi)) * exp(neg(x * x)),),
    doc="The error function.",
)  # fmt: skip
lgamma: Op = elementwise(
    "lgamma", 1, operands=float_of, vjp=lambda g, y, x: (g * digamma(x),),
    doc="log |Gamma(x)|.",
)  # fmt: skip
sigmoid: Op = elementwise(
    "sigmoid", 1, operands=float_of, vjp=lambda g, y, x: (g * y * (1 - y),),
    doc="1 / (1 + exp(-x)), without overflow.",
)  # fmt: skip
softplus: Op = elementwise(
    "softplus", 1, operands=float_of, vjp=lambda g, y, x: (g * sigmoid(x),),
    doc="log(1 + exp(x)), without overflow.",
)  # fmt: skip
relu: Op = elementwise("relu", 1, vjp=lambda g, y, x: _relu_vjp(g, y), doc="max(x, 0); NaN stays.")


def _relu_vjp(g: Node, y: Node) -> Sequence[Node | None]:
    return (where(greater(y, 0), g, 0),)


# comparison and logic -------------------------------------------------------------------------
def predicate(name: str, arity: int, operands: DTypeRule = same, doc: str = "") -> Op:
    """Declare an elementwise op with a bool result and no gradient."""
    none = (None,) * arity
    return elementwise(
        name, arity, operands=operands, result=to_bool, vjp=lambda g, y, *xs: none, doc=doc
    )


def comparison(name: str, doc: str) -> Op:
    """Declare a comparison; as in NumPy, a Python int may be outside the range of an array's."""
    made = predicate(name, 2, doc=doc)

    def prepare(a: Any, b: Any) -> tuple[list[Node], dict[str, Any]]:
        dtype = promoted(a, b)
        values = [_beyond(v, dtype) for v in (a, b)] if dtype.kind in "iu" else [a, b]
        return coerce(values, promoted(*values)), {}

    made.prepare(prepare)
    return made


def _beyond(value: Any, dtype: np.dtype[Any]) -> Any:
    """A Python int that `dtype` cannot hold as an infinity, which compares the same."""
    if isinstance(value, int):
        range_ = np.iinfo(dtype)
        return value if range_.min <= value <= range_.max else math.copysign(math.inf, value)
    return value


equal: Op = comparison("equal", "a == b elementwise (== on nodes is identity).")
not_equal: Op = comparison("not_equal", "a != b elementwise.")
less: Op = comparison("less", "a < b.")
less_equal: Op = comparison("less_equal", "a <= b.")
greater: Op = comparison("greater", "a > b.")
greater_equal: Op = comparison("greater_equal", "a >= b.")
logical_and: Op = predicate("logical_and", 2, to_bool, doc="a and b, as bools.")
logical_or: Op = predicate("logical_or", 2, to_bool, doc="a or b, as bools.")
logical_xor: Op = predicate("logical_xor", 2, to_bool, doc="a xor b, as bools.")
logical_not: Op = predicate("logical_not", 1, to_bool, doc="not x, as a bool.")
isnan: Op = predicate("isnan", 1, float_of, doc="Whether x is NaN.")
isinf: Op = predicate("isinf", 1, float_of, doc="Whether x is infinite.")
isfinite: Op = predicate("isfinite", 1, float_of, doc="Whether x is neither infinite nor NaN.")
bitwise_and: Op = elementwise(
    "bitwise_and", 2, operands=int_of, vjp=lambda g, y, a, b: (None, None), doc="Bits set in both."
)
bitwise_or: Op = elementwise(
    "bitwise_or", 2, operands=int_of, vjp=lambda g, y, a, b: (None, None), doc="Bits set in either."
)
bitwise_xor: Op = elementwise(
    "bitwise_xor", 2, operands=int_of, vjp=lambda g, y, a, b: (None, None), doc="Bits set in one."
)
bitwise_not: Op = elementwise(
    "bitwise_not", 1, operands=int_of, vjp=lambda g, y, x: (None,), doc="All bits flipped."
)


# selection ------------------------------------------------------------------------------------
@op
def where(condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
    """`a` where the condition holds, else `b`; the branch not taken leaks nothing."""
    if not condition.is_bool or a.dtype != b.dtype:
        raise DTypeError(f"needs a bool condition and two operands of one dtype, got {condition}")
    return TensorType(a.dtype, broadcast_shapes(condition.shape, a.shape, b.shape))


where.elementwise = True


@where.prepare
def _(condition: Any, a: Any, b: Any) -> tuple[list[Node], dict[str, Any]]:
    return [cast(condition, bool), *coerce((a, b), promoted(a, b))], {}


@where.vjp
def _(g: Node, y: Node, condition: Node, a: Node, b: Node) -> Sequence[Node | None]:
    return None, where(condition, g, 0), where(condition, 0, g)


@op
def polygamma(x: TensorType, *, order: int) -> TensorType:
    """The `order`-th derivative of digamma, itself order 0."""
    if not x.is_float:
        raise DTypeError(f"needs floats, got {x}")
    return x


polygamma.elementwise = True


@polygamma.prepare
def _(x: Any, order: int = 0) -> tuple[list[Node], dict[str, Any]]:
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise ArgumentError(f"order must be a non-negative int, got {order!r}")
    return coerce([x], float_of(promoted(x))), {"order": int(order)}


@polygamma.vjp
def _(g: Node, y: Node, x: Node, *, order: int) -> Sequence[Node | None]:
    return (g * polygamma(x, order=order + 1),)


# gradient control -----------------------------------------------------------------------------
stop_gradient: Op = elementwise(
    "stop_gradient", 1, vjp=lambda g, y, x: (None,), doc="x, through which no gradient flows."
)
stop_gradient.view = True


# composed of the above ------------------------------------------------------------------------
def clip(x: Any, low: Any = None, high: Any = None) -> Node:
    """x limited to [low, high]; either may be None, or a node.  NaN stays.

    The gradient is x's inside and at the ends, and that of `low` or `high` outside.
    """
    limited: Node = as_node(x)
    inside: list[Node] = []
    if low is not None:
        limited = maximum(limited, low)
        inside.append(greater_equal(x, low))
    if high is not None:
        limited = minimum(limited, high)
        inside.append(less_equal(x, high))
    if not inside:
        return limited
    if not isinstance(low, Node) and not isinstance(high, Node):
        limited = stop_gradient(limited)
    within = inside[0] if len(inside) == 1 else logical_and(*inside)
    return where(within, cast(x, limited.dtype), limited)


@composed
def round(x: Any, decimals: int = 0) -> Node:
    """x rounded to `decimals` digits after the point (before it, if negative), halves to even."""
    if isinstance(decimals, bool) or not isinstance(decimals, (int, np.integer)):
        raise ArgumentError(f"decimals must be an int, got {decimals!r}")
    node = as_node(x)
    if decimals == 0 or (decimals > 0 and not node.tensor_type.is_float):
        return _round(node)
    scale = 10.0 ** builtins.abs(int(decimals))
    if decimals > 0:
        return _round(node * scale) / scale
    return cast(_round(node / scale) * scale, node.dtype)


def digamma(x: Any) -> Node:
    """The derivative of lgamma."""
    return polygamma(x, order=0)


def reciprocal(x: Any) -> Node:
    """1 / x."""
    return div(1, x)
