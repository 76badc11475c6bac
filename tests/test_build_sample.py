"""The sample's builder: a dataset with a planted edge, and the committed one that it leaves alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import build_sample
import pytest

from forecaster.evaluation.ranks import RankSkill, rank_skill, weekly_rank_correlations

ROOT = Path(__file__).resolve().parents[1]
STRONGER, WEAKER = "Survey: orders in the industry pick up", "Survey: orders in the industry slow down"


def planted(folder: Path, edge: str, seed: str = "0") -> dict[str, list[dict[str, Any]]]:
    build_sample.main(["--edge", edge, "--seed", seed, "--output_dir", str(folder)])
    files = {name: folder / f"{name}.jsonl" for name in ("train", "test")}
    return {name: [json.loads(line) for line in path.open(encoding="utf-8")] for name, path in files.items()}


def skill_of_the_survey(rows: list[dict[str, Any]]) -> RankSkill:
    """Of the forecast that follows the planted news and nothing else."""
    said = [1.0 if STRONGER in row["prompt"] else -1.0 for row in rows]
    came = [row["weekly_return_pct"] for row in rows]
    found = rank_skill(weekly_rank_correlations(said, came, [row["period"] for row in rows]))
    assert found is not None
    return found


def test_a_planted_edge_is_in_every_prompt_and_moves_the_returns(tmp_path: Path) -> None:
    rows = planted(tmp_path / "edge", "0.5")
    assert [len(rows["train"]), len(rows["test"])] == [400, 320]
    assert len({row["period"] for row in rows["test"]}) == 40
    for row in rows["train"] + rows["test"]:
        assert (STRONGER in row["prompt"]) != (WEAKER in row["prompt"])
        risen = row["weekly_return_pct"] > 0
        assert row["label"].startswith("up") == risen or row["weekly_return_pct"] == 0
    assert max(row["period"][14:] for row in rows["train"]) < min(row["period"][:10] for row in rows["test"])
    found = skill_of_the_survey(rows["test"])
    assert (round(found.mean, 3), round(found.t, 1)) == (0.486, 9.9)


def test_without_an_edge_the_same_news_foretells_nothing(tmp_path: Path) -> None:
    found = skill_of_the_survey(planted(tmp_path / "none", "0")["test"])
    assert (round(found.mean, 3), round(found.t, 1)) == (-0.043, -0.7)


def test_a_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    def bytes_of(folder: str, seed: str) -> str:
        planted(tmp_path / folder, "0.5", seed)
        return hashlib.sha256((tmp_path / folder / "train.jsonl").read_bytes()).hexdigest()

    once = bytes_of("once", "3")
    assert bytes_of("again", "3") == once
    assert bytes_of("other", "4") != once


def test_the_committed_dataset_is_what_the_builder_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_sample, "DATASET_FOLDER", tmp_path)
    build_sample.main(["dataset"])
    for name in ("train.jsonl", "test.jsonl", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (ROOT / "sample/dataset" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--edge", "0.5"], "--edge and --output_dir go together"),
        (["dataset", "--output_dir", "elsewhere"], "--edge and --output_dir go together"),
        (["--edge", "nan", "--output_dir", "elsewhere"], "it lies between -3 and 3"),
        (["base", "--edge", "1", "--output_dir", "elsewhere"], "--edge builds a dataset, not base"),
    ],
)
def test_an_edge_without_a_place_or_a_meaning_is_refused(
    flags: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        build_sample.main(flags)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
