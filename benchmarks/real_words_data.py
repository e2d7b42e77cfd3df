"""Open-i and VQA-RAD as releases for experiments with words, of two folders that hold parts of them.

    python benchmarks/real_words_data.py --reports_dir path/to/reports --openi_dir path/to/openi_1400 \\
        --output_dir outputs/words
    litegpt prepare open-i --data_dir outputs/words/open-i --output_dir prepared/open-i
    litegpt prepare vqa-rad --data_dir outputs/words/vqa-rad --output_dir prepared/vqa-rad

In: `--openi_dir`, studies of Open-i in Kaggle's layout (indiana_reports.csv, indiana_projections.csv, pictures below);
`--reports_dir`, further studies: studies.jsonl (a study a line: study_id, split, source, images, qa), their pictures,
and openi/indiana_reports.csv. Out: two folders that `open_i.py` and `vqa_rad.py` read, their pictures links:

    open-i/     train: all of --openi_dir and the train of --reports_dir; test: the test of --reports_dir
    vqa-rad/    the split that studies.jsonl gives an image

The same command again replaces the tables and makes the links that are missing.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from litegpt.common.files import replacing, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.image_files import find_files
from litegpt.datasets_scripts.open_i import PROJECTIONS_COLUMNS, PROJECTIONS_FILE, REPORTS_COLUMNS, REPORTS_FILE
from litegpt.datasets_scripts.own_splits import SPLITS_FILE
from litegpt.datasets_scripts.tables import read_csv

OPEN_I, VQA_RAD = "open-i", "vqa-rad"  # sources of studies.jsonl, and the folders
PREFIXES = {OPEN_I: "openi_", VQA_RAD: "vqarad_"}  # of the pictures' names and the studies'
PROJECTIONS = {"LATERAL": "Lateral"}  # of views; all others are frontal


def link(source: Path, target: Path) -> None:
    """A link to a file, unless there is one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        os.symlink(source.resolve(), target)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def without_prefix(name: str, source: str) -> str:
    """openi_1000_IM-0003-1001.jpg -> 1000_IM-0003-1001.jpg"""
    return Path(name).name.removeprefix(PREFIXES[source])


def lay_out_open_i(studies: Sequence[dict[str, Any]], reports_dir: Path, openi_dir: Path, folder: Path) -> None:
    """Writes a release of Open-i in Kaggle's layout, with splits.csv.

    Args:
        studies: of studies.jsonl, Open-i's.

    Raises:
        OSError, ValueError: a table or a picture is missing or cannot be read.
    """
    reports = [row for _, row in read_csv(str(openi_dir / REPORTS_FILE), REPORTS_COLUMNS)]
    projections = [row for _, row in read_csv(str(openi_dir / PROJECTIONS_FILE), PROJECTIONS_COLUMNS)]
    splits = {row["uid"]: "train" for row in reports}
    pictures = {Path(path).name: Path(path) for path in find_files(str(openi_dir)).paths.values()}
    for study in studies:
        uid = without_prefix(study["study_id"], OPEN_I)
        if uid in splits:
            raise ValueError(f"Study {uid} is in {openi_dir} and in {reports_dir}.")
        splits[uid] = study["split"]
        for image in study["images"]:
            name = without_prefix(image["file"], OPEN_I)
            pictures[name] = reports_dir / image["file"]
            projection = PROJECTIONS.get(image["view"], "Frontal")
            projections.append({"uid": uid, "filename": name, "projection": projection})
    table = read_csv(str(reports_dir / "openi" / REPORTS_FILE), REPORTS_COLUMNS)
    known = {row["uid"] for row in reports}
    reports += [row for _, row in table if row["uid"] in splits and row["uid"] not in known]
    for row in projections:
        link(pictures[row["filename"]], folder / "images" / "images_normalized" / row["filename"])
    write_table(folder / REPORTS_FILE, list(reports[0]), reports)
    write_table(folder / PROJECTIONS_FILE, PROJECTIONS_COLUMNS, projections)
    write_table(folder / SPLITS_FILE, ("uid", "split"), [{"uid": u, "split": split} for u, split in splits.items()])


def lay_out_vqa_rad(studies: Sequence[dict[str, Any]], reports_dir: Path, folder: Path) -> None:
    """Writes VQA-RAD in its own layout, with splits.csv.

    Args:
        studies: of studies.jsonl, VQA-RAD's: a study is an image.
    """
    entries, splits = [], []
    for study in studies:
        (image,) = study["images"]
        name = without_prefix(image["file"], VQA_RAD)
        link(reports_dir / image["file"], folder / "VQA_RAD Image Folder" / name)
        splits.append({"image_name": name, "split": study["split"]})
        for question in study["qa"]:
            test = "test_" * (question["source_split"] == "test")
            entry = {"qid": len(entries) + 1, "image_name": name, "image_organ": "CHEST"}
            entry |= {key: question[key] for key in ("question", "answer", "answer_type", "question_type")}
            entries.append({**entry, "phrase_type": f"{test}{question['phrase_type']}"})
    write_text(folder / "VQA_RAD Dataset Public.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")
    write_table(folder / SPLITS_FILE, ("image_name", "split"), splits)


@program
def main(argv: Sequence[str] | None = None) -> None:
    """Lays both out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--reports_dir", "--openi_dir", "--output_dir"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args(argv)
    with refuse_bad_input():
        with open(args.reports_dir / "studies.jsonl", encoding="utf-8") as file:
            studies = [json.loads(line) for line in file]
        of_source = {source: [study for study in studies if study["source"] == source] for source in PREFIXES}
        for source in PREFIXES:
            (args.output_dir / source).mkdir(parents=True, exist_ok=True)
        lay_out_open_i(of_source[OPEN_I], args.reports_dir, args.openi_dir, args.output_dir / OPEN_I)
        lay_out_vqa_rad(of_source[VQA_RAD], args.reports_dir, args.output_dir / VQA_RAD)
    for source, chosen in of_source.items():
        print(f"{args.output_dir / source}: {len(chosen):,} studies of {args.reports_dir}")


if __name__ == "__main__":
    main()
