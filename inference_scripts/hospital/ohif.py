"""OHIF, the viewer, as its makers built it: fetched once from npm.

    folder = ohif(Path("outputs/ohif"))      # outputs/ohif/3.13.2, with index.html; MIT licence, kept beside it

In: a folder. Out: the folder of that one version in it. npm downloads 50 MB, whose digest is known; the files are
unpacked under a temporary name and renamed, so that an interruption leaves nothing that looks whole.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from litegpt.common.files import replacing_folder

PACKAGE, VERSION = "@ohif/app", "3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="  # as npm has it
BUILT = "package/dist/"


class FetchError(RuntimeError):
    """OHIF cannot be fetched; the message is one sentence."""


def ohif(folder: Path) -> Path:
    """The built viewer, fetched where it is not there yet.

    Raises:
        FetchError: npm is not installed, cannot download, or what came is not that release.
    """
    viewer = folder / VERSION
    if (viewer / "index.html").is_file():
        return viewer
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        package = _download(Path(temporary))
        with replacing_folder(viewer) as unpacked:
            unpack(package, unpacked)
    return viewer


def unpack(package: Path, folder: Path) -> None:
    """The built viewer out of npm's package, without the maps that developers of OHIF want.

    Raises:
        FetchError: it is not the package whose digest we know.
    """
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise FetchError(f"{PACKAGE} {VERSION} is not the release that we know: its SHA-512 is {digest}.")
    folder.mkdir(parents=True)
    with tarfile.open(package) as files:
        for member in files:
            member.name = {"package/LICENSE": f"{BUILT}LICENSE"}.get(member.name, member.name)
            if member.isfile() and member.name.startswith(BUILT) and not member.name.endswith(".map"):
                member.name = member.name.removeprefix(BUILT)
                files.extract(member, folder, filter="data")


def _download(folder: Path) -> Path:
    name = f"{PACKAGE}@{VERSION}"
    if shutil.which("npm") is None:
        raise FetchError(f"npm is not installed; it downloads the viewer, {name} (apt-get install npm).")
    command = ["npm", "pack", "--silent", name]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    packages = list(folder.glob("*.tgz"))
    if done.returncode or not packages:
        why = (done.stderr.strip().splitlines() or ["npm gives no reason"])[0]
        raise FetchError(f"The viewer cannot be downloaded by {' '.join(command)}: {why}")
    return packages[0]
