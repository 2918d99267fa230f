"""Metrics in words with their units, for axes and pages."""

from __future__ import annotations

_WORDS = {
    "nll_per_token": "loss (nats per token)",
    "nll_per_byte": "loss (nats per byte)",
    "bits_per_byte": "loss (bits per byte)",
    "loss": "loss",
    "validation_loss": "validation loss (nats per token)",
    "accuracy": "accuracy (share of questions)",
    "acc": "accuracy (share of questions)",
    "exact_match": "exact match (share of questions)",
    "f1": "F1",
    "perplexity": "perplexity",
}


def metric_words(metric: str) -> str:
    """Return a metric's name for people, with its unit where it has one.

    Examples
    --------
    >>> metric_words("nll_per_token"), metric_words("my_score")
    ('loss (nats per token)', 'my score')
    """
    return _WORDS.get(metric, metric.replace("_", " "))
