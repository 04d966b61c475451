"""A checkpoint is simulated for the tuning patients first; what comes of it goes to predict."""

import json
from pathlib import Path

import pytest

import sequela


def test_calibrate_asks_the_tuning_patients_and_predict_takes_it(small_demo: Path, tmp_path: Path, small) -> None:
    model, meds, out = small_demo / "model", small_demo / "meds", tmp_path / "calibration"
    asked = {"task": "death_5y", "settings": small.simulate, "rollouts": 3, "patients": 40}
    done = sequela.calibrate(model, meds, out, **asked)
    assert done["result"]["death_5y"]["questions"] > 0
    futures = json.loads((tmp_path / "calibration-simulated" / "manifest.json").read_text())
    assert (futures["settings"]["split"], futures["settings"]["rollouts"]) == ("tuning", 3)
    about = json.loads((out / "calibration.json").read_text())
    assert (about["rollouts"], about["settings"]["limit"]) == (3, small.simulate.limit)
    predicted = tmp_path / "predictions"
    done = sequela.predict(model, meds, predicted, **asked, baselines=False, calibration=out)
    assert done["inputs"].keys() == {"simulated", "meds", "calibration"}
    with pytest.raises(sequela.InputError, match="does not hold the task new_diabetes_5y"):
        sequela.predict(
            model, meds, tmp_path / "other", **asked | {"task": "new_diabetes_5y"}, calibration=out
        )
    assert not (tmp_path / "other-simulated").exists()  # refused before the work
    assert sequela.calibrate(model, meds, out, **asked)["skipped"]
