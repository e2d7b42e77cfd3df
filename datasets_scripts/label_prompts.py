"""Labels as sentences: what image-text training reads where there are labels and no report, and zero-shot's prompts.

In: names of labels with their states, and a random number generator. Out: sentences in lower case with a full stop.

    rng = random.Random(0)
    prompt("Cardiomegaly", "negative", rng)                              # "heart size is normal."
    text_of({"Cardiomegaly": "positive", "Edema": "negative"}, rng)      # "no pulmonary edema. the heart is enlarged."
    evaluation_pair("Effusion")                                          # Pair(positive=(...), negative=(...))

All wording is this project's own. A sentence is a template with an expression of the label in it, or one of the few
that reports have for that label alone ("heart size is normal."). `CONCEPTS` is the one table: a label of another data
set is a line there, and a data set's other name for a label is a name in its line.

Labels that name no one thing ("Other lesion", "Other diseases") have no sentences. "No finding" has those of a normal
radiograph, for "positive" alone: an abnormal one is described by what it shows.
"""

import itertools
import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from litegpt.datasets_scripts.annotations import STATES
from litegpt.datasets_scripts.tables import plain
from litegpt.processing.answers import NO_FINDING


class Concept(NamedTuple):
    """One thing that labels name.

    Attributes:
        names: of data sets; the case and underscores do not matter.
        expressions: nouns in the singular, with their article where they have one.
        positive, negative: up to two sentences a side of its own. None: "there is ...", "there is no ...".
        report: up to two sentences a side as reports word them, for zero-shot alone: they name a place or a degree
            that a label does not know, and a report does not deny what is not there, it says that the lungs are clear.
    """

    names: tuple[str, ...]
    expressions: tuple[str, ...]
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    report: "Pair | None" = None


class Pair(NamedTuple):
    """What a radiograph is compared with: the sentences of those with the label, and of those without it."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


# {full} is the expression with its article, {bare} without it.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "positive": (
        "there is {full}.",
        "{full} is present.",
        "{full} can be seen.",
        "the radiograph shows {full}.",
        "the image demonstrates {full}.",
        "findings include {full}.",
    ),
    "negative": (
        "no {bare}.",
        "there is no {bare}.",
        "no evidence of {bare}.",
        "no {bare} is identified.",
        "the radiograph shows no {bare}.",
        "{bare} is absent.",
    ),
    "uncertain": (
        "possible {bare}.",
        "there may be {full}.",
        "{full} is suspected.",
        "the appearance could represent {full}.",
        "this raises the question of {full}.",
        "{full} is possible but uncertain.",
    ),
}
# The control of wording: what no report says and no training text of ours has.
CONTROL_TEMPLATES = Pair(
    ("findings of {bare}.", "visible {bare}.", "imaging signs of {bare}.", "a picture with {full}.", "class: {bare}."),
    (
        "no visible {bare}.",
        "no imaging signs of {bare}.",
        "a picture without {bare}.",
        "{bare} not depicted.",
        "class: no {bare}.",
    ),
)
NORMAL_SENTENCES = (
    "the chest radiograph is normal.",
    "this is a normal chest film.",
    "normal appearance of heart and lungs.",
    "both lungs are clear and the heart is of normal size.",
    "no acute cardiopulmonary abnormality.",
    "no abnormality of the heart or the lungs.",
)

CONCEPTS: tuple[Concept, ...] = (
    Concept(
        ("Aortic enlargement",),
        ("enlargement of the aorta", "an enlarged aorta", "a dilated thoracic aorta"),
        ("the aorta is enlarged.",),
        ("the aorta is of normal caliber.",),
    ),
    Concept(
        ("Aortic tortuosity", "Tortuous aorta"),
        ("a tortuous aorta", "tortuosity of the thoracic aorta", "an elongated and winding aorta"),
        ("the aorta is tortuous.",),
        ("the aorta takes a normal course.",),
        report=Pair(("tortuous aorta.", "tortuosity of the thoracic aorta."), ("mediastinal contours are normal.",)),
    ),
    Concept(
        ("Atelectasis",),
        ("atelectasis", "atelectatic change", "partial collapse of the lung"),
        report=Pair(("bibasilar atelectasis.", "left basilar atelectasis."), ("the lungs are clear.",)),
    ),
    Concept(
        ("Calcification",),
        ("calcification", "a calcified focus", "a calcific density"),
        report=Pair(("calcified granuloma.", "calcified lymph nodes."), ("the lungs are clear.",)),
    ),
    Concept(
        ("Cardiomegaly", "Enlarged heart"),
        ("cardiomegaly", "an enlarged heart", "an enlarged cardiac silhouette", "enlargement of the heart"),
        ("the heart is enlarged.", "heart size is increased."),
        ("heart size is normal.", "the heart is not enlarged."),
        report=Pair(
            ("the heart is enlarged.", "stable cardiomegaly."),
            ("heart size is normal.", "the heart is normal in size."),
        ),
    ),
    Concept(
        ("Clavicle fracture",),
        ("a clavicle fracture", "a fracture of the clavicle", "a broken clavicle"),
        ("the clavicle is fractured.",),
        ("the clavicles are intact.",),
    ),
    Concept(
        ("Consolidation",),
        ("consolidation", "airspace consolidation", "a consolidated area of lung"),
        ("there is focal consolidation.",),
        ("no focal consolidation.",),
        report=Pair(
            ("right lower lobe consolidation.", "left lower lobe consolidation."),
            ("no focal consolidation.", "the lungs are clear."),
        ),
    ),
    Concept(
        ("COPD", "Chronic obstructive pulmonary disease"),
        ("chronic obstructive pulmonary disease", "copd", "chronic obstructive airway disease"),
    ),
    Concept(
        ("Edema", "Pulmonary edema"),
        ("pulmonary edema", "edema of the lungs", "interstitial edema"),
        report=Pair(
            ("pulmonary vascular congestion.", "interstitial pulmonary edema."), ("pulmonary vascularity is normal.",)
        ),
    ),
    Concept(
        ("Emphysema",),
        ("emphysema", "emphysematous change", "emphysematous lung"),
        report=Pair(
            ("emphysematous changes.", "the lungs are hyperexpanded with flattened diaphragms."),
            ("the lungs are clear.",),
        ),
    ),
    Concept(
        ("Enlarged cardiomediastinum",),
        (
            "an enlarged cardiomediastinal silhouette",
            "widening of the mediastinum",
            "a widened cardiomediastinal contour",
        ),
        ("the mediastinum is widened.", "the cardiomediastinal silhouette is enlarged."),
        ("the mediastinum is not widened.", "the cardiomediastinal silhouette is normal."),
    ),
    Concept(
        ("Enlarged PA", "Enlarged pulmonary artery"),
        ("an enlarged pulmonary artery", "dilatation of the pulmonary artery", "a prominent pulmonary artery"),
        ("the pulmonary artery is enlarged.",),
        ("the pulmonary artery is of normal size.",),
    ),
    Concept(
        ("Fracture",),
        ("a fracture", "a bone fracture", "a broken bone"),
        ("there is a fracture.",),
        ("the bones are intact.", "there is no fracture."),
        report=Pair(("old rib fractures.", "compression fracture of a vertebra."), ("no acute bony abnormality.",)),
    ),
    Concept(
        ("Hernia", "Hiatal hernia"),
        ("a hernia", "a hiatal hernia", "a diaphragmatic hernia"),
        report=Pair(("hiatal hernia.", "large hiatal hernia."), ("no acute abnormality.",)),
    ),
    Concept(
        ("Hyperinflation", "Hyperinflated lungs"),
        ("hyperinflation", "hyperinflation of the lungs", "an overinflated lung"),
        ("the lungs are hyperinflated.",),
        ("the lungs are normally inflated.",),
        report=Pair(("the lungs are hyperexpanded.", "hyperinflated lungs."), ("lungs are clear.",)),
    ),
    Concept(
        ("ILD", "Interstitial lung disease"),
        ("interstitial lung disease", "diffuse interstitial disease", "a reticular interstitial pattern"),
        report=Pair(
            ("diffuse interstitial opacities.", "increased interstitial markings."), ("the lungs are clear.",)
        ),
    ),
    Concept(
        ("Infiltration", "Infiltrate"),
        ("an infiltrate", "a pulmonary infiltrate", "infiltration of the lung"),
        report=Pair(
            ("right lower lobe infiltrate.", "infiltrate in the left base."),
            ("no focal infiltrate.", "the lungs are clear."),
        ),
    ),
    Concept(("Lung cavity",), ("a lung cavity", "a cavitary lesion", "cavitation in the lung")),
    Concept(("Lung cyst",), ("a lung cyst", "a cystic lesion of the lung", "a thin-walled pulmonary cyst")),
    Concept(("Lung lesion",), ("a lung lesion", "a pulmonary lesion", "a focal lesion of the lung")),
    Concept(
        ("Lung opacity", "Opacity"),
        ("a lung opacity", "opacification of the lung", "an area of increased lung density"),
        ("there is a lung opacity.",),
        ("no focal lung opacity.",),
        report=Pair(
            ("patchy airspace opacity in the right lower lobe.", "left basilar opacity."),
            ("the lungs are clear.", "no focal airspace opacity."),
        ),
    ),
    Concept(("Lung tumor", "Lung tumour"), ("a lung tumor", "a pulmonary neoplasm", "lung cancer")),
    Concept(
        ("Mass", "Lung mass"),
        ("a mass", "a lung mass", "a mass-like lesion"),
        report=Pair(
            ("mass in the right upper lobe.", "a large lung mass."), ("no pulmonary mass.", "the lungs are clear.")
        ),
    ),
    Concept(
        ("Mediastinal shift",),
        ("mediastinal shift", "a shifted mediastinum", "displacement of the mediastinum"),
        ("the mediastinum is shifted.",),
        ("the mediastinum is midline.",),
    ),
    Concept(
        ("Nodule", "Lung nodule"),
        ("a nodule", "a pulmonary nodule", "a nodular opacity"),
        report=Pair(
            ("nodule in the right upper lobe.", "multiple pulmonary nodules."),
            ("no pulmonary nodule.", "the lungs are clear."),
        ),
    ),
    Concept(
        ("Nodule/Mass",),
        ("a nodule or mass", "a pulmonary nodule or mass", "a nodular or mass-like lesion of the lung"),
        report=Pair(
            ("pulmonary nodule in the right upper lobe.", "a large lung mass."),
            ("no pulmonary nodule or mass.", "the lungs are clear."),
        ),
    ),
    Concept(
        ("Pleural effusion", "Effusion"),
        ("pleural effusion", "a pleural effusion", "fluid in the pleural space", "pleural fluid"),
        ("there is a pleural effusion.",),
        ("no pleural effusion.", "the costophrenic angles are sharp."),
        report=Pair(
            ("small left pleural effusion.", "bilateral pleural effusions."),
            ("no pleural effusion.", "there is no pleural effusion or pneumothorax."),
        ),
    ),
    # CheXpert's class of what is pleural but no effusion.
    Concept(("Pleural other",), ("pleural scarring", "a pleural plaque", "fibrothorax")),
    Concept(
        ("Pleural thickening",),
        ("pleural thickening", "thickening of the pleura", "a thickened pleura"),
        report=Pair(
            ("apical pleural thickening.", "pleural thickening at the left base."), ("no pleural abnormality.",)
        ),
    ),
    Concept(
        ("Pneumonia",),
        ("pneumonia", "a pneumonic process", "an infection of the lung"),
        report=Pair(
            ("findings consistent with pneumonia.", "right lower lobe pneumonia."),
            ("no evidence of pneumonia.", "the lungs are clear."),
        ),
    ),
    Concept(
        ("Pneumothorax",),
        ("a pneumothorax", "air in the pleural space", "pleural air"),
        ("there is a pneumothorax.",),
        ("no pneumothorax.",),
        report=Pair(
            ("right apical pneumothorax.", "large left pneumothorax."),
            ("no pneumothorax.", "there is no pneumothorax or pleural effusion."),
        ),
    ),
    Concept(
        ("Pulmonary fibrosis", "Fibrosis"),
        ("pulmonary fibrosis", "fibrotic change", "fibrosis of the lung"),
        report=Pair(("chronic fibrotic changes.", "interstitial fibrosis."), ("the lungs are clear.",)),
    ),
    Concept(
        ("Rib fracture",),
        ("a rib fracture", "a fractured rib", "a broken rib"),
        ("a rib is fractured.",),
        ("the ribs are intact.",),
    ),
    Concept(
        ("Scoliosis",),
        ("scoliosis", "scoliosis of the spine", "a sideways curve of the spine"),
        ("the spine is scoliotic.",),
        ("the spine is straight.",),
    ),
    # Open-i's label of both, one sentence for each; reports do not say "or" here.
    Concept(
        ("Scoliosis or degenerative spine",),
        ("scoliosis or degenerative change of the spine", "a curved or degenerative spine"),
        ("there are degenerative changes of the spine.", "the spine is curved."),
        ("the spine is normal.", "the spine has no degenerative change."),
        report=Pair(
            ("scoliosis of the spine.", "degenerative changes of the thoracic spine."), ("no acute bony abnormality.",)
        ),
    ),
    Concept(
        ("Support devices", "Medical device"),
        ("a support device", "a medical device", "a tube, line or implant"),
        report=Pair(
            ("right chest catheter with tip in the svc.", "sternotomy and surgical clips."), ("no acute abnormality.",)
        ),
    ),
    Concept(("Tuberculosis",), ("tuberculosis", "pulmonary tuberculosis", "tuberculous infection")),
)
_CONCEPT_OF = {plain(name): concept for concept in CONCEPTS for name in concept.names}

WORDINGS = ("report", "plain", "paper", "templates")
BIOVIL = "biovil"
BIOVIL_PAIR = Pair(("Findings suggesting pneumonia.",), ("No evidence of pneumonia",))


class _Variants(NamedTuple):
    """A class of CheXpert 5x200: its prompts are severity x subtype x location."""

    severities: tuple[str, ...]
    subtypes: tuple[str, ...]
    locations: tuple[str, ...]


_CLASSES = {
    "atelectasis": _Variants(
        ("", "slight", "moderate"),
        ("atelectasis", "plate-like atelectasis", "segmental atelectasis", "dependent atelectasis"),
        ("", "in the left lower lobe", "in the right lower lobe", "in the middle lobe", "on both sides"),
    ),
    "cardiomegaly": _Variants(
        ("", "slight", "moderate", "marked"),
        ("cardiomegaly", "enlargement of the heart", "widening of the cardiac silhouette"),
        ("",),
    ),
    "consolidation": _Variants(
        ("", "subtle", "dense"),
        ("consolidation", "airspace consolidation", "lobar consolidation", "patchy consolidation"),
        ("", "in the left lower lobe", "in the right lower lobe", "in an upper lobe", "on both sides"),
    ),
    "edema": _Variants(
        ("", "slight", "moderate", "marked"),
        ("pulmonary edema", "interstitial edema", "alveolar edema", "edema from heart failure"),
        ("", "on both sides"),
    ),
    "pleural effusion": _Variants(
        ("", "small", "moderate", "large"),
        ("pleural effusion", "layering pleural effusion", "loculated pleural effusion"),
        ("", "on the left", "on the right", "on both sides"),
    ),
}


def known_labels() -> tuple[str, ...]:
    """All names that have sentences, "No finding" last; others are known where `tables.plain` makes them the same."""
    return (*(name for concept in CONCEPTS for name in concept.names), NO_FINDING)


@lru_cache(maxsize=1024)
def sentences(label: str, state: str) -> tuple[str, ...]:
    """All sentences that `prompt` draws from, in a fixed order; none where a label has none in that state.

    Raises:
        ValueError: the state is not one of `annotations.STATES`.
    """
    if state not in STATES:
        raise ValueError(f"A label's state is one of {', '.join(STATES)}, not {state!r}.")
    if plain(label) == plain(NO_FINDING):
        return NORMAL_SENTENCES if state == "positive" else ()
    concept = _CONCEPT_OF.get(plain(label))
    if concept is None:
        return ()
    own = {"positive": concept.positive, "negative": concept.negative}.get(state, ())
    return tuple(dict.fromkeys((*own, *_filled(TEMPLATES[state], concept.expressions))))


def prompt(label: str, state: str, rng: random.Random) -> str:
    """One sentence that says a label's state, lower case, with a full stop.

    Args:
        label: a data set's name of it.
        state: "positive", "negative" or "uncertain".

    Raises:
        ValueError: the label has no sentence in this state, or there is no such state.
    """
    choices = sentences(label, state)
    if not choices:
        raise ValueError(f"The label {label!r} has no {state} prompts.")
    return rng.choice(choices)


def text_of(states: Mapping[str, str], rng: random.Random, negatives: int | None = 3, normal: bool = True) -> str:
    """What a radiograph's labels say, as a text: sentences in random order, joined by blanks; "" where there are none.

    All positive and all uncertain labels have a sentence each, and some of the negative ones. Labels without sentences
    (`sentences` says which) are left out. Two names of one thing have one sentence: positive before uncertain before
    negative.

    Args:
        states: {label: state}; the same mapping, in the same order, and the same seed give the same text.
        negatives: how many negative labels, at most; they are drawn anew each time. None: all.
        normal: whether "No finding", where positive, gives a sentence about a normal radiograph.

    Raises:
        ValueError: there is no such state, or `negatives` is below 0.

    Source: You et al., CXR-CLIP (2023), arXiv 2310.13292, section 3.1. Its release draws 3 negatives for
        ChestX-ray14, takes all that are mentioned for CheXpert, and writes nothing for "No finding".
    """
    if negatives is not None and negatives < 0:
        raise ValueError(f"The number of negative labels is {negatives}; it cannot be below 0.")
    labels: dict[str, dict[tuple[str, ...], str]] = {state: {} for state in STATES}
    for label, state in states.items():
        if sentences(label, state) and (normal or plain(label) != plain(NO_FINDING)):
            labels[state].setdefault(_thing(label), label)
    said = labels["positive"] | {thing: label for thing, label in labels["uncertain"].items()}
    uncertain = [label for thing, label in labels["uncertain"].items() if thing not in labels["positive"]]
    negative = [label for thing, label in labels["negative"].items() if thing not in said]
    if negatives is not None and negatives < len(negative):
        negative = rng.sample(negative, negatives)
    chosen = {"positive": list(labels["positive"].values()), "negative": negative, "uncertain": uncertain}
    text = [prompt(label, state, rng) for state, of_state in chosen.items() for label in of_state]
    rng.shuffle(text)
    return " ".join(text)


def evaluation_pair(label: str, wording: str = "report") -> Pair:
    """The sentences by which zero-shot tells radiographs with a label from those without.

    How they are worded decides the result: a model that learnt from reports knows what reports say, and may rank by
    other sentences hardly better than chance. So there are several, and "templates" is the control.

    Args:
        label: a data set's name of it.
        wording: "report", up to two sentences a side as reports have them; "plain", up to two that say that it is
            there and that it is not, as training texts made of labels do; "paper", the name itself and "No " before
            it, without a full stop; "templates", five templates with each expression, none of them a report's;
            "biovil", for Pneumonia alone: BioViL's pair, which the paper takes for RSNA.

    Raises:
        ValueError: the label has no prompts, or none on one side ("No finding"); the wording is unknown, or "biovil"
            for another label.

    Source: "paper", "biovil": CXR-CLIP (2023), arXiv 2310.13292, section 4.3.
    """
    concept = _CONCEPT_OF.get(plain(label))
    if concept is None:
        raise ValueError(f"The label {label!r} has no pair of positive and negative prompts.")
    if wording == "report" and concept.report is not None:
        return concept.report
    if wording in ("report", "plain"):
        first = concept.expressions[:1]
        return Pair(
            concept.positive or _filled(("there is {full}.",), first),
            concept.negative or _filled(("there is no {bare}.",), first),
        )
    if wording == "paper":
        return Pair((label,), (f"No {label}",))
    if wording == "templates":
        return Pair(*(_filled(side, concept.expressions) for side in CONTROL_TEMPLATES))
    if wording == BIOVIL:
        if plain(label) != "pneumonia":
            raise ValueError(f"The wording {BIOVIL!r} is for Pneumonia alone, not for {label!r}.")
        return BIOVIL_PAIR
    raise ValueError(f"The wording of prompts is one of {', '.join((*WORDINGS, BIOVIL))}, not {wording!r}.")


def class_prompts(label: str) -> tuple[str, ...]:
    """The sentences of one of CheXpert 5x200's five classes: each severity with each subtype at each location.

    A radiograph's similarity to the class is the mean over all of them. The idea is GLoRIA's, the words are ours.

    Raises:
        ValueError: the label is not one of the five.

    Source: Huang et al., GLoRIA, ICCV 2021, section 4.3.
    """
    concept = _CONCEPT_OF.get(plain(label))
    variants = _CLASSES.get(plain(concept.names[0])) if concept else None
    if variants is None:
        raise ValueError(f"{label!r} is not one of the five classes of CheXpert 5x200.")
    return tuple(" ".join(filter(None, words)) + "." for words in itertools.product(*variants))


def _thing(label: str) -> tuple[str, ...]:
    """What a label names: the same for all names of one concept."""
    concept = _CONCEPT_OF.get(plain(label))
    return concept.names if concept else (NO_FINDING,)


def _filled(templates: tuple[str, ...], expressions: tuple[str, ...]) -> tuple[str, ...]:
    """Each template with each expression in it."""
    return tuple(
        dict.fromkeys(
            template.format(full=expression, bare=re.sub(r"^an? ", "", expression))
            for template in templates
            for expression in expressions
        )
    )
