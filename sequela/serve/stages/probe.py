"""`sequela probe`: what frozen embeddings know, beside what counts know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequela.errors import InputError
from sequela.serve.ask import LandmarkSettings
from sequela.serve.folder import manifest
from sequela.serve.stage import Finished, StageRun, stage
from sequela.task.probing.settings import ProbeSettings

if TYPE_CHECKING:
    from sequela.tokens.ehr.tokenizer import EhrTokenizer


def _show(done: Finished) -> None:
    from sequela.serve.pages.terminal import print_summary

    print_summary(json.loads((done.values["out"] / "metrics.json").read_text(encoding="utf-8")))


@stage(show=_show)
def probe(
    embeddings: Path,
    meds: Path,
    out: Path = Path("probed"),
    *,
    also: tuple[Path, ...] = (),
    ask: LandmarkSettings = LandmarkSettings(),
    settings: ProbeSettings = ProbeSettings(),
    run: StageRun,
) -> dict:
    """Fit plain heads on frozen embeddings, and see which model's hold more.

    Each folder of embeddings is an arm, called like the folder; folders that
    end with -seed1, -seed2, ... are training seeds of one arm. Heads learn on
    the training patients, are chosen on the tuning patients and scored on the
    held-out ones, at each landmark on those who are still at risk then.

    Example: sequela probe next_token/ meds/ probed/ --also state_jepa/ --task
    death_5y --landmark "0 days" --landmark "365 days"

    Args:
        embeddings: A folder of embeddings, such as sequela embed writes.
        meds: The MEDS dataset with the true answers, in three splits.
        out: The folder to write: predictions by task, landmark and model, metrics.json, and report.html.
        also: Another folder of embeddings of the same questions; repeat for several.

    Raises:
        InputError: for no task, embeddings that lack a question or cannot be compared, a dataset without the three
            splits, and a landmark at which there is nothing to learn.
    """
    tasks, folders = ask.tasks(), [embeddings, *also]
    roles = dict(zip(manifest.roles("embeddings", len(folders)), folders, strict=True))

    def make(work: Path) -> dict:
        from sequela.serve.pages.probe import write_page
        from sequela.task.probing.probe import ProbePlan, probe
        from sequela.task.unmatched import unmatched

        tokenizer = _tokenizer(folders)
        maps = () if tokenizer is None else tokenizer.maps
        for line in unmatched(tasks, meds, maps):
            run.say(line)
        plan = ProbePlan(tasks, ask.landmarks(), maps, tokenizer)
        metrics: dict[str, Any] = probe(folders, meds, work, plan, settings, run.progress, run.say)
        (work / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        write_page(metrics, {task.name: task.title for task in tasks}, work)
        return {"tasks": sorted(metrics["tasks"]), "arms": metrics["probe"]["arms"]}

    identity = {
        "tasks": [task.as_dict() for task in tasks],
        "landmarks": ask.landmark,
        **{name: value for name, value in vars(settings).items() if name != "seed"},
        "strong": settings.baselines and settings.strong,
        "seed": settings.seed,
    }
    inputs = {**roles, "meds": meds} | ({} if ask.labels is None else {"labels": ask.labels})
    return run.folder(out, "probe", identity, inputs, make)


def _tokenizer(folders: list[Path]) -> EhrTokenizer | None:
    """The tokenizer of the first model that is still where it was; None if none is.

    Raises:
        InputError: if models speak different codes, so that a task means other things to them.
    """
    from sequela.tokens.ehr.tokenizer import EhrTokenizer
    from sequela.tokens.tokenizer import load

    known = [(folder, model) for folder in folders if (model := manifest.source(folder, "model")) is not None]
    speaking = [(folder, made) for folder, model in known if isinstance(made := load(model), EhrTokenizer)]
    for folder, tokenizer in speaking[1:]:
        if tokenizer.maps != speaking[0][1].maps:
            raise InputError(
                f"{speaking[0][0]} and {folder} come from models with other code maps, so their codes differ: train "
                "all models on one corpus."
            )
    return speaking[0][1] if speaking else None
