"""What one sender may do to the node, so that none can fill its memory, its disk or its time.

    server = ae.make_server(address, server_class=BoundedServer, ...)
    association.dul.socket.recv = BoundedReading(association, seconds=60, refuse=monitor.refuse)
    message.data_set = IncomingDataSet(part, header, limit)

pynetdicom reads a protocol data unit of any length that it announces, waits for its bytes for ever, and collects a
message in memory before a handler sees it. Here a unit is bounded in bytes and seconds, and the data set of a message
goes to the disk as it comes.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from socketserver import BaseServer
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from litegpt.inference_scripts.node.spool import sync

LONGEST_UNIT = 1 << 20  # bytes of a protocol data unit: an association request of 128 contexts is below
LONGEST_COMMAND = 1 << 16  # bytes of a message's command set
MOST_WAITING = 16  # messages of a sender that does not wait for answers


class ExcessError(Exception):
    """A sender does more than it may. No OSError: pynetdicom then aborts the association and ends its threads."""


class BoundedReading:
    """Takes the place of `AssociationSocket.recv`.

    Attributes:
        excess: why no more is read, once somebody has set it; "" before.

    Args:
        association: whose socket is read.
        seconds: within which a unit must be there.
        refuse: is told the reason when the association is aborted.
    """

    def __init__(self, association: Association, seconds: float, refuse: Callable[[str], Any]):
        self.association, self.seconds, self.refuse = association, seconds, refuse
        self.excess = ""

    def __call__(self, size: int) -> bytearray:
        """So many bytes; fewer where the sender has gone.

        Raises:
            OSError: they did not come in time, or the connection is broken.
            ExcessError: the association is to be aborted.
        """
        if size > LONGEST_UNIT:
            self.excess = self.excess or "unit_too_long"
        self._check_message()
        if self.excess:
            self.refuse(self.excess)
            self.drop()
            raise ExcessError(self.excess)
        try:
            data = self._read(size)
        except OSError:
            self.drop()
            raise
        if len(data) < size:
            self.drop()
        return data

    def drop(self) -> None:
        """Deletes what has come of an object, at an end of the association; Python might take a while."""
        message = self.association.dimse.message
        if message is not None and isinstance(message.data_set, IncomingDataSet):
            message.data_set.close()

    def _read(self, size: int) -> bytearray:
        socket = self.association.dul.socket.socket
        if socket is None:
            raise OSError("the connection is closed")
        data, read, end = bytearray(size), 0, time.monotonic() + self.seconds
        view = memoryview(data)
        while read < size:
            left = end - time.monotonic()
            if left <= 0:
                self.refuse("too_slow")
                raise TimeoutError
            socket.settimeout(left)
            count = socket.recv_into(view[read:])
            if not count:
                break
            read += count
        socket.settimeout(self.seconds)  # of what is sent
        view.release()
        return data[:read]

    def _check_message(self) -> None:
        message = self.association.dimse.message
        if message is not None:
            if message.encoded_command_set.tell() > LONGEST_COMMAND:
                self.excess = self.excess or "command_too_long"
            if isinstance(message.data_set, IncomingDataSet) and message.data_set.is_too_long:
                self.excess = self.excess or "object_too_large"
        if self.association.dimse.msg_queue.qsize() > MOST_WAITING:
            self.excess = self.excess or "does_not_wait"


class IncomingDataSet(BytesIO):
    """Takes the place of a message's data set in memory: what is written to it goes into a file.

    Closing it, which Python does when nobody has it any more, deletes the file unless it was taken.

    Attributes:
        is_too_long: more was written than the limit; the rest was dropped.
        error: why the file could not be written; None if it could.

    Args:
        part: the file; None: all that is written is dropped.
        header: what it begins with, before the data set.
        limit: bytes of the data set.
    """

    def __init__(self, part: Path | None, header: bytes, limit: int):
        super().__init__()
        self.part, self.limit = part, limit
        self.size, self.start, self.is_too_long = 0, len(header), False
        self.error: OSError | None = None
        self._file = None
        if part is not None:
            try:
                self._file = open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb")
                self._file.write(header)
            except OSError as error:
                self._give_up(error)

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.is_too_long = self.size > self.limit
        if self._file is not None and not self.is_too_long:
            try:
                self._file.write(data)
            except OSError as error:
                self._give_up(error)
        return len(data)

    def complete(self) -> Path:
        """The file, synced.

        Raises:
            OSError: it could not be written.
        """
        if self.error is not None:
            raise self.error
        self._file.close()
        sync(self.part)
        return self.part

    def close(self) -> None:
        if not self.closed and self.part is not None:
            self._give_up(None)
        super().close()

    def _give_up(self, error: OSError | None) -> None:
        self.error = error
        try:
            if self._file is not None:
                self._file.close()
        except OSError:  # the disk is full: nothing more is written
            pass
        self._file = None
        self.part.unlink(missing_ok=True)


class BoundedServer(ThreadedAssociationServer):
    """pynetdicom's server, with a bound to the connections, and no sender that keeps others waiting.

    Attributes:
        most_threads: of the process; a connection beyond is closed at once. It is set before the server serves.
        refuse: is told the reason.
        seconds: that a handshake may take.
    """

    request_queue_size = 128
    most_threads, seconds = 256, 60.0

    def refuse(self, reason: str) -> None:
        pass

    def get_request(self) -> tuple[Any, Any]:
        connection, address = self.socket.accept()
        connection.settimeout(self.seconds)
        if self.ssl_context is not None:
            # The handshake is made by the association's thread, as it reads: here a silent client would stop all.
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if threading.active_count() < self.most_threads:
            return True
        self.refuse("too_many_connections")
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.refuse("connection_failed")  # without a traceback

    def shutdown(self) -> None:
        BaseServer.shutdown(self)  # pynetdicom's wants to be started by the AE
        self.server_close()


def send_at_once(association: Association) -> None:
    """Has a message's command and data set sent without waiting for one another: 40 ms each time (Nagle, RFC 896)."""
    socket = association.dul.socket and association.dul.socket.socket
    if socket is not None:
        with suppress(OSError):  # the peer has gone: whoever sends will see
            socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
