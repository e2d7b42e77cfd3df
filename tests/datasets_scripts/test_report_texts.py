import re

import pytest

from litegpt.datasets_scripts.open_i import kaggle_studies
from litegpt.datasets_scripts.report_texts import sections_of, without_masks

REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough

 COMPARISON:  None.

 FINDINGS:

 The lungs are clear.  PA and lateral: no
 effusion.

 IMPRESSION:

 1. No acute process.
 2. Unchanged.

 NOTIFICATION:   Dr. ___ was called.
"""


def test_sections_end_at_the_next_header_and_are_one_line():
    assert sections_of(REPORT) == (
        "The lungs are clear. PA and lateral: no effusion.",
        "1. No acute process. 2. Unchanged.",
    )


def test_the_last_section_of_a_kind_counts_as_addenda_stand_on_top():
    addendum = " ADDENDUM:\n\n FINDINGS:  Typing error.\n\n IMPRESSION:\n ______________________\n"
    assert sections_of(addendum + REPORT) == sections_of(REPORT)
    assert sections_of(REPORT + " FINDINGS:  \n") == sections_of(REPORT)  # an empty one does not


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (" CONCLUSION:  Clear.", (None, "Clear.")),
        (" SUMMARY:\n Clear.", (None, "Clear.")),
        (" FINAL IMPRESSION:\n Clear.", (None, "Clear.")),
        (" IMPERSSION: Clear.", (None, "Clear.")),
        (" FINDINGS AND IMPRESSION:\n Clear.", ("Clear.", None)),
        (" IMPRESSION/FINDINGS:\n Clear.", (None, "Clear.")),
        (" PORTABLE AP CHEST:\n Clear.", ("Clear.", None)),
        (" CHEST:\n Clear.\n FINDINGS:\n Large.", ("Large.", None)),
        (" COMPARISON CHEST RADIOGRAPHS:\n None.", (None, None)),
        (" IMPRESSION:\r\n Clear.\r\n\r\n RECOMMENDATION(S):  CT.\r\n", (None, "Clear.")),
    ],
)
def test_headers_are_known_in_their_spellings(text, sections):
    assert sections_of(text) == sections


@pytest.mark.parametrize(
    ("text", "impression"),
    [
        (
            " FINAL REPORT\n HISTORY:  Cough.\n\n The lungs are clear.\n\n No effusion.\n",
            "The lungs are clear. No effusion.",
        ),
        ("FINAL REPORT\n\n Chest.\n \n The lungs are clear.\n", "The lungs are clear."),
        (" HISTORY:  Cough.\n", None),
        (" FINDINGS:\n", None),
        ("", None),
    ],
)
def test_without_either_section_the_last_text_is_the_impression(text, impression):
    assert sections_of(text) == (None, impression)


def test_what_only_looks_like_a_header_is_text():
    assert sections_of(" FINDINGS: Compared to\n Prior: none.\n  IMPRESSION: two blanks.")[1] is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Midline sternotomy XXXX. Clear  lungs.", "Midline sternotomy. Clear lungs."),
        ("Seen by Dr. ___, (___) at ___:___ on XXXX/XXXX/XXXX.", "Seen by Dr., at on."),
        ("___-year-old with XXXX-year history, non-XXXX.", "year-old with year history, non."),
        ("XXXX. XXXX, XXXX. Clear.", "Clear."),
        ("___: nodule of 1.5 cm (2-3 mm) - unchanged.", "nodule of 1.5 cm (2-3 mm) - unchanged."),
        ("Clear ... so far .", "Clear ... so far ."),
        ("XXXX XXXX.", ""),
        ("Clear.", "Clear."),
    ],
)
def test_masks_go_and_leave_tidy_text(text, clean):
    assert without_masks(text) == clean


def test_no_mask_is_left_in_real_reports(real_cxr):
    if not (real_cxr / "openi_1400").is_dir():
        pytest.skip(f"needs the real reports: no folder {real_cxr / 'openi_1400'}")
    studies, _ = kaggle_studies(str(real_cxr / "openi_1400"))
    texts = [text for study in studies for text in (study.findings, study.impression) if text]
    assert sum("XXXX" in text for text in texts) > 500
    for text in (without_masks(text) for text in texts if "XXXX" in text):
        assert not re.search(r"XXX|  | [.,;:]|^[.,;:]|[,;:][,;:.]|\(\)", text), text
