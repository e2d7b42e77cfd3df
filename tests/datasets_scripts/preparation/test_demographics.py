import pytest

from litegpt.datasets_scripts.preparation.demographics import age_in_years, dicom_age, known_sex


@pytest.mark.parametrize(("text", "sex"), [("F", "F"), (" M ", "M"), ("O", ""), ("", ""), ("m", ""), ("Nobody", "")])
def test_sex_is_f_or_m_or_unknown(text, sex):
    assert known_sex(text) == sex


@pytest.mark.parametrize(
    ("text", "age"),
    [("058Y", 58), ("007M", 0), ("013M", 1), ("000D", 0), ("000Y", None), (" 000Y", None), ("0", 0), ("238Y", None)],
)
def test_an_age_of_no_years_is_one_that_nobody_entered(text, age):
    """Whoever is not yet one year old has an age in days, weeks or months."""
    assert dicom_age(text) == age


@pytest.mark.parametrize("text", ["", "Y", "58 years", "-01Y", "5.5Y", "058Y\\059Y", "['058Y', '059Y']", "9" * 5000])
def test_what_is_no_age_is_unknown(text):
    assert age_in_years(text) is dicom_age(text) is None
