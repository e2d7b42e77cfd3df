from litegpt.common.answers_in_words import in_words, words_in_words

BOX = {"xmin": 389, "ymin": 532, "xmax": 829, "ymax": 758}
NOTHING = {"findings": [], "diagnoses": [], "answers": {}, "malformed": {}, "warnings": []}


def texts(**output) -> list[str]:
    return [said.text for said in in_words({**NOTHING, **output})]


def test_a_phrase_is_seen_where_it_has_boxes_and_says_how_sure_that_is():
    phrases = [
        {"phrase": "enlarged heart", "present": 0.97, "boxes": [{"score": 0.87, "box": BOX}]},
        {"phrase": "pneumothorax", "present": 0.03, "boxes": []},
        {"phrase": "nodule", "present": None, "boxes": [{"score": None, "box": BOX}]},
        {"phrase": "mass", "present": None, "boxes": []},
    ]
    assert texts(phrases=phrases) == [
        '"enlarged heart": seen, probability 0.97; at 389 532 829 758 (0.87)',
        '"pneumothorax": not seen, probability of it 0.03',
        '"nodule": seen; at 389 532 829 758',
        '"mass": not seen',
    ]
    assert "389" not in next(words_in_words({"phrases": phrases}, with_boxes=False)).text


def test_free_text_is_called_unverified_and_a_doubtful_sentence_doubtful():
    sentences = [
        {"text": "There is cardiomegaly.", "probability": 0.91, "verified": False, "doubtful": False},
        {"text": "There is an effusion.", "probability": 0.31, "verified": False, "doubtful": True},
        {"text": "No fracture.", "probability": None, "verified": False, "doubtful": None},
    ]
    found = list(in_words({**NOTHING, "report": sentences}))
    assert [said.text for said in found] == [
        "Report, free text that nobody has verified:",
        "  0.91  There is cardiomegaly.",
        "  0.31  There is an effusion. [doubtful]",
        "  No fracture.",
    ]
    assert [said.is_caution for said in found] == [True, False, True, False]
    replies = [{"question": "A fracture?", "text": "No.", "score": 0.5, "verified": False}]
    assert texts(replies=replies) == ["A fracture? -> No. (unverified)"]
    descriptions = [{"box": BOX, "text": "Cardiomegaly", "score": 0.5, "verified": True}]
    assert texts(descriptions=descriptions) == ["In the box 389 532 829 758: Cardiomegaly"]


def test_findings_diagnoses_and_what_speaks_against_them_stand_there_too():
    answered = {"answers": {"identify": "", "vqa": ""}, "malformed": {"identify": None, "report": "it is cut off"}}
    assert texts(**answered, warnings=["it is dark"], caution="untrained") == [
        "Answer not understood: report: it is cut off",
        "No finding is named.",
        "Warning: it is dark",
        "Caution: untrained",
    ]
    found = {"findings": [{"label": "ILD", "score": 0.5, "box": BOX}], "diagnoses": [{"label": "COPD", "score": None}]}
    assert texts(**answered | found)[1:3] == ["Findings: ILD at 389 532 829 758 (0.50)", "Diagnoses: COPD"]
