"""Receives radiographs by C-STORE and puts them into the queue.

    receiver = Receiver(args, spool, monitor)     # listens; OSError: the port is taken
    receiver.port                                 # 11112
    receiver.close()                              # no new associations; what was under way, its sender sends again

CR and DX alone are accepted, in every transfer syntax: reports and pictures that a router sends back are refused when
the association is negotiated, so results cannot loop. A sender is told 0x0000 when the radiograph is synced to disk,
also for one that was there already.
"""

import threading
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.sop_class import Verification

from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.dicom_identity import RADIOGRAPH_CLASSES, is_uid
from litegpt.inference_scripts.node.bounds import BoundedReading, BoundedServer, IncomingDataSet
from litegpt.inference_scripts.node.monitoring import Monitor
from litegpt.inference_scripts.node.spool import Spool
from litegpt.inference_scripts.node.tls import server_context

UNIT = 1 << 17  # bytes of a protocol data unit that senders are offered
STORED, NO_SPACE, NOT_OF_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000  # PS3.4, table B.2-1
STATUSES = {  # reason -> what the sender is told, with a comment of at most 64 characters
    "disk_full": (NO_SPACE, "No space left: send it again later"),
    "no_uid": (NOT_UNDERSTOOD, "SOP Instance UID is not a UID"),
    "other_class": (NOT_OF_CLASS, "SOP Class UID is not that of the presentation context"),
    "other_uid": (NOT_OF_CLASS, "UIDs of object and request differ"),
    "unreadable": (NOT_UNDERSTOOD, "The object's first elements cannot be read"),
}
SOP_INSTANCE_UID = 0x00080018


class Receiver:
    """A DICOM server that fills the spool.

    Raises:
        OSError: the port is taken, or a certificate cannot be read.
    """

    def __init__(self, args: NodeArguments, spool: Spool, monitor: Monitor):
        self.spool, self.monitor = spool, monitor
        self.limit, self.seconds = args.maximum_megabytes * 10**6, args.network_timeout
        ae = AE(args.ae_title)
        ae.add_supported_context(Verification)
        for sop_class in RADIOGRAPH_CLASSES:
            ae.add_supported_context(sop_class, list(AllTransferSyntaxes))
        ae.require_calling_aet = args.calling_ae_titles
        ae.require_called_aet = args.check_called_ae_title
        ae.maximum_associations, ae.maximum_pdu_size = args.maximum_associations, UNIT
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self.seconds
        handlers = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_PDU_RECV, self._on_unit),
            (evt.EVT_ABORTED, self._on_end),
            (evt.EVT_CONN_CLOSE, self._on_end),
            (evt.EVT_C_STORE, self._on_store),
        ]
        tls = None
        if args.tls_certificate is not None:
            tls = server_context(args.tls_certificate, args.tls_key, args.tls_ca)
        address = (args.host, args.port)
        self.server = ae.make_server(address, evt_handlers=handlers, ssl_context=tls, server_class=BoundedServer)
        self.server.refuse, self.server.seconds = monitor.refuse, self.seconds
        # Two threads an association, and as many again for those that are just being rejected.
        self.server.most_threads = threading.active_count() + 4 * args.maximum_associations + 32
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, name="receiver"
        )
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        for association in self.server.active_associations:
            association.abort()

    # --- What pynetdicom calls ---

    def _on_open(self, event: evt.Event) -> None:
        socket = event.assoc.dul.socket
        socket.recv = BoundedReading(event.assoc, self.seconds, self.monitor.refuse)

    def _on_end(self, event: evt.Event) -> None:
        event.assoc.dul.socket.recv.drop()

    def _on_rejected(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        reasons = {
            (1, 1, 3): "calling_ae_title",
            (1, 1, 7): "called_ae_title",
            (2, 3, 2): "too_many_associations",
        }
        answer = event.assoc.acceptor.primitive
        key = (answer.result, answer.result_source, answer.diagnostic) if answer is not None else None
        self.monitor.refuse(reasons.get(key, "association"), address=requestor.address)

    def _on_unit(self, event: evt.Event) -> None:
        """Turns the data set of a message, which comes in memory, into a file, once its command is complete."""
        message = event.assoc.dimse.message
        if message is None or message.context_id is None or isinstance(message.data_set, IncomingDataSet):
            return
        try:
            incoming = self._incoming(event, message)
        except Exception:  # whatever a bad command runs into; pynetdicom would go on in memory
            event.assoc.dul.socket.recv.excess = "command"
            return
        incoming.write(message.data_set.getvalue())
        message.data_set = incoming

    def _incoming(self, event: evt.Event, message: DIMSEMessage) -> IncomingDataSet:
        uid = str(message.command_set.AffectedSOPInstanceUID)
        if not is_uid(uid) or self.spool.is_full():
            return IncomingDataSet(None, b"", self.limit)
        context = next(cx for cx in event.assoc.accepted_contexts if cx.context_id == message.context_id)
        header = _header(message.command_set.AffectedSOPClassUID, UID(uid), context.transfer_syntax[0])
        return IncomingDataSet(self.spool.part(uid), header, self.limit)

    def _on_store(self, event: evt.Event) -> int | Dataset:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not is_uid(uid):
            return self._refused("no_uid", None)
        if event.request.AffectedSOPClassUID != event.context.abstract_syntax:
            return self._refused("other_class", uid)
        if self.spool.is_known(uid):
            self.monitor.count("repeated")
            self.monitor.log("repeated", uid=uid)
            return STORED
        if self.spool.is_full():
            return self._refused("disk_full", uid)
        data = event.request.DataSet
        try:
            if not isinstance(data, IncomingDataSet):  # so small that it came in one unit with its command
                header = _header(event.request.AffectedSOPClassUID, UID(uid), event.context.transfer_syntax)
                whole, data = data, IncomingDataSet(self.spool.part(uid), header, self.limit)
                data.write(whole.getvalue())
            if data.part is None:  # there was no space when it began
                return self._refused("disk_full", uid)
            part = data.complete()
            problem = _problem(part, data.start, event)
            if problem is not None:
                return self._refused(problem, uid)
            self.spool.accept(uid, part)
        except OSError:
            return self._refused("disk_full", uid)
        finally:
            data.close()  # deletes what was not accepted
        self.monitor.count("received")
        self.monitor.log("received", uid=uid, bytes=data.size)
        return STORED

    def _refused(self, reason: str, uid: str | None) -> Dataset:
        self.monitor.refuse(reason, **({} if uid is None else {"uid": uid}))
        status = Dataset()
        status.Status, status.ErrorComment = STATUSES[reason]
        return status


def _header(sop_class: UID, uid: UID, transfer_syntax: UID) -> bytes:
    """What a DICOM file begins with, before the data set (PS3.10, 7.1)."""
    meta = create_file_meta(sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax=transfer_syntax)
    return bytes(128) + b"DICM" + encode_file_meta(meta)


def _problem(part: Path, start: int, event: evt.Event) -> str | None:
    """Whether the object's own UIDs are those of the request; nothing behind them is read."""
    syntax = UID(event.context.transfer_syntax)
    if syntax == DeflatedExplicitVRLittleEndian:  # read when it is answered, within bounds
        return None
    with part.open("rb") as file:
        file.seek(start)
        try:
            dataset = read_dataset(
                file, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=lambda tag, *_: tag > SOP_INSTANCE_UID
            )
            found = dataset.SOPClassUID, dataset.SOPInstanceUID
        except Exception:  # pydicom raises whatever a bad file runs into
            return "unreadable"
    asked = event.request.AffectedSOPClassUID, event.request.AffectedSOPInstanceUID
    return None if found == asked else "other_uid"
