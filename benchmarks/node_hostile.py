"""A node among hostile senders: what it refuses, what memory it takes, and whether it still serves the others.

    python benchmarks/node_hostile.py --associations 10000 --gigabytes 2

One after the other: who is not on the list, objects of other classes, in another syntax, and fuzzed, units that are
none, silent connections, very many associations, and an object of gigabytes. After each a good radiograph must be
accepted and its results delivered. The PACS is a stand-in that keeps nothing.
"""

import argparse
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, CTImageStorage

from litegpt.benchmarks.node_stand_ins import NodeProcess, Sender, Workplace, radiographs, until
from litegpt.benchmarks.results import parsed, record

RELEASE = struct.pack(">BBLL", 5, 0, 4, 0)
UNIT = 1 << 16


class Hostile:
    """The senders, one a method, and what they found."""

    def __init__(self, node: NodeProcess, files: list[Path], options: dict[str, Any]):
        self.node, self.files, self.options = node, files, options
        self.randomness = random.Random(0)

    def other_calling_title(self) -> str:
        found = Counter()
        for _ in range(20):
            association = AE("STRANGER").associate(
                "127.0.0.1", self.node.port, [build_context(self.data(0).SOPClassUID)], ae_title="LITEGPT"
            )
            found["rejected" if association.is_rejected else "not rejected"] += 1
        return str(dict(found))

    def other_classes(self) -> str:
        contexts = [build_context(Comprehensive3DSRStorage), build_context(CTImageStorage)]
        association = AE("SENDER").associate("127.0.0.1", self.node.port, contexts, ae_title="LITEGPT")
        accepted = len(association.accepted_contexts)
        association.abort()
        return f"{accepted} of 2 presentation contexts accepted"

    def wrong_syntax(self) -> str:
        """Radiographs in implicit VR, pixels as they are, where explicit was agreed upon; half of them lack a byte."""
        found, before = Counter(), self.node.count("failed_radiographs")
        for number in range(len(self.files)):
            data = self.data(number)
            uid = f"1.2.826.0.1.3680043.10.544.{number}"
            command = command_set(str(data.SOPClassUID), uid)
            data.SOPInstanceUID = uid
            encoded = encoded_dataset(data)[number % 2 :]
            with self.connection() as connection:
                connection.sendall(association_request(str(data.SOPClassUID)))
                connection.recv(4096)
                connection.sendall(unit_of(3, command))
                for start in range(0, len(encoded), UNIT):
                    connection.sendall(unit_of(2 * (start + UNIT >= len(encoded)), encoded[start : start + UNIT]))
                answer = connection.recv(4096)
                place = answer.find(struct.pack("<HHL", 0, 0x0900, 2))
                found[struct.unpack_from("<H", answer, place + 8)[0] if place > 0 else "no answer"] += 1
                connection.sendall(RELEASE)
        until(lambda: self.node.count("unanswered_radiographs") == 0, 300, "the queue does not get empty", self.node)
        failed = self.node.count("failed_radiographs") - before
        return f"statuses {dict(found)}, then failed {failed:.0f}"

    def fuzzed_objects(self) -> str:
        """Radiographs with bytes of their data sets changed, each under a UID of its own."""
        found: Counter[Any] = Counter()
        association = None
        for number in range(self.options["fuzzed"]):
            data = self.data(number % len(self.files))
            data.SOPInstanceUID = f"1.2.826.0.1.3680043.10.543.{number}"
            pixels = bytearray(data.PixelData)
            for _ in range(self.randomness.choice([1, 20, 2000])):
                pixels[self.randomness.randrange(len(pixels))] = self.randomness.randrange(256)
            data.PixelData = bytes(pixels[: self.randomness.choice([None, None, len(pixels) // 2, 10])])
            for keyword in self.randomness.sample(["Rows", "Columns", "BitsStored", "HighBit", "SamplesPerPixel"], 2):
                setattr(data, keyword, self.randomness.choice([0, 1, 7, 16, 255, 65535]))
            if association is None or not association.is_established:
                association = AE("SENDER").associate(
                    "127.0.0.1",
                    self.node.port,
                    [build_context(*pair) for pair in self.pairs()],
                    ae_title="LITEGPT",
                )
            try:
                found[association.send_c_store(data).get("Status")] += 1
            except (RuntimeError, ValueError, AttributeError) as error:
                found[type(error).__name__] += 1
        if association.is_established:
            association.release()
        until(lambda: self.node.count("unanswered_radiographs") == 0, 300, "the queue does not get empty", self.node)
        return f"statuses {dict(found)}, then failed {self.node.count('failed_radiographs'):.0f}"

    def fuzzed_units(self) -> str:
        request = association_request(self.data(0).SOPClassUID)
        for _ in range(self.options["fuzzed"]):
            unit = bytearray(request)
            for _ in range(self.randomness.choice([1, 5, 50])):
                unit[self.randomness.randrange(len(unit))] = self.randomness.randrange(256)
            with self.connection() as connection:
                connection.sendall(unit)
        return f"{self.options['fuzzed']} association requests with changed bytes"

    def silent_connections(self) -> str:
        connections = [self.connection() for _ in range(500)]
        closed = 0
        for connection in connections:
            connection.settimeout(0.01)
            try:
                closed += connection.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                closed += 1
        for connection in connections:
            connection.close()
        return f"500 at once, {closed} closed by the node at once"

    def many_associations(self) -> str:
        request, found = association_request(self.data(0).SOPClassUID), Counter()
        numbers = iter(range(self.options["associations"]))
        lock = threading.Lock()

        def associate() -> None:
            while True:
                with lock:
                    if next(numbers, None) is None:
                        return
                try:
                    with self.connection() as connection:
                        connection.sendall(request)
                        answer = connection.recv(4096)[:1]
                        if answer == b"\x02":
                            connection.sendall(RELEASE)
                            connection.recv(64)
                except OSError as error:
                    answer = type(error).__name__
                with lock:
                    found[{b"\x02": "accepted", b"\x03": "rejected", b"": "closed"}.get(answer, answer)] += 1

        start = time.monotonic()
        threads = [threading.Thread(target=associate) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return f"{dict(found)} in {time.monotonic() - start:.0f} s"

    def huge_object(self) -> str:
        """An object whose data set goes on and on."""
        data = self.data(0)
        sop_class = str(data.SOPClassUID)
        command = command_set(sop_class, "1.2.826.0.1.3680043.10.543.999999")
        whole, sent = int(self.options["gigabytes"] * 1e9), 0
        with self.connection() as connection:
            connection.sendall(association_request(sop_class))
            connection.recv(4096)
            unit = unit_of(0, bytes(UNIT))
            try:
                connection.sendall(unit_of(3, command))
                while sent < whole:
                    connection.sendall(unit)
                    sent += UNIT
            except OSError:
                return f"ended by the node after {sent / 1e6:.0f} MB"
        return f"{sent / 1e6:.0f} MB were taken"

    def connection(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.node.port), timeout=60)
        return connection

    def data(self, number: int) -> pydicom.Dataset:
        return pydicom.dcmread(self.files[number])

    def pairs(self) -> list[tuple[str, str]]:
        return sorted(
            {(self.data(i).SOPClassUID, self.data(i).file_meta.TransferSyntaxUID) for i in range(len(self.files))}
        )


def main(output: str, **options: Any) -> int:
    with Workplace() as folder:
        files = radiographs(folder, 40, 256)
        hostile_files, good = files[:20], iter(files[20:])
        pacs = AE("PACS")
        pacs.supported_contexts = list(AllStoragePresentationContexts)
        server = pacs.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)]
        )
        address = f"PACS@127.0.0.1:{server.server_address[1]}"
        with NodeProcess(folder / "node", {"pacs": address, "reserve_megabytes": 100, "network_timeout": 5.0}) as node:
            hostile = Hostile(node, hostile_files, options)
            peak = Peak(node)
            delivered = still_serves(node, next(good), 0)
            first = node.resident_megabytes()
            print(f"  memory before: {first:.0f} MB")
            steps: list[Callable[[], str]] = [
                hostile.other_calling_title,
                hostile.other_classes,
                hostile.wrong_syntax,
                hostile.fuzzed_objects,
                hostile.fuzzed_units,
                hostile.silent_connections,
                hostile.many_associations,
                hostile.huge_object,
            ]
            peaks = {}
            for step in steps:
                peak.begin()
                found = step()
                peaks[step.__name__] = peak.value
                delivered = still_serves(node, next(good), delivered)
                now = node.resident_megabytes()
                print(f"  {step.__name__}: {found}; memory at most {peak.value:.0f}, then {now:.0f} MB", flush=True)
            peak.end()
            last = node.resident_megabytes()
            refused = [line for line in node.page("metrics").splitlines() if "refused_total{" in line]
            print("  " + "\n  ".join(line.removeprefix("litegpt_node_") for line in refused))
            left = len(list((node.spool / "receiving").iterdir()))
            status = node.stop()
        server.shutdown()
    print(f"  left in receiving/: {left}; status at the end: {status}")
    highest = max(peaks.values())
    results = {
        "node_hostile_memory": {
            "value": last / first,
            "unit": "x",
            "against": f"{first:.0f} MB before; peak {highest:.0f} MB",
        }
    }
    record(output, results)
    return 0 if left == 0 and status == 0 else 1


class Peak:
    """The most memory that a process has, since `begin`."""

    def __init__(self, node: NodeProcess):
        self.node, self.value, self._stop = node, 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self) -> None:
        self.value = 0.0

    def end(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.value = max(self.value, self.node.resident_megabytes())


def still_serves(node: NodeProcess, file: Path, delivered: float) -> float:
    """How many radiographs are delivered after one more was sent."""
    Sender(node.address, [file]).run(60)
    until(lambda: node.count("delivered_total") > delivered, 120, "a good radiograph is not delivered", node)
    uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
    until(lambda: any((node.spool / "done").glob(f"*/{uid}")), 120, "a good radiograph is not delivered", node)
    return node.count("delivered_total")


def association_request(sop_class: str) -> bytes:
    """The bytes of an association request, as pynetdicom sends it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ae = AE("SENDER")
        ae.acse_timeout = 1
        port = listening.getsockname()[1]
        contexts = [build_context(sop_class, "1.2.840.10008.1.2.1")]
        asking = threading.Thread(
            target=ae.associate, args=("127.0.0.1", port, contexts), kwargs={"ae_title": "LITEGPT"}
        )
        asking.start()
        connection, _ = listening.accept()
        with connection:
            request = connection.recv(65536)
        asking.join()
    return request


def unit_of(control: int, content: bytes) -> bytes:
    """A P-DATA-TF unit in presentation context 1 (PS3.8, 9.3.5)."""
    return struct.pack(">BBLLBB", 4, 0, len(content) + 6, len(content) + 2, 1, control) + content


def encoded_dataset(data: pydicom.Dataset) -> bytes:
    """In implicit VR little endian, without a file's header."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, True
    write_dataset(file, data)
    return file.getvalue()


def command_set(sop_class: str, uid: str) -> bytes:
    """A C-STORE request's (PS3.7, 9.3.1)."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    def even(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    elements = element(0x0002, even(sop_class)) + element(0x0100, struct.pack("<H", 1))
    elements += element(0x0110, struct.pack("<H", 1)) + element(0x0700, struct.pack("<H", 2))
    elements += element(0x0800, struct.pack("<H", 1)) + element(0x1000, even(uid))
    return element(0x0000, struct.pack("<L", len(elements))) + elements


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--associations", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--fuzzed", type=int, default=300, help="objects, and association requests")
    measures = "memory of a node after hostile senders, against before"
    options = parsed(
        parser,
        measures,
        seconds=400,
        quick={"associations": 300, "gigabytes": 0.7, "fuzzed": 40},
        quick_seconds=60,
    )
    sys.exit(main(**options))
