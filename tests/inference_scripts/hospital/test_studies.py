"""Radiographs that a PACS can file: what a file lacks is made up in a copy, what it has stays."""

from io import BytesIO

import numpy as np
import pydicom
import pytest

from litegpt.inference_scripts.hospital.studies import filed
from tests.small_dicom import small_dicom

GREYS = np.arange(40, dtype=np.uint8).reshape(5, 8)


def written(path, **tags):
    """A DICOM file; without tags as released ones are: no patient, no study."""
    dataset = small_dicom(GREYS)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_file_that_has_all_is_sent_as_it_is(tmp_path):
    tags = {"PatientName": "A^B", "PatientID": "1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    path = written(tmp_path / "a.dcm", **tags)
    found = filed(path)
    assert (found.data, found.made_up) == (path.read_bytes(), ())
    assert (found.study, found.instance) == ("1.2", "1.2.3")


def test_what_it_lacks_is_made_up_the_same_each_time_and_its_pixels_stay(tmp_path):
    path = written(tmp_path / "a.dcm", PatientID="", PatientSex="F")
    found, again = filed(path), filed(path)
    assert found == again
    assert sorted(found.made_up) == ["PatientID", "PatientName", "SeriesInstanceUID", "StudyInstanceUID"]
    dataset = pydicom.dcmread(BytesIO(found.data))
    assert (dataset.StudyInstanceUID, dataset.SOPInstanceUID) == (found.study, "1.2.3")
    assert dataset.PatientSex == "F" and str(dataset.PatientName).startswith("ANONYMOUS^")
    assert (dataset.pixel_array == GREYS).all()
    other = written(tmp_path / "b.dcm", PatientSex="M")
    assert filed(other).study != found.study


@pytest.mark.parametrize(
    ("tags", "reason"),
    [({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage"), ({"PixelData": None}, "no radiograph")],
)
def test_what_is_no_radiograph_is_refused_by_name(tmp_path, tags, reason):
    dataset_path = written(tmp_path / "a.dcm", **{name: value for name, value in tags.items() if value is not None})
    if "PixelData" in tags:
        dataset = pydicom.dcmread(dataset_path)
        del dataset.PixelData
        dataset.save_as(dataset_path)
    with pytest.raises(ValueError, match=f"a.dcm.*{reason}"):
        filed(dataset_path)


def test_what_is_no_dicom_is_refused_by_name(tmp_path):
    (tmp_path / "a.dcm").write_text("a text")
    with pytest.raises(ValueError, match="a.dcm is no DICOM file"):
        filed(tmp_path / "a.dcm")
