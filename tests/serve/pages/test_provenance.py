"""What stands behind the answers is read from the folders that they come from."""

import json
import shutil
from pathlib import Path

import pytest

from sequela.serve.pages.provenance import in_words, sentences, share, simulation


def test_the_small_demo_tells_what_is_behind_it(small_demo: Path) -> None:
    told = simulation([small_demo / "predictions"])
    about = json.loads((small_demo / "simulated" / "simulate.json").read_text())
    assert json.loads((small_demo / "metrics.json").read_text())["simulation"] == told
    assert list(told["answers"]) == [
        "death_5y",
        "new_diabetes_5y",
        "new_hypertension_5y",
        "new_cardiovascular_5y",
    ]
    everyone = told["answers"]["death_5y"]
    assert (everyone["estimator"], everyone["rollouts"]) == ("scope", 6)
    assert everyone["tokens"] == pytest.approx(about["tokens"] / about["histories"])
    (futures,) = told["futures"]
    assert futures["reasons"] == about["reasons"] and futures["well_formed"]


def test_what_is_gone_or_of_others_is_left_out(small_demo: Path, tmp_path: Path) -> None:
    assert simulation([]) == simulation([tmp_path]) == {"answers": {}, "futures": []}
    shutil.copytree(small_demo / "predictions", tmp_path / "predictions")
    told = simulation([tmp_path / "predictions"])
    assert len(told["answers"]) == 4 and told["futures"] == []
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated" / "simulate.json").write_text(json.dumps({"maps": {}}))
    assert simulation([tmp_path / "predictions"])["futures"] == []


def test_in_words() -> None:
    answer = {"estimator": "reach", "rollouts": 12.34, "tokens": None}
    words = in_words(answer)
    assert words == "mean chance of the outcome over futures that avoid it (reach); 12.34 futures per patient"
    futures = {
        "histories": 10,
        "rollouts": 0,
        "tokens": 0,
        "reasons": {},
        "windows": 3,
        "events_of_several_tokens": 0,
        "invalid_events_of_several_tokens": 0,
        "probability_removed": 0.0,
        "well_formed": False,
    }
    assert sentences(futures)[1].startswith("The grammar was not enforced; 0 of 0 multi-token events")
    assert sentences(futures)[0].endswith("A full context was restarted 3 times.")


@pytest.mark.parametrize(
    ("part", "whole", "words"), [(1, 3, "33 %"), (94, 1000, "9.4 %"), (1, 10**5, "0.001 %"), (0, 5, "0 %")]
)
def test_shares(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words
