"""What the hostile senders send is what it is said to be, or nothing would be tried."""

from io import BytesIO

from pydicom.filereader import read_dataset
from pynetdicom.pdu import A_ASSOCIATE_RQ, P_DATA_TF

from litegpt.benchmarks.node_hostile import association_request, command_set, encoded_dataset, unit_of
from tests.small_pacs import DX, radiograph


def test_a_command_is_a_c_store_request():
    command = read_dataset(BytesIO(command_set(DX, "1.2.3")), is_implicit_VR=True, is_little_endian=True)
    assert (command.CommandField, command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (1, DX, "1.2.3")
    assert command.CommandGroupLength == len(command_set(DX, "1.2.3")) - 12


def test_units_and_requests_are_those_of_the_standard():
    request = A_ASSOCIATE_RQ()
    request.decode(association_request(DX))
    assert request.calling_ae_title == "SENDER" and request.called_ae_title == "LITEGPT"
    unit = P_DATA_TF()
    unit.decode(unit_of(2, b"abcd"))
    (item,) = unit.presentation_data_value_items
    assert item.presentation_context_id == 1 and item.presentation_data_value == b"\x02abcd"


def test_a_data_set_is_in_implicit_vr():
    read = read_dataset(BytesIO(encoded_dataset(radiograph(1))), is_implicit_VR=True, is_little_endian=True)
    assert read.SOPInstanceUID == "1.2.3.1.4.5"
