"""Tables 1 to 6 of the paper (arXiv 2407.12064): trains and evaluates every row, our figures beside the paper's.

    make paper-tables DATA=vindr-cxr WEIGHTS=weights

    litegpt paper-tables --data_dir vindr-cxr --weights_dir weights --output_dir outputs/paper

`weights` has a checkpoint of `convert_weights_to_hf.py` for each architecture, in folders litegpt, biomedclip,
pubmedclip and minigpt_v2; its `adapter`, where it has one, is what training starts from. A row is two stages by
`configs/ROW.yaml`, each followed by `evaluate_litegpt.py`. Writes `OUTPUT_DIR/ROW/stage1` and `stage2`, `tables.md`
and `tables.json`.

Nothing that is finished is done again: the same command resumes where an interrupted run stopped. A row that fails is
named, the others continue, and the status is 1. Rows and tables can be chosen, and options handed on:

    litegpt paper-tables ... --rows litegpt litegpt_grounding --tables 6 \\
        --launch_options "--multi_gpu --num_processes 2" --sft_options "--validation_split test[:64]"
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from litegpt.common.arguments import parse
from litegpt.common.files import write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.evaluation_scripts.arguments import PaperTablesArguments
from litegpt.evaluation_scripts.reports.published_figures import TABLES
from litegpt.evaluation_scripts.reports.sections import check_metrics

EVALUATION = Path(__file__).resolve().parent
TRAINING = EVALUATION.parent / "train_scripts"


class Row(NamedTuple):
    """`title` as in the tables, `weights` a folder in `weights_dir`, `task` what stage one is asked."""

    title: str
    weights: str
    task: str


ROWS = {
    "minigpt_v2": Row("MiniGPT-v2", "minigpt_v2", "identify"),
    "biomedclip": Row("BiomedCLIP - Llama 2", "biomedclip", "identify"),
    "pubmedclip": Row("PubMedCLIP - Llama 2", "pubmedclip", "identify"),
    "litegpt": Row("BiomedCLIP + PubMedCLIP - Llama 2", "litegpt", "identify"),
    "litegpt_grounding": Row("[grounding]", "litegpt", "grounding"),
}
# In Table 6 the paper's model stands for its identifier.
TITLES_OF_TABLE_6 = {"litegpt_grounding": "[grounding]", "litegpt": "[identify]"}


class Step(NamedTuple):
    """A program of a row: it is finished when `result` exists."""

    name: str
    result: Path
    command: list[str]


@program
def main(args: PaperTablesArguments) -> int:
    check(args)
    failures = []
    for name in args.rows:
        failure = run_row(args, name)
        if failure is not None:
            print(failure, flush=True)
            failures.append(failure)
        tables = collect(args)
        write_text(Path(args.output_dir, "tables.json"), json.dumps(tables, indent=2) + "\n")
        write_text(Path(args.output_dir, "tables.md"), as_markdown(tables))
    print(as_markdown(tables))
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def check(args: PaperTablesArguments) -> None:
    """Refuses unknown rows and tables, and other options than those of the results that `output_dir` has."""
    for what, chosen, known in (("row", args.rows, ROWS), ("table", args.tables, TABLES)):
        unknown = [str(name) for name in chosen if name not in known]
        if unknown or not chosen:
            raise Refusal(f"--{what}s: no {what} {', '.join(unknown)}; there are {', '.join(map(str, known))}.")
    if not any(name in TABLES[number].paper for name in args.rows for number in args.tables):
        raise Refusal(f"--rows: none of them is in the tables {', '.join(map(str, args.tables))}.")
    path = Path(args.output_dir, "settings.json")
    settings = {
        "data_dir": str(Path(args.data_dir).resolve()),
        "weights_dir": str(Path(args.weights_dir).resolve()),
        "sft_options": args.sft_options,
        "evaluation_options": args.evaluation_options,
    }
    # A run that failed before its first stage does not stand in the way of the corrected one.
    begun = any(Path(args.output_dir).glob("*/stage*"))
    if begun and path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise Refusal(f"{path}: results of other data, weights or options; choose another output_dir.")
    write_text(path, json.dumps(settings, indent=2) + "\n")


def run_row(args: PaperTablesArguments, name: str) -> str | None:
    """Does what is not done yet of a row; a sentence where it fails."""
    weights = Path(args.weights_dir, ROWS[name].weights)
    if not (weights / "config.json").is_file():
        return f"{name}: {weights} has no checkpoint."
    for step in steps(args, name):
        if step.result.exists():
            print(f"=== {name}: {step.name} is finished", flush=True)
            continue
        print(f"=== {name}: {step.name}\n{shlex.join(step.command)}", flush=True)
        status = subprocess.run(step.command, stdin=subprocess.DEVNULL).returncode
        if status != 0:
            return f"{name}: {step.name} failed with status {status}; the reason stands above, after its command."
    return None


def steps(args: PaperTablesArguments, name: str) -> Iterator[Step]:
    """The programs that the chosen tables need of a row. Stage two starts from the files that stage one wrote."""
    stages = {TABLES[number].stage for number in args.tables if name in TABLES[number].paper}
    first, second = (Path(args.output_dir, name, stage) for stage in ("stage1", "stage2"))
    task = ROWS[name].task
    if stages:
        yield training(args, name, Path(args.weights_dir, ROWS[name].weights), first, [])
    if 1 in stages:
        # Stage one has learned from radiographs with findings alone. The supports of the paper's Tables 8 to 10 and
        # their precisions fit a test on such radiographs only, too.
        yield evaluation(args, first, ["--tasks", task, "--with_findings_only", "true"])
    if 2 in stages:
        yield training(args, name, first, second, ["--tasks", "vqa", "--with_findings_only", "false"])
        yield evaluation(args, second, ["--tasks", "vqa"])


def training(args: PaperTablesArguments, name: str, start: Path, output_dir: Path, options: list[str]) -> Step:
    # An adapter is trained further; a stage without LoRA has written a checkpoint alone.
    start = next((folder for folder in (start / "adapter", start / "checkpoint") if folder.is_dir()), start)
    command = [sys.executable, "-m", "accelerate.commands.launch", *shlex.split(args.launch_options)]
    command += [str(TRAINING / "sft.py"), "--config", str(TRAINING / "configs" / f"{name}.yaml")]
    command += ["--model_name_or_path", str(start), "--output_dir", str(output_dir), *data_options(args)]
    # Files of several gigabytes that all rows share.
    command += ["--training_cache_dir", str(Path(args.output_dir, "cache")), *options]
    return Step(output_dir.name, output_dir / "checkpoint", command + shlex.split(args.sft_options))


def evaluation(args: PaperTablesArguments, output_dir: Path, options: list[str]) -> Step:
    command = [sys.executable, str(EVALUATION / "evaluate_litegpt.py"), *options, *data_options(args)]
    command += ["--model_name_or_path", str(output_dir / "checkpoint"), "--output_dir", str(output_dir)]
    # The paper's boxes are those that the answers write.
    command += ["--written_boxes", "true", "--candidates", "false", *shlex.split(args.evaluation_options)]
    return Step(f"evaluation of {output_dir.name}", output_dir / "metrics.json", command)


def data_options(args: PaperTablesArguments) -> list[str]:
    options = ["--data_dir", args.data_dir, "--num_proc", str(args.num_proc)]
    return options if args.cache_dir is None else [*options, "--cache_dir", args.cache_dir]


def collect(args: PaperTablesArguments) -> dict[str, Any]:
    """What `tables.json` says: by table and row each figure as {paper, ours, difference}, None where unknown."""
    tables = {}
    for number in args.tables:
        table, rows, synonyms = TABLES[number], {}, True
        for name, paper in table.paper.items():
            path = Path(args.output_dir, name, f"stage{table.stage}", "metrics.json")
            metrics = None
            if path.exists():
                metrics = json.loads(path.read_text(encoding="utf-8"))
                with refuse_bad_input():
                    check_metrics(metrics, path)
            figures = {}
            for (heading, keys), printed in zip(table.columns.items(), paper, strict=True):
                ours = None
                if metrics is not None:
                    scores = metrics[ROWS[name].task if table.stage == 1 else "vqa"]
                    if heading == "METEOR" and scores["text"]["meteor"] is None:
                        keys, synonyms = ("text", "meteor_without_synonyms"), False
                    for key in keys:
                        scores = scores[key]
                    ours = scores if heading == "CIDEr" or scores is None else 100 * scores
                difference = None if ours is None else ours - printed
                figures[heading] = {"paper": printed, "ours": ours, "difference": difference}
            title = TITLES_OF_TABLE_6[name] if number == 6 else ROWS[name].title
            rows[title] = figures
        note = None if synonyms else "METEOR: ours without synonyms, as NLTK's WordNet is not installed."
        tables[str(number)] = {"title": table.title, "note": note, "rows": rows}
    return tables


def as_markdown(tables: dict[str, Any]) -> str:
    """What `tables.md` says."""
    lines = ["# The paper's tables", "", "In percent, CIDEr as it is. A figure that is not there yet is a dash."]
    for number, table in tables.items():
        headings = list(next(iter(table["rows"].values())))
        lines += ["", f"## Table {number}: {table['title']}", ""]
        lines += ["| method | | " + " | ".join(headings) + " |", "|---" * (len(headings) + 2) + "|"]
        for title, figures in table["rows"].items():
            for kind, form in (("paper", "{:g}"), ("ours", "{:.2f}"), ("difference", "{:+.2f}")):
                values = [figures[heading][kind] for heading in headings]
                cells = " | ".join("-" if value is None else form.format(value) for value in values)
                lines.append(f"| {title if kind == 'paper' else ''} | {kind} | {cells} |")
        if table["note"] is not None:
            lines += ["", table["note"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(*parse([PaperTablesArguments], None, "paper_tables.py", __doc__)))
