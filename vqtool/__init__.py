"""vqtool: continuous motion into discrete tokens and back.

`vqtool.load("runs/imu")` gives a tokenizer whose `encode` and `decode` take and give arrays in raw units.
Importing this package loads neither torch nor h5py nor numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load": "vqtool.nn.codec",
    "MotionSet": "vqtool.store",
    "Tokens": "vqtool.tokens",
    "VqtoolError": "vqtool.errors",
}

__all__ = ["MotionSet", "Tokens", "VqtoolError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vqtool' has no attribute {name!r}")
