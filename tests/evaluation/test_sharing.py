"""Rows that begin alike: computed once as far as they do, with the scores of rows of their own."""

from __future__ import annotations

import numpy as np
import pytest

import ragscale as rs
from ragscale.evaluation import PromptTemplate, ScoreRequest, TorchModel, _scorer
from ragscale.evaluation._sharing import forest
from ragscale.evaluation._tree import plain_rows, tree_row


def draw(rng, n):
    return tuple(rng.integers(1, 500, size=n).tolist())


def alike(seed=0):
    """Contexts that share beginnings of several lengths, one that begins another, one twice, and some of their own."""
    rng = np.random.default_rng(seed)
    root, other = draw(rng, 50), draw(rng, 33)
    contexts = [root + draw(rng, 5), root + (middle := draw(rng, 40)) + draw(rng, 30), root + middle + draw(rng, 1)]
    contexts += [root + middle, root, other + draw(rng, 90), other + draw(rng, 2), draw(rng, 60), draw(rng, 1)]
    contexts += [contexts[0]]
    requests = [
        ScoreRequest(c, tuple(draw(rng, rng.integers(1, 6)) for _ in range(i % 4 + 1))) for i, c in enumerate(contexts)
    ]
    return [requests[i] for i in rng.permutation(len(requests))]


def values(scores):
    return np.concatenate([score.logprobs for score in scores])


def n_tokens(nodes):
    return sum(len(node) + n_tokens(node.children) for node in nodes)


def leaves(nodes):
    return [leaf for node in nodes for leaf in ([node] if not node.children else leaves(node.children))]


@pytest.mark.parametrize("rows_of", [plain_rows, lambda rs_: [tree_row(r, i) for i, r in enumerate(rs_)]])
def test_a_forest_holds_every_token_of_every_row_once(rows_of):
    rows = rows_of(alike())
    alone, trees = forest(rows, 10**6)
    assert sorted(map(id, rows)) == sorted(map(id, [*alone, *(leaf.row for leaf in leaves(trees))]))

    def check(node, before):
        tokens = np.concatenate([before, node.row.tokens[node.start : node.stop]])
        assert node.start == len(before)
        assert len(node.children) != 1
        if not node.children:
            assert tokens.tolist() == node.row.tokens.tolist()
            assert node.start <= node.row.first  # what is needed is computed in the leaf
        for child in node.children:
            check(child, tokens)

    for tree in trees:
        assert len(tree) >= 32
        check(tree, np.zeros(0, dtype=int))
    # fifty tokens are shared by six contexts and forty of these by three; thirty-three by two
    assert sum(map(len, rows)) - sum(map(len, alone)) - n_tokens(trees) >= 49 * 5 + 39 * 2 + 33


@pytest.mark.parametrize(
    ("n_shared", "n_own", "width", "n_trees"),
    [(32, 9, 10**6, 1), (31, 9, 10**6, 0), (60, 9, 320, 1), (60, 400, 320, 0), (400, 60, 320, 1)],
)
def test_rows_share_what_is_worth_it(n_shared, n_own, width, n_trees):
    rng = np.random.default_rng(0)
    start = draw(rng, n_shared)
    rows = plain_rows([ScoreRequest(start + draw(rng, n_own), ((1,),)) for _ in range(2)])
    alone, trees = forest(rows, width)
    assert (len(trees), len(alone)) == (n_trees, 2 - 2 * n_trees)
    assert forest(rows[:1], width) == (rows[:1], [])
    assert forest([], width) == ([], [])


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
@pytest.mark.parametrize("n_branches", [1, None])
def test_shared_beginnings_give_the_scores_of_separate_rows(module, tokenizer, batch_tokens, n_branches):
    asked = [ScoreRequest(r.context, r.continuations[:n_branches]) for r in alike()]
    lm = TorchModel(module, tokenizer, batch_tokens=batch_tokens)
    assert lm.shares_prefixes
    found = lm.score(asked)
    expected = TorchModel(module, tokenizer, tree=False).score(asked)
    assert values(found) == pytest.approx(values(expected), abs=2e-4)
    assert [score.greedy for score in found] == [score.greedy for score in expected]


def test_fewer_tokens_are_computed(module, tokenizer, monkeypatch):
    def n_computed(width):
        seen = []
        monkeypatch.setattr(_scorer.Scorer, "_width", width)
        lm = TorchModel(module, tokenizer)
        lm.score(alike()[:1])
        body = lm._prepared()._bodies["float32"]
        block = body.block
        body.block = lambda x, *rest: (seen.append(x.shape[0] * x.shape[1]), block(x, *rest))[1]
        lm.score(alike())
        return sum(seen)

    assert n_computed(10**6) < 0.7 * n_computed(1)


@pytest.mark.parametrize("order", ["best_last", "best_first"])
def test_stores_are_scored_together_unless_cells_are_kept(module, tokenizer, retriever, choice_task, tmp_path, order):
    options = {
        "retriever": retriever,
        "store_tokens": [0, 420, 840, 1680],
        "k": 3,
        "template": PromptTemplate(order=order),
    }
    calls = []

    class Counted(TorchModel):
        def _score(self, requests):
            calls.append(len(requests))
            return super()._score(requests)

    task = choice_task.limit(8)
    together = rs.evaluate(Counted(module, tokenizer), task, **options)
    assert len(calls) == 1
    kept = rs.evaluate(Counted(module, tokenizer), task, out=tmp_path, **options)
    apart = rs.evaluate(TorchModel(module, tokenizer, tree=False), task, **options)
    for one in (together, kept):
        assert np.concatenate(one.samples["logprobs"]) == pytest.approx(
            np.concatenate(apart.samples["logprobs"]), abs=2e-4
        )
        assert one.samples["prompt"].tolist() == apart.samples["prompt"].tolist()
    assert len(calls) > 2


def test_few_tokens_are_held_at_once(module, tokenizer, retriever, choice_task, monkeypatch):
    from ragscale.evaluation import _evaluate

    calls = []

    class Counted(TorchModel):
        def _score(self, requests):
            calls.append(len(requests))
            return super()._score(requests)

    options = {"retriever": retriever, "store_tokens": [0, 420, 1680]}
    monkeypatch.setattr(_evaluate, "_MOST_TOGETHER", 24 * 60)  # the closed book and no store
    rs.evaluate(Counted(module, tokenizer), choice_task, **options)
    assert len(calls) == 3
