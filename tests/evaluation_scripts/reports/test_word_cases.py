import re

from PIL import Image

from litegpt.evaluation_scripts.reports.word_cases import cases_html, drawn_cases, word_case
from litegpt.evaluation_scripts.word_questions import WordQuestion

BOX, TRUE = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.3]


def sentence(text, probability, doubtful, *boxes):
    entry = {"text": text, "probability": probability, "verified": False, "doubtful": doubtful}
    return entry | {"boxes": [{"score": 0.5, "box": list(box)} for box in boxes]}


def case():
    """A radiograph that was asked everything."""
    truth = [{"text": "There is edema.", "boxes": [TRUE]}, {"text": "There is no mass.", "boxes": []}]
    asked = {
        "refer": [
            WordQuestion(0, "refer", "large heart", "", [TRUE]),
            WordQuestion(0, "refer", "effusion", "", []),
            WordQuestion(0, "refer", "mass", "", []),
        ],
        "report": [WordQuestion(0, "report", None, "All is well.")],
        "grounded_report": [WordQuestion(0, "grounded_report", None, "", truth)],
        "describe": [WordQuestion(0, "describe", "{<1><2><3><4>}", "Cardiomegaly")],
        "question": [WordQuestion(0, "question", "Is it big?", "yes", True)],
    }
    phrase = {"phrase": "large heart", "present": 0.914, "boxes": [{"score": 0.5, "box": BOX}]}
    lines = {
        ("refer", "large heart"): {"phrases": [phrase]},
        ("refer", "effusion"): {"phrases": [{"phrase": "effusion", "present": 0.04, "boxes": []}]},
        ("refer", "mass"): {"phrases": [], "malformed": "it does not end"},
        ("report", None): {"report": [sentence("All is well.", None, None)], "warnings": ["dark", "untrained"]},
        ("grounded_report", None): {
            "grounded_report": [
                sentence("There is edema.", 0.97, False, BOX, TRUE),
                sentence("There is a mass.", 0.31, True),
            ]
        },
        ("describe", "{<1><2><3><4>}"): {
            "answer": "Cardiomegaly",
            "descriptions": [{"box": BOX, "text": "Cardiomegaly", "score": 0.6, "verified": True}],
        },
        ("question", "Is it big?"): {
            "answer": "no",
            "replies": [{"question": "Is it big?", "text": "no", "score": None, "verified": False}],
        },
    }
    lines = {(0, *key): {"answer": "...", "malformed": None, **line} for key, line in lines.items()}
    row = {"image_id": "c0ffee", "image": Image.new("L", (960, 480))}
    return row, asked, lines


def test_every_sentence_has_its_probability_its_mark_and_its_boxes():
    shown = word_case(*case(), said=["untrained"])
    assert shown.image_id == "c0ffee" and shown.warnings == ["dark"]
    grounded, report, phrases, descriptions, questions = shown.blocks
    assert grounded.items[0] == ("1", "There is edema.", "97 %", ["unverified"], "")
    assert grounded.items[1] == ("", "There is a mass.", "31 %", ["unverified", "doubtful"], "")
    assert grounded.truth == "There is edema. There is no mass."
    assert [box.origin for box in grounded.picture.rectangles] == ["true", "answered", "answered"]
    assert {word.rectangle.label for word in grounded.picture.words} == {"1"}  # as in the list
    assert grounded.picture.rectangles[1][3:] == (48, 24, 192, 96)  # pixels of the small picture, 480 x 240
    assert report.items[0].stated == "" and report.truth == "All is well." and report.picture is None
    assert phrases.items == [
        ("a", "large heart", "91 %", [], "1 box, IoU 0.50"),
        ("", "effusion", "4 %", ["no box"], "not there"),
        ("", "mass", "", ["cannot be read: it does not end"], "not there"),
    ]
    assert descriptions.items[0].marks == [] and descriptions.items[0].stated == "60 %"
    assert questions.items[0] == ("", "Is it big? no", "", ["unverified"], "yes")


def test_a_malformed_report_is_shown_as_it_is():
    row, asked, lines = case()
    lines[0, "report", None] |= {"report": [], "malformed": "it is cut off", "answer": "Rubbish and"}
    (_, report, *_) = word_case(row, asked, lines).blocks
    assert report.items == [("", "Rubbish and", "", ["unverified", "cannot be read: it is cut off"], "")]


def test_a_radiograph_without_boxes_to_show_is_shown_once():
    row, asked, lines = case()
    assert word_case(row, asked, lines).picture is None
    assert word_case(row, {"question": asked["question"]}, lines).picture.width == 480


def test_the_radiographs_are_the_same_in_every_run_and_no_more_than_there_are():
    row, asked, lines = case()
    questions = [asked["question"][0]._replace(image=image) for image in range(20)]
    rows = [row | {"image_id": f"image{image}"} for image in range(20)]
    many = {(image, "question", "Is it big?"): lines[0, "question", "Is it big?"] for image in range(20)}
    first, again = (drawn_cases({"question": questions}, many, rows, 5) for _ in range(2))
    assert [one.image_id for one in first] == [one.image_id for one in again] and len(first) == 5
    assert len(drawn_cases({"question": questions}, many, rows, 50)) == 20
    # Half of them have a box, where there are so few.
    phrase = asked["refer"][0]
    boxed = {"question": questions, "refer": [phrase._replace(image=image) for image in (3, 7)]}
    many |= {(image, *phrase[1:3]): lines[0, "refer", "large heart"] for image in (3, 7)}
    assert {"image3", "image7"} < {one.image_id for one in drawn_cases(boxed, many, rows, 4)}


def test_the_page_marks_what_is_doubtful():
    html = re.sub(r"\s+", " ", cases_html([word_case(*case())]))
    assert '<b class="mark">unverified</b> <b class="mark doubt">doubtful</b>' in html
    assert html.count('<rect class="answered"') == 3 and html.count('<rect class="true"') == 2
    assert '<b class="letter">1</b> There is edema. <b class="stated">97 %</b>' in html
