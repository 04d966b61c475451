"""`sequela tokenize`: a MEDS dataset to a corpus."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from sequela.errors import InputError
from sequela.record.finding import findings_in
from sequela.serve.stage import StageRun, page_of, stage
from sequela.tokens.ehr.settings import MAPS, TokenSettings
from sequela.tokens.text.settings import TextSettings


@stage(workers=True, brief=True)
def tokenize(
    meds: Path,
    out: Path,
    *,
    map: tuple[str, ...] = MAPS,
    backbone: Path | None = None,
    settings: TokenSettings = TokenSettings(),
    text: TextSettings = TextSettings(),
    run: StageRun,
) -> dict:
    """Turn the events of a MEDS dataset into tokens.

    The vocabulary and the value bins are fitted on the training patients
    only. Where the data have something to look at, such as patients without a
    split or codes without a translation, OUT/tokenize.html says what. Nothing
    here is random. An interrupted run continues where it stopped.

    Example: sequela tokenize meds/ corpus/

    Args:
        meds: A MEDS dataset, such as sequela ingest writes.
        out: The folder to write: vocabulary and token rows per split.
        backbone: A language model's folder (Hugging Face layout): write records as text, with its words.
        map: Translates codes: mimic-meds, gem (ICD-9-CM to ICD-10-CM), or your file (columns from, to); repeatable.

    Raises:
        InputError: where the dataset is not valid MEDS, or the language model has no tokenizer.
    """
    if backbone is not None:
        clash = run.given & {"map", *(field.name for field in fields(TokenSettings))}
        if clash:
            name = min(clash)
            raise InputError(f"`{name}` is of tokens that are events, and a `backbone` reads text: leave one out.")
        return _as_text(meds, out, backbone, text, run)
    if text != TextSettings():
        raise InputError("`text_days`, `text_numbers` and `text_values` are of records as text: name a `backbone` too.")

    def make(work: Path) -> dict:
        from sequela.tokens.ehr.tokenize import tokenize

        result = tokenize(meds, work, settings, map, run.workers, progress=run.progress)
        if findings := findings_in(result):  # a page is slow to start: none where there is nothing to show
            from sequela.serve.pages.findings import write_findings

            write_findings(work / page_of("tokenize"), f"{meds}: what to look at in its tokens", findings)
        return result

    files = {f"map-{Path(name).stem}": Path(name) for name in map if Path(name).is_file()}
    identity = {**asdict(settings), "maps": [Path(name).stem for name in map]}
    return run.folder(out, "tokenize", identity, {"meds": meds, **files}, make, resumable=True)


def _as_text(meds: Path, out: Path, backbone: Path, text: TextSettings, run: StageRun) -> dict:
    def make(work: Path) -> dict:
        from sequela.tokens.text.tokenize import tokenize

        return tokenize(meds, work, backbone, text, progress=run.progress)

    return run.folder(out, "tokenize", asdict(text), {"meds": meds, "backbone": backbone}, make)
