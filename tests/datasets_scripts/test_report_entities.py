"""Entities in reports: every form is found, nothing else, and the published code's blind spots are kept apart."""

import time

import pytest

from litegpt.datasets_scripts.report_entities import ENTITIES, Mention, mentions, release_mentions


def named(text: str) -> list[str]:
    return [mention.entity for mention in mentions(text)]


def test_there_are_44_entities_and_no_form_names_two():
    forms = [form for name, others in ENTITIES.items() for form in (name.lower(), *others)]
    assert len(ENTITIES) == 44 and len(forms) == len(set(forms))


@pytest.mark.parametrize(("name", "forms"), ENTITIES.items(), ids=ENTITIES)
def test_each_form_is_found_in_any_case_and_is_the_whole_mention(name, forms):
    for form in (name, *forms):
        for written in (form, form.upper(), form.capitalize(), form.replace(" ", "-"), form.replace(" ", "\n ")):
            text = f"No {written}, seen."
            assert mentions(text) == [Mention(3, 3 + len(written), name)], written


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("Small bilateral pleural effusions.", ["effusion"]),
        ("Known COPD, copd and Copd", ["COPD"] * 3),
        ("The lungs are well aerated and not hyperinflated.", ["aerate", "hyperinflate"]),
        ("congestive heart failure with congestion", ["chf", "congestion"]),
        ("peri-hilar and hilar opacities", ["perihilar", "hilar", "opacity"]),
        ("effusion/atelectasis,pneumonia.", ["effusion", "atelectasis", "pneumonia"]),
        ("", []),
    ],
)
def test_the_entities_of_a_text_come_in_its_order(text, entities):
    assert named(text) == entities


@pytest.mark.parametrize(
    "text",
    ["masslike", "mass-like", "No mass effect.", "amass", "herniation2", "contoured", "obscurely", "non-calcified"],
)
def test_a_part_of_a_word_and_another_thing_are_no_mention(text):
    assert named(text) == []


def test_the_release_sees_names_alone_and_three_of_them_never():
    text = "Effusions, an effusion; COPD copd aerate hyperinflate, opacities and OPACITY2."
    assert [text[start:end] for start, end, _ in release_mentions(text)] == ["effusion", "OPACITY"]
    assert [mention.entity for mention in release_mentions(text)] == ["effusion", "opacity"]
    unseen = {name for name in ENTITIES if not release_mentions(name)}
    assert unseen == {"COPD", "aerate", "hyperinflate"}


def test_what_the_release_finds_is_found_here_too():
    text = "There is no effusion or pneumothorax. Hilar contour and chf, edema: perihilar mass."
    assert release_mentions(text) == mentions(text)


def test_a_long_text_is_read_in_linear_time():
    start = time.perf_counter()
    assert mentions("chronic obstructive " * 100_000 + "congestive \n" * 10_000 + " " * 100_000) != []
    assert time.perf_counter() - start < 5
