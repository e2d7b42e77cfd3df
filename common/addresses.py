"""Files on this machine and at addresses elsewhere (s3://, gs://, hf://, ...), read and written by the same functions.

    is_remote("s3://bucket/a.dcm"), is_remote("folder/a.dcm")   # True, False
    read_bytes("s3://bucket/a.dcm", at_most=1 << 30)            # its bytes
    for address in list_files("hf://datasets/NAME/images"):     # one after another, in a fixed order
        ...
    with replacing_address("s3://bucket/rows.parquet") as temporary:
        write_rows(temporary)                                   # a Path on this machine; uploaded when the block ends

An address is what fsspec takes: PROTOCOL://PLACE. Credentials are those that its package finds by itself: environment
variables, files in the home folder, the machine's role; an address that holds a password is refused. What has no
protocol is a path, for which fsspec is not even imported.

What is written is whole or not there. On this machine it gets its name by renaming; an object store shows an object
only when all of it has arrived, so there it is uploaded under its own name. fsspec keeps what it has seen of a store:
`exists` and what lists folders ask anew, `state_of` and `size_of` may take what a listing said.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from litegpt.common.files import replacing

PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
PASSWORD = re.compile(PROTOCOL.pattern + r"[^/@]*:[^/@]*@")
SECRET = re.compile(r"(?<=://)[^/@]*@|[?#].*", re.DOTALL)  # user and password; a signed address's signature
BLOCK = 1 << 20  # bytes that are asked for at a time, of a header as of a table
# By what stores tell that an object is another one, the surest first.
VERSIONS = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "updated", "LastModified", "created")


class StoreError(OSError):
    """A store cannot be used, whatever the file: no package, no connection, no credentials, no permission."""


def is_remote(address: str | os.PathLike) -> bool:
    """Whether this is an address with a protocol, also `file://`, and not a path."""
    return isinstance(address, str) and PROTOCOL.match(address) is not None


def shown(address: str | os.PathLike) -> str:
    """An address as messages name it: without user, password and signature."""
    return SECRET.sub("", str(address)) if is_remote(address) else str(address)


def absolute(address: str | os.PathLike) -> str:
    """`os.path.abspath` of a path; an address as it is, without the slash at its end."""
    return address.rstrip("/") if is_remote(address) else os.path.abspath(address)


def resolved(address: str | os.PathLike) -> str:
    """By what a run knows its input again: a path without its links; an address as `absolute` has it."""
    return absolute(address) if is_remote(address) else str(Path(address).resolve())


def place(text: str) -> Path | str:
    """What a person has named: a `Path` on this machine, or the address."""
    return text if is_remote(text) else Path(text)


def open_address(address: str | os.PathLike) -> BinaryIO:
    """A file's bytes, to be read from the beginning or from anywhere.

    Raises:
        OSError: it is not there or cannot be read; one sentence, which every function of this file raises.
    """
    if not is_remote(address):
        return Path(address).open("rb")
    files, path = _file_system(address)
    with _explained(address):
        return files.open(path, "rb", block_size=BLOCK)


def open_text(address: str | os.PathLike, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """A file's text, line by line; `newline` as `open` has it."""
    return TextIOWrapper(open_address(address), encoding=encoding, newline=newline)


def read_bytes(address: str | os.PathLike, at_most: int) -> bytes:
    """All of a file.

    Args:
        at_most: bytes that it may have.

    Raises:
        OSError: it is larger, not there, or cannot be read.
    """
    if (size := size_of(address)) > at_most:
        raise OSError(f"{shown(address)} has {size:,} bytes, more than {at_most:,}.")
    if not is_remote(address):
        return Path(address).read_bytes()
    files, path = _file_system(address)
    with _explained(address):
        return files.cat_file(path)


def size_of(address: str | os.PathLike) -> int:
    """A file's bytes, counted."""
    return _info(address)["size"] if is_remote(address) else os.stat(address).st_size


def state_of(address: str) -> tuple[int, str]:
    """A remote file's size, and what its store gives anew to every other content: a digest or a time.

    Raises:
        OSError: it is not there or cannot be asked about.
    """
    info = _info(address)
    return info["size"], next((str(info[name]) for name in VERSIONS if info.get(name)), "")


def exists(address: str | os.PathLike) -> bool:
    """Whether there is such a file or folder.

    Raises:
        StoreError: nobody can say.
    """
    if not is_remote(address):
        return os.path.exists(address)
    return _kind(address) is not None


def is_file(address: str | os.PathLike) -> bool:
    """Whether this is a file; raises as `exists`."""
    return _kind(address) == "file" if is_remote(address) else os.path.isfile(address)


def is_folder(address: str | os.PathLike) -> bool:
    """Whether this is a folder: on an object store, whether there are objects below; raises as `exists`."""
    return _kind(address) == "directory" if is_remote(address) else os.path.isdir(address)


def entries_of(folder: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, each in order.

    Of an object store, objects in a folder without a name (a//b) are not seen.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    if not is_remote(folder):
        with os.scandir(folder) as entries:
            kinds = {entry.name: entry.is_dir() for entry in entries}
    else:
        kinds = {}
        for info in _fresh_listing(folder):
            kinds[info["name"].rstrip("/").rpartition("/")[2]] = info["type"] == "directory"
    names = sorted(kinds)
    return [name for name in names if kinds[name]], [name for name in names if not kinds[name]]


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, also of a remote folder: (folder, names of the folders in it, names of the files).

    Whoever asks removes names of folders from the list that are not to be entered. Links are followed.
    """
    if not is_remote(folder):
        yield from os.walk(folder, followlinks=True)
        return
    folders, files = entries_of(folder)
    yield folder, folders, files
    for name in folders:
        yield from walk(f"{folder.rstrip('/')}/{name}")


def list_files(folder: str) -> Iterator[str]:
    """The paths or addresses of all files below a folder, in a fixed order: those of a folder, then its folders'.

    It goes folder by folder, and what it has gone through it forgets, so that a bucket of 100 million objects is no
    matter; the names of one folder are in memory.

    Raises:
        OSError: a folder cannot be listed.
    """
    folders, files = entries_of(folder)
    for name in files:
        yield os.path.join(folder, name)
    if is_remote(folder):
        store, path = _file_system(folder)
        store.invalidate_cache(path)
    for name in folders:
        yield from list_files(os.path.join(folder, name))


def write_bytes(address: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole; its folder is made."""
    with replacing_address(address) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing_address(address: str | os.PathLike) -> Iterator[Path]:
    """A name on this machine to write to: at the end of the block, unless it fails, the file takes its place.

    Args:
        address: where; its folder is made.
    """
    if not is_remote(address):
        path = Path(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "file")
        yield temporary
        files, path = _file_system(address)
        with _explained(address):
            if PROTOCOL.match(address)[1] in ("file", "local"):  # where a copy could end in the middle
                with replacing_address(path) as beside:
                    files.put_file(str(temporary), str(beside))
            else:
                files.put_file(str(temporary), path)


def remove(address: str | os.PathLike) -> None:
    """Removes a file; where there is none, nothing happens."""
    if not is_remote(address):
        Path(address).unlink(missing_ok=True)
        return
    files, path = _file_system(address)
    with _explained(address):
        if files.exists(path):
            files.rm_file(path)
        files.invalidate_cache(path.rpartition("/")[0])


def remove_folder(address: str | os.PathLike) -> None:
    """Removes a folder and all below; where there is none, nothing happens."""
    if not is_remote(address):
        shutil.rmtree(address, ignore_errors=True)
    elif is_folder(address):
        files, path = _file_system(address)
        with _explained(address):
            files.rm(path, recursive=True)
            files.invalidate_cache(path)


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, one for each place, and the address's path in it."""
    if PASSWORD.match(address):  # it would stand in results and messages
        raise StoreError(f"{shown(address)}: an address with a password is not taken; set it as the package reads it.")
    from fsspec.core import url_to_fs  # it takes a moment that those who have paths need not wait

    with _explained(address):
        return url_to_fs(address)


def _fresh_listing(folder: str) -> list[dict[str, Any]]:
    """What fsspec says of everything in a remote folder, asked for anew."""
    files, path = _file_system(folder)
    with _explained(folder):
        files.invalidate_cache(path)
        infos, own = files.ls(path, detail=True), path.rstrip("/")
        if [(info["name"], info["type"]) for info in infos] == [(own, "file")]:
            raise NotADirectoryError(folder)
        # Some programs mark a folder by an object of its name.
        return [info for info in infos if info["name"].rstrip("/") != own]


def _info(address: str) -> dict[str, Any]:
    files, path = _file_system(address)
    with _explained(address):
        return files.info(path)


def _kind(address: str) -> str | None:
    """ "file", "directory", or None where there is neither; asked for anew."""
    address = address.rstrip("/")
    files, path = _file_system(address)
    files.invalidate_cache(path)
    try:
        return _info(address)["type"]
    except FileNotFoundError:
        return None


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Raises what goes wrong in this block as an OSError of one sentence.

    A store's own message is not passed on: it may quote the request, and with it credentials.
    """
    try:
        yield
    except Exception as error:  # every store's package has its own
        protocol, kind = PROTOCOL.match(address)[1], type(error).__name__
        if isinstance(error, ImportError):
            package = getattr(error.__cause__, "name", None) or "a package that is not installed"
            raise StoreError(f"{protocol}:// addresses need {package}: pip install {package}") from None
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise StoreError(f"{shown(address)}: {protocol}:// is no protocol that fsspec knows.") from None
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{shown(address)}: there is no such file, folder or bucket.") from None
        if "Credential" in kind or "Token" in kind:
            raise StoreError(f"{shown(address)}: no credentials for it are found ({kind}).") from None
        if isinstance(error, PermissionError):
            raise StoreError(f"{shown(address)}: there is no permission.") from None
        if isinstance(error, NotADirectoryError):
            raise NotADirectoryError(f"{shown(address)} is no folder.") from None
        if isinstance(error, IsADirectoryError):
            raise IsADirectoryError(f"{shown(address)} is a folder.") from None
        raise StoreError(f"{shown(address)}: it cannot be reached or used ({kind}).") from None
