"""``python -m ragscale``: the same as the command ``ragscale``."""

import sys

from ragscale._cli import main

if __name__ == "__main__":
    sys.exit(main())
