"""The page of a scaling study says what the fits say, and leaves out what there is not."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sequela.serve.pages.scale import write_scale_report
from sequela.training.scaling import advice
from sequela.training.scaling.plan import Candidate
from sequela.training.scaling.runs import FinishedRun

SHAPES = [Candidate(2, 32 * k, 12_000 * k * k, 72_000.0 * k * k) for k in range(1, 40)]


def rows_of(budgets: list[float], sizes: int = 6) -> list[dict]:
    """Runs of a known law with a little noise."""
    noise, rows = np.random.default_rng(0), []
    for budget in budgets:
        best = (budget / 120) ** 0.5
        for size in best * 2.0 ** (np.arange(sizes) - sizes / 2 + 0.5):
            tokens = budget / (6 * size)
            loss = (2 + 40 / size**0.4 + 40 / tokens**0.4) * np.exp(0.002 * noise.standard_normal())
            rows.append(
                {
                    "run": f"{budget:g}-{size:.0f}", "budget": budget, "layers": 2, "width": 64,
                    "parameters": int(size), "tokens": int(tokens), "epochs": 0.5, "flops": budget,
                    "bits_per_event": float(loss), "seconds": 10.0,
                }
            )  # fmt: skip
    return rows


def report(rows: list[dict], out: Path, **more: object) -> str:
    runs = [FinishedRun(row["budget"], row["parameters"], row["tokens"], row["bits_per_event"], 1e12) for row in rows]
    found = advice.study(runs, advice.Setting(SHAPES, 1e12))
    write_scale_report(
        out, rows, {**json.loads(json.dumps(found)), "notes_on_plan": [], "floor": None, **more}
    )
    return (out / "scale.html").read_text()


def test_the_page_holds_the_answer_and_every_run(tmp_path):
    rows = rows_of([1e13, 1e14, 1e15])
    page = report(
        rows, tmp_path, floor={"bits_per_event": 2.0, "best_run": 2.5, "above": 0.5, "share_above": 0.25}
    )
    assert "With 1e+16 FLOPs: train" in page
    assert page.count("<tr><td>1e+1") == len(rows)
    assert "25.0 % above" in page and "Would it have predicted this?" in page
    for name in ("isoflop", "loss", "optimum"):
        picture = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    circles = ElementTree.parse(tmp_path / "isoflop.svg").getroot().iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == len(rows)


def test_what_is_not_known_is_left_out(tmp_path):
    page = report(rows_of([1e14], sizes=9), tmp_path)
    assert "Would it have predicted this?" not in page
    assert not (tmp_path / "auroc_loss.svg").exists()


def test_scores_against_loss_and_rollouts(tmp_path):
    rows = rows_of([1e13, 1e14, 1e15])
    best = min(rows, key=lambda row: row["bits_per_event"])
    auroc = {"value": 0.8, "low": 0.7, "high": 0.9}
    asked = [
        {
            "run": row["run"],
            "bits_per_event": row["bits_per_event"],
            "rollouts": count,
            "task": "death",
            "auroc": auroc,
        }
        for row in rows
        for count in ((1, 5, 10) if row is best else (10,))
    ]
    report(rows, tmp_path, downstream=asked)
    tag = "{http://www.w3.org/2000/svg}circle"
    counts = {
        name: len(list(ElementTree.parse(tmp_path / f"{name}.svg").getroot().iter(tag)))
        for name in ("auroc_loss", "auroc_rollouts")
    }
    assert counts == {"auroc_loss": len(rows), "auroc_rollouts": 3}
