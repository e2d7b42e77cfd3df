"""Fetches the viewer, which tests of this folder open, into `outputs/ohif`: python tests/hospital/fetch_ohif.py"""

from pathlib import Path

from litegpt.inference_scripts.hospital.ohif import FetchError, ohif

FOLDER = Path(__file__).resolve().parents[2] / "outputs" / "ohif"

if __name__ == "__main__":
    try:
        print(ohif(FOLDER))
    except FetchError as error:
        raise SystemExit(str(error)) from None
