"""What each baseline is, in words for readers of results."""

from __future__ import annotations

BASELINES = {
    "prevalence": "the same risk for everybody: the incidence of the training patients",
    "mean": "the same number for everybody: the mean of the training patients",
    "median": "the same number for everybody: the median of the training patients",
    "age_sex": "logistic regression on age and sex",
    "logistic": "logistic regression on summaries of the record (counts; last, mean, lowest, and highest values)",
    "ridge": "ridge regression on summaries of the record (counts; last, mean, lowest, and highest values)",
    "trees": "boosted trees on the same summaries",
    "cox": "Cox regression on the same summaries, with competing ends",
    "survival_forest": "a random survival forest on the same summaries, with competing ends",
    "strong": "as good as we could make it from the record: windows, trends, and recency; linear models and trees, "
    "tuned on the tuning patients",
    "tokens": "the same as strong, but from what the model's tokens say of the record: what strong has over it is "
    "lost by the tokens, what it has over the simulation is lost by the simulation",
}
"""Name -> what it is, in the order of explanations."""
