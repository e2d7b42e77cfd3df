"""Words for radiographs that have labels and boxes alone: a template report, phrases and questions, all of them true.

    rows = with_template_words(rows)            # adds report_findings, sentences, phrase and qa
    rows[0]["report_findings"]                  # "There is no aortic enlargement. There is cardiomegaly. ..."
    fact_of("There is no pleural effusion.")    # Fact("Pleural effusion", present=False, places=())

A report affirms or denies a checklist of frequent labels, and affirms what else there is, in the order of the labels.
A place is a zone of the chest as a reader sees it: the left of the picture is the patient's right. What a row does not
tell (a diagnosis without a box) is not said: such a radiograph has no words.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import datasets

from litegpt.datasets_scripts.annotations import optional_columns
from litegpt.datasets_scripts.vindr_cxr import FINDING_LABELS
from litegpt.processing.answers import NO_FINDING

COLUMNS = ("report_findings", "sentences", "phrase", "qa")

# Of VinDr-CXR's labels: the article that "There is" needs, and the words.
WORDS = {
    "Aortic enlargement": ("", "aortic enlargement"),
    "Atelectasis": ("", "atelectasis"),
    "Calcification": ("", "calcification"),
    "Cardiomegaly": ("", "cardiomegaly"),
    "Clavicle fracture": ("a ", "clavicle fracture"),
    "Consolidation": ("", "consolidation"),
    "Edema": ("", "edema"),
    "Emphysema": ("", "emphysema"),
    "Enlarged PA": ("an ", "enlarged pulmonary artery"),
    "ILD": ("", "interstitial lung disease"),
    "Infiltration": ("", "infiltration"),
    "Lung Opacity": ("a ", "lung opacity"),
    "Lung cavity": ("a ", "lung cavity"),
    "Lung cyst": ("a ", "lung cyst"),
    "Mediastinal shift": ("a ", "mediastinal shift"),
    "Nodule/Mass": ("a ", "nodule or mass"),
    "Pleural effusion": ("", "pleural effusion"),
    "Pleural thickening": ("", "pleural thickening"),
    "Pneumothorax": ("a ", "pneumothorax"),
    "Pulmonary fibrosis": ("", "pulmonary fibrosis"),
    "Rib fracture": ("a ", "rib fracture"),
    "Other lesion": ("a ", "lesion of another kind"),
}
CHECKLIST = (
    "Aortic enlargement",
    "Cardiomegaly",
    "Consolidation",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
CHECKLIST_LENGTH = 8  # of other label sets: their first labels
ONE_PLACE = re.compile(r"aort|cardi|heart|mediastin|enlarged pa", re.IGNORECASE)  # labels that have no other

UPPER_END, MIDDLE_END = 0.34, 0.54  # heights of a box's centre at which the upper and the middle zone end
BOTH_SIDES = 0.25  # a box with this share of its width on either side of the middle is on both sides
ZONES = ("upper", "middle", "lower")
PLACES = (
    *(f"{side} {zone} zone" for side in ("right", "left") for zone in ZONES),
    *(f"both {zone} zones" for zone in ZONES),
)
NORMAL_PHRASES, NORMAL_QUESTIONS = 2, 2  # of a radiograph without findings, about what it does not show
WHICH_FINDINGS, NONE = "Which findings are there?", "none"
YES, NO = "yes", "no"

_SENTENCE = re.compile(r"There is (?P<no>no )?(?P<what>.+?)(?: in (?P<places>(?:the|both) .+))?\.")


@dataclass(frozen=True)
class Fact:
    """What a template sentence says: whether a label is there, and in which of `PLACES`, where it says so."""

    label: str
    present: bool
    places: tuple[str, ...] = ()


def with_template_words(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with template reports, phrases and questions; the same for an image whatever the other rows are.

    Raises:
        ValueError: the rows have such words already.
    """
    there = [column for column in COLUMNS if column in rows.column_names]
    if there:
        raise ValueError(f"template_words: the rows have words of their own already ({', '.join(there)}).")
    names = (rows.features["findings"].feature["label"].names, rows.features["diagnoses"].feature.names)
    features = optional_columns(*names)
    words = rows.select_columns(["image_id", "findings", "diagnoses"]).map(
        _words_of_batch,
        batched=True,
        fn_kwargs={"finding_labels": names[0], "diagnosis_labels": names[1]},
        remove_columns=["image_id", "findings", "diagnoses"],
        features=datasets.Features({column: features[column] for column in COLUMNS}),
        desc="Template words",
    )
    return datasets.concatenate_datasets([rows, words], axis=1)


def _words_of_batch(batch: dict[str, list], finding_labels: list[str], diagnosis_labels: list[str]) -> dict[str, list]:
    rows = zip(batch["image_id"], batch["findings"], batch["diagnoses"], strict=True)
    words = [
        template_words(image_id, findings, [diagnosis_labels[number] for number in diagnoses], finding_labels)
        for image_id, findings, diagnoses in rows
    ]
    return {column: [of_row[column] for of_row in words] for column in COLUMNS}


def template_words(
    image_id: str, findings: Sequence[dict[str, Any]], diagnoses: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """A row's {column of `COLUMNS`: value}, without any words where the row does not tell what there is.

    Args:
        findings: `{"label": index, "box": xyxy in [0, 1]}`.
        diagnoses: their names.
        labels: of the findings.
    """
    if not findings and list(diagnoses) != [NO_FINDING]:
        return {"report_findings": None, "sentences": [], "phrase": [], "qa": []}
    boxes: dict[str, list[list[float]]] = {}
    for finding in sorted(findings, key=lambda finding: (finding["label"], *finding["box"])):
        boxes.setdefault(labels[finding["label"]], []).append(list(finding["box"]))
    rng = random.Random(hashlib.sha256(image_id.encode()).digest())
    checked = checklist(labels)
    sentences = [
        {"text": sentence_of(label, boxes.get(label, ())), "boxes": boxes.get(label, [])}
        for label in labels
        if label in boxes or label in checked
    ]
    return {
        "report_findings": " ".join(sentence["text"] for sentence in sentences),
        "sentences": sentences,
        "phrase": _phrases(boxes, labels, rng),
        "qa": _questions(boxes, labels, rng),
    }


def checklist(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that every template report speaks of."""
    return CHECKLIST if set(CHECKLIST) <= set(labels) else tuple(labels[:CHECKLIST_LENGTH])


def words_of(label: str) -> tuple[str, str]:
    """The article that a label needs after "There is" and its words: ("a ", "lung cyst")."""
    if label in WORDS:
        return WORDS[label]
    words = (word if word.isupper() else word.lower() for word in re.split(r"[\s_]+", label.strip()))
    return "", " ".join(words)


def place_of(box: Sequence[float]) -> str:
    """The zone of a box: the side that it is on, or both, and the height of its centre; one of `PLACES`."""
    x1, y1, x2, y2 = box
    height = (y1 + y2) / 2
    zone = ZONES[0] if height < UPPER_END else ZONES[1] if height < MIDDLE_END else ZONES[2]
    if min(0.5 - x1, x2 - 0.5) >= BOTH_SIDES * (x2 - x1):
        return f"both {zone} zones"
    return f"{'right' if (x1 + x2) / 2 < 0.5 else 'left'} {zone} zone"


def has_places(label: str) -> bool:
    """Whether a label can be in one place or another: the heart cannot."""
    return ONE_PLACE.search(label) is None


def sentence_of(label: str, boxes: Sequence[Sequence[float]]) -> str:
    """The sentence that affirms a label, with every place of its boxes once, or denies it where there are none."""
    places = tuple(dict.fromkeys(map(place_of, boxes))) if has_places(label) else ()
    return text_of(Fact(label, bool(boxes), places))


def text_of(fact: Fact) -> str:
    """The sentence that says it; `fact_of` reads it again."""
    article, words = words_of(fact.label)
    if not fact.present:
        return f"There is no {words}."
    return f"There is {article}{words}{_in(fact.places)}."


def fact_of(sentence: str, labels: Sequence[str] = FINDING_LABELS) -> Fact | None:
    """What a template sentence says; None where it is none about one of `labels`."""
    match = _SENTENCE.fullmatch(sentence)
    if match is None:
        return None
    places = tuple(re.split(", | and ", match["places"].replace("the ", ""))) if match["places"] else ()
    label = _labels_by_words(tuple(labels)).get(("no " if match["no"] else "") + match["what"])
    if label is None or (match["no"] and places) or not set(places) <= set(PLACES):
        return None
    fact = Fact(label, not match["no"], places)
    return fact if text_of(fact) == sentence else None


@lru_cache(maxsize=8)
def _labels_by_words(labels: tuple[str, ...]) -> dict[str, str]:
    by_words = {}
    for label in labels:
        article, words = words_of(label)
        by_words |= {f"{article}{words}": label, f"no {words}": label}
    return by_words


def template_texts(labels: Sequence[str]) -> Iterator[str]:
    """Texts in which every word of the labels' templates stands, as it stands there."""
    yield from (WHICH_FINDINGS, NONE, YES, NO, _listed(PLACES), ", ".join(PLACES))
    for label in labels:
        _, words = words_of(label)
        places = PLACES if has_places(label) else ()
        yield from (text_of(Fact(label, False)), text_of(Fact(label, True, places)), words + _in(places))
        yield from (f"Where is the {words}?", closed_question(label))


def closed_question(label: str) -> str:
    """The question whether a label is there."""
    return f"Is there {''.join(words_of(label))}?"


def _in(places: Sequence[str]) -> str:
    named = [place if place.startswith("both") else f"the {place}" for place in places]
    return f" in {_listed(named)}" if named else ""


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(texts[:-1])] if texts[1:] else []), *texts[-1:]])


def _phrases(boxes: dict[str, list], labels: Sequence[str], rng: random.Random) -> list[dict[str, Any]]:
    """Each label that is there, alone and in each of its places, and as many phrases of what is not there."""
    phrases: dict[str, list] = {}
    for label, of_label in boxes.items():
        _, words = words_of(label)
        phrases[words] = of_label
        if has_places(label):
            for box in of_label:
                phrases.setdefault(words + _in([place_of(box)]), []).append(box)
    absent = NORMAL_PHRASES if not phrases else len(phrases)
    for number in range(absent):
        # In turn: a label that is not there; the same with a place; a label that is there, where it is not.
        kind = number % 3 if boxes else number % 2
        there = [label for label in boxes if has_places(label)]
        not_there = [label for label in labels if label not in boxes]
        label = rng.choice(there if kind == 2 and there else not_there or there or list(labels))
        _, words = words_of(label)
        taken = {place_of(box) for box in boxes.get(label, ())}
        free = [place for place in PLACES if place not in taken and not _may_hold(place, taken)]
        if (kind == 0 or not has_places(label)) and label not in boxes:
            phrases.setdefault(words, [])
        elif has_places(label) and free:
            phrases.setdefault(words + _in([rng.choice(free)]), [])
    return [{"phrase": phrase, "boxes": of_phrase} for phrase, of_phrase in phrases.items()]


def _may_hold(place: str, taken: set[str]) -> bool:
    """Whether what is on both sides is in `place` too, or the other way round."""
    zone = place.split()[1]
    sides = {f"right {zone} zone", f"left {zone} zone"}
    return bool(sides & taken) if place.startswith("both") else f"both {zone} zones" in taken


def _questions(boxes: dict[str, list], labels: Sequence[str], rng: random.Random) -> list[dict[str, Any]]:
    """As many closed questions about what is there as about what is not, where it is, and which findings there are."""
    not_there = [label for label in labels if label not in boxes]
    denied = rng.sample(not_there, min(len(not_there), len(boxes) or NORMAL_QUESTIONS))
    asked = [(closed_question(label), YES if label in boxes else NO, True) for label in [*boxes, *denied]]
    for label, of_label in boxes.items():
        if has_places(label):
            places = list(dict.fromkeys(map(place_of, of_label)))
            asked.append((f"Where is the {words_of(label)[1]}?", _listed(places), False))
    asked.append((WHICH_FINDINGS, ", ".join(words_of(label)[1] for label in boxes) or NONE, False))
    return [{"question": question, "answer": answer, "closed": closed} for question, answer, closed in asked]
