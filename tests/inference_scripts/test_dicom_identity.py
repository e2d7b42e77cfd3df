import zlib
from io import BytesIO

import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from litegpt.inference_scripts.dicom_identity import identity, other_kind

CR = "1.2.840.10008.5.1.4.1.1.1"
NOTHING = dict.fromkeys(("sop_instance_uid", "series_instance_uid", "study_instance_uid", "view", "laterality"))


def dicom(sop_class: str = CR, image: bool = True, meta: bool = True, **tags) -> bytes:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.PatientName, dataset.PatientID = "Secret^Name", "4711"
    if image:
        dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelData = 2, 2, 8, bytes(4)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    file = BytesIO()
    if not meta:
        pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True)
        return file.getvalue()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def view_code(value: str, scheme: str) -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "Secret^Name"
    return pydicom.Sequence([item])


@pytest.mark.parametrize("meta", [True, False])
def test_uids_view_and_laterality_and_no_other_tag(meta):
    tags = {"SOPInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "StudyInstanceUID": "1.2.5"}
    found = identity(dicom(**tags, ViewPosition="PA", ImageLaterality="U", meta=meta))
    assert found == {
        "sop_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.4",
        "study_instance_uid": "1.2.5",
        "view": "PA",
        "laterality": "U",
    }


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "ap "}, "AP"),
        ({"ViewCodeSequence": view_code("R-10206", "SRT")}, "AP"),
        ({"ViewCodeSequence": view_code("399173006", "SCT")}, "LL"),
        ({"ViewPosition": "", "ViewCodeSequence": view_code("272479007", "SCT")}, "PA"),
        ({"ViewCodeSequence": view_code("399033003", "SCT")}, "frontal"),
        ({"ViewCodeSequence": view_code("4711", "99ACME")}, None),
        ({"ViewCodeSequence": pydicom.Sequence([])}, None),
        ({}, None),
    ],
)
def test_the_view_is_the_position_or_else_the_code_in_the_standards_words(tags, view):
    assert identity(dicom(**tags))["view"] == view


def test_the_laterality_of_the_image_goes_before_that_of_the_series():
    assert identity(dicom(Laterality="L"))["laterality"] == "L"
    assert identity(dicom(Laterality="L", ImageLaterality="B"))["laterality"] == "B"
    assert identity(dicom(Laterality="left"))["laterality"] is None


def test_a_name_in_another_tags_place_does_not_pass_nor_reach_the_terminal(capsys, recwarn):
    junk = "Secret^Ännchen"
    wrong = {"StudyInstanceUID": junk, "SeriesInstanceUID": "1." + 70 * "2", "ViewPosition": junk, "Laterality": junk}
    with pytest.warns(UserWarning):  # of this test's own writing
        data = dicom(**wrong, SpecificCharacterSet="ISO_IR 100")
    recwarn.clear()
    found = identity(data)
    assert {**found, "sop_instance_uid": None} == NOTHING
    assert not recwarn.list and capsys.readouterr() == ("", "")


def test_a_picture_has_none():
    file = BytesIO()
    Image.new("L", (20, 20)).save(file, "PNG")
    assert identity(file.getvalue()) == NOTHING == identity(b"")


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF"),
        ("1.3.12.2.1107.5.9.1", "private DICOM object"),
        (CR, None),  # a radiograph that has lost its image
        ("1.2.840.10008.5.1.4.1.1.2", None),  # a CT, which is an image, though none to answer
    ],
)
@pytest.mark.parametrize("meta", [True, False])
def test_objects_without_pixels_have_the_name_of_their_class(sop_class, kind, meta):
    assert other_kind(dicom(sop_class, image=False, meta=meta), "IM1.dcm") == kind


def test_a_segmentation_is_none_though_it_has_pixels_and_a_makers_own_image_may_be_one():
    assert other_kind(dicom("1.2.840.10008.5.1.4.1.1.66.4"), "SEG1.dcm") == "Segmentation"
    assert other_kind(dicom("1.3.12.2.1107.5.9.2"), "IM1.dcm") is None


def test_dicomdir_is_a_directory_and_a_deflated_object_is_not_inflated(monkeypatch):
    with open(get_testdata_file("DICOMDIR"), "rb") as file:
        assert other_kind(file.read(), "DICOMDIR") == "Media Storage Directory"
    data = dicom("1.2.840.10008.5.1.4.1.1.88.11", image=False)
    deflated = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = bytearray(deflated)
    at = deflated.index(b"1.2.840.10008.1.2.1.99")
    meta[at - 2 : at] = (22).to_bytes(2, "little")
    inflated = []
    monkeypatch.setattr(zlib, "decompress", lambda *args: inflated.append(args))
    assert other_kind(bytes(meta), "SR1") == "Basic Text SR" and not inflated


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("README.TXT", b"How to start the viewer", ".txt"),
        ("AUTORUN.INF", b"[autorun]\r\nopen=viewer.exe\r\n", ".inf"),
        ("LIESMICH", "Für die Ansicht".encode(), "text"),
        ("report.pdf", b"%PDF-1.5\n\xe2\xe3\xcf", "PDF"),
        ("viewer.exe", b"MZ\x90\x00\x03", "program"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1", "Office"),
        ("labels.csv", b"\xff\xfea\0,\0", ".csv"),
        ("report.pdf.gz", b"\x1f\x8b\x08\0", ".gz"),
        ("a.dcm", b"no radiograph", None),
        ("a.dcm.gz", b"\x1f\x8b\x08\0", None),
        ("a.png", b"\x89PNG\r\n\x1a\n1234", None),
        ("a.png", b"<html>404</html>", None),
        ("IM1", bytes(range(200)), None),
        ("1.2.840.113619.2.5", b"\x08\0\x05\0\x0a\0", None),
        ("IM1", b"", None),
    ],
)
def test_other_files_are_told_from_damaged_radiographs(name, data, kind):
    assert other_kind(data, name) == kind
