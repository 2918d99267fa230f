"""Makes the harness importable, which also runs as a program (``make fuzz``)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
