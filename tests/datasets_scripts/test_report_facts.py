"""What rules read in reports. All sentences are made up here."""

import time

import pytest

from litegpt.datasets_scripts.report_facts import ANATOMY, Fact, distilled, facts_of, sentence_of, singular


def said(text: str) -> list[str]:
    """Each fact in short: "-effusion", "?mild edema", "+opacity @ in the left lung"."""
    signs = {"positive": "+", "negative": "-", "uncertain": "?"}
    return [f"{signs[fact.state]}{fact.thing}{fact.place and ' @ '}{fact.place}" for fact in facts_of(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is an effusion.", ["+effusion"]),
        ("No effusion or pneumothorax.", ["-effusion", "-pneumothorax"]),
        ("No effusion, pneumothorax or mass is seen.", ["-effusion", "-pneumothorax", "-mass"]),
        ("No edema, effusion, nodule.", ["-edema", "-effusion", "-nodule"]),
        ("No evidence of edema and no definite fracture.", ["-edema", "-fracture"]),
        ("The left lung is free of infiltrate.", ["-infiltrate"]),
        ("Negative for pneumonia or collapse.", ["-pneumonia", "-collapse"]),
        ("There is neither edema nor effusion.", ["-edema", "-effusion"]),
        ("Atelectasis rather than pneumonia.", ["+atelectasis", "-pneumonia"]),
        ("There is no longer an effusion.", ["-effusion"]),
        ("The effusion is no longer seen.", ["-effusion"]),
        ("The edema has completely resolved.", ["-edema"]),
        ("Resolution of the pneumothorax.", ["-pneumothorax"]),
        ("Effusion and pneumothorax are not identified.", ["-effusion", "-pneumothorax"]),
        ("Pneumonia is unlikely.", ["-pneumonia"]),
        ("No opacity to suggest pneumonia.", ["-opacity", "-pneumonia"]),
        ("No hilar or mediastinal adenopathy.", ["-hilar or mediastinal adenopathy"]),
    ],
)
def test_a_negation_holds_for_its_list(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion but a small nodule.", ["-effusion", "+small nodule"]),
        ("No effusion, small nodule.", ["-effusion", "+small nodule"]),
        ("No effusion and there is a nodule.", ["-effusion", "+nodule"]),
        ("No abnormality other than a calcified granuloma.", ["-abnormality", "+calcified granuloma"]),
        ("No infiltrate; effusion.", ["-infiltrate", "+effusion"]),
        ("No pneumothorax, possible effusion.", ["-pneumothorax", "?effusion"]),
        ("Small effusion is present and pneumothorax is not seen.", ["+small effusion", "-pneumothorax"]),
        ("No collapse with mild edema.", ["-collapse", "+mild edema"]),
        ("Possible pneumonia, the effusion is larger.", ["?pneumonia", "+effusion"]),
        ("Effusion\nNo mass", ["+effusion", "-mass"]),  # two sections
    ],
)
def test_a_scope_ends_where_the_sentence_turns(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Opacity that may represent pneumonia.", ["+opacity", "?pneumonia"]),
        ("Possible edema.", ["?edema"]),
        ("Findings suspicious for tuberculosis.", ["?tuberculosis"]),
        ("Cannot exclude a fracture.", ["?fracture"]),
        ("A fracture cannot be excluded.", ["?fracture"]),
        ("Pneumonia is suspected.", ["?pneumonia"]),
        ("Atelectasis versus infiltrate.", ["?atelectasis", "?infiltrate"]),
        ("Consolidation or atelectasis.", ["?consolidation", "?atelectasis"]),
        ("Likely atelectasis without effusion.", ["?atelectasis", "-effusion"]),
        ("This most likely represents a granuloma.", ["?granuloma"]),
        ("Borderline cardiomegaly.", ["?cardiomegaly"]),
    ],
)
def test_doubt_is_kept(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No change in the left effusion.", ["+left effusion"]),
        ("Without significant interval change in the nodule.", ["+nodule"]),
        ("Unchanged effusion.", ["+unchanged effusion"]),
        ("Opacity consistent with pneumonia.", ["+opacity", "+pneumonia"]),
        ("The edema has partially resolved.", ["+edema"]),
        ("If there is a fracture, repeat the film.", []),
        ("History of tuberculosis.", []),
        ("CT is recommended to exclude a mass.", []),
        ("There is no doubt: a mass.", ["+mass"]),
    ],
)
def test_what_looks_like_a_negation_or_a_finding_and_is_none(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mild to moderate right pleural effusion.", ["+mild to moderate right pleural effusion"]),
        ("Small, calcified nodules in the left upper lobe.", ["+small calcified nodules @ in the left upper lobe"]),
        ("A 2 x 3 cm right hilar mass.", ["+2 x 3 cm right hilar mass"]),
        ("Left-sided effusions.", ["+left-sided effusions"]),
        ("Perihilar/upper lobe opacities.", ["+perihilar/upper lobe opacities"]),
        ("Calcified mediastinal lymph nodes.", ["+calcified mediastinal lymph nodes"]),
        ("No rib fractures.", ["-rib fracture"]),
        ("Known COPD, no CHF.", ["+COPD", "-CHF"]),
        ("The lungs are mildly hyperinflated.", ["+mild hyperinflation"]),
        ("Seen on the film is an edema.", ["+edema"]),
    ],
)
def test_words_beside_an_entity_stay(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The aorta is tortuous and calcified.", ["+tortuous and calcified aorta"]),
        ("The aorta may be dilated.", ["?dilated aorta"]),
        ("Stable hilar contours.", ["+stable hilar contours"]),
        (
            "The cardiomediastinal silhouette and the vasculature are within normal limits.",
            ["+normal cardiomediastinal silhouette", "+normal vasculature"],
        ),
        ("Normal silhouette, hila and vasculature.", ["+normal silhouette", "+normal hila", "+normal vasculature"]),
        ("Mild elevation of the left hemidiaphragm.", ["+mild elevation of the left hemidiaphragm"]),
        ("Right hemidiaphragm eventration.", ["+right hemidiaphragm eventration"]),
        ("Calcification of the aorta.", ["+calcification @ of the aorta"]),
        ("The silhouette is normal in size and contour.", ["+normal silhouette"]),
        ("A tube lies beside the aorta.", []),
        ("The left hemidiaphragm is not well seen.", []),
    ],
)
def test_anatomy_is_a_fact_with_what_is_said_of_it_alone(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart size is normal.", ["-cardiomegaly"]),
        ("Heart and mediastinum look entirely normal.", ["-cardiomegaly"]),
        ("The heart is not enlarged.", ["-cardiomegaly"]),
        ("The heart is moderately enlarged.", ["+moderate cardiomegaly"]),
        ("A heart at the upper limit of normal.", ["?cardiomegaly"]),
        ("Both lungs are clear.", ["-opacity"]),
        ("Clear lungs.", ["-opacity"]),
        ("The lungs are clear of consolidation.", ["-consolidation"]),
        ("The lungs are clear except for a nodule.", ["+nodule"]),
        ("The lungs are otherwise clear.", []),
        ("The lungs are of normal volume.", []),
        ("The lungs are clear. Left opacity.", ["+left opacity"]),
        ("Left opacity. The lungs are clear.", ["+left opacity"]),  # what is said outright
    ],
)
def test_a_normal_heart_and_clear_lungs_deny(text, expected):
    assert said(text) == expected
    assert all(fact.implied for fact in facts_of("Heart size is normal. Both lungs are clear."))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. Small left effusion.", ["+small left effusion"]),
        ("Left effusion. No effusion.", ["-effusion"]),
        ("Left effusion. No right effusion.", ["+left effusion", "-right effusion"]),
        ("Small effusion. No large effusion.", ["+small effusion", "-large effusion"]),
        ("Possible pneumonia. Pneumonia.", ["+pneumonia"]),
        ("Effusion. Nodule. Effusion.", ["+effusion", "+nodule"]),
        ("Effusion. Nodule. Small effusion.", ["+nodule", "+small effusion"]),
        ("No large effusion. No effusion.", ["-effusion"]),
        ("No effusion. No large effusion.", ["-effusion"]),
        ("No focal consolidation. Right consolidation.", ["+right consolidation"]),
        ("Normal silhouette. Enlarged silhouette.", ["+enlarged silhouette"]),
        ("Nodule. Calcified nodule. No mass.", ["+calcified nodule", "-mass"]),
    ],
)
def test_each_fact_stands_once_and_the_later_one_wins(text, expected):
    assert [entry for entry in said(text) if "cardiomegaly" not in entry] == expected


def test_a_report_becomes_one_line_in_its_order_and_the_impression_wins():
    findings = "Heart size is normal XXXX. No effusion. ___ There are\n calcified granulomas, possible edema"
    assert distilled(findings, "Small effusion.") == (
        "There is no cardiomegaly. There are calcified granulomas. There may be edema. There is small effusion."
    )
    assert distilled(None, None) == distilled("XXXX.", "") == distilled("Nothing to say.", None) == ""


def test_sentences_agree_in_number():
    assert sentence_of(Fact("opacities", "positive", ("opacity",), "in both lungs")) == (
        "There are opacities in both lungs."
    )
    assert sentence_of(Fact("elevation of the hemidiaphragms", "positive", ("hemidiaphragm",))).startswith("There is ")
    words = {"masses": "mass", "opacities": "opacity", "pneumothoraces": "pneumothorax", "lymph nodes": "lymph node"}
    same = ("atelectasis", "hilus", "mass", "emphysema", "abscess", "sarcoidosis")
    assert {word: singular(word) for word in words} == words and all(singular(word) == word for word in same)


def test_every_fact_names_its_entities_with_what_it_is_last():
    (fact,) = facts_of("Calcified right hilar nodule.")
    assert fact.entities == ("calcification", "hilar", "nodule") and fact.entities[-1] not in ANATOMY


def test_a_long_text_without_a_full_stop_takes_no_longer_than_its_length():
    start = time.perf_counter()
    facts_of("no effusion, small nodule and edema or opacity in the left lung, " * 300)
    assert time.perf_counter() - start < 5
