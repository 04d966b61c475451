"""The table in the terminal shows every score with its interval."""

import pytest

from sequela.serve.pages.terminal import interval, number, print_losses, print_summary

SCORE = {"value": 0.8361, "low": 0.81, "high": 0.8589}
METRICS = {
    "tasks": {
        "death_5y": {
            "kind": "binary",
            "n": 3511,
            "positives": 225,
            "undecidable": 1300,
            "verdict": "trees beat it by .02 [.01, .03].",
            "models": {
                "sequela": {"auroc": SCORE, "oe": {"value": 1.04, "low": 0.9, "high": 1.2}},
                "trees": {"auroc": SCORE},
            },
        },
        "remaining_stay": {
            "kind": "time",
            "n": 800,
            "positives": None,
            "verdict": "",
            "undecidable": 10,
            "without": 7,
            "models": {"sequela": {"mae": {"value": 6.44, "low": 6.1, "high": 6.8}}},
        },
        "admissions": {
            "kind": "count",
            "n": 500,
            "positives": None,
            "without": 0,
            "verdict": "",
            "undecidable": 3,
            "models": {"sequela": {"mae": SCORE, "rmsle": {"value": 0.31, "low": 0.3, "high": 0.32}}},
        },
        "hba1c": {
            "kind": "value",
            "n": 400,
            "positives": None,
            "without": 123,
            "verdict": "",
            "undecidable": 4,
            "models": {"sequela": {"mae": SCORE}},
        },
    }
}
FUTURES = {
    "histories": 3,
    "rollouts": 60,
    "tokens": 1200,
    "reasons": {"limit": 0, "settled": 15, "horizon": 45, "end": 0},
    "windows": 0,
    "events_of_several_tokens": 200,
    "invalid_events_of_several_tokens": 1,
    "probability_removed": 0.0123,
    "well_formed": True,
}


def test_losses_are_a_row_for_each_kind_the_costliest_first(capsys: pytest.CaptureFixture) -> None:
    lab = {"events": 1178, "bits_per_event": 0.121, "share": 0.06}
    value = {"events": 1170, "bits_per_event": 1.5045, "share": 0.735}
    print_losses({"bits_per_event": 1.8931, "bits_per_token": 0.64, "kinds": {"lab": lab, "value": value}})
    shown = capsys.readouterr().out
    assert "1.893 bits per event" in shown
    assert ["value", "1,170", "1.504", "73.5", "%"] in [line.split() for line in shown.splitlines()]
    assert shown.index("value") < shown.index("lab ")


def test_summary_shows_counts_scores_and_verdict(capsys: pytest.CaptureFixture) -> None:
    print_summary(METRICS)
    shown = capsys.readouterr().out
    assert "death_5y" in shown
    assert "3,511" in shown
    assert "1,300" in shown
    assert ".836 [.810, .859]" in shown
    assert "1.04 [.900, 1.20]" in shown
    assert "6.44 [6.10, 6.80]" in shown
    assert "death_5y: trees beat it by .02 [.01, .03]." in shown
    assert "Simulation of" not in shown and "comparisons" not in shown
    print_summary(METRICS | {"comparisons": {"words": "Over all 9 comparisons, and so on."}})
    assert "Over all 9 comparisons, and so on." in capsys.readouterr().out


def test_counts_and_values_have_their_own_columns(capsys: pytest.CaptureFixture) -> None:
    print_summary(METRICS)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    headings = [line[2:] for line in lines if line[:2] == ["task,", "model"]]
    assert headings == [
        ["n", "events", "censored", "AUROC", "O/E"],
        ["n", "without", "censored", "MAE,", "days"],
        ["n", "without", "censored", "MAE", "RMSLE"],
        ["n", "without", "censored", "MAE,", "unit", "of", "the", "value"],
    ]
    assert ["hba1c", "400", "123", "4"] in lines
    assert ["sequela", ".836", "[.810,", ".859]", ".310", "[.300,", ".320]"] in lines


def test_what_stands_behind_the_answers_is_told(capsys: pytest.CaptureFixture) -> None:
    scope = {"estimator": "scope", "rollouts": 20.0, "tokens": 400.0}
    answers = {"death_5y": scope, "new_diabetes_5y": scope, "admissions": {**scope, "estimator": "mean"}}
    print_summary({**METRICS, "simulation": {"answers": answers, "futures": [FUTURES]}})
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "Simulation of death_5y, new_diabetes_5y: mean of summed hazards (scope); 20 futures and 400 tokens"
        in shown
    )
    assert "Simulation of admissions: mean of the futures; 20 futures" in shown
    assert "60 futures of 3 histories, 20 tokens each: 75 % passed the horizon, 25 % answered" in shown
    assert "removed 1.2 % of the probability" in shown
    assert "1 of 200 multi-token events are malformed (0.5 %)" in shown


def test_what_is_not_known_is_a_dash() -> None:
    assert interval(None) == "-"
    assert interval({}) == "-"
    assert interval({"value": float("nan"), "low": 0.1, "high": 0.2}) == "-"
    assert interval({"value": 0.5, "low": None, "high": None}) == ".500"


def test_numbers_keep_their_sign_and_size() -> None:
    assert [number(value) for value in (-0.0123, 0.99951, 12.0, 0.0)] == ["-.012", "1.00", "12.00", ".000"]
