from sequela.task.scoring.bootstrap import Estimate
from sequela.task.scoring.comparison import Comparison
from sequela.task.scoring.verdict import in_words, verdict

OWN = {"sequela": {"auroc": Estimate(0.8, 0.77, 0.83), "mae": Estimate(6.9, 6.5, 7.3)}}


def test_what_beats_simulation_what_it_beats_what_it_matches_and_what_is_open():
    compared = {
        "cox": Comparison(Estimate(-0.02, -0.05, 0.01), -0.02, 0.4, 0.02),
        "trees": Comparison(Estimate(-0.06, -0.09, -0.03), -0.06, 0.001, 0.02),
        "age_sex": Comparison(Estimate(0.1, 0.05, 0.15), 0.1, 0.002, 0.02),
        "logistic": Comparison(Estimate(0.001, -0.01, 0.012), 0.001, 1.0, 0.02),
    }
    assert verdict("binary", OWN, compared, 0) == (
        "Simulation reaches AUROC 0.800 (0.770 to 0.830). It is beaten by trees by 0.060 (0.030 to 0.090). "
        "It beats age_sex by 0.100 (0.050 to 0.150). It matches logistic (+0.001, -0.010 to +0.012). "
        "Not decided: cox (-0.020, -0.050 to +0.010)."
    )


def test_a_difference_that_excludes_zero_but_not_after_correction_is_not_decided():
    words = verdict("binary", OWN, {"cox": Comparison(Estimate(-0.03, -0.059, -0.001), -0.03, 0.2, 0.02)}, 0)
    assert words.endswith("Not decided: cox (-0.030, -0.059 to -0.001).")


def test_fewer_days_of_error_are_better():
    compared = {
        "ridge": Comparison(Estimate(0.5, 0.2, 0.8), -0.5, 0.0, 0.1),
        "median": Comparison(Estimate(-0.3, -0.5, -0.1), 0.3, 0.0, 0.1),
    }
    words = verdict("time", OWN, compared, 2)
    assert "beaten by ridge by 0.50 (0.20 to 0.80)" in words
    assert "It beats median by 0.30 (0.10 to 0.50)" in words
    assert "no answer for 2 patients" in words


def test_one_training_run_says_what_its_intervals_lack():
    assert "how far another one would move these numbers is not in the intervals" in in_words(4, 0.02, {1})
    assert "another 3 training runs" in in_words(4, 0.02, {3})
    assert "within 0.05 of AUROC, or within 5 % of an error" in in_words(4, 0.05, {1})
    assert in_words(0, 0.02, {1}) == in_words(0, 0.02, set()) == ""


def test_the_unit_is_said_where_it_is_known():
    for kind, words in {
        "time": "a mean error, in days, of 6.90",
        "count": "a mean error of 6.90",
        "value": "a mean error, in the unit of the values, of 6.90",
    }.items():
        assert f"Simulation reaches {words} (6.50 to 7.30)." in verdict(kind, OWN, {}, 0)
