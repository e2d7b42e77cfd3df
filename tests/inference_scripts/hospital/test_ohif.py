"""The viewer's download: the release that is known, or nothing."""

import pytest

from litegpt.inference_scripts.hospital.ohif import VERSION, FetchError, ohif


def test_what_is_there_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (tmp_path / VERSION).mkdir()
    (tmp_path / VERSION / "index.html").write_text("")
    assert ohif(tmp_path) == tmp_path / VERSION


def test_without_npm_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchError, match="npm is not installed"):
        ohif(tmp_path)


@pytest.mark.parametrize(
    ("body", "reason"), [("exit 1", "cannot be downloaded"), ("echo x > a.tgz", "not the release")]
)
def test_another_file_or_none_leaves_nothing(tmp_path, monkeypatch, body, reason):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{body}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    with pytest.raises(FetchError, match=reason):
        ohif(tmp_path / "ohif")
    assert list((tmp_path / "ohif").iterdir()) == []
