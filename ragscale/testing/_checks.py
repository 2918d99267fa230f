"""Run named checks in order; name the one that breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


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
        if done is not False:
            ran.append(name)
    return ran
