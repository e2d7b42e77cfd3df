import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from litegpt.common import addresses


@pytest.fixture
def bucket() -> str:
    """An object store in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("address", ["s3://b/a.dcm", "hf://datasets/o/n/a.png", "memory://a", "file:///a", "S3://b/a"])
def test_an_address_has_a_protocol(address):
    assert addresses.is_remote(address)


@pytest.mark.parametrize("path", ["a.dcm", "/a/b", "C:\\a.dcm", "C://a", "a:b", "s3:/b", Path("s3://b/a")])
def test_a_path_has_none(path):
    assert not addresses.is_remote(path)


def test_paths_are_read_and_written_without_fsspec(tmp_path):
    code = f"""
import sys
from litegpt.common import addresses
folder = {str(tmp_path)!r}
addresses.write_bytes(folder + "/below/a", b"abc")
assert addresses.read_bytes(folder + "/below/a", 3) == b"abc" and addresses.is_file(folder + "/below/a")
assert list(addresses.list_files(folder)) == [folder + "/below/a"]
assert "fsspec" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(params=["folder", "shelf", "memory", "file"])
def folder(request, tmp_path) -> str:
    """A folder, on this machine and in stores."""
    if request.param == "folder":
        return str(tmp_path / "folder")
    if request.param == "file":
        return f"file://{tmp_path / 'folder'}"
    return request.getfixturevalue("shelf" if request.param == "shelf" else "bucket") + "/folder"


def test_what_is_written_is_read_again(folder):
    address = f"{folder}/below/a.dcm"
    assert not addresses.exists(address)
    addresses.write_bytes(address, b"older")
    addresses.write_bytes(address, b"radiograph")
    assert addresses.read_bytes(address, 10) == b"radiograph"
    assert addresses.size_of(address) == 10
    with addresses.open_address(address) as file:
        assert file.seek(5) == 5 and file.read() == b"graph"
    assert addresses.is_file(address) and not addresses.is_folder(address)
    assert addresses.is_folder(f"{folder}/below/") and not addresses.is_file(f"{folder}/below")
    addresses.remove(address)
    addresses.remove(address)
    assert not addresses.exists(address)


def test_a_failed_write_leaves_the_older_file_and_no_other(folder):
    address = f"{folder}/a"
    addresses.write_bytes(address, b"older")
    with pytest.raises(RuntimeError), addresses.replacing_address(address) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert addresses.read_bytes(address, 5) == b"older"
    assert [name for name in addresses.list_files(folder) if not name.endswith(".incomplete")] == [address]


def test_files_are_listed_folder_by_folder_in_a_fixed_order(folder):
    names = ["b.dcm", "a/z.dcm", "a/c/y.dcm", "c.dcm", "a/a.dcm"]
    for name in names:
        addresses.write_bytes(f"{folder}/{name}", b"")
    expected = [f"{folder}/{name}" for name in ("b.dcm", "c.dcm", "a/a.dcm", "a/z.dcm", "a/c/y.dcm")]
    assert list(addresses.list_files(folder)) == expected
    assert addresses.entries_of(folder) == (["a"], ["b.dcm", "c.dcm"])
    walked = {here: sorted(files) for here, _, files in addresses.walk(folder)}
    assert walked[f"{folder}/a"] == ["a.dcm", "z.dcm"]


def test_a_listing_asks_for_a_folder_only_when_it_comes_to_it(bucket, monkeypatch):
    for name in ("a/1", "b/1", "c/1"):
        addresses.write_bytes(f"{bucket}/{name}", b"")
    asked, ls = [], MemoryFileSystem.ls
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda self, path, **how: asked.append(path) or ls(self, path, **how))
    assert next(addresses.list_files(bucket)) == f"{bucket}/a/1"
    assert asked == ["/bucket", "/bucket/a"]


def test_another_content_is_another_state(shelf):
    address = f"{shelf}/a"
    addresses.write_bytes(address, b"one")
    state = addresses.state_of(address)
    assert addresses.state_of(address) == state and state[0] == 3
    addresses.write_bytes(address, b"two")
    assert addresses.state_of(address) != state


def test_a_file_larger_than_allowed_is_refused(folder):
    addresses.write_bytes(f"{folder}/a", b"12345")
    with pytest.raises(OSError, match=r"a has 5 bytes, more than 4\.$"):
        addresses.read_bytes(f"{folder}/a", 4)


def test_what_is_not_there_is_named(bucket):
    sentence = r"^memory://bucket/a\.dcm: there is no such file, folder or bucket\.$"
    with pytest.raises(FileNotFoundError, match=sentence):
        addresses.read_bytes(f"{bucket}/a.dcm", 10)
    with pytest.raises(FileNotFoundError, match="^memory://bucket/none: there is no such file, folder or bucket"):
        list(addresses.list_files(f"{bucket}/none"))


def test_a_file_is_no_folder(folder):
    addresses.write_bytes(f"{folder}/a", b"")
    with pytest.raises(NotADirectoryError):
        list(addresses.list_files(f"{folder}/a"))


class _Refusing(MemoryFileSystem):
    protocol = "refusing"
    error: Exception

    def info(self, path, **options):
        raise self.error


class NoCredentialsError(Exception):
    """Named as botocore's."""


@pytest.mark.parametrize(
    "error, sentence",
    [
        (PermissionError("AKIA"), "refusing://host/b/a.dcm: there is no permission."),
        (
            NoCredentialsError("AKIA"),
            "refusing://host/b/a.dcm: no credentials for it are found (NoCredentialsError).",
        ),
        (RuntimeError("AKIA"), "refusing://host/b/a.dcm: it cannot be reached or used (RuntimeError)."),
    ],
)
def test_a_failure_is_one_sentence_without_credentials(monkeypatch, error, sentence):
    fsspec.register_implementation("refusing", _Refusing, clobber=True)
    monkeypatch.setattr(_Refusing, "error", error, raising=False)
    for ask in (addresses.size_of, addresses.exists, addresses.is_folder):
        with pytest.raises(addresses.StoreError) as found:
            ask("refusing://user@host/b/a.dcm?signature=AKIA")
        assert str(found.value) == sentence


def test_the_missing_package_of_a_protocol_is_named():
    fsspec.register_implementation("rare", "package_that_nobody_has.Files", errtxt="no", clobber=True)
    with pytest.raises(OSError) as found:
        addresses.exists("rare://bucket/a")
    assert str(found.value) == ("rare:// addresses need package_that_nobody_has: pip install package_that_nobody_has")
    with pytest.raises(OSError, match="s4:// is no protocol that fsspec knows"):
        addresses.exists("s4://bucket/a")


def test_an_address_with_a_password_is_refused_without_it():
    with pytest.raises(OSError, match="^memory://host/a: an address with a password is not taken") as found:
        addresses.exists("memory://user:AKIA@host/a")
    assert "AKIA" not in str(found.value)
