"""CXR-CLIP's Tables 2 to 4 (arXiv 2310.13292) with figures of ours beside them, and where they contradict themselves.

    litegpt cxr-clip-tables --output_dir outputs/cxr_clip_tables \\
        --runs VinDr:s_m_c=outputs/vindr_eval MIMIC:s_m_c=outputs/mimic_eval

A run is DATA:ROW=FOLDER: the folder of a finished `litegpt evaluate-cxr-clip`, as which data set of the tables it
counts (VinDr, RSNA, SIIM, C5x200, MIMIC, Open-I), and as which row (such as r_m, s_m_c_c14; of Table 4 vanilla, study,
..., tcl). Writes `tables.md` and `tables.json`. What is not measured is a dash.

Zero-shot is taken in the wording that the paper has (biovil for RSNA, paper for the others) where the run has it.
"""

import json
from pathlib import Path
from typing import Any

from litegpt.common.arguments import did_you_mean, parse
from litegpt.common.files import write_text
from litegpt.common.programs import Refusal, program
from litegpt.evaluation_scripts.arguments import CXRCLIPTablesArguments
from litegpt.evaluation_scripts.reports.cxr_clip_figures import CONTRADICTIONS, RSUM, TABLES, PublishedTable
from litegpt.evaluation_scripts.reports.sections import at

DATA = tuple(
    dict.fromkeys(column.split()[0] for table in TABLES.values() for column in table.columns if " " in column)
)
ROWS = tuple(dict.fromkeys(row for table in TABLES.values() for row in table.rows))
WORDINGS = {"RSNA": ("biovil", "paper")}  # the paper's, the better fitting first
RETRIEVAL = {f"R@{k}": ("retrieval", "figures", "image_to_text", f"recall_at_{k}") for k in (1, 5, 10)}
PATHS = {
    "10": ("probe", "parts", "10", "figures", "features", "all", "macro"),
    "100": ("probe", "parts", "100", "figures", "features", "all", "macro"),
    "ACC": ("classes", "figures", "accuracy"),
    **RETRIEVAL,
}

Runs = dict[tuple[str, str], dict[str, Any]]  # (data set, row): metrics.json


@program
def main(args: CXRCLIPTablesArguments) -> None:
    tables = collect(read_runs(args.runs))
    write_text(Path(args.output_dir, "tables.json"), json.dumps(tables, indent=2) + "\n")
    write_text(Path(args.output_dir, "tables.md"), as_markdown(tables))
    print(as_markdown(tables))


def read_runs(runs: list[str]) -> Runs:
    """The metrics of all runs.

    Raises:
        Refusal: one is not DATA:ROW=FOLDER, or the folder has no metrics.json of a CXR-CLIP checkpoint.
    """
    found = {}
    for run in runs:
        name, equals, folder = run.partition("=")
        data, colon, row = name.partition(":")
        if not equals or not colon:
            raise Refusal(f"--runs {run}: it is not DATA:ROW=FOLDER.")
        for given, known in ((data, DATA), (row, ROWS)):
            if given not in known:
                near = did_you_mean(given, known) or f"; there are {', '.join(known)}"
                raise Refusal(f"--runs {run}: the tables have no {given}{near}")
        path = Path(folder, "metrics.json")
        if not path.is_file():
            raise Refusal(f"--runs {run}: there is no {path}.")
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not {"zero_shot", "classes", "retrieval", "probe"} <= metrics.keys():
            raise Refusal(f"{path} is not of litegpt evaluate-cxr-clip.")
        found[data, row] = metrics
    return found


def collect(runs: Runs) -> dict[str, Any]:
    """What tables.json says: by table and row each figure as {"paper", "ours"}, in percent, None where unknown."""
    return {
        str(number): {
            "title": table.title,
            "rows": {
                table.titles[row]: {
                    column: {"paper": printed, "ours": ours}
                    for column, printed, ours in zip(table.columns, values, _ours(table, row, runs), strict=True)
                }
                for row, values in table.rows.items()
            },
        }
        for number, table in TABLES.items()
    }


def _ours(table: PublishedTable, row: str, runs: Runs) -> list[float | None]:
    """Our figures of a row; RSUM is known where all of its recalls are."""
    figures: list[float | None] = []
    for column in table.columns:
        data, _, what = column.partition(" ")
        if column == RSUM:
            recalls = [value for name, value in zip(table.columns, figures, strict=False) if "R@" in name]
            figures.append(None if None in recalls else sum(recalls))
        else:
            value = figure(runs.get((data, row)), data, what)
            figures.append(None if value is None else 100 * value)
    return figures


def figure(metrics: dict[str, Any] | None, data: str, what: str) -> float | None:
    """One figure of a run, in [0, 1]; None where it was not measured.

    Args:
        what: the part of a column's heading after the data set: "ZS", "10", "100", "ACC", "R@1", ...
    """
    if what != "ZS":
        return at(metrics, *PATHS[what])
    measured = at(metrics, "zero_shot", "wordings") or []
    wording = next((name for name in WORDINGS.get(data, ("paper",)) if name in measured), None)
    return None if wording is None else at(metrics, "zero_shot", "figures", wording, "all", "macro")


def as_markdown(tables: dict[str, Any]) -> str:
    """What tables.md says."""
    lines = ["# CXR-CLIP's tables", "", "In percent. A figure of ours that is not there is a dash."]
    for number, table in tables.items():
        headings = list(next(iter(table["rows"].values())))
        lines += ["", f"## Table {number}: {table['title']}", ""]
        lines += ["| row | | " + " | ".join(headings) + " |", "|---" * (len(headings) + 2) + "|"]
        for title, figures in table["rows"].items():
            for kind in ("paper", "ours"):
                cells = ("-" if value[kind] is None else f"{value[kind]:.1f}" for value in figures.values())
                lines.append(f"| {title if kind == 'paper' else ''} | {kind} | {' | '.join(cells)} |")
    lines += ["", "## Where the paper's tables contradict themselves", ""]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in CONTRADICTIONS)]) + "\n"


if __name__ == "__main__":
    main(*parse([CXRCLIPTablesArguments], None, "cxr_clip_tables.py", __doc__))
