"""How the rule labeller's labels fit the tags that people gave to Open-i's reports.

    python benchmarks/report_labeller_errors.py --data_dir path/to/open-i
    python benchmarks/report_labeller_errors.py --data_dir path/to/open-i --disagreements 30

In: a release of Open-i in either layout; no picture is read. Out, in Markdown: precision, recall and F1 of each of
CheXpert's labels (`datasets_scripts/report_labels.py`), what is uncertain counting as positive, and the precision of
what is positive alone: over the studies with odd numbers, whose disagreements nobody looked at while the rules were
mended, over those with even ones, and over all. With `--disagreements` as many are drawn from the studies with even
numbers and shown, to mend rules by.

The tags are not the truth of the text. They were given to a report as a whole, and what is chronic, doubtful or beside
the point was often left out. So a precision below 1 is no count of errors. `open_i.TAGS` says which tags mean which
label, `LABEL_OF` which of CheXpert's that is; "Airspace Disease" and "Density" mean none there, and no tag means an
enlarged mediastinum. "No Finding" is here, as the rules have it, that no label but "Support Devices" is there.
"""

import argparse
import os
import random
from collections.abc import Iterable

from litegpt.common.addresses import is_file
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.open_i import REPORTS_FILE, Study, kaggle_studies, labels_of, xml_studies
from litegpt.datasets_scripts.report_labels import ENLARGED_MEDIASTINUM, NO_FINDING, SUPPORT_DEVICES, label_states
from litegpt.metrics.report_labels import CHEXPERT_LABELS, NEGATIVE, POSITIVE, agreement_scores, label_agreement

# Labels of Open-i's rows that mean one of CheXpert's by another name, and those that mean none.
LABEL_OF = {
    "Pleural effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Nodule/Mass": "Lung Lesion",
    "Pleural thickening": "Pleural Other",
    "Support devices": "Support Devices",
}
HALVES = {"odd": lambda number: number % 2 == 1, "even": lambda number: number % 2 == 0, "all": lambda number: True}


def studies_with_text(data_dir: str) -> list[Study]:
    """The studies of a release that have findings or an impression."""
    is_kaggles = is_file(os.path.join(data_dir, REPORTS_FILE))
    studies = kaggle_studies(data_dir)[0] if is_kaggles else xml_studies(data_dir)
    return [study for study in studies if study.findings or study.impression]


def text_of(study: Study) -> str:
    """Its report, a section a line."""
    return "\n".join(filter(None, (study.findings, study.impression)))


def tagged(tags: Iterable[str]) -> dict[str, str]:
    """{label: "positive"} of CheXpert's labels that a study's tags mean."""
    names = {LABEL_OF.get(label, label) for label in labels_of(tags)}
    labels = [label for label in CHEXPERT_LABELS if label in names and label != NO_FINDING]
    if not set(labels) - {SUPPORT_DEVICES}:
        labels.append(NO_FINDING)
    return dict.fromkeys(labels, POSITIVE)


def table(studies: list[Study]) -> str:
    """A line a label and part of the studies: precision, recall and F1, with the counts that they are made of."""
    read = [(int(study.uid), label_states(text_of(study)), tagged(study.tags)) for study in studies]
    lines = ["| label | studies | precision | of positive alone | recall | F1 |", "|---|---|---|---|---|---|"]
    for half, is_in in HALVES.items():
        said, tags = zip(*((states, tags) for number, states, tags in read if is_in(number)), strict=True)
        said = [{label: state for label, state in states.items() if label != ENLARGED_MEDIASTINUM} for states in said]
        scores = agreement_scores(label_agreement(said, tags))
        alone = agreement_scores(label_agreement(said, tags, uncertain=NEGATIVE))["per_label"]
        for label, counts in scores["per_label"].items():
            if label != ENLARGED_MEDIASTINUM:
                cells = (
                    share(counts["right"], counts["named"]),
                    share(alone[label]["right"], alone[label]["named"]),
                    share(counts["right"], counts["true"]),
                    "-" if counts["f1"] is None else f"{counts['f1']:.2f}",
                )
                lines.append(f"| {label} | {half} | {' | '.join(cells)} |")
        f1 = f"micro {scores['micro_f1']['14']:.3f}, macro {scores['macro_f1']['14']:.3f}"
        lines.append(f"| all of them | {half}: {len(said)} | | | | {f1} |")
    return "\n".join(lines)


def share(right: int, of: int) -> str:
    """ "3/4 = 0.75" """
    return f"{right}/{of} = {right / of:.2f}" if of else "0/0"


def show_disagreements(studies: list[Study], count: int) -> None:
    """Prints some of them: the label, what the rules and the tags say, the tags and the text."""
    found = []
    for study in filter(lambda study: HALVES["even"](int(study.uid)), studies):
        said, tags = label_states(text_of(study)), tagged(study.tags)
        for label in CHEXPERT_LABELS:
            differ = (said.get(label, NEGATIVE) != NEGATIVE) != (label in tags)
            if differ and label not in (ENLARGED_MEDIASTINUM, NO_FINDING):
                found.append((study, label, said.get(label, "-"), tags.get(label, "-")))
    for study, label, rules, tag in random.Random(0).sample(found, min(count, len(found))):
        print(f"\n{study.uid} {label}: rules {rules}, tags {tag} ({'; '.join(study.tags)})\n{text_of(study)}")


@program
def main(data_dir: str, disagreements: int) -> None:
    """Prints the table."""
    with refuse_bad_input():
        studies = studies_with_text(data_dir)
    print(table(studies))
    if disagreements:
        show_disagreements(studies, disagreements)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="a release of Open-i")
    parser.add_argument("--disagreements", type=int, default=0, help="as many are shown")
    main(**vars(parser.parse_args()))
