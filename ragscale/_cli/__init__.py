"""The command ``ragscale``: arguments in, the library's functions, text out."""

from ragscale._cli._main import main

__all__ = ["main"]
