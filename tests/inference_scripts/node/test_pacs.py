"""What a PACS says, by C-STORE and by STOW-RS, and what the node makes of it."""

import time
from io import BytesIO

import pydicom
import pytest
from pynetdicom import build_context

from litegpt.inference_scripts.node.pacs import DicomPacs, NotStoredError, UnreachableError, WebPacs, is_stored
from tests.small_pacs import as_file, dicom_pacs, radiograph, web_pacs

OTHER = "1.2.840.10008.5.1.4.1.1.1"


def read(number: int) -> pydicom.Dataset:
    """As the node reads its results."""
    return pydicom.dcmread(BytesIO(as_file(radiograph(number))))


@pytest.mark.parametrize(
    ("status", "stored"),
    [(0x0000, True), (0x0111, True), (0xB000, True), (0xB007, True)]
    + [(0xA700, False), (0xA900, False), (0xC000, False), (0x0122, False), (0x0110, False)],
)
def test_success_warnings_and_duplicates_count_as_stored(status, stored):
    assert is_stored(status) == stored


def test_one_association_is_kept_open_and_opened_again_after_a_rest(arguments):
    with dicom_pacs() as there:
        pacs = DicomPacs(arguments(pacs=there.address))
        pacs.check()
        for number in range(3):
            pacs.store([radiograph(number)])
        assert there.associations == 2 and len(there.stored) == 3  # the check's, then with the class
        pacs.rest()
        pacs.store([radiograph(9)])
        assert there.associations == 3 and len(there.stored) == 4
        pacs.rest()


def test_an_association_that_was_dropped_is_opened_again(arguments):
    with dicom_pacs() as there:
        pacs = DicomPacs(arguments(pacs=there.address))
        pacs.store([radiograph(1)])
        for association in there.server.active_associations:
            association.abort()
        time.sleep(0.3)
        pacs.store([radiograph(2)])
        assert len(there.stored) == 2
        pacs.rest()


def test_a_pacs_that_is_not_there_or_rejects_is_unreachable(arguments):
    with pytest.raises(UnreachableError, match="does not answer"):
        DicomPacs(arguments()).check()
    with dicom_pacs() as there:
        there.server.ae.require_called_aet = True
        with pytest.raises(UnreachableError, match="rejects the association"):
            DicomPacs(arguments(pacs=there.address.replace("PACS", "OTHER"))).store([radiograph(1)])


@pytest.mark.parametrize(("status", "is_for_now"), [(0xA700, True), (0xA900, False), (0xC123, False), (None, False)])
def test_a_refusal_says_why_and_leaves_the_pacs_usable(status, is_for_now, arguments):
    with dicom_pacs() as there:
        pacs = DicomPacs(arguments(pacs=there.address))
        there.status = lambda sop_class, uid: status if uid == "1.2.3.1.4.5" else 0
        with pytest.raises(NotStoredError) as refusal:
            pacs.store([radiograph(1)])
        assert refusal.value.is_for_now == is_for_now
        assert f"0x{status:04X}" in str(refusal.value) if status else "ended the association" in str(refusal.value)
        pacs.store([radiograph(2)])
        pacs.rest()


def test_a_class_that_the_pacs_does_not_take_is_named(arguments):
    with dicom_pacs(contexts=[build_context(OTHER)]) as there:
        pacs = DicomPacs(arguments(pacs=there.address))
        with pytest.raises(NotStoredError, match="does not accept Digital X-Ray Image Storage - For Presentation"):
            pacs.store([radiograph(1)])
        pacs.rest()


def test_results_are_stored_over_the_web_and_a_second_time_as_well(arguments):
    with web_pacs() as there:
        pacs = WebPacs(arguments(pacs=None, dicomweb_url=there.url))
        pacs.check()
        pacs.store([read(1), read(2)])
        pacs.store([read(1), read(2)])
        assert len(there.kept) == 2 and there.kept["1.2.3.1.4.5"].PixelData == radiograph(1).PixelData


@pytest.mark.parametrize(("reason", "is_for_now"), [(0x0111, None), (0xA700, True), (0x0110, False)])
@pytest.mark.parametrize("both", [True, False])
def test_what_fails_over_the_web_is_noticed_though_others_were_stored(reason, is_for_now, both, arguments):
    with web_pacs() as there:
        pacs = WebPacs(arguments(pacs=None, dicomweb_url=there.url))
        there.failures = {"1.2.3.1.4.5": reason}
        datasets = [read(1), read(2)] if both else [read(1)]  # HTTP status 202, or 409
        if is_for_now is None:
            pacs.store(datasets)
            return
        with pytest.raises(NotStoredError, match=f"0x{reason:04X}") as refusal:
            pacs.store(datasets)
        assert refusal.value.is_for_now == is_for_now


def test_a_refusal_over_the_web_without_a_reason_is_one_as_well(arguments):
    with web_pacs() as there:
        there.status = 409
        with pytest.raises(NotStoredError, match="HTTP status 409"):
            WebPacs(arguments(pacs=None, dicomweb_url=there.url)).store([read(1)])


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_status_about_the_pacs_is_no_refusal_of_the_objects(status, arguments):
    with web_pacs() as there:
        there.status = status
        with pytest.raises(UnreachableError, match=str(status)):
            WebPacs(arguments(pacs=None, dicomweb_url=there.url)).store([radiograph(1)])
    with pytest.raises(UnreachableError):
        WebPacs(arguments(pacs=None, dicomweb_url=there.url)).store([radiograph(1)])


def test_a_token_comes_from_a_file_or_the_environment(arguments, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("of a file\n")
    monkeypatch.setenv("LITEGPT_DICOMWEB_TOKEN", "of the environment")
    with web_pacs() as there:
        for token, file in (("of a file", str(tmp_path / "token")), ("of the environment", None)):
            there.token = token
            WebPacs(arguments(pacs=None, dicomweb_url=there.url, dicomweb_token_file=file)).check()


def test_a_pacs_is_sent_to_over_tls(arguments, certificate):
    from litegpt.inference_scripts.node.bounds import server_context

    tls = server_context(str(certificate), None, str(certificate))  # it wants to see the node's, too
    with dicom_pacs(tls=tls) as there:
        files = {"tls_certificate": str(certificate), "tls_ca": str(certificate)}
        address = there.address.replace("127.0.0.1", "localhost")
        pacs = DicomPacs(arguments(pacs=address, pacs_tls=True, **files))
        pacs.store([radiograph(1)])
        pacs.rest()
        assert list(there.stored) == ["1.2.3.1.4.5"]
        with pytest.raises(UnreachableError):
            DicomPacs(arguments(pacs=there.address)).store([radiograph(1)])
