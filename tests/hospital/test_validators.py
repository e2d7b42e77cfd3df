"""Every kind of result, of phantoms and real radiographs, held against the standard by programs that others wrote."""

import re
import warnings
from pathlib import Path

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from litegpt.common.overlay import overlay
from litegpt.dicom_output.result_objects import KINDS, result_objects
from litegpt.dicom_output.source_header import source_header
from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph
from tests.hospital.answers import made_up_answer
from tests.hospital.validators import iod_errors, report_text, study_errors, template_errors

ANSWERS = ((0, ()), (1, ("Pneumonia",)), (3, ()), (2, ("COPD", "Lung tumor")), (0, ("Tuberculosis",)))


def written(radiographs: list[Path], folder: Path) -> dict[Path, dict[str, Path]]:
    """The results of a different answer to each radiograph, as files: {radiograph: {kind: file}}."""
    files: dict[Path, dict[str, Path]] = {}
    for number, path in enumerate(radiographs):
        findings, diagnoses = ANSWERS[number % len(ANSWERS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd radiographs
            source = source_header(path.read_bytes(), path.name)
            line = made_up_answer(source, findings, diagnoses, seed=number)
            made = result_objects(source, line, KINDS, overlay(load_radiograph(path), line, None))
        files[path] = {kind: folder / f"{number:03}.{kind}.dcm" for kind in made}
        for kind, dataset in made.items():
            dataset.save_as(files[path][kind], enforce_file_format=True)
    return files


def check(files: dict[Path, dict[str, Path]], folder: Path) -> None:
    errors = {}
    for radiograph, results in files.items():
        for kind, path in results.items():
            errors[radiograph.name, kind] = iod_errors(path)
        errors[radiograph.name, "study"] = study_errors([inflated(radiograph, folder), *results.values()])
    reports = {results["SR"]: radiograph.name for radiograph, results in files.items()}
    for path, found in template_errors(list(reports)).items():
        errors[reports[path], "template"] = found
    assert {where: found for where, found in errors.items() if found} == {}


def inflated(radiograph: Path, folder: Path) -> Path:
    """The file, or a copy of one that is deflated, which dcentvfy cannot read."""
    dataset = pydicom.dcmread(radiograph)
    if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return radiograph
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(folder / radiograph.name)
    return folder / radiograph.name


def test_results_of_phantoms_keep_to_the_standard(phantom_dicoms, tmp_path):
    assert len(phantom_dicoms) == 50
    check(written(phantom_dicoms, tmp_path), tmp_path)


def test_results_of_real_radiographs_keep_to_the_standard(real_cxr, tmp_path):
    check(written(readable_chest_dicoms(real_cxr), tmp_path), tmp_path)


def readable_chest_dicoms(folder: Path) -> list[Path]:
    """The DICOM files below a folder that are read as radiographs, and to which results can refer."""
    found = []
    for path in sorted((folder / "real_cxr").glob("dicom_*/*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load_radiograph(path)
                source_header(path.read_bytes(), path.name)
            except (RadiographError, ValueError):
                continue
        found.append(path)
    assert len(found) >= 12
    return found


def test_a_report_can_be_read_by_another_library(phantom_dicoms, tmp_path):
    for path, results in written(phantom_dicoms[:5], tmp_path).items():
        text = report_text(results["SR"])
        line = made_up_answer(source_header(path.read_bytes(), path.name), *ANSWERS[list(phantom_dicoms).index(path)])
        assert len(re.findall("SCOORD.*POLYLINE", text)) == len(line["findings"])
        assert "UNVERIFIED" in text and "PRELIMINARY" in text
        for finding in line["findings"]:
            assert re.search(rf'Certainty of Finding.*"{100 * finding["score"]:.1f}"', text)


def test_the_validators_find_what_is_wrong(phantom_dicoms, tmp_path):
    """Else silence would mean nothing."""
    # The second answer has a finding: of a report without any, which has another title, PixelMed has no template.
    results = written(phantom_dicoms[:2], tmp_path)[phantom_dicoms[1]]
    for kind, path in results.items():
        dataset = pydicom.dcmread(path)
        dataset.Modality = "XX"
        del dataset.SeriesInstanceUID
        if kind == "SR":
            for item in dataset.ContentSequence:
                if item.ConceptNameCodeSequence[0].CodeMeaning == "Procedure reported":
                    item.ConceptCodeSequence[0].CodeValue = "no-such-code"
        dataset.StudyInstanceUID = "1.2.3"
        dataset.PatientID = "another"
        dataset.save_as(path)
        assert iod_errors(path), kind
    assert template_errors([results["SR"]])[results["SR"]]
