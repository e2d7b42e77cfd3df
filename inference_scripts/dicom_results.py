"""Answers in a folder of DICOM objects, for `litegpt predict --dicom_out`: ready to be sent to a PACS.

    results = DicomResults(Path("outputs/results"), kinds=("SR", "PR"), pictures=Path("outputs/predictions"))
    results.write(line)        # outputs/results/2.25.1234....SR.dcm, ....PR.dcm, unless they are there
    results.summary()          # "outputs/results: 2 DICOM objects; 1 radiograph is no DICOM file and has none"

In: lines of the predictions. An object is called by its own UID, which its radiograph and checkpoint determine, so a
run that resumes makes what is missing and nothing twice. File names say nothing of the patient; the objects themselves
carry the radiograph's patient and study, without which no PACS files them.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.addresses import is_remote, read_bytes
from litegpt.common.files import replacing
from litegpt.common.programs import Refusal
from litegpt.dicom_output.result_objects import result_objects
from litegpt.dicom_output.result_uids import ANSWERED, ImageUids, result_uids, with_boxes_of
from litegpt.dicom_output.source_header import SourceError, source_header
from litegpt.processing.dicom import MAX_BYTES
from litegpt.processing.tasks import DEFAULT_TASKS

UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")  # of a line


class DicomResults:
    """DICOM objects of answers, in one folder.

    Attributes:
        written: how many objects of this run's answers are there.
        failures: radiographs that no result can refer to; the reasons go to standard error.
        others: radiographs that are no DICOM files.

    Args:
        folder: it is made.
        kinds: of `result_objects.KINDS`.
        source: the list of a line whose boxes they have.
        pictures: where the pictures lie that lines name as their "overlay"; an SC shows it.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], pictures: Path, source: str = ANSWERED):
        self.folder, self.kinds, self.pictures, self.source = folder, kinds, pictures, source
        self.written = self.failures = self.others = 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, line: Mapping[str, Any]) -> None:
        """Makes the objects of one answer that are not there; of one to other questions none is made.

        Free text is filed nowhere, and a report without findings would say that there are none.

        Raises:
            Refusal: the line has no boxes of `source`.
        """
        if not set(DEFAULT_TASKS) <= set(line.get("tasks", DEFAULT_TASKS)):
            return
        if line["sop_instance_uid"] is None:
            self.others += 1
            return
        try:
            line = with_boxes_of(line, self.source)
        except KeyError:
            raise Refusal(f"The answers have no {self.source}: take another --dicom_source.") from None
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always", UserWarning)
                # By the line's UIDs: a run that resumes reads no file whose objects are there.
                uids = ImageUids(*(line[name] for name in UIDS))
                paths = {kind: self._path(result_uids(uids, line, kind)[1], kind) for kind in self.kinds}
                missing = [kind for kind, path in paths.items() if not path.is_file()]
                if missing or None in uids:
                    header = source_header(_source(line["file"]), line["file"])
                    made = result_objects(header, line, missing, self._picture(line, missing))
                else:
                    made = {}
        except SourceError as error:
            self.failures += 1
            tqdm.write(str(error), file=sys.stderr)
            return
        for note in notes:
            if issubclass(note.category, UserWarning):
                tqdm.write(str(note.message), file=sys.stderr)
        for kind, dataset in made.items():
            with replacing(paths[kind]) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
        self.written += sum(path.is_file() for path in paths.values())

    def summary(self) -> str:
        """What became of the answers."""
        text = f"{self.folder}: {self.written} DICOM objects"
        if self.failures:
            text += f"; {self.failures} radiographs have none, as nothing can refer to them"
        return text + (f"; {self.others} are no DICOM files and have none" if self.others else "")

    def _path(self, uid: str, kind: str) -> Path:
        return self.folder / f"{uid}.{kind}.dcm"

    def _picture(self, line: Mapping[str, Any], kinds: Sequence[str]) -> Image.Image | None:
        return Image.open(self.pictures / Path(line["overlay"]).name) if "SC" in kinds else None


def _source(file: str) -> bytes | Path:
    """What `source_header` takes, of a line's file.

    Raises:
        SourceError: it lies at an address and cannot be read.
    """
    if not is_remote(file):
        return Path(file)
    try:
        return read_bytes(file, MAX_BYTES)
    except OSError as error:
        raise SourceError(str(error)) from None
