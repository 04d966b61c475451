"""Times and counts of all stages are found along the manifests."""

from pathlib import Path

from sequela.serve.folder.lineage import counted, in_words, stage_costs
from sequela.serve.folder.work import make_folder


def test_stages_are_found_first_stage_first(tmp_path: Path) -> None:
    make_folder(tmp_path / "meds", "ingest", {}, {}, lambda work: {"events": 10})
    splits = {"splits": {"train": {"tokens": 7, "sha256": "ab"}, "tuning": {"tokens": 3}}, "curve": [1.0]}
    make_folder(tmp_path / "corpus", "tokenize", {}, {"meds": tmp_path / "meds"}, lambda work: splits)
    inputs = {"corpus": tmp_path / "corpus", "meds": tmp_path / "meds"}
    last = make_folder(
        tmp_path / "model", "train", {}, inputs, lambda work: {"flops": 1e9, "seconds": 99.0, "ok": True}
    )
    found = stage_costs([tmp_path / "model"])
    assert list(found) == ["ingest", "tokenize", "train"]
    assert found["tokenize"]["tokens"] == 10
    assert found["train"] == {"seconds": last["seconds"], "peak_rss_mb": last["peak_rss_mb"], "flops": 1e9}
    assert in_words(last) == ""


def test_foreign_folders_end_the_way(tmp_path: Path) -> None:
    assert stage_costs([tmp_path]) == {}


def test_counts_in_words() -> None:
    facts = {"seconds": 1.0, "peak_rss_mb": 5, "result": {"tokens": 1234, "events": 5}}
    assert counted(facts)["tokens"] == 1234
    assert in_words(facts) == "5 events, 1,234 tokens"
    facts["result"] = {"events": 5, "quarantined": 0}
    assert in_words(facts) == "5 events"
    facts["result"]["quarantined"] = 2
    assert in_words(facts) == "5 events, 2 unreadable rows set aside"
