"""Two runs of evaluate_litegpt.py over the same radiographs: which is better, and could it be chance?

    litegpt compare --runs outputs/demo outputs/other --output outputs/comparison.json

For each headline figure: run A, run B, the difference B - A with its 95 % interval (paired bootstrap) and a two-sided
p value (paired permutation test), both by patient where the rows tell patients. Data and split are those that the
runs' settings name, unless they are given.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts.arguments import ComparisonArguments
from litegpt.evaluation_scripts.figures import headline_figures, nested, row_patients, task_statistics
from litegpt.evaluation_scripts.questions import label_names, question
from litegpt.metrics.intervals import Comparison, Name, paired_comparison

BEFORE_CALIBRATION = "before"  # the temperature taken out again: a matter of the checkpoint, not of its answers


@program
def main(args: ComparisonArguments) -> None:
    with refuse_bad_input():
        comparison = compare_runs(args)
    print(as_markdown(comparison))
    if args.output is not None:
        figures = {name: values._asdict() for name, values in comparison["figures"].items()}
        write_text(Path(args.output), json.dumps({**comparison, "figures": nested(figures)}, indent=2) + "\n")


def compare_runs(args: ComparisonArguments) -> dict[str, Any]:
    """What comparison.json says.

    Returns:
        {"a", "b": folders, "images": number, "tasks": names, "figures": {name: Comparison}}; figures are as yet not
        nested.

    Raises:
        OSError, ValueError: a folder has no predictions, or the two did not answer the same.
    """
    if len(args.runs) != 2:
        raise ValueError(f"runs must name two folders, not {len(args.runs)}.")
    (lines_a, settings_a), (lines_b, settings_b) = (read_run(Path(folder)) for folder in args.runs)
    for given, key in ((args.data_dir, "data"), (args.split, "split")):
        if given is None and settings_a[key] != settings_b[key]:
            raise ValueError(
                f"The runs answered different radiographs: {key} is {settings_a[key]} in {args.runs[0]} and "
                f"{settings_b[key]} in {args.runs[1]}."
            )
    tasks = list(dict.fromkeys(task for _, task in lines_a if task in {task for _, task in lines_b}))
    if not tasks:
        raise ValueError(f"{args.runs[0]} and {args.runs[1]} have no task in common.")
    asked = {image_id for image_id, task in lines_a if task in tasks}
    for folder, lines in zip(args.runs, (lines_a, lines_b), strict=True):
        answered = [{image_id for image_id, line_task in lines if line_task == task} for task in tasks]
        if any(image_ids != asked for image_ids in answered):
            raise ValueError(f"The runs answered different radiographs; {folder} lacks some or has others.")
    data_dir, split = args.data_dir or settings_a["data"], args.split or settings_a["split"]
    rows = load_rows(data_dir, split, args.cache_dir, args.num_proc)
    labels = label_names(rows)
    truths = [row for row in rows.remove_columns("image") if row["image_id"] in asked]
    if len(truths) != len(asked):
        raise ValueError(f"{data_dir}, split {split}, has {len(truths)} of the {len(asked)} radiographs answered.")
    statistics = [
        task_statistics(
            question(task, truths + truths, labels),
            [lines[row["image_id"], task] for lines in (lines_a, lines_b) for row in truths],
            labels,
        )
        for task in tasks
    ]
    figures = paired_comparison(
        partial(headline_figures, statistics, by_label=True),
        len(truths),
        num_permutations=args.num_permutations,
        patients=row_patients(truths),
    )
    return {
        "a": args.runs[0],
        "b": args.runs[1],
        "images": len(truths),
        "tasks": tasks,
        "figures": {name: values for name, values in figures.items() if name[-1] != BEFORE_CALIBRATION},
    }


def read_run(folder: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """{(image_id, task): line of predictions.jsonl}, and the settings that they were made with.

    Raises:
        FileNotFoundError: the folder has none.
    """
    path = folder / "predictions.jsonl"
    settings = path.with_suffix(".settings.json")
    if not path.is_file() or not settings.is_file():
        raise FileNotFoundError(f"{folder} has no {path.name} with {settings.name}, as evaluate_litegpt.py writes.")
    lines = {(line["image_id"], line["task"]): line for line in complete_lines(path)}
    return lines, json.loads(settings.read_text(encoding="utf-8"))


def as_markdown(comparison: dict[str, Any]) -> str:
    """A row for each figure that can be computed; those of probabilities need them in the answers of both runs."""
    tasks = ", ".join(f"[{task}]" for task in comparison["tasks"])
    lines = [
        f"A: `{comparison['a']}`, B: `{comparison['b']}`, {comparison['images']} radiographs, {tasks}. p is of each "
        "figure alone, not corrected for their number; lower is better for `ece` and `malformed`.",
        "",
        "| figure | A | B | B - A | 95 % interval | p |",
        "|---|---|---|---|---|---|",
    ]
    figures: dict[Name, Comparison] = comparison["figures"]
    for name, values in figures.items():
        if values.a is None and values.b is None:
            continue
        interval = "-" if values.interval is None else "{:+.3f} to {:+.3f}".format(*values.interval)
        p_value = "-" if values.p_value is None else f"{values.p_value:.4f}"
        numbers = [_number(values.a), _number(values.b), _number(values.difference, "+.3f")]
        lines.append(f"| {' '.join(name)} | {' | '.join(numbers)} | {interval} | {p_value} |")
    return "\n".join(lines)


def _number(value: float | None, form: str = ".3f") -> str:
    """As text, "-" for None."""
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main(*parse([ComparisonArguments], None, "compare_runs.py", __doc__))
