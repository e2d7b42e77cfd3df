"""What Orthanc is told: this machine alone, and its database in the folder."""

import json

from litegpt.inference_scripts.hospital import orthanc
from litegpt.inference_scripts.hospital.orthanc import Modality, OrthancPorts, configuration, missing


def test_it_answers_to_this_machine_and_to_the_modality_alone(tmp_path):
    settings = configuration(tmp_path, OrthancPorts(http=1, dicom=2), Modality("LITEGPT", 3))
    assert json.loads(json.dumps(settings)) == settings
    assert not settings["RemoteAccessAllowed"] and not settings["DicomAlwaysAllowStore"]
    assert settings["DicomCheckModalityHost"] and settings["DicomModalities"] == {
        "litegpt": ["LITEGPT", "127.0.0.1", 3]
    }
    assert settings["StorageDirectory"].startswith(str(tmp_path))


def test_where_it_is_missing_a_sentence_says_which_packages_have_it(monkeypatch):
    monkeypatch.setattr(orthanc, "PROGRAMS", ("no-such-program",))
    assert "apt-get install orthanc orthanc-dicomweb" in missing()
