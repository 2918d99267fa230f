"""What the operating system refuses, said with the file, the reason and the next step."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ragscale.errors import FileError, MissingFileError, RagscaleError

FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def disk_errors(
    path: str | os.PathLike[str],
    doing: Literal["written", "read"] = "written",
    *,
    error: type[RagscaleError] = FileError,
    size: int | None = None,
    advice: str = "",
) -> Generator[None]:
    """Turn the refusals of the operating system inside the block into one error that names ``path``.

    Parameters
    ----------
    path : path
        What is being written or read.
    doing : {"written", "read"}
        Which of the two.
    error : type of RagscaleError
        What is raised; by default `FileError`, which also is an OSError (and a FileNotFoundError where nothing is
        there).
    size : int, optional
        Bytes that will be needed, for the message of a full disk.
    advice : str
        What to do once there is room again, e.g. "and call train again".

    Raises
    ------
    RagscaleError
        Of type ``error``. One that a block inside raised passes unchanged.
    """
    try:
        yield
    except RagscaleError:
        raise
    except OSError as problem:
        raise _as_error(error, problem, _explain(Path(path), problem, doing, size, advice)) from problem
    except Exception as problem:
        # safetensors reports the operating system's refusal as text in an error of its own
        if type(problem).__name__ != "SafetensorError" or "os error" not in str(problem):
            raise
        code = int(str(problem).split("os error")[1].strip(" )(").split(")")[0].split(",")[0])
        refusal = OSError(code, str(problem))
        raise _as_error(error, refusal, _explain(Path(path), refusal, doing, size, advice)) from problem


def _as_error(error: type[RagscaleError], problem: OSError, text: str) -> RagscaleError:
    if problem.errno == errno.ENOENT and error is FileError:
        error = MissingFileError
    made = error(text)
    if isinstance(made, OSError):
        made.errno = problem.errno
    return made


def _explain(path: Path, problem: OSError, doing: str, size: int | None, advice: str) -> str:
    code, text = problem.errno, str(problem)
    if code in FULL:
        needed = "" if size is None else f", about {size / 2**20:,.1f} MiB,"
        nearest = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        free = shutil.disk_usage(nearest).free / 2**20
        return f"no room to write {path}{needed} with {free:,.1f} MiB free ({text}): free some space{advice}"
    if code in FORBIDDEN:
        place = "give a folder that you may write to" if doing == "written" else "ask for the right to read it"
        return f"{path} cannot be {doing} ({text}): {place}"
    if code == errno.ENOENT and doing == "read":
        return f"there is no file {path} ({text})"
    return f"{path} could not be {doing}: {text}"
