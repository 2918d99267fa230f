"""Run named checks in order; name the one that breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ragscale.errors import ConfigError, MissingExtraError


class BrokenPromise(AssertionError, ConfigError):
    """A check met an answer that the base class refuses, such as hits of the wrong shape."""


def run_checks(checks: Mapping[str, Callable[[Any], Any]], subject: Any) -> list[str]:
    """Run every check on the subject and return the names of those that applied (did not return False).

    Raises
    ------
    AssertionError
        Beginning with the name of the check that failed.
    """
    ran = []
    for name, check in checks.items():
        try:
            done = check(subject)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except MissingExtraError:
            raise
        except ConfigError as error:
            raise BrokenPromise(f"{name}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        if done is not False:
            ran.append(name)
    return ran
