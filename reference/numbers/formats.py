"""Floating-point formats: what a dtype can represent, and how it rounds.

The figures are those of IEEE 754-2019 (binary16, binary32, binary64) and of bfloat16, which has the
exponents of binary32 with 8 bits of precision.
"""

from dataclasses import dataclass

import numpy as np

from reference.numbers import dyadics

FloatArray = np.typing.NDArray[np.float64]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format with gradual underflow and rounding to nearest, ties to even."""

    name: str
    precision: int
    """Significant bits, the leading one included."""
    max_exponent: int
    """The largest finite number lies just below 2**max_exponent."""
    flushed: bool = True
    """Whether common arithmetic (XLA, GPUs in their fast modes) takes subnormal numbers for 0."""

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of one rounding, 2**-precision."""
        return 2.0**-self.precision

    @property
    def min_exponent(self) -> int:
        """The smallest normal number is 2**min_exponent."""
        return 2 - self.max_exponent

    @property
    def subnormal(self) -> float:
        """Smallest positive number: the spacing below the normal range."""
        return 2.0 ** (self.min_exponent - self.precision + 1)

    @property
    def underflow(self) -> float:
        """What an operation may lose at the bottom: the subnormal spacing, or all below the normal range."""
        return 2.0**self.min_exponent if self.flushed else self.subnormal

    @property
    def largest(self) -> float:
        """Largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0 ** (self.max_exponent - 1)

    def round(self, x: FloatArray | float) -> FloatArray:
        """Round float64 values to the nearest number of the format (ties to even)."""
        x = np.asarray(x, dtype=np.float64)
        if self.precision == 53:
            return x
        _, exponent = np.frexp(x)
        spacing = np.maximum(exponent - 1, self.min_exponent) - (self.precision - 1)
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.ldexp(np.rint(np.ldexp(x, -spacing)), spacing)
        rounded = np.where(np.isfinite(x), rounded, x)
        return np.where(np.abs(rounded) > self.largest, np.copysign(np.inf, rounded), rounded)

    def represents(self, x: FloatArray | float) -> bool:
        """Whether every value is a number of the format (NaN and infinities count)."""
        x = np.asarray(x, dtype=np.float64)
        return bool(np.array_equal(self.round(x), x, equal_nan=True))

    def holds(self, x: dyadics.Dyadic, spare_bits: int = 0) -> bool:
        """Whether every order of evaluation that led to this rational is exact in the format."""
        smallest = self.min_exponent if self.flushed else self.min_exponent - self.precision + 1
        return x.fits(self.precision - spare_bits, smallest, self.max_exponent)


FORMATS = {
    "float64": Format("float64", precision=53, max_exponent=1024),
    "float32": Format("float32", precision=24, max_exponent=128),
    "bfloat16": Format("bfloat16", precision=8, max_exponent=128),
    "float16": Format("float16", precision=11, max_exponent=16, flushed=False),
}
