"""Old names of arguments work for one release, and say the new one."""

import pytest

import ragscale as rs
from ragscale.errors import ConfigError

LAW = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}


def test_the_knee_takes_prices_as_an_allocation_does():
    dear = rs.knee_point(("log1p", LAW), N=1e9, prices={"D": 1.0, "R": 4.0})
    assert dear.D == rs.knee_point(("log1p", LAW), N=1e9, prices=(2.0, 8.0)).D
    assert dear.D > rs.knee_point(("log1p", LAW), N=1e9).D
    with pytest.warns(FutureWarning, match=r"knee_point\(prices="):
        old = rs.knee_point(("log1p", LAW), N=1e9, price_ratio=4.0)
    assert old.D == dear.D
    with pytest.raises(ConfigError, match="both are the same"):
        rs.knee_point(("log1p", LAW), N=1e9, price_ratio=4.0, prices=(1, 4))
    with pytest.raises(ConfigError, match="prices are for 'D' and 'R', not S"):
        rs.knee_point(("log1p", LAW), N=1e9, prices={"S": 1.0})


def test_passages_are_counted_in_tokens_by_one_name(tmp_path):
    documents = [rs.Document(str(i), f"document {i} is about {i % 5} and {i * i}") for i in range(20)]
    tokenizer = rs.splitting.train_tokenizer([document.text for document in documents], 300)
    new = rs.split_corpus(documents, tmp_path / "new", tokenizer=tokenizer, passage_tokens=16, progress=False)
    with pytest.warns(FutureWarning, match=r"split_corpus\(passage_tokens="):
        old = rs.split_corpus(documents, tmp_path / "old", tokenizer=tokenizer, passage_size=16, progress=False)
    assert old.digest == new.digest
    with pytest.warns(FutureWarning, match=r"audit\(rng="):
        audited = old.audit(seed=1)
    assert audited.checks.equals(old.audit(rng=1).checks)


def test_folds_and_audits_draw_by_rng():
    table = rs.datasets.simulate("chinchilla", noise=0.01, rng=0)
    new = rs.cross_validate(table, "chinchilla", leave_out=3, rng=1)
    with pytest.warns(FutureWarning, match="rng"):
        old = rs.cross_validate(table, "chinchilla", leave_out=3, seed=1)
    assert old.error == new.error != rs.cross_validate(table, "chinchilla", leave_out=3, rng=2).error
