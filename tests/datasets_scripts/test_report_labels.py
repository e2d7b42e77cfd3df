"""Which labels rules read in reports. All sentences are made up here."""

import time

import pytest

from litegpt.datasets_scripts.report_entities import ENTITIES
from litegpt.datasets_scripts.report_labels import LABELS, label_states, meaning
from litegpt.metrics.grounded_reports import report_counts
from litegpt.metrics.report_labels import CHEXPERT_LABELS

SIGNS = {"positive": "+", "negative": "-", "uncertain": "?"}
# Short forms for the table below.
SHORT = {
    "EC": "Enlarged Cardiomediastinum",
    "CM": "Cardiomegaly",
    "LO": "Lung Opacity",
    "LL": "Lung Lesion",
    "ED": "Edema",
    "CO": "Consolidation",
    "PN": "Pneumonia",
    "AT": "Atelectasis",
    "PT": "Pneumothorax",
    "PE": "Pleural Effusion",
    "PO": "Pleural Other",
    "FR": "Fracture",
    "SD": "Support Devices",
}


def said(text: str) -> list[str]:
    """Each label in short, without No Finding: "+CM", "-PE", "?PN"."""
    short = {label: name for name, label in SHORT.items()}
    return [SIGNS[state] + short[label] for label, state in label_states(text).items() if label in short]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mediastinum is widened.", ["+EC"]),
        ("No mediastinal widening.", ["-EC"]),
        ("The cardiomediastinal silhouette is normal.", ["-EC"]),
        ("Mediastinal contours are within normal limits.", ["-EC"]),
        ("Calcified mediastinal nodes.", []),
        ("Moderate cardiomegaly.", ["+CM"]),
        ("The heart is mildly enlarged.", ["+CM"]),
        ("The heart size appears somewhat large.", ["+CM"]),
        ("Heart size is normal.", ["-CM"]),
        ("Patchy airspace disease at the left base.", ["+LO"]),
        ("The lungs are clear.", ["-LO"]),
        ("Increased interstitial markings.", ["+LO"]),
        ("Decreased bone density.", []),
        ("A nodule in the right upper lobe.", ["+LL"]),
        ("No osseous lesions.", []),
        ("Possible metastasis.", ["?LL"]),
        ("Pulmonary vascular congestion.", ["+ED"]),
        ("No pulmonary edema.", ["-ED"]),
        ("Soft tissue edema of the shoulder.", []),
        ("Right lower lobe consolidation.", ["+CO"]),
        ("Findings are concerning for infection.", ["?PN"]),
        ("Signs of an old fungal infection.", []),
        ("Bibasilar atelectasis.", ["+AT"]),
        ("Vertebral collapse.", []),
        ("Partial collapse of the left lung.", ["+AT"]),
        ("Small apical pneumothorax.", ["+PT"]),
        ("Large left hydropneumothorax.", ["+PT", "+PE"]),
        ("Bilateral pleural fluid.", ["+PE"]),
        ("Pericardial effusion.", []),
        ("Biapical pleural scarring.", ["+PO"]),
        ("Peribronchial thickening.", []),
        ("Healed rib fracture.", ["+FR"]),
        ("Small fractures might not be visible.", []),
        ("Views for the evaluation of fractures.", []),
        ("A left chest pacemaker with leads in place.", ["+SD"]),
        ("Sternotomy wires and surgical clips.", ["+SD"]),
        ("The endotracheal tube has been removed.", ["-SD"]),
        ("A right port and a PICC line.", ["+SD"]),
        ("Portable radiograph.", []),
    ],
)
def test_a_sentence_states_its_labels(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. Small left effusion on the lateral view.", ["+PE"]),
        ("Left basilar opacity. No focal airspace disease.", ["+LO"]),
        ("No pneumonia. Pneumonia cannot be excluded.", ["?PN"]),
        ("Possible effusion. Left effusion.", ["+PE"]),
        ("No interval change in the pneumothorax or effusion.", ["+PT", "+PE"]),
        ("No effusion is seen, nodule in the left lung.", ["+LL", "-PE"]),
        ("Effusion\nNo effusion or edema", ["-ED", "+PE"]),
        ("XXXX sternotomy XXXX. No XXXX infiltrate.", ["-LO", "+SD"]),
    ],
)
def test_the_strongest_state_holds(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "is_stated"),
    [
        ("The heart is normal. The lungs are clear.", True),
        ("Calcified granuloma.", True),
        ("Pacemaker in place.", True),
        ("Possible atelectasis.", False),
        ("Rib fracture.", False),
        ("", False),
        (" XXXX \n ___", False),
    ],
)
def test_no_finding_is_stated_where_no_label_but_devices_is(text, is_stated):
    states = label_states(text)
    assert states.get("No Finding") == ("positive" if is_stated else None)
    assert text.strip(" X_\n") or states == {}


def test_labels_stand_in_the_order_of_the_metric():
    states = label_states("Pacemaker. No edema. Cardiomegaly. Fracture. No mass.")
    assert list(states) == [label for label in CHEXPERT_LABELS if label in states] and len(states) == 5


def test_every_label_has_a_rule_of_known_entities():
    assert tuple(rule.label for rule in LABELS) == CHEXPERT_LABELS[:-1]
    assert all(set(rule.entities) <= ENTITIES.keys() for rule in LABELS)


def test_the_documented_examples():
    assert label_states(
        "The heart is enlarged. No effusion or pneumothorax. Possible infection at the left base."
    ) == {
        "Cardiomegaly": "positive",
        "Pneumonia": "uncertain",
        "Pneumothorax": "negative",
        "Pleural Effusion": "negative",
    }
    assert label_states("Pacemaker leads are in place. The lungs are clear.") == {
        "Lung Opacity": "negative",
        "Support Devices": "positive",
        "No Finding": "positive",
    }


def test_sentences_with_the_same_labels_and_states_mean_the_same():
    assert meaning("There is a left effusion.") == meaning("Effusion on the left.") != meaning("No effusion.")
    assert meaning("The trachea is midline.") == meaning("the trachea  is midline") != meaning("The ribs are intact.")
    counts = report_counts(
        [[{"text": "Left pleural effusion.", "boxes": []}]],
        [[{"text": "There is an effusion.", "boxes": []}]],
        meaning,
    )
    assert counts.matched_with_boxes[0] == 1


def test_a_long_text_without_an_end_is_read_in_time():
    start = time.perf_counter()
    label_states("no effusion seen, and mass " * 2000)
    assert time.perf_counter() - start < 20
