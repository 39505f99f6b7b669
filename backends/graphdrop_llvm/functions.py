"""Exponentials, logarithms and their kin on vectors, as functions in LLVM IR.

Each is a function `gd_<name>_<width>_<kind>` that is printed once into a module.  Polynomials are
Taylor series, long enough for their interval; there are no tables.  All hold at infinities, NaN,
zeros and denormals.  The largest errors, in ulp, against a computation in more digits:

             exp  expm1  log  log1p  log2  log10  tanh  sigmoid  sin  cos  pow  erf
    float32  1.0    1.6  0.8    0.9   1.8    2.1   2.4      2.3  1.8  1.8  0.6  2.5
    float64  1.0    1.9  0.8    0.8   1.6    3.0   2.6      2.3  1.5  1.5    *    *

Those marked are the C library's, one lane after the other, as are all other functions.
Method: W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .engine import features
from .lanes import Lanes, literal

LN2 = math.log(2)
BITS = {"float": 32, "double": 64}
MANTISSA = {"float": 23, "double": 52}
TERMS = {  # of series, by function
    "float": {"exp": 7, "log": 5, "sin": 5, "cos": 5},
    "double": {"exp": 13, "log": 11, "sin": 8, "cos": 8},
}
_DTYPES: dict[str, np.dtype[Any]] = {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}
# functions of the C library that the compiler has no vectors for: name there, without the f
LIBRARY = (
    "erf", "erfc", "lgamma", "sinh", "cosh", "tan", "asin", "acos", "atan", "asinh", "acosh",
    "atanh", "pow", "atan2", "hypot", "exp2", "log10", "fmod", "cbrt", "sin", "cos",
)  # fmt: skip


class Math:
    """Floating-point arithmetic on lanes of one kind, written as it is meant."""

    def __init__(self, b: Lanes, kind: str) -> None:
        self.b, self.kind, self.dtype = b, kind, _DTYPES[kind]
        self.whole, self.word = b.type(kind), f"i{BITS[kind]}"

    def number(self, value: float) -> str:
        return self.b.repeat(self.kind, literal(self.dtype, value))

    def integer(self, value: int) -> str:
        return self.b.repeat(self.word, str(value))

    def add(self, x: str, y: str) -> str:
        return self.b.binary("fadd", self.kind, x, y)

    def sub(self, x: str, y: str) -> str:
        return self.b.binary("fsub", self.kind, x, y)

    def mul(self, x: str, y: str) -> str:
        return self.b.binary("fmul", self.kind, x, y)

    def div(self, x: str, y: str) -> str:
        return self.b.binary("fdiv", self.kind, x, y)

    def fma(self, x: str, y: str, z: str) -> str:
        """x y + z, rounded once where the machine can."""
        return self.b.intrinsic("fmuladd", self.kind, x, y, z)

    def abs(self, x: str) -> str:
        return self.b.intrinsic("fabs", self.kind, x)

    def neg(self, x: str) -> str:
        return self.b.emit(f"fneg {self.whole} {x}")

    def signed(self, size: str, sign: str) -> str:
        return self.b.intrinsic("copysign", self.kind, size, sign)

    def nearest(self, x: str, scale: float) -> tuple[str, str]:
        """The whole number nearest to x * scale, as a float and as an integer, below 2**21.

        A float around 1.5 * 2**mantissa has steps of 1: adding it rounds.
        """
        magic = 1.5 * 2.0 ** MANTISSA[self.kind]
        rounded = self.fma(x, self.number(scale), self.number(magic))
        start = int(np.asarray(magic, self.dtype).view(f"i{BITS[self.kind] // 8}"))
        return (
            self.sub(rounded, self.number(magic)),
            self.i("sub", self.bits(rounded), self.integer(start)),
        )

    def is_(self, word: str, x: str, y: str) -> str:
        return self.b.emit(f"fcmp {word} {self.whole} {x}, {y}")

    def pick(self, condition: str, x: str, y: str) -> str:
        return self.b.select(condition, self.kind, x, y)

    def above(self, x: str, least: float) -> str:
        """max(x, least), NaN where x is."""
        return self.pick(self.is_("olt", x, self.number(least)), self.number(least), x)

    def below(self, x: str, most: float) -> str:
        return self.pick(self.is_("ogt", x, self.number(most)), self.number(most), x)

    def bits(self, x: str) -> str:
        return self.b.emit(f"bitcast {self.whole} {x} to {self.b.type(self.word)}")

    def from_bits(self, x: str) -> str:
        return self.b.emit(f"bitcast {self.b.type(self.word)} {x} to {self.whole}")

    def i(self, instruction: str, x: str, y: str) -> str:
        return self.b.binary(instruction, self.word, x, y)

    def power_of_two(self, n: str) -> str:
        """2 ** n for integers in the range of normal numbers."""
        bias = self.integer(2 ** (BITS[self.kind] - MANTISSA[self.kind] - 2) - 1)
        return self.from_bits(
            self.i("shl", self.i("add", n, bias), self.integer(MANTISSA[self.kind]))
        )

    def scaled(self, x: str, n: str) -> str:
        """x 2 ** n, rounded once, for x around 1."""
        if self.b.width * BITS[self.kind] % 512 == 0 and "+avx512f" in features():
            return self._scaled_by_instruction(x, n)
        # in two steps, as 2 ** n itself may be no normal number
        half = self.i("ashr", n, self.integer(1))
        rest = self.i("sub", n, half)
        return self.mul(self.mul(x, self.power_of_two(half)), self.power_of_two(rest))

    def _scaled_by_instruction(self, x: str, n: str) -> str:
        """vscalefps or vscalefpd, which do it in one, 64 bytes at a time."""
        count = 512 // BITS[self.kind]
        part = f"<{count} x {self.kind}>"
        name = f"llvm.x86.avx512.mask.scalef.p{self.kind[0] if self.kind == 'double' else 's'}.512"
        power = self.b.convert("sitofp", self.word, self.kind, n)
        found = [
            self.b.call(
                name, part, *((part, self._part(v, start, count)) for v in (x, power)),
                (part, "zeroinitializer"), (f"i{count}", "-1"), ("i32", "4"),
            )
            for start in range(0, self.b.width, count)
        ]  # fmt: skip
        while len(found) > 1:
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [self._joined(a, c, self.b.width // len(found)) for a, c in pairs]
        return found[0]

    def _part(self, x: str, start: int, count: int) -> str:
        if count == self.b.width:
            return x
        picks = ", ".join(f"i32 {i}" for i in range(start, start + count))
        return self.b.emit(
            f"shufflevector {self.whole} {x}, {self.whole} poison, <{count} x i32> <{picks}>"
        )

    def _joined(self, a: str, c: str, count: int) -> str:
        part, picks = f"<{count} x {self.kind}>", ", ".join(f"i32 {i}" for i in range(2 * count))
        return self.b.emit(f"shufflevector {part} {a}, {part} {c}, <{2 * count} x i32> <{picks}>")

    def series(self, x: str, coefficients: Sequence[float]) -> str:
        """c0 + c1 x + c2 x x + ... by Horner's rule."""
        total = self.number(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.number(c))
        return total


def _halves(m: Math, x: str) -> tuple[str, str]:
    """x = n ln 2 + r with |r| <= ln 2 / 2 and n an integer."""
    n, whole = m.nearest(x, 1 / LN2)
    # the high part of ln 2 has so few bits that n times it is exact
    high, low = _LN2[m.kind]
    r = m.fma(m.neg(n), m.number(high), x)
    return whole, m.fma(m.neg(n), m.number(low), r)


_LN2 = {  # ln 2 = 0.6931471805599453094172321214581765680755 in two parts
    "float": (0.693145751953125, 1.428606820309417e-06),
    "double": (0.693147180369123816490, 1.90821492927058770002e-10),
}


def exp(m: Math, x: str) -> str:
    limits = {"float": (-104.0, 89.0), "double": (-746.0, 710.0)}[m.kind]
    n, r = _halves(m, m.below(m.above(x, limits[0]), limits[1]))
    terms = TERMS[m.kind]["exp"]
    tail = m.series(r, [1 / math.factorial(k) for k in range(2, terms + 1)])
    return m.scaled(m.add(m.fma(m.mul(r, r), tail, r), m.number(1)), n)


def expm1(m: Math, x: str) -> str:
    limits = {"float": (-20.0, 89.0), "double": (-40.0, 710.0)}[m.kind]
    n, r = _halves(m, m.below(m.above(x, limits[0]), limits[1]))
    terms = TERMS[m.kind]["exp"]
    tail = m.series(r, [1 / math.factorial(k) for k in range(2, terms + 1)])
    q = m.fma(m.mul(r, r), tail, r)  # exp(r) - 1
    # 2 (2**(n-1) q + 2**(n-1) - 1/2): nothing but q is left where n is 0
    half = m.power_of_two(m.i("sub", n, m.integer(1)))
    found = m.fma(half, q, m.sub(half, m.number(0.5)))
    found = m.add(found, found)
    # -0.0, and denormals, of which q loses bits
    tiny = m.is_("olt", m.abs(x), m.number({"float": 1e-20, "double": 1e-200}[m.kind]))
    return m.pick(tiny, x, found)


def _log_parts(m: Math, x: str) -> tuple[str, str]:
    """The exponent e as a float, and m in [sqrt(1/2), sqrt(2)), with x = m 2**e; for x > 0."""
    bits = MANTISSA[m.kind]
    small = {"float": 2.0**-126, "double": 2.0**-1022}[m.kind]
    denormal = m.is_("olt", x, m.number(small))
    x = m.pick(denormal, m.mul(x, m.number(2.0 ** (bits + 2))), x)
    root = np.asarray(math.sqrt(0.5), m.dtype)
    start = int(root.view(f"i{BITS[m.kind] // 8}"))
    # how far the bits are above those of sqrt(1/2), in whole exponents
    above = m.i("sub", m.bits(x), m.integer(start))
    e = m.i("ashr", above, m.integer(bits))
    fraction = m.from_bits(m.i("sub", m.bits(x), m.i("shl", e, m.integer(bits))))
    whole = m.b.convert("sitofp", m.word, m.kind, e)
    return m.sub(whole, m.pick(denormal, m.number(bits + 2), m.number(0))), fraction


def _log_of(m: Math, e: str, fraction: str, rest: str | None = None) -> str:
    """e ln 2 + log(fraction) [+ rest], with log(1 + f) = f - s (f - R), s = f / (2 + f)."""
    f = m.sub(fraction, m.number(1))
    s = m.div(f, m.add(f, m.number(2)))
    z = m.mul(s, s)
    # 2 atanh(s) = 2 s + s R
    tail = m.mul(z, m.series(z, [2 / (2 * k + 3) for k in range(TERMS[m.kind]["log"])]))
    half = m.mul(m.mul(f, f), m.number(0.5))
    high, low = _LN2[m.kind]
    low_part = m.fma(s, m.add(half, tail), m.mul(e, m.number(low)))
    if rest is not None:
        low_part = m.add(low_part, rest)
    return m.fma(e, m.number(high), m.sub(f, m.sub(half, low_part)))


def _log_limits(m: Math, x: str, found: str) -> str:
    """-inf at 0, NaN below, inf at inf."""
    found = m.pick(m.is_("oeq", x, m.number(math.inf)), x, found)
    found = m.pick(m.is_("ult", x, m.number(0)), m.number(math.nan), found)
    return m.pick(m.is_("oeq", x, m.number(0)), m.number(-math.inf), found)


def log(m: Math, x: str) -> str:
    return _log_limits(m, x, _log_of(m, *_log_parts(m, x)))


def log2(m: Math, x: str) -> str:
    e, fraction = _log_parts(m, x)
    part = _log_of(m, m.number(0), fraction)
    return _log_limits(m, x, m.fma(part, m.number(1 / LN2), e))


def log10(m: Math, x: str) -> str:
    return m.mul(log(m, x), m.number(1 / math.log(10)))


def log1p(m: Math, x: str) -> str:
    u = m.add(x, m.number(1))
    # what rounding took from 1 + x, whichever of the two is larger
    big = m.is_("ogt", x, m.number(1))
    lost = m.pick(big, m.sub(m.number(1), m.sub(u, x)), m.sub(x, m.sub(u, m.number(1))))
    e, fraction = _log_parts(m, u)
    found = _log_limits(m, u, _log_of(m, e, fraction, m.div(lost, u)))
    finite = m.is_("olt", m.abs(x), m.number(math.inf))
    found = m.pick(finite, found, m.add(log(m, u), m.number(0)))
    found = m.pick(m.is_("oeq", u, m.number(0)), m.number(-math.inf), found)
    tiny = m.is_("olt", m.abs(x), m.number({"float": 1e-10, "double": 1e-20}[m.kind]))
    return m.pick(tiny, x, found)


def tanh(m: Math, x: str) -> str:
    size = m.below(m.abs(x), {"float": 10.0, "double": 20.0}[m.kind])
    t = expm1(m, m.add(size, size))
    return m.signed(m.div(t, m.add(t, m.number(2))), x)


def sigmoid(m: Math, x: str) -> str:
    e = exp(m, m.neg(m.abs(x)))
    return m.div(m.pick(m.is_("oge", x, m.number(0)), m.number(1), e), m.add(e, m.number(1)))


# pi / 2 in parts with trailing zeros, so that small multiples of all but the last are exact
_PI_2 = {
    "float": (1.5703125, 4.837512969970703125e-4, 7.549790126404332e-08),
    "double": (1.570796326734125614166, 6.077100506303965e-11, 2.0222662487959506e-21),
}
# beyond this, the library's
TURNS = {"float": 8192.0, "double": 1e6}


def _turned(m: Math, x: str, quarter: int) -> str:
    """sin(x + quarter pi / 2) for |x| below the limit of TURNS."""
    n, whole = m.nearest(x, 2 / math.pi)
    r = x
    for part in _PI_2[m.kind]:
        r = m.fma(m.neg(n), m.number(part), r)
    z, terms = m.mul(r, r), TERMS[m.kind]
    sines = [(-1) ** k / math.factorial(2 * k + 1) for k in range(1, terms["sin"] + 1)]
    cosines = [(-1) ** k / math.factorial(2 * k) for k in range(2, terms["cos"] + 2)]
    sine = m.fma(m.mul(r, z), m.series(z, sines), r)
    half = m.mul(z, m.number(0.5))
    cosine = m.sub(m.number(1), m.sub(half, m.mul(m.mul(z, z), m.series(z, cosines))))
    turns = m.i("add", whole, m.integer(quarter))
    odd = m.b.emit(f"trunc {m.b.type(m.word)} {turns} to {m.b.type('i1')}")
    down = m.i("shl", m.i("lshr", turns, m.integer(1)), m.integer(BITS[m.kind] - 1))
    return m.from_bits(m.i("xor", m.bits(m.pick(odd, cosine, sine)), down))


def sin(m: Math, x: str) -> str:
    found = _turned(m, x, 0)
    return m.pick(m.is_("oeq", x, m.number(0)), x, found)  # -0.0


def cos(m: Math, x: str) -> str:
    return _turned(m, x, 1)


def erf(m: Math, x: str) -> str:
    """By its series below 1, and by 1 - exp(-x x) q(x) above; for float32."""
    size, z = m.abs(x), m.mul(x, x)
    terms = [
        2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(11)
    ]
    low = m.mul(size, m.series(z, terms))
    t = m.below(size, 4.0)  # where it is 1
    centred = m.fma(t, m.number(2 / 3), m.number(-5 / 3))  # [1, 4] -> [-1, 1]
    rest = m.mul(exp(m, m.neg(m.mul(t, t))), m.series(centred, _scaled_erfc()))
    high = m.sub(m.number(1), rest)
    return m.signed(m.pick(m.is_("olt", size, m.number(1)), low, high), x)


def _scaled_erfc() -> list[float]:
    """exp(t t) erfc(t) on [1, 4] as a polynomial in (2 t - 5) / 3, by Chebyshev interpolation."""

    def scaled(centred: float) -> float:
        t = (3 * centred + 5) / 2
        return math.exp(t * t) * math.erfc(t)

    fit = np.polynomial.chebyshev.chebinterpolate(np.vectorize(scaled), 11)
    found: list[float] = np.polynomial.chebyshev.cheb2poly(fit).tolist()
    return found


def pow(m: Math, x: str, y: str) -> str:
    """|x| ** y as exp(y log|x|), in more digits than its operands have; and C's special cases."""
    size = m.abs(x)
    found = exp(m, m.mul(y, log(m, size)))
    one = m.b.emit(
        f"or {m.b.type('i1')} {m.is_('oeq', size, m.number(1))}, {m.is_('oeq', y, m.number(0))}"
    )
    found = m.pick(one, m.number(1), found)
    half = m.mul(y, m.number(0.5))
    integral = m.is_("oeq", m.b.intrinsic("floor", m.kind, y), y)
    even = m.is_("oeq", m.b.intrinsic("floor", m.kind, half), half)
    odd = m.b.binary("and", "i1", integral, m.b.binary("xor", "i1", even, m.b.repeat("i1", "true")))
    found = m.pick(odd, m.signed(found, x), found)
    infinite = m.is_("oeq", m.abs(y), m.number(math.inf))
    real = m.b.binary("or", "i1", m.is_("oge", x, m.number(0)), integral)
    for also in (infinite, m.is_("oeq", size, m.number(math.inf))):
        real = m.b.binary("or", "i1", real, also)
    found = m.pick(real, found, m.number(math.nan))
    # 1 ** NaN and NaN ** 0 are 1
    sure = m.b.binary("or", "i1", m.is_("oeq", x, m.number(1)), m.is_("oeq", y, m.number(0)))
    nan = m.is_("uno", x, y)
    return m.pick(sure, m.number(1), m.pick(nan, m.add(x, y), found))


FUNCTIONS: dict[str, Callable[..., str]] = {
    f.__name__: f for f in (exp, expm1, log, log2, log10, log1p, tanh, sigmoid, sin, cos, erf, pow)
}


def call(b: Lanes, name: str, kind: str, *values: str) -> str:
    """The function's value on lanes of floats or doubles; prints the function where it is new."""
    symbol = f"gd_{name}_{b.width}_{kind}"
    if symbol not in b.needs:
        b.needs[symbol] = ""  # found again by what is printed meanwhile
        b.needs[symbol] = _definition(b, name, symbol, kind, len(values))
    whole = b.type(kind)
    return b.emit(f"call {whole} @{symbol}({', '.join(f'{whole} {v}' for v in values)})")


def _definition(b: Lanes, name: str, symbol: str, kind: str, count: int) -> str:
    inner = Lanes(b.width, b.needs, iter(range(10**9)))
    m, given = Math(inner, kind), [f"%a{i}" for i in range(count)]
    if name not in FUNCTIONS or (kind == "double" and name in ("pow", "erf")):
        result = _one_by_one(inner, name, kind, given)
    elif name in ("pow", "erf") and kind == "float":
        result = _wide(inner, name, given) if name == "pow" else FUNCTIONS[name](m, *given)
    else:
        result = FUNCTIONS[name](m, *given)
    whole = b.type(kind)
    head = f"define internal {whole} @{symbol}({', '.join(f'{whole} {g}' for g in given)}) #0"
    if name in ("sin", "cos"):
        return head + " {\n" + _unless_far(inner, name, kind, result) + "}"
    return "\n".join([head + " {", *inner.lines, f"  ret {whole} {result}", "}"])


def _wide(b: Lanes, name: str, given: list[str]) -> str:
    wide = [b.convert("fpext", "float", "double", g) for g in given]
    return b.convert("fptrunc", "double", "float", FUNCTIONS[name](Math(b, "double"), *wide))


def _one_by_one(b: Lanes, name: str, kind: str, given: list[str]) -> str:
    """The C library's function on each lane."""
    symbol = name + ("f" if kind == "float" else "")
    b.needs[f"declare {kind} @{symbol}({', '.join([kind] * len(given))})"] = None
    if b.width == 1:
        return b.emit(f"call {kind} @{symbol}({', '.join(f'{kind} {g}' for g in given)})")
    whole, total = b.type(kind), "poison"
    for lane in range(b.width):
        ones = [b.emit(f"extractelement {whole} {g}, i64 {lane}") for g in given]
        found = b.emit(f"call {kind} @{symbol}({', '.join(f'{kind} {o}' for o in ones)})")
        total = b.emit(f"insertelement {whole} {total}, {kind} {found}, i64 {lane}")
    return total


def _unless_far(near: Lanes, name: str, kind: str, result: str) -> str:
    """The lines of sin or cos: the library's if any lane is beyond the limit, infinite or NaN."""
    check, far = (Lanes(near.width, near.needs, iter(range(k, 10**9))) for k in (10**6, 2 * 10**6))
    m = Math(check, kind)
    close = m.is_("olt", m.abs("%a0"), m.number(TURNS[kind]))
    if near.width > 1:
        bits = check.emit(f"bitcast {check.type('i1')} {close} to i{near.width}")
        close = check.emit(f"icmp eq i{near.width} {bits}, -1")
    library = _one_by_one(far, name, kind, ["%a0"])
    whole = near.type(kind)
    return "\n".join([
        *check.lines, f"  br i1 {close}, label %near, label %far",
        "near:", *near.lines, f"  ret {whole} {result}",
        "far:", *far.lines, f"  ret {whole} {library}", "",
    ])  # fmt: skip
