"""Fetches the tests that transformers keeps for its own models, at the installed version, from its source package.

    python tests/conformance/fetch_transformers_tests.py

They are not in the wheel. They go to `outputs/conformance/<version>/transformers_tests`, which git ignores. The source
package lacks a few modules that these files import; they get stand-ins, listed below. Whoever has a full checkout of
transformers names its `tests` folder in the environment variable TRANSFORMERS_TESTS instead: then nothing is fetched,
and `GenerationTesterMixin` runs too.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import urllib.request
from pathlib import Path

import transformers
from PIL import Image

PACKAGE_INDEX = "https://pypi.org/simple/transformers/"
FOLDER = (
    Path(__file__).resolve().parents[2] / "outputs" / "conformance" / transformers.__version__ / "transformers_tests"
)

# What the source package's tests import and the source package does not have.
STAND_INS = {
    "__init__.py": "",
    "generation/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "exporters/__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    # The configuration tester uses it for configurations without parts only; ours has parts.
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    # Pictures on the internet become one that `main` draws.
    "fetch_hub_objects_for_ci.py": (
        "from pathlib import Path\n\n\n"
        "def url_to_local_path(url):\n"
        '    return str(Path(__file__).with_name("picture.png")) if url.endswith((".png", ".jpg")) else url\n'
    ),
}


def tests_folder() -> Path:
    """Where the tests lie: in a checkout that the user names, or where this program puts them."""
    return Path(os.environ["TRANSFORMERS_TESTS"]) if "TRANSFORMERS_TESTS" in os.environ else FOLDER


def main() -> None:
    folder = tests_folder()
    if folder.is_dir():
        print(f"transformers' tests: {folder}")
        return
    if folder != FOLDER:
        raise SystemExit(f"TRANSFORMERS_TESTS: no folder {folder}")
    incomplete = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(incomplete, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(source_package(transformers.__version__))) as package:
        for member in package.getmembers():
            path = Path(member.name)
            if member.isfile() and path.parts[1:2] == ("tests",) and path.suffix == ".py":
                write(incomplete.joinpath(*path.parts[2:]), package.extractfile(member).read())
    for name, text in STAND_INS.items():
        write(incomplete / name, text.encode())
    Image.effect_noise((640, 480), 64).convert("RGB").save(incomplete / "picture.png")
    incomplete.rename(folder)
    print(f"transformers' tests: {folder}")


def source_package(version: str) -> bytes:
    """The source package of a version, checked against the digest in the package index."""
    name = f"transformers-{version}.tar.gz"
    request = urllib.request.Request(PACKAGE_INDEX, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            files = {file["filename"]: file for file in json.load(reply)["files"]}
        if name not in files:
            raise SystemExit(f"{PACKAGE_INDEX} has no {name}: transformers {version} is no release")
        with urllib.request.urlopen(files[name]["url"], timeout=600) as reply:
            package = reply.read()
    except OSError as error:
        raise SystemExit(
            f"{PACKAGE_INDEX} cannot be read ({error}); name the `tests` folder of a checkout of transformers in "
            "TRANSFORMERS_TESTS instead"
        ) from None
    if hashlib.sha256(package).hexdigest() != files[name]["hashes"]["sha256"]:
        raise SystemExit(f"{name} does not have the digest that the package index gives for it")
    return package


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
