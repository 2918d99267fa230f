"""What the names of metrics say: whether higher is better, and what kind of number it is.

Sources of the names: the task files and ``api/metrics.py`` of lm-evaluation-harness; the metric specs of HELM; BEIR's
``EvaluateRetrieval`` and trec_eval's measures (``man trec_eval``, ir-measures); the metrics of Hugging Face's evaluate,
of OLMES and lighteval; pass@k of Chen et al. 2021, arXiv 2107.03374; and how W&B and TensorBoard runs are usually
named, with a task or split before or behind the metric.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["loss", "perplexity", "error", "score", "likelihood", "gain"]
"""``loss``, ``perplexity`` and ``error`` (a rate, a distance, a cost) fall as models get better; ``score`` (within 0
and 1, or 0 and 100), ``likelihood`` (a mean logarithm of a probability) and ``gain`` (without limits) rise."""

RISING: frozenset[str] = frozenset({"score", "likelihood", "gain"})

_NAMES: dict[Kind, str] = {
    "loss": (
        "loss log_loss logloss nll negloglik nllloss cross_entropy crossentropy xent xentropy ce entropy kl kl_div "
        "kl_divergence bits bpb bpc bpw bpt bits_per_byte bits_per_char bits_per_character bits_per_word "
        "bits_per_token nats log_perplexity log_ppl surprisal likelihood_diff"
    ),
    "perplexity": "perplexity ppl perplexities",
    "error": (
        "error errors error_rate wer cer ter mse rmse mae mape ece mce brier brier_score calibration_error "
        "ece_10_bin ece_1_bin toxicity toxic toxic_frac toxicity_fraction hallucination hallucination_rate failure "
        "failures failure_rate fail_rate regret latency runtime inference_runtime denoised_runtime hole fid "
        "edit_distance levenshtein mean_rank pct_stereotype stereotypical_associations demographic_representation "
        "bias_score bypass mean_absolute_error mean_squared_error squared_error absolute_error"
    ),
    "score": (
        "acc accuracy accuracies exact_match exactmatch quasi_exact_match prefix_exact_match em qem pem pqem "
        "extractive_match greedy_match contains includes match f1 macro_f1 micro_f1 f_measure fbeta precision recall "
        "sensitivity specificity auc auroc roc_auc auprc pr_auc pass bleu sacrebleu chrf chrfpp rouge rouge1 rouge2 "
        "rougel rougelsum meteor bertscore bleurt comet mauve hit hits hit_rate hitrate success success_rate "
        "solve_rate win_rate winrate mrr rr recip_rank reciprocal_rank mean_reciprocal_rank ndcg dcg "
        "ncg map ap aps infap gm_map "
        "mean_average_precision average_precision rprec bpref rbp r_cap set_p set_recall set_f set_map iprec mc1 mc2 "
        "mcc matthews matthews_correlation spearman spearmanr pearson pearsonr kendall kendalltau correlation "
        "cohen_kappa r2 iou jaccard dice prob probability correct_prob truthfulness faithfulness groundedness "
        "citation_recall citation_precision math_equiv math_verify code_eval_acc maj cons solved pass_rate "
        "answer_in_store coverage"
    ),
    "likelihood": (
        "logprob logprobs log_prob log_probs log_probability log_likelihood loglikelihood loglik ll logp log_accuracy "
        "likelihood"
    ),
    "gain": "margin elo reward rewards return utility gain improvement reduction information_gain mt_bench",
}
_LOOSE: dict[Kind, str] = {"score": "score scores rate_correct quality correct"}
_ENDINGS = ("loss", "accuracy", "acc", "perplexity", "ppl", "error", "precision", "recall")
_WITH_CUTOFF = ("p", "r", "err")
_FLIPS = ("neg", "negative", "minus", "inverse", "inv", "drop", "decrease")
_NO_METRIC = ("stderr", "std", "sem", "variance", "ci", "count")

_KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_LOOSE_KINDS: dict[str, Kind] = {name: kind for kind, names in _LOOSE.items() for name in names.split()}
_LONGEST = max(name.count("_") for name in _KINDS) + 1
_OPPOSITE: dict[Kind, Kind] = {
    "loss": "likelihood",
    "perplexity": "gain",
    "error": "gain",
    "score": "error",
    "likelihood": "loss",
    "gain": "error",
}


def kind_of(metric: str) -> Kind | None:
    """Return what kind of metric a name says it is, or None where it does not say.

    The metric may stand beside a task, a split or a unit: of several parts between slashes the last that says anything
    counts (``"mmlu/acc"``, ``"loss/eval"``), and within a part the last word (``"squad_f1"``, ``"acc_error"``).
    ``neg_`` and ``1 -`` turn a name around.

    Examples
    --------
    >>> [kind_of(name) for name in ("hellaswag/acc_norm", "pass@1", "val_loss", "neg_log_likelihood", "1-acc", "c4")]
    ['score', 'score', 'loss', 'loss', 'error', None]
    """
    text = str(metric).partition(",")[0].strip()  # lm-eval's "acc,none"
    parts = [part for part in re.split(r"[/\\|:]|\s-\s|__", text) if part.strip()]
    if re.match(r"^\s*(1|100|one)\s*(-|minus\b)", text):
        parts = [text]
    for part in reversed(parts):
        if kind := _of_part(part):
            return kind
    return None


def _of_part(part: str) -> Kind | None:
    turned = re.match(r"^\s*(1|100|one)[\s_]*(-|minus\b)[\s_]*", part)
    words = _words(part[turned.end() :] if turned else part)
    if any(word in _NO_METRIC for word in words):
        return None
    found = _last(words, _KINDS) or _last(words, _LOOSE_KINDS)
    if found is None:
        return None
    kind, start = found
    flips = (turned is not None) + sum(word in _FLIPS for i, word in enumerate(words) if i < start or word == "drop")
    return _OPPOSITE[kind] if flips % 2 else kind


def _words(part: str) -> list[str]:
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", part.strip())
    return [word for word in re.split(r"[^a-z0-9]+", spread.lower()) if word]


def _last(words: list[str], kinds: dict[str, Kind]) -> tuple[Kind, int] | None:
    """Return the kind of the last (and there the longest) name among the words, and where it starts."""
    for end in range(len(words), 0, -1):
        for start in range(max(0, end - _LONGEST), end):
            name = "_".join(words[start:end])
            if name in kinds:
                return kinds[name], start
        if kinds is _KINDS and (kind := _of_word(words, end - 1)):
            return kind, end - 1
    return None


def _of_word(words: list[str], i: int) -> Kind | None:
    """Read what is a metric only beside another word: P@10, val_err, and ends such as trainloss."""
    word = words[i]
    if word in _WITH_CUTOFF and i + 1 < len(words) and words[i + 1].isdigit():
        return "score"
    if word == "err":  # alone it may be an error or an expected reciprocal rank
        return "error" if i else None
    return next((_KINDS[ending] for ending in _ENDINGS if word.endswith(ending)), None)
