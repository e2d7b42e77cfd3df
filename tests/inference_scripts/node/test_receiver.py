"""What comes in by C-STORE: kept before it is accepted, and nothing that a sender does harms the node."""

import socket
import struct
import threading
import time
from contextlib import contextmanager
from io import BytesIO

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Comprehensive3DSRStorage, CTImageStorage, Verification

from litegpt.inference_scripts.node.receiver import Receiver
from litegpt.inference_scripts.node.spool import Spool
from tests.small_pacs import DX, as_file, encoded, radiograph


@pytest.fixture
def listening(spool, monitor, arguments):
    """Starts receivers with options, which end with the test."""
    started = []

    def start(**options) -> Receiver:
        started.append(Receiver(arguments(**options), spool, monitor))
        return started[-1]

    yield start
    for receiver in started:
        receiver.close()


@contextmanager
def associated(receiver: Receiver, calling: str = "SENDER", called: str = "LITEGPT", contexts=(DX,)):
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    requested = [build_context(context, ExplicitVRLittleEndian) for context in (*contexts, Verification)]
    association = ae.associate("127.0.0.1", receiver.port, requested, ae_title=called)
    yield association
    if association.is_established:
        association.release()


def send(association, sop_class: str, uid: str, data: bytes) -> pydicom.Dataset:
    """A C-STORE as no library would send it, all in one unit; its answer."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.DataSet = sop_class, uid, BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    (context,) = (each for each in association.accepted_contexts if each.abstract_syntax == DX)
    unit, *others = message.encode_msg(context.context_id, 0)
    for other in others:
        unit.presentation_data_value_list.extend(other.presentation_data_value_list)
    association._reactor_checkpoint.clear()  # the association's own thread would take the answer
    while not association._is_paused:
        time.sleep(0.001)
    association.dul.send_pdu(unit)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return answer


def test_a_radiograph_is_on_the_disk_as_it_was_sent_when_its_sender_is_told_so(listening, spool):
    dataset = radiograph(1)
    dataset.PixelData = bytes(range(256)) * 1200  # in several units
    dataset.Rows, dataset.Columns = 480, 640
    with associated(listening()) as association:
        assert association.send_c_store(dataset).Status == 0x0000
        kept = spool.image("1.2.3.1.4.5")
        assert pydicom.dcmread(kept) == dataset and kept.stat().st_mode & 0o777 == 0o600
        assert kept.read_bytes().endswith(encoded(dataset))
    assert spool.unanswered.get(timeout=1) == "1.2.3.1.4.5" and not list(spool.receiving.iterdir())


def test_a_small_object_that_comes_with_its_command_is_kept_as_well(listening, spool):
    with associated(listening()) as association:
        assert send(association, DX, "1.2.3.1.4.5", encoded(radiograph(1))).Status == 0x0000
    kept = spool.image("1.2.3.1.4.5")
    assert pydicom.dcmread(kept).pixel_array.shape == (64, 48)
    assert kept.read_bytes().endswith(encoded(radiograph(1)))


def test_what_is_queued_or_done_is_accepted_and_not_queued_again(listening, spool, monitor):
    with associated(listening()) as association:
        assert [association.send_c_store(radiograph(1)).Status for _ in range(2)] == [0, 0]
        assert spool.unanswered.get(timeout=1) and spool.unanswered.empty()
        spool.finish("1.2.3.1.4.5")
        assert association.send_c_store(radiograph(1)).Status == 0
    assert spool.unanswered.empty() and not spool.image("1.2.3.1.4.5").exists()
    assert monitor.total("received") == 1 and monitor.total("repeated") == 2
    assert not list(spool.receiving.iterdir())


def test_results_cannot_come_back(listening):
    with associated(listening(), contexts=[DX, Comprehensive3DSRStorage, CTImageStorage]) as association:
        assert {str(context.abstract_syntax) for context in association.accepted_contexts} == {DX, str(Verification)}


def test_echo(listening):
    with associated(listening()) as association:
        assert association.send_c_echo().Status == 0x0000


@pytest.mark.parametrize(
    ("calling", "called", "reason"), [("OTHER", "LITEGPT", "calling_ae_title"), ("SENDER", "X", "called_ae_title")]
)
def test_who_is_not_on_the_list_or_calls_another_is_rejected_by_name(
    calling, called, reason, listening, monitor, until
):
    with associated(listening(), calling, called) as association:
        assert association.is_rejected
    until(lambda: monitor.events("refused"))
    assert monitor.events("refused")[0]["reason"] == reason and monitor.total("refused") == 1


def test_the_called_title_may_be_any(listening):
    with associated(listening(check_called_ae_title=False), called="X") as association:
        assert association.is_established


@pytest.mark.parametrize(
    ("sop_class", "uid", "data", "status", "reason"),
    [
        (DX, "../../1.2", b"\xff\xff", 0xC000, "no_uid"),
        (DX, "1.2.3.1.4.5", b"\xff\xff", 0xC000, "unreadable"),
        (DX, "1.2.3.1.4.5", b"\xff" * 200, 0xC000, "unreadable"),
        (DX, "1.2.3.1.4.6", encoded(radiograph(1)), 0xA900, "other_uid"),
        (str(CTImageStorage), "1.2.3.1.4.5", encoded(radiograph(1)), 0xA900, "other_class"),
    ],
)
def test_an_object_that_is_not_what_it_is_said_to_be_is_refused_by_name(
    sop_class, uid, data, status, reason, listening, monitor, spool
):
    with associated(listening()) as association:
        answer = send(association, sop_class, uid, data)
    assert answer.Status == status and answer.ErrorComment
    assert monitor.events("refused")[0]["reason"] == reason
    assert spool.unanswered.empty() and not list(spool.incoming.iterdir()) and not list(spool.receiving.iterdir())


def test_an_object_beyond_the_limit_ends_the_association_and_leaves_nothing(listening, monitor, spool, until):
    receiver = listening(maximum_megabytes=1)
    dataset = radiograph(1)
    dataset.PixelData = bytes(3_000_000)
    with associated(receiver) as association:
        assert "Status" not in association.send_c_store(dataset)
    until(lambda: not list(spool.receiving.iterdir()))
    assert [event["reason"] for event in monitor.events("refused")] == ["object_too_large"]
    with associated(receiver) as association:
        assert association.send_c_store(radiograph(2)).Status == 0


def test_without_space_a_sender_is_told_to_come_again(tmp_path, monitor, arguments):
    with Spool(tmp_path / "full", reserve=1 << 60) as spool:
        receiver = Receiver(arguments(), spool, monitor)
        dataset = radiograph(1)
        dataset.PixelData = bytes(400_000)
        with associated(receiver) as association:
            assert [association.send_c_store(each).Status for each in (radiograph(2), dataset)] == [0xA700, 0xA700]
        receiver.close()
        assert not list(spool.incoming.iterdir()) and not list(spool.receiving.iterdir())


def test_a_write_that_fails_is_not_accepted(listening, spool, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litegpt.inference_scripts.node.bounds.sync", full)
    with associated(listening()) as association:
        assert association.send_c_store(radiograph(1)).Status == 0xA700
    assert not list(spool.incoming.iterdir()) and not list(spool.receiving.iterdir())


def test_a_unit_that_announces_gigabytes_is_not_waited_for(listening, monitor, until):
    receiver = listening()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 2**31))
        connection.settimeout(10)
        assert connection.recv(10)[:1] in (b"\x07", b"")  # an abort, or the end
    until(lambda: monitor.events("refused"))
    assert monitor.events("refused")[0]["reason"] == "unit_too_long"


def test_a_silent_sender_is_sent_away(listening, until):
    before = threading.active_count()
    receiver = listening(network_timeout=0.5)
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 200))  # and no more
        connection.settimeout(10)
        assert connection.recv(10) == b""
    until(lambda: threading.active_count() <= before + 1)


def test_senders_beyond_the_number_are_rejected_and_others_are_served_again(listening, monitor, until):
    receiver = listening(maximum_associations=2)
    with associated(receiver) as first, associated(receiver) as second, associated(receiver) as third:
        assert first.is_established and second.is_established and third.is_rejected
    until(lambda: monitor.events("refused"))
    assert monitor.events("refused")[0]["reason"] == "too_many_associations"
    until(lambda: not receiver.server.active_associations)
    with associated(receiver) as again:
        assert again.is_established


def test_connections_beyond_the_number_are_closed_at_once(listening, monitor):
    receiver = listening(maximum_associations=2)
    connections = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(60)]
    connections[-1].settimeout(10)
    assert connections[-1].recv(1) == b""
    for connection in connections:
        connection.close()
    assert monitor.events("refused")[-1]["reason"] == "too_many_connections"


def test_no_tag_of_a_patient_is_in_the_log_or_in_a_name(listening, monitor, spool):
    with associated(listening()) as association:
        association.send_c_store(radiograph(1))
        send(association, DX, "1.2.3.1.4.6", encoded(radiograph(1)))
    assert "SECRET" not in "".join(monitor.lines) + "".join(map(str, spool.folder.rglob("*")))


def test_the_port_of_another_is_an_error(listening, arguments, spool, monitor):
    with pytest.raises(OSError):
        Receiver(arguments(port=listening().port), spool, monitor)


def test_fuzzed_units_are_refused_and_the_next_sender_is_served(listening, spool):
    receiver = listening(network_timeout=1.0)
    data = as_file(radiograph(1))
    for start in (b"\x01", b"\x04", b"\x63", b"GET / HTTP/1.1\r\n", struct.pack(">BBL", 4, 0, 100)):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.sendall(start + data[:500])
    with associated(receiver) as association:
        assert association.send_c_store(radiograph(2)).Status == 0
