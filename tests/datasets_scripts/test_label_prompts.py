import random
import re
import subprocess
import sys

import pytest

from litegpt.datasets_scripts import chestx_ray14, chexpert, mimic_cxr, open_i, vindr_cxr
from litegpt.datasets_scripts.annotations import STATES
from litegpt.datasets_scripts.label_prompts import (
    BIOVIL,
    CONCEPTS,
    NORMAL_SENTENCES,
    WORDINGS,
    class_prompts,
    evaluation_pair,
    known_labels,
    prompt,
    sentences,
    text_of,
)
from litegpt.datasets_scripts.tables import plain
from litegpt.processing.answers import NO_FINDING

CHEXPERT = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
WITHOUT_PROMPTS = ("Other lesion", "Other diseases", "Other disease", "Other abnormality")
OF_DATA_SETS = {
    *CHEXPERT,
    *vindr_cxr.FINDING_LABELS,
    *(
        label
        for data_set in (vindr_cxr, chestx_ray14, chexpert, mimic_cxr, open_i)
        for label in data_set.DIAGNOSIS_LABELS
    ),
}
LABELS = sorted(OF_DATA_SETS - set(WITHOUT_PROMPTS))
NEGATIONS = {"no", "not", "nor", "never", "without", "absent", "cannot", "free", "negative", "intact", "normal"}
NAMES = [name for concept in CONCEPTS for name in concept.names]


def words(sentence):
    return set(re.findall(r"[a-z]+", sentence.lower()))


@pytest.mark.parametrize("label", LABELS)
def test_every_label_of_the_data_sets_has_sentences_in_every_state(label):
    if plain(label) == plain(NO_FINDING):
        assert sentences(label, "positive") == NORMAL_SENTENCES
        assert sentences(label, "negative") == sentences(label, "uncertain") == ()
    else:
        assert all(len(sentences(label, state)) >= 6 for state in STATES)
    assert plain(label) in map(plain, known_labels())


def test_the_labels_without_sentences_are_those_that_name_no_one_thing():
    assert {label for label in OF_DATA_SETS if not sentences(label, "positive")} == {"Other lesion", "Other diseases"}


@pytest.mark.parametrize("label", WITHOUT_PROMPTS)
def test_a_label_that_names_no_one_thing_is_refused_by_name_and_left_out_of_texts(label):
    for state in STATES:
        with pytest.raises(ValueError, match=f"'{label}' has no {state} prompts"):
            prompt(label, state, random.Random(0))
        assert text_of({label: state}, random.Random(0)) == ""
    for wording in WORDINGS:
        with pytest.raises(ValueError, match=label):
            evaluation_pair(label, wording)
    assert label not in known_labels()


@pytest.mark.parametrize("state", ["negative", "uncertain"])
def test_no_finding_is_only_said_where_it_is_positive(state):
    assert prompt("No Finding", "positive", random.Random(0)) in NORMAL_SENTENCES
    with pytest.raises(ValueError, match=f"'No finding' has no {state} prompts"):
        prompt("No finding", state, random.Random(0))
    assert text_of({"No finding": state}, random.Random(0)) == ""
    with pytest.raises(ValueError, match="'No finding' has no pair"):
        evaluation_pair("No finding")


@pytest.mark.parametrize("name", NAMES)
def test_negation_stands_in_negative_sentences_alone(name):
    for state in ("positive", "uncertain"):
        assert [s for s in sentences(name, state) if words(s) & NEGATIONS] == []
    own = [concept.negative for concept in CONCEPTS if name in concept.names][0]
    assert [s for s in sentences(name, "negative") if not words(s) & NEGATIONS and s not in own] == []


def test_own_negative_sentences_without_a_negation_are_these():
    """Each was read: it says that all is well."""
    own = {s for concept in CONCEPTS for s in concept.negative if not words(s) & NEGATIONS}
    assert own == {
        "the costophrenic angles are sharp.",
        "the lungs are normally inflated.",
        "the mediastinum is midline.",
        "the spine is straight.",
    }


def test_no_sentence_says_two_states():
    said = {state: {s for name in known_labels() for s in sentences(name, state)} for state in STATES}
    assert not said["positive"] & said["negative"]
    assert not said["positive"] & said["uncertain"]
    assert not said["negative"] & said["uncertain"]


def test_sentences_are_in_lower_case_with_a_full_stop_and_grammatical_articles():
    for name in known_labels():
        for state in STATES:
            for sentence in sentences(name, state):
                assert re.fullmatch(r"[a-z][a-z ,/-]*\.", sentence), sentence
                assert not re.search(r"\b(no|without|possible|a) an? |\ba [aeio]|\ban [^aeio]|  ", sentence), sentence
            assert len(set(sentences(name, state))) == len(sentences(name, state))


def test_the_table_has_two_to_four_expressions_a_line_two_sentences_a_side_and_each_name_once():
    assert len({plain(name) for name in NAMES}) == len(NAMES)
    for concept in CONCEPTS:
        assert 2 <= len(set(concept.expressions)) == len(concept.expressions) <= 4
        assert len(concept.positive) <= 2 and len(concept.negative) <= 2
    expressions = [expression for concept in CONCEPTS for expression in concept.expressions]
    assert len(set(expressions)) == len(expressions), "an expression stands for two things"


@pytest.mark.parametrize(
    "names",
    [
        ("Effusion", "Pleural Effusion", "Pleural effusion", "pleural_effusion"),
        ("Fibrosis", "Pulmonary fibrosis"),
        ("Infiltrate", "Infiltration"),
        ("Lung Opacity", "lung opacity", "Opacity"),
        ("Pleural thickening", "Pleural_Thickening"),
    ],
)
def test_names_of_one_thing_are_one_concept(names):
    for state in STATES:
        assert len({sentences(name, state) for name in names}) == 1
    text = text_of(dict.fromkeys(names, "positive"), random.Random(0))
    assert text in sentences(names[0], "positive")
    mixed = {names[0]: "negative", names[1]: "uncertain", "Hernia": "positive"}
    parts = set(re.findall(r"[^.]+\.", text_of(mixed, random.Random(0)).replace(". ", ".")))
    assert len(parts) == 2 and len(parts & set(sentences(names[0], "uncertain"))) == 1


def parts_of(text):
    return [part + "." for part in text.removesuffix(".").split(". ")] if text else []


@pytest.mark.parametrize("negatives", [0, 1, 3, 100, None])
def test_a_text_has_all_positive_and_uncertain_labels_and_as_many_negative_ones_as_asked_for(negatives):
    states = {
        "Cardiomegaly": "positive",
        "Edema": "uncertain",
        "Effusion": "positive",
        "Other lesion": "positive",
        **dict.fromkeys(("Mass", "Nodule", "Hernia", "Pneumonia", "Pneumothorax", "Other diseases"), "negative"),
    }
    absent = [label for label, state in states.items() if state == "negative" and label != "Other diseases"]
    drawn = set()
    for seed in range(60):
        parts = parts_of(text_of(states, random.Random(seed), negatives))
        said = [
            [label for label in ("Cardiomegaly", "Effusion") if part in sentences(label, "positive")]
            + [label for label in ("Edema",) if part in sentences(label, "uncertain")]
            + [label for label in absent if part in sentences(label, "negative")]
            for part in parts
        ]
        assert all(len(labels) == 1 for labels in said)
        labels = [name for (name,) in said]
        assert len(set(labels)) == len(labels)
        assert set(labels) >= {"Cardiomegaly", "Effusion", "Edema"}
        assert len(labels) == 3 + (len(absent) if negatives is None else min(negatives, len(absent)))
        drawn.update(set(labels) & set(absent))
    assert drawn == (set(absent) if negatives != 0 else set())


def test_sentences_stand_in_random_order():
    states = {"Cardiomegaly": "positive", "Edema": "negative"}
    first = {parts_of(text_of(states, random.Random(seed)))[0] in sentences("Edema", "negative") for seed in range(30)}
    assert first == {True, False}


def test_a_normal_radiograph_is_said_to_be_one_or_not_as_asked_for():
    states = {"No finding": "positive", "Edema": "negative"}
    parts = parts_of(text_of(states, random.Random(0)))
    assert len(parts) == 2 and set(parts) & set(NORMAL_SENTENCES)
    assert text_of(states, random.Random(0), normal=False) in sentences("Edema", "negative")
    assert text_of({"No finding": "positive"}, random.Random(0), normal=False) == text_of({}, random.Random(0)) == ""


def test_the_same_seed_gives_the_same_text_in_another_process_whatever_its_hashes():
    states = {label: STATES[number % 3] for number, label in enumerate(LABELS)}
    code = (
        "import random; from litegpt.datasets_scripts.label_prompts import text_of; "
        f"print(text_of({states!r}, random.Random(7)))"
    )
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == text_of(states, random.Random(7))
    assert text_of(states, random.Random(8)) != text_of(states, random.Random(7))


def test_the_given_generator_alone_decides():
    random.seed(0)
    before = random.getstate()
    rng = random.Random(3)
    texts = [text_of({"Edema": "positive", "Mass": "negative"}, rng) for _ in range(20)]
    assert random.getstate() == before and len(set(texts)) > 5


def test_a_state_that_does_not_exist_and_a_negative_number_are_refused():
    with pytest.raises(ValueError, match="not 'absent'"):
        prompt("Edema", "absent", random.Random(0))
    with pytest.raises(ValueError, match="not 'absent'"):
        text_of({"Edema": "absent"}, random.Random(0))
    with pytest.raises(ValueError, match="is -1"):
        text_of({"Edema": "negative"}, random.Random(0), negatives=-1)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_have_both_sides_and_share_no_sentence(name):
    for wording in WORDINGS:
        pair = evaluation_pair(name, wording)
        assert pair.positive and pair.negative and not set(pair.positive) & set(pair.negative)
    report, simple, paper = (evaluation_pair(name, wording) for wording in ("report", "plain", "paper"))
    assert all(len(side) <= 2 for side in (*report, *simple))
    # Plain sentences are among those of training, so that a model trained on labels knows them.
    assert set(simple.positive) <= set(sentences(name, "positive"))
    assert set(simple.negative) <= set(sentences(name, "negative"))
    # Reports' own are not where they say more than a label knows: a side, a lobe, that the lungs are clear.
    if report != simple and name != "Cardiomegaly":
        assert not set(report.negative) & {"the lungs are clear."} & set(sentences(name, "negative"))
    assert paper == ((name,), (f"No {name}",))


@pytest.mark.parametrize("name", NAMES)
def test_the_control_of_wording_has_five_templates_and_no_training_sentence(name):
    pair = evaluation_pair(name, "templates")
    (concept,) = [concept for concept in CONCEPTS if name in concept.names]
    bare = {expression.removeprefix("an ").removeprefix("a ") for expression in concept.expressions}
    assert len(pair.positive) >= 5 * len(bare) and len(pair.negative) == 5 * len(bare)
    known = {s for state in STATES for s in sentences(name, state)}
    assert not known & {*pair.positive, *pair.negative}
    assert all(words(s) & NEGATIONS for s in pair.negative) and not any(words(s) & NEGATIONS for s in pair.positive)


def test_the_pairs_that_the_issue_names():
    assert "the heart is enlarged." in evaluation_pair("Cardiomegaly").positive
    assert "heart size is normal." in evaluation_pair("Cardiomegaly").negative
    assert evaluation_pair("Pneumonia", BIOVIL) == (
        ("Findings suggesting pneumonia.",),
        ("No evidence of pneumonia",),
    )
    with pytest.raises(ValueError, match="Pneumonia alone, not for 'Edema'"):
        evaluation_pair("Edema", BIOVIL)
    with pytest.raises(ValueError, match="one of report, plain, paper, templates, biovil, not 'mine'"):
        evaluation_pair("Edema", "mine")


@pytest.mark.parametrize("label", FIVE)
def test_class_prompts_are_distinct_positive_sentences_that_name_their_class_alone(label):
    prompts = class_prompts(label)
    assert len(prompts) == len(set(prompts)) >= 12
    assert all(re.fullmatch(r"[a-z][a-z -]*\.", s) and "  " not in s and not words(s) & NEGATIONS for s in prompts)
    assert not any(set(prompts) & set(class_prompts(other)) for other in FIVE if other != label)
    assert class_prompts(label.upper()) == prompts
    assert class_prompts("Effusion") == class_prompts("Pleural Effusion")


@pytest.mark.parametrize("label", ["Pneumonia", "No finding", "Other lesion", "Unicorn"])
def test_class_prompts_are_of_the_five_classes_alone(label):
    with pytest.raises(ValueError, match=f"'{label}' is not one of the five classes"):
        class_prompts(label)
