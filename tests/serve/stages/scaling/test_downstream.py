import shutil
from pathlib import Path

from sequela.rollout.settings import SimulateSettings
from sequela.serve.stages.scaling.downstream import DownstreamSettings, downstream


def test_the_best_model_of_each_budget_answers_and_the_best_of_all_with_fewer_rollouts(
    small_demo: Path, tmp_path: Path
) -> None:
    rows = [
        {"run": name, "budget": budget, "bits_per_event": loss}
        for name, budget, loss in (("a", 1e10, 5.0), ("b", 1e10, 4.0), ("c", 1e11, 3.0))
    ]
    for row in rows:
        shutil.copytree(small_demo / "model", tmp_path / "runs" / row["run"])
    ask = DownstreamSettings(small_demo / "meds", ("death_5y",), patients=60)
    found = downstream(tmp_path, rows, ask, SimulateSettings(rollouts=5, limit=32))
    assert [(one["run"], one["rollouts"]) for one in found] == [("b", 5), ("c", 1), ("c", 2), ("c", 5)]
    assert all(
        0 <= one["auroc"]["low"] <= one["auroc"]["value"] <= one["auroc"]["high"] <= 1 for one in found
    )
    same = [one["auroc"] for one in found if one["rollouts"] == 5]
    assert same[0] == same[1], "the same weights under two names answer alike"
    assert not (tmp_path / "downstream" / "a").exists()
