"""Arrays that the CPU kernel works on.

To the type checker they are anything: it takes a number out of an array for another array. The signatures of the compiled
entries say what they are, and Numba refuses all else.
"""

from typing import Any, TypeAlias

Bytes: TypeAlias = Any
Halves: TypeAlias = Any
Floats: TypeAlias = Any
Doubles: TypeAlias = Any
Ints: TypeAlias = Any
Bools: TypeAlias = Any
