"""Straight-line code on a few elements at once: values are LLVM vectors, or scalars at width 1."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from .flow import Lines

_KINDS = {
    "bool": "i1", "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16", "int32": "i32",
    "uint32": "i32", "int64": "i64", "uint64": "i64", "float16": "half", "float32": "float",
    "float64": "double",
}  # fmt: skip
KINDS = {np.dtype(name): kind for name, kind in _KINDS.items()}  # NumPy takes long to say a name


def scalar_type(dtype: np.dtype[Any]) -> str:
    """The type of one element in a register; a bool is i1."""
    return KINDS[dtype]


def memory_type(dtype: np.dtype[Any]) -> str:
    """The type of one element in memory; a bool is a byte."""
    return "i8" if dtype.kind == "b" else KINDS[dtype]


def literal(dtype: np.dtype[Any], value: Any) -> str:
    """One number as LLVM writes it."""
    if dtype == np.bool_:
        return "true" if value else "false"
    if dtype.kind in "iu":
        return str(int(value))
    number = dtype.type(value)
    if dtype == np.float16:
        return f"0xH{struct.unpack('<H', struct.pack('<e', number))[0]:04X}"
    # a float is written with the bits of the double of its value
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(number)))[0]:016X}"


class Lanes(Lines):
    """Collects instructions; every method that computes returns the name of its result.

    width  how many elements a value has
    names  numbers for registers, one source for all of a function
    """

    def __init__(self, width: int, needs: dict[str, str | None], names: Iterator[int]) -> None:
        super().__init__(names)
        self.width = width
        self.needs = needs  # declarations and definitions that the module must have

    # ---- names and types
    def type(self, kind: str) -> str:
        return kind if self.width == 1 else f"<{self.width} x {kind}>"

    def of(self, dtype: np.dtype[Any]) -> str:
        return self.type(scalar_type(dtype))

    # ---- values
    def constant(self, dtype: np.dtype[Any], value: Any) -> str:
        return self.repeat(scalar_type(dtype), literal(dtype, value))

    def repeat(self, kind: str, one: str) -> str:
        """A literal in every lane."""
        if self.width == 1:
            return one
        return "<" + ", ".join([f"{kind} {one}"] * self.width) + ">"

    def splat(self, kind: str, scalar: str) -> str:
        """A register's value in every lane."""
        if self.width == 1:
            return scalar
        whole = self.type(kind)
        first = self.emit(f"insertelement {whole} poison, {kind} {scalar}, i64 0")
        return self.emit(
            f"shufflevector {whole} {first}, {whole} poison, <{self.width} x i32> zeroinitializer"
        )

    def positions(self, kind: str = "i64") -> str:
        """0, 1, 2, ..."""
        if self.width == 1:
            return "0"
        return "<" + ", ".join(f"{kind} {i}" for i in range(self.width)) + ">"

    # ---- instructions
    def binary(self, instruction: str, kind: str, a: str, b: str) -> str:
        return self.emit(f"{instruction} {self.type(kind)} {a}, {b}")

    def select(self, condition: str, kind: str, a: str, b: str) -> str:
        whole = self.type(kind)
        return self.emit(f"select {self.type('i1')} {condition}, {whole} {a}, {whole} {b}")

    def convert(self, instruction: str, old: str, new: str, value: str) -> str:
        return self.emit(f"{instruction} {self.type(old)} {value} to {self.type(new)}")

    def intrinsic(self, name: str, kind: str, *values: str) -> str:
        """A call of an LLVM intrinsic all of whose operands have the result's type."""
        whole = self.type(kind)
        short = {"float": "f32", "double": "f64", "half": "f16"}.get(kind, kind)
        suffix = short if self.width == 1 else f"v{self.width}{short}"
        return self.call(f"llvm.{name}.{suffix}", whole, *((whole, v) for v in values))

    def call(self, function: str, result: str, *arguments: tuple[str, str]) -> str:
        """A call of a function that is declared here."""
        types = ", ".join(t for t, _ in arguments)
        self.needs[f"declare {result} @{function}({types})"] = None
        given = ", ".join(f"{t} {v}" for t, v in arguments)
        return self.emit(f"call {result} @{function}({given})")
