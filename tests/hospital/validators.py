"""What independent programs say about DICOM objects: David Clunie's, PixelMed's, OFFIS's.

    iod_errors(Path("findings.SR.dcm"))                 # dciodvfy: [] where the object is what its class says
    template_errors([Path("findings.SR.dcm")])          # PixelMed: {path: []} where a report keeps to its templates
    study_errors([radiograph, report, state])           # dcentvfy: [] where they can be of one patient and study
    report_text(Path("findings.SR.dcm"))                # dsrdump: the report as a person reads it

In: files. Out: lines of errors; warnings do not count. A test that calls one is skipped, with the package that has the
program, where it is not installed.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Java 17 refuses templates as long as DICOM's unless it is told not to count.
JAVA = [f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp")]
JAVA += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(PIXELMED)]  # a short run: compile little
VALIDATE_REPORTS = Path(__file__).with_name("ValidateReports.java")


def needs(program: str, package: str) -> None:
    """Skips the test where a program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install {package}")


def iod_errors(path: Path) -> list[str]:
    """What of an object its Information Object Definition does not allow (PS3.3)."""
    needs("dciodvfy", "dicom3tools")
    said = _said(["dciodvfy", str(path)])
    return [line for line in said.splitlines() if line.startswith(("Error", "Abort"))] + _if_silent(said, path)


def study_errors(paths: Sequence[Path]) -> list[str]:
    """What objects of one study contradict each other in: patient, study, series, equipment."""
    needs("dcentvfy", "dicom3tools")
    return [line for line in _said(["dcentvfy", *map(str, paths)]).splitlines() if line.startswith(("Error", "Abort"))]


def template_errors(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """What of each structured report its templates do not allow (PS3.16)."""
    needs("java", "default-jre-headless")
    if not PIXELMED.is_file():
        pytest.skip(f"needs {PIXELMED}: apt-get install pixelmed-apps")
    said = _said(["java", *JAVA, str(VALIDATE_REPORTS), *map(str, paths)])
    parts = dict(part.partition("\n")[::2] for part in re.split(r"(?m)^FILE ", said)[1:])
    errors = {}
    for path in paths:
        part = parts.get(str(path), "")
        errors[path] = re.findall(r"(?m)^Error.*", part)
        if "Found Root Template" not in part or "IOD validation complete" not in part:
            errors[path].append(f"it was not validated: {part or said}")
    return errors


def report_text(path: Path) -> str:
    """A structured report as text, by another library than the one that wrote it."""
    needs("dsrdump", "dcmtk")
    return subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=True).stdout


def _said(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.stdout


def _if_silent(said: str, path: Path) -> list[str]:
    """dciodvfy names the object's definition when it has one: else nothing was checked."""
    return [] if re.search(r"(?m)^\w+$", said) else [f"{path} was not checked: {said}"]
