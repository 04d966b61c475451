"""The page of a probe has every arm at every landmark, and says what is better."""

import json
import re
from pathlib import Path

import pytest

from sequela.serve.pages.probe import write_page
from sequela.task.probing.landmarks import at_offsets
from sequela.task.probing.probe import ProbePlan, probe
from sequela.task.probing.settings import ProbeSettings
from tests.serve.stages.test_probe import cohort_folder  # noqa: F401
from tests.task.conftest import make_task
from tests.task.probing.conftest import arms, daily  # noqa: F401


@pytest.fixture(scope="module")
def metrics(arms: dict[str, Path], cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:  # noqa: F811
    plan = ProbePlan([make_task()], at_offsets(["0 days", "2 days", "4 days"]))
    out = tmp_path_factory.mktemp("probed")
    return probe(list(arms.values()), cohort_folder, out, plan, ProbeSettings(baselines=False, reference="blurred"))


def test_it_shows_every_arm_along_the_course(metrics: dict, tmp_path: Path) -> None:
    write_page(json.loads(json.dumps(metrics)), {"stroke_10d": "Stroke <within> ten days"}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Stroke &lt;within&gt; ten days" in page and "compared with\nblurred" in page and "training seeds" in page
    for name in ("0 days", "2 days", "4 days"):
        assert f"<th>{name}</th>" in page
    for arm in ("knowing", "blurred", "blind"):
        (row,) = re.findall(rf'<tr class="ours"><td>{arm}</td>(.*)</tr>', page.split("Over everything")[0])
        value = metrics["tasks"]["stroke_10d@2 days"]["models"][arm]["auroc"]["value"]
        assert row.count("<td>") == 3 and f"{value:.3f}".removeprefix("0") in row
    assert page.count("<svg") == 1 and page.count("<polyline") == 3
    assert "ahead of blurred" in page and "gain per year of landmark" in page


def test_one_landmark_has_no_course(metrics: dict, tmp_path: Path) -> None:
    single = metrics | {"tasks": {"stroke_10d@0 days": metrics["tasks"]["stroke_10d@0 days"]}}
    write_page(single, {}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<svg" not in page and "<h2>stroke_10d</h2>" in page
