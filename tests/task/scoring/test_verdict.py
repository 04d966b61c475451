from sequela.task.scoring.bootstrap import Estimate
from sequela.task.scoring.verdict import verdict

OWN = {"sequela": {"auroc": Estimate(0.8, 0.77, 0.83), "mae": Estimate(6.9, 6.5, 7.3)}}


def test_what_beats_simulation_and_what_it_beats():
    difference = {
        "cox": Estimate(-0.02, -0.05, 0.01),
        "trees": Estimate(-0.06, -0.09, -0.03),
        "age_sex": Estimate(0.1, 0.05, 0.15),
    }
    assert verdict("binary", OWN, difference, 0) == (
        "Simulation reaches AUROC 0.800 (0.770 to 0.830). It is beaten by trees by 0.060 (0.030 to 0.090). "
        "It beats age_sex by 0.100 (0.050 to 0.150). It cannot be told from cox on these patients."
    )


def test_fewer_days_of_error_are_better():
    difference = {"ridge": Estimate(0.5, 0.2, 0.8), "median": Estimate(-0.3, -0.5, -0.1)}
    words = verdict("time", OWN, difference, 2)
    assert "beaten by ridge by 0.50 (0.20 to 0.80)" in words
    assert "It beats median by 0.30 (0.10 to 0.50)" in words
    assert "no answer for 2 patients" in words


def test_the_unit_is_said_where_it_is_known():
    for kind, words in {
        "time": "a mean error, in days, of 6.90",
        "count": "a mean error of 6.90",
        "value": "a mean error, in the unit of the values, of 6.90",
    }.items():
        assert f"Simulation reaches {words} (6.50 to 7.30)." in verdict(kind, OWN, {}, 0)
