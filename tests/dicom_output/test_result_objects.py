import logging
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image

from litegpt.dicom_output.result_objects import KINDS, result_objects
from litegpt.dicom_output.source_header import source_header
from tests.dicom_output.made_up_answer import COLUMNS, ROWS, answer, radiograph_file

PICTURE = Image.new("L", (COLUMNS, ROWS), 90)


def read_back(dataset: pydicom.Dataset) -> pydicom.Dataset:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return pydicom.dcmread(BytesIO(file.getvalue()))


@pytest.fixture(scope="module")
def results():
    source = source_header(radiograph_file(), "a.dcm")
    return {kind: read_back(made) for kind, made in result_objects(source, answer(), KINDS, PICTURE).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pacs_can_file_them_beside_the_radiograph(results, kind):
    made = results[kind]
    assert (made.StudyInstanceUID, made.PatientName, made.PatientID) == ("1.2", "WARD", "17")
    assert made.SeriesInstanceUID != "1.2.3" and "AI, unverified" in made.SeriesDescription


@pytest.mark.parametrize("kind", ["SR", "PR"])
def test_they_refer_to_the_radiograph(results, kind):
    referenced = [
        element.value for element in results[kind].iterall() if element.keyword == "ReferencedSOPInstanceUID"
    ]
    assert set(referenced) == {"1.2.3.4"}


def test_names_survive_and_are_quoted_nowhere(caplog, recwarn, capsys):
    """highdicom warns of names with one component, and quotes them."""
    source = source_header(radiograph_file(PatientName="WARD", ReferringPhysicianName="HOUSE"), "a.dcm")
    with caplog.at_level(logging.DEBUG):
        made = result_objects(source, answer(), KINDS, PICTURE)
    for dataset in (source, *made.values()):
        assert (dataset.PatientName, dataset.ReferringPhysicianName) == ("WARD", "HOUSE")
    said = [*(str(warning.message) for warning in recwarn), caplog.text, *capsys.readouterr()]
    assert not [text for text in said if "WARD" in text or "HOUSE" in text]


def test_a_resend_is_the_same_object_but_for_its_time():
    source = source_header(radiograph_file(), "a.dcm")
    first, second = (result_objects(source, answer())["SR"] for _ in range(2))
    times = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime")

    def without_times(dataset: pydicom.Dataset) -> list[str]:
        return [str(element) for element in dataset.iterall() if element.VR != "SQ" and element.keyword not in times]

    assert without_times(first) == without_times(second)


def test_a_picture_in_colour_has_no_presentation_state_and_it_is_said():
    source = source_header(radiograph_file(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "a.dcm")
    with pytest.warns(UserWarning, match="in colour"):
        assert list(result_objects(source, answer(), KINDS, PICTURE)) == ["SR", "SC"]


def test_an_unknown_kind_and_a_missing_picture_are_refused():
    source = source_header(radiograph_file(), "a.dcm")
    with pytest.raises(ValueError, match="not KO"):
        result_objects(source, answer(), ("KO",))
    with pytest.raises(ValueError, match="needs the picture"):
        result_objects(source, answer(), ("SC",))


def test_of_a_class_with_frames_the_first_is_referred_to_and_of_others_none():
    multi_frame = radiograph_file(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2", NumberOfFrames=2)
    for data, frames in ((multi_frame, {1}), (radiograph_file(NumberOfFrames=2), set())):
        made = result_objects(source_header(data, "a.dcm"), answer(), ("SR",))["SR"]
        assert {
            int(element.value) for element in made.iterall() if element.keyword == "ReferencedFrameNumber"
        } == frames
    with pytest.warns(UserWarning, match="several frames"):
        assert result_objects(source_header(multi_frame, "a.dcm"), answer(), ("PR",)) == {}


def test_the_secondary_capture_shows_the_picture(results):
    assert np.array_equal(results["SC"].pixel_array, np.asarray(PICTURE.convert("RGB")))
    assert results["SC"].BurnedInAnnotation == "NO"
