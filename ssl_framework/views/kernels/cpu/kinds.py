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
Places: TypeAlias = Any  # uint64: never counted from the end, so that loops over them run in vector registers
Bools: TypeAlias = Any
