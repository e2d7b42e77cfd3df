"""Which of CheXpert's 14 labels a report states, by rules: a text -> {label: state}.

    label_states("The heart is enlarged. No effusion. Possible infection at the left base.")
    # {"Cardiomegaly": "positive", "Pneumonia": "uncertain", "Pleural Effusion": "negative"}
    label_states("Pacemaker leads are in place. The lungs are clear.")
    # {"Lung Opacity": "negative", "Support Devices": "positive", "No Finding": "positive"}
    meaning("There is a left effusion.") == meaning("Effusion on the left.")  # True: the same labels and states

It reads a report as `report_facts.py` does, which says what is negated and what is doubted, and calls its entities by
labels (`LABELS`). Words that `report_entities.py` has no entity for are first put in an entity's words: "pacemaker" is
read as "catheter", "infection" as "pneumonia". A label that a report speaks of in several ways is
positive where anything is, else uncertain where anything is, else negative; one that it does not speak of is left out.

"No Finding" is positive where no label but "Support Devices" is positive or uncertain, also where the report speaks of
other things alone, such as granulomas; a report without text states nothing. Labels do not imply each other: an edema
is no "Lung Opacity" unless the report speaks of one, too. Blunted costophrenic angles, scars of the lung, granulomas
and deformities of ribs and vertebrae state no label.

Rules err: docs/evaluate.md has their figures on sentences labelled by hand, and beside the tags of 3,851 reports.

Source: Irvin et al., CheXpert (2019), arXiv 1901.07031, section 3, for the labels, the order of states and "No
Finding"; the rules and their words are this project's own.
"""

import re
from collections.abc import Hashable
from typing import NamedTuple

from litegpt.datasets_scripts.report_facts import NORMAL, Fact, facts_of_sentence, sentences_of
from litegpt.datasets_scripts.report_texts import without_masks
from litegpt.metrics.grounded_reports import plain_text
from litegpt.metrics.report_labels import CHEXPERT_LABELS, NEGATIVE, POSITIVE, UNCERTAIN

NO_FINDING, SUPPORT_DEVICES, ENLARGED_MEDIASTINUM = "No Finding", "Support Devices", "Enlarged Cardiomediastinum"
STRENGTH = (NEGATIVE, UNCERTAIN, POSITIVE)  # a later one beats those before it


class LabelRule(NamedTuple):
    """A label, and the facts that state it.

    Attributes:
        label: one of `CHEXPERT_LABELS`.
        entities: of `report_entities.ENTITIES`; a fact that has one of them states the label.
        needs: words of which the fact must have one; none where any will do.
        unless: words of which it must have none.
    """

    label: str
    entities: tuple[str, ...]
    needs: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()


_BONES = frozenset("vertebra vertebral vertebrae spine spinal compression".split())
_ENLARGED = frozenset("dilated enlarged full fullness large prominence prominent widened widening".split())
_NOT_OF_LUNG = frozenset("bone bony osseous skeletal soft subcutaneous".split())
LABELS = (
    LabelRule(ENLARGED_MEDIASTINUM, ("cardiomediastinal",), needs=_ENLARGED | NORMAL),
    LabelRule("Cardiomegaly", ("cardiomegaly",)),
    LabelRule("Lung Opacity", ("opacity", "infiltrate")),
    LabelRule("Lung Lesion", ("mass", "nodule"), unless=_NOT_OF_LUNG),
    LabelRule("Edema", ("chf", "congestion", "edema"), unless=_NOT_OF_LUNG),
    LabelRule("Consolidation", ("consolidation",)),
    LabelRule("Pneumonia", ("pneumonia",)),
    LabelRule("Atelectasis", ("atelectasis", "collapse"), unless=_BONES),
    LabelRule("Pneumothorax", ("pneumothorax",)),
    LabelRule("Pleural Effusion", ("effusion",), unless=frozenset({"pericardial"})),
    LabelRule("Pleural Other", ("thickening",), needs=frozenset({"pleura", "pleural", "subpleural"})),
    LabelRule("Fracture", ("fracture",)),
    LabelRule(SUPPORT_DEVICES, ("catheter",)),
)

# (what a report says, how it is read), one after the other. Words of report_entities.py stay as they are.
_READ_AS = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        # what is no denial, and where one ends
        (
            r"\bno\s+(?:significant\s+|interval\s+|appreciable\s+)*change\s+in\s+(?:the\s+)?([^.;,]{1,60}?)\s+or\s+",
            r"stable \1 and ",
        ),
        (r"\b(no\b[^.;,]{0,120}?\b(?:seen|identified|demonstrated)),\s", r"\1; "),
        # what says nothing of this picture
        (r"\bfractures?\s+(?:may|might|could)\s+not\s+be\s+\w+", "limits"),
        (r"\b(?:evaluation|assessment)\s+of\b", "evaluation for"),
        (r"\b(?:may|might|could|would)\s+obscure\b", "evaluate for"),
        # heart and mediastinum
        (
            r"\b(?:heart|cardiac\s+silhouette)(?:\s+size)?\s+(?:is|remains|appears)\s+(?:\w+\s+)?large\b",
            "cardiomegaly",
        ),
        (r"\bincreased?\s+(?:in\s+)?(?:the\s+)?(?:heart|cardiac)\s+size\b", "cardiomegaly"),
        (r"\bcardiac\s+contours?\b", "cardiac silhouette"),
        (r"\bno\s+(?:\w+\s+){0,2}mediastinal\s+(?:widening|enlargement)\b", "normal cardiomediastinal contour"),
        (
            r"\bmediastin(?:um|al\s+contours?)\s+(?:is|are)\s+not\s+(?:\w+\s+)?(?:enlarged|widened)\b",
            "normal cardiomediastinal contour",
        ),
        (r"\bmediastinal\s+widening\b|\bwidening\s+of\s+the\s+mediastinum\b", "widened cardiomediastinal contour"),
        (
            r"\bmediastinal\s+(?:contours?|silhouettes?|structures|width|size|shadow)\b|\bmediastinum\b",
            "cardiomediastinal contour",
        ),
        # lungs
        (r"\bair\s?-?\s?space\s+(?:disease|process|changes?)\b|\balveolar\s+(?:disease|process)\b", "opacity"),
        (r"(?<!bone )(?<!tissue )(?<!mineral )(?<!calcific )\bdensit(?:y|ies)\b", "opacity"),
        (
            r"\binterstitial\s+(?:lung\s+)?(?:disease|thickening|prominence|pattern|process)\b|"
            r"\b(?:prominent|coarse|coarsened|increased|prominence\s+of(?:\s+the)?|increase\s+in)\s+"
            r"(?:pulmonary\s+|lung\s+|coarse\s+)?interstitial\s+markings\b",
            "interstitial opacity",
        ),
        (r"\b(?:granulomatous|old|previous|prior|remote|tubercul\w+)\s+(?:\w+\s+)?infections?\b", "granuloma"),
        (r"\binfections?\b|\binfectious(?:\s+(?:process|disease|etiology|infiltrates?))?\b", "pneumonia"),
        (r"(?<!bone )(?<!bony )(?<!osseous )(?<!lytic )(?<!sclerotic )\blesions?\b", "mass"),
        (r"\bneoplasms?\b|\btumou?rs?\b|\bmalignanc(?:y|ies)\b|\bmetastas[ei]s\b|\bcarcinomas?\b", "mass"),
        (r"\bmass-?\s?like\b", "mass"),
        # pleura
        (r"\bhydro-?\s?pneumothora(?:x|ces)\b", "pneumothorax and effusion"),
        (r"\b(?:pleural\s+)?fluid\s+collections?\b|\bpleural\s+fluid\b", "pleural effusion"),
        (
            r"\bpleur(?:al|o)(?:[\s/-]+(?:and\s+)?parenchymal)?\s+(?:scar(?:s|ring)?|plaques?|fibrosis|calcifications?|"
            r"capping)\b|\bfibrothorax\b|\bapical\s+(?:caps?|capping)\b|\bfissural\s+thickening\b",
            "pleural thickening",
        ),
        # what people put in
        (
            r"\bpace-?\s?makers?\b|\bpacers?\b|\bdefibrillators?\b|\ba?icds?\b|\bp(?:acing|acer)\s+wires?\b|"
            r"\belectrodes?\b|\bleads\b|\bgenerators?\b|\b(?:neuro)?stimulators?\b|\bdevices?\b|\bshunts?\b|"
            r"\b(?:sternal|sternotomy|cerclage)\s+(?:wires?|sutures)\b|\bsternotomy\b|\bstents?\b|\bcoils\b|"
            r"\b(?:clips?|staples|sutures)\b|\b(?:artificial|mechanical)\s+(?:\w+\s+)?valves?\b|\bvalve\s+replacements?\b|"
            r"\bprosthe(?:tic|s[ie]s)(?:\s+\w+){0,2}\b|\bhardware\b|\barthroplast(?:y|ies)\b|\bimplants?\b|"
            r"\binternal\s+fixation\b|\b(?:fixation|spinal|harrington)\s+(?:rods?|screws|plates?)\b|"
            r"\bpicc(?:\s+lines?)?\b|\b(?:central|venous|ij|jugular|subclavian|dialysis|arterial)\s+(?:venous\s+)?lines?\b|"
            r"\bport-?\s?a-?\s?cath(?:eter)?s?\b|\b(?:medi|chemo|infusa)?-?\s?ports?\b|\btubes?\b|\btubing\b|"
            r"\btracheostomy\b",
            "catheter",
        ),
    )
)


def label_states(text: str) -> dict[str, str]:
    """The state of each label that a report speaks of, in the order of `CHEXPERT_LABELS`.

    Args:
        text: of one or more sentences, or sections, which end where lines do. Marks of de-identification may stand in
            it.

    Returns:
        {label: "positive", "negative" or "uncertain"}; "No Finding" is positive or left out. {} for a text without a
        word.
    """
    lines = [without_masks(line) for line in text.splitlines()]
    if not any(re.search(r"\w", line) for line in lines):
        return {}
    text = "\n".join(lines)
    for pattern, words in _READ_AS:
        text = pattern.sub(words, text)
    states: dict[str, str] = {}
    for fact in (fact for sentence in sentences_of(text) for fact in facts_of_sentence(sentence)):
        for label, state in _stated(fact):
            states[label] = max(state, states.get(label, NEGATIVE), key=STRENGTH.index)
    found = {label for label, state in states.items() if state != NEGATIVE}
    if not found - {SUPPORT_DEVICES}:
        states[NO_FINDING] = POSITIVE
    return {label: states[label] for label in CHEXPERT_LABELS if label in states}


def meaning(sentence: str) -> Hashable:
    """What sentences that mean the same have in common: labels with states, or the plain text where there is none.

    For `litegpt.metrics.grounded_reports.report_counts(..., key=meaning)`. Where and how severe a thing is is no part
    of it.
    """
    states = label_states(sentence)
    states.pop(NO_FINDING, None)
    return frozenset(states.items()) or plain_text(sentence)


def _stated(fact: Fact) -> list[tuple[str, str]]:
    """(label, state) of each label that a fact states."""
    words = set(re.findall(r"[a-z]+", f"{fact.thing} {fact.place}"))
    stated = []
    for rule in LABELS:
        if not set(rule.entities) & set(fact.entities) or words & rule.unless or rule.needs and not words & rule.needs:
            continue
        state = fact.state
        if rule.label == ENLARGED_MEDIASTINUM and not words & _ENLARGED:
            state = NEGATIVE  # "normal cardiomediastinal contour"
        stated.append((rule.label, state))
    return stated
