import pytest
from pydicom.sr.codedict import codes

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.dicom_output.codes import AROUND, DICOM, LABELS, LOCAL_SCHEME, SOURCES, code_of_label, local_code

ALL = [*LABELS.values(), *AROUND]
# Verhoeff's dihedral group and permutation, by which SNOMED CT's identifiers end in a check digit.
D5 = [
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
]
PERMUTATION = "1576283094"


def verhoeff_holds(number: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = int(PERMUTATION[value])
        check = int(D5[check][value])
    return check == 0


def test_the_check_digit_tells_right_from_wrong():
    assert verhoeff_holds("36118008") and verhoeff_holds("2363")
    assert not verhoeff_holds("95436003"), "found in public code for consolidation"


@pytest.mark.parametrize("code", [code for code in ALL if code.scheme == "SCT"], ids=lambda code: code.meaning)
def test_snomed_codes_keep_their_check_digit(code):
    assert verhoeff_holds(code.value)


@pytest.mark.parametrize("code", [code for code in ALL if code.source == DICOM], ids=lambda code: code.meaning)
def test_codes_of_the_standard_stand_in_its_tables_with_this_meaning(code):
    concepts = getattr(codes, code.scheme)
    found = [concept for name in concepts.dir() if (concept := getattr(concepts, name)).value == code.value]
    assert code.meaning in {concept.meaning for concept in found}


def test_every_code_has_a_source_that_is_explained():
    assert {code.source for code in ALL} <= SOURCES.keys()


def test_every_label_of_vindr_cxr_has_a_code_of_its_own():
    labels = [*FINDING_LABELS, *DIAGNOSIS_LABELS]
    given = {label: code_of_label(label) for label in labels}
    assert len({(code.value, code.scheme_designator) for code in given.values()}) == len(set(labels))
    assert given["Cardiomegaly"].scheme_designator == LOCAL_SCHEME, "8186001 was verified by nobody"


def test_long_and_foreign_labels_get_short_codes_that_differ():
    long, longer, foreign = (local_code(label) for label in ("Enlarged azygos vein", "Enlarged azygos veins", "肺炎"))
    assert len({long.value, longer.value, foreign.value}) == 3
    assert all(0 < len(code.value) <= 16 for code in (long, longer, foreign))
    assert foreign.meaning == "肺炎" and len(local_code("a" * 200).meaning) == 64
