import warnings
from io import BytesIO

import pytest
from PIL import Image

from litegpt.common.overlay import is_drawn
from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.source_header import MAY_BE_EMPTY, SourceError, is_own_picture, source_header
from tests.dicom_output.made_up_answer import COLUMNS, ROWS, answer, radiograph_file


def test_tags_that_results_must_have_are_there_though_the_file_lacks_them():
    source = source_header(radiograph_file(PatientName=None, PatientID=None, PatientBirthDate=None), "a.dcm")
    assert all(keyword in source for keyword in MAY_BE_EMPTY)


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("StudyInstanceUID", "Study Instance UID"),
        ("SeriesInstanceUID", "Series Instance UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
    ],
)
def test_without_a_uid_nothing_can_refer_to_it(keyword, name):
    with pytest.raises(SourceError, match=f"^Cannot refer to a.dcm: it has no {name}.$"):
        source_header(radiograph_file(**{keyword: None}), "a.dcm")


def test_a_uid_that_is_none_is_refused_and_not_quoted():
    with pytest.warns(UserWarning), pytest.raises(SourceError, match="no valid Study Instance UID") as refused:
        source_header(radiograph_file(StudyInstanceUID="WARD"), "a.dcm")
    assert "WARD" not in str(refused.value)


def test_a_class_that_is_none_of_the_standards_is_refused():
    with pytest.raises(SourceError, match="none of the standard's"):
        source_header(radiograph_file(SOPClassUID="1.2.3.99"), "a.dcm")


def test_what_is_no_dicom_is_refused():
    with pytest.raises(SourceError, match="a.png"):
        source_header(b"\x89PNG\r\n\x1a\n" + bytes(300), "a.png")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientSex", "WARD"), ("WindowWidth", 0), ("PixelSpacing", [0, 0]), ("StudyDate", "2026-11-27")],
)
def test_a_value_that_the_standard_does_not_allow_is_left_out_and_said_without_quoting_it(keyword, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = radiograph_file(**{keyword: value})
    with pytest.warns(UserWarning, match="^a.dcm: its .* is not valid: the results are without it$") as said:
        source = source_header(data, "a.dcm")
    assert not source.get(keyword) and "WARD" not in str(said[0].message)
    assert ("WindowCenter" in source) == (keyword != "WindowWidth"), "half a window is none"


def test_tags_of_a_maker_and_of_no_use_here_are_not_kept():
    assert "PixelData" not in source_header(radiograph_file(PatientComments="secret"), "a.dcm")
    assert "PatientComments" not in source_header(radiograph_file(PatientComments="secret"), "a.dcm")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Buc^Jérôme"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_come_out_whole_whatever_the_character_set(character_set, name):
    source = source_header(radiograph_file(SpecificCharacterSet=character_set, PatientName=name), "a.dcm")
    assert str(source.PatientName) == name and source.SpecificCharacterSet == "ISO_IR 192"


def test_a_picture_that_we_made_is_no_radiograph():
    source = source_header(radiograph_file(), "a.dcm")
    picture, file = Image.new("L", (COLUMNS, ROWS), 90), BytesIO()
    result_objects(source, answer(), ("SC",), picture)["SC"].save_as(file, enforce_file_format=True)
    assert is_own_picture(file.getvalue()) and is_drawn(file.getvalue())
    for other in (radiograph_file(), file.getvalue()[:200], b"", b"DICM"):
        assert not is_own_picture(other)
