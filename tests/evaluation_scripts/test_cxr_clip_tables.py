import json
import re
from pathlib import Path

import pytest

from litegpt.evaluation_scripts.arguments import CXRCLIPTablesArguments
from litegpt.evaluation_scripts.cxr_clip_tables import collect, main, read_runs
from litegpt.evaluation_scripts.reports.cxr_clip_figures import CONTRADICTIONS


@pytest.fixture
def folder(tmp_path) -> Path:
    """A finished evaluation, as far as the tables look at it."""
    metrics = {
        "zero_shot": {
            "wordings": ["report", "paper"],
            "figures": {name: {"all": {"macro": value}} for name, value in (("report", 0.9), ("paper", 0.6))},
        },
        "classes": {"figures": {"accuracy": 0.5}},
        "retrieval": {"figures": {"image_to_text": {"recall_at_1": 0.1, "recall_at_5": 0.2, "recall_at_10": 0.4}}},
        "probe": {"parts": {part: {"figures": {"features": {"all": {"macro": 0.7}}}} for part in ("10", "100")}},
    }
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path / "eval"


def test_our_figures_stand_in_the_papers_tables(folder, tmp_path, capsys):
    runs = [f"VinDr:s_m_c={folder}", f"MIMIC:tcl={folder}", f"C5x200:tcl={folder}"]
    main(CXRCLIPTablesArguments(runs, str(tmp_path)))
    tables = json.loads((tmp_path / "tables.json").read_text())
    ours = tables["2"]["rows"]["S, M,C"]
    assert ours["VinDr ZS"]["paper"] == 82.7
    assert ours["VinDr ZS"]["ours"] == 60  # in the wording that the paper has
    assert ours["VinDr 10"]["ours"] == pytest.approx(70) and ours["RSNA ZS"]["ours"] is None
    step = tables["4"]["rows"]["+ TCL"]
    assert step["C5x200 ACC"]["ours"] == 50
    assert step["RSUM"]["ours"] == pytest.approx(2 * (10 + 20 + 40))
    assert tables["3"]["rows"]["S, M,C"]["RSUM"]["ours"] is None  # not all of its recalls are measured
    text = capsys.readouterr().out
    assert "| R, M | paper | 9.4 | 23.0 |" in text and CONTRADICTIONS[0] in text
    assert all(value["ours"] is None for value in collect({})["3"]["rows"]["R, M"].values())


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ("VinDr=out", "it is not DATA:ROW=FOLDER"),
        ("VinDR:s_m=out", "the tables have no VinDR; did you mean VinDr?"),
        ("VinDr:s_mc=out", "the tables have no s_mc"),
        ("VinDr:s_m=nowhere", "there is no nowhere/metrics.json"),
        ("VinDr:s_m=litegpt", "metrics.json is not of litegpt evaluate-cxr-clip"),
    ],
)
def test_runs_that_are_none_are_refused(run, problem, tmp_path, monkeypatch):
    (tmp_path / "litegpt").mkdir()
    (tmp_path / "litegpt" / "metrics.json").write_text('{"controls": {}}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_runs([run])
