"""`sequela ingest`: raw tables to MEDS."""

from __future__ import annotations

from pathlib import Path

from sequela.record.schema import FRACTIONS
from sequela.serve.stage import StageRun, stage


@stage(workers=True)
def ingest(
    source: str,
    raw: str,
    out: Path,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    memory: str = "2GB",
    run: StageRun,
) -> dict:
    """Turn raw tables into a MEDS dataset, following a declarative mapping.

    OUT/ingest.html accounts for every row and says what to look at, and
    OUT/ingest.json does so for programs. Nothing here is random: a hash of
    the patient's number decides who is in train, tuning or held_out. The
    password of a server is read from PGPASSWORD or ~/.pgpass.

    Example: sequela ingest physionet2012 raw/ meds/

    Args:
        source: A mapping by name (mimic4, eicu, omop, fhir, synthea ...), your own .toml file, or meds for a MEDS
            dataset that someone else made.
        raw: The folder with the raw files, a DuckDB file, or a server: postgresql://USER@HOST/DATABASE?schema=NAME
        out: The folder to write.
        fractions: Shares of the patients for train, tuning and held_out.
        memory: Memory for tables; what exceeds it waits on disk.

    Raises:
        InputError: where the raw files do not fit the mapping.
    """
    from sequela.record.ingest.mapping_file import MEDS, fingerprint
    from sequela.record.ingest.run import origin_identity

    identity, inputs = origin_identity(raw)

    def make(work: Path) -> dict:
        from sequela.record.ingest.run import IngestSettings, ingest
        from sequela.serve.pages.ingest import write_ingest_report

        result = ingest(
            source,
            raw,
            work,
            IngestSettings(fractions, memory),
            workers=run.workers,
            progress=run.progress,
        )
        write_ingest_report(work)
        return result

    settings = {"source": source, "fractions": fractions, **identity}
    if source != MEDS:
        settings["mapping"] = fingerprint(source)  # of its text, and of the mappings that it extends
    if source.endswith(".toml"):
        inputs["mapping"] = Path(source)
    return run.folder(out, "ingest", settings, inputs, make)
