"""A synthetic store with a known answer to every query, and retrievers written for the tests."""

from __future__ import annotations

import numpy as np
import pytest

from ragscale import Passage

COLOURS = ["red", "blue", "green", "amber", "violet", "silver", "golden", "grey"]
THINGS = ["fish", "lantern", "harbour", "orchard", "comet", "violin", "glacier", "market", "bridge", "castle"]
PLACES = ["Norvik", "Salt Bay", "Elmstead", "the old mill", "Rue du Port", "upper Dorrin", "the north gate"]


def make_passages(n: int, *, seed: int = 0, overlap: int = 0) -> list[Passage]:
    rng = np.random.default_rng(seed)
    passages = []
    for i in range(n):
        words = [f"Item {i % 97} near {rng.choice(PLACES)}."]
        for _ in range(int(rng.integers(1, 12))):
            one, other = rng.choice(THINGS, 2)
            words += [f"The {rng.choice(COLOURS)} {one} keeps {other}s from {rng.choice(PLACES)}."]
        text = " ".join(words)
        length = len(text.split())
        passages.append(Passage(f"p{i}", text, length, f"d{i // 4}", length - overlap if i % 4 else length))
    return passages


QUERIES = [
    "red lantern of Norvik",
    "which castle keeps silver bridges from Elmstead?",
    "violin violin violin",
    "golden",
    "",
    "nothing of this is known",
    "Item 13 near the old mill amber glacier market orchard comet",
]


@pytest.fixture(scope="session")
def passages() -> list[Passage]:
    return make_passages(400)


@pytest.fixture(scope="session")
def queries() -> list[str]:
    return QUERIES
