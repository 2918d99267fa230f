"""Job functions of the executor tests: they live in a module of their own so that other processes can import them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "jobs"))
