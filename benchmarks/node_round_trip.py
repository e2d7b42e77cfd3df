"""Studies through a node into an Orthanc, while the node is killed and the PACS stopped: what arrives, and how often.

    python benchmarks/node_round_trip.py --studies 200 --kills 5 --pacs_stops 2 --transport dimse

Each study is a phantom of its own that the sender stores in the PACS and in the node; with `--transport sweep` in the
PACS alone, before the node starts, as if it had been down. In the end each study must have one image, one SR and one
PR. The node answers with a checkpoint, or with a stand-in that takes `--seconds` each.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from typing import Any

from litegpt.benchmarks.node_stand_ins import (
    NodeProcess,
    Orthanc,
    Sender,
    Workplace,
    radiographs,
    until,
)
from litegpt.benchmarks.results import parsed, record
from litegpt.inference_scripts.hospital.orthanc import missing

DOWN = 5  # seconds for which the PACS is stopped
MOST = 900  # seconds until everything must be there


def main(output: str, **options: Any) -> int:
    if (reason := missing()) is not None:
        print(f"Nothing is measured. {reason}.")
        return 0
    studies, transport = options["studies"], options["transport"]
    with Workplace() as folder:
        files = radiographs(folder, studies, options["size"])
        with Orthanc(folder / "orthanc") as pacs:
            Sender(("PACS", "127.0.0.1", pacs.port), files).run()
            node = NodeProcess(folder / "node", node_options(pacs, options), options["seconds"])
            sender = Sender(node.address, [] if transport == "sweep" else files, options["pause"])
            start = time.monotonic()
            with node:
                sending = threading.Thread(target=sender.run, args=(MOST,))
                sending.start()
                disturb(node, pacs, options)
                until(lambda: done(node) == studies, MOST, f"done are {done(node)} of {studies}", node)
                sending.join()
                seconds = time.monotonic() - start
                known, failed = node.count("repeated_total"), node.count("failed_radiographs")
            counts = pacs.counts()
        events = Counter(event["event"] for event in node.events())
    exact = sum(count["SR"] == count["PR"] == 1 and sum(count.values()) == 3 for count in counts.values())
    print(f"  {seconds:.0f} s; objects of a study, and how many studies have so many:")
    for objects, number in Counter(tuple(sorted(count.items())) for count in counts.values()).items():
        print(f"    {dict(objects)}: {number}")
    print(
        f"  the sender's answers {dict(sender.statuses)}, repeats {sender.repeats}; known to the last run {known:.0f}"
    )
    print(f"  failed {failed:.0f}; events of the log {dict(events)}")
    disturbed = f"{studies} studies, {options['kills']} kills, {options['pacs_stops']} stops of the PACS"
    results = {
        f"node_{transport}_exact": {"value": exact, "unit": "studies", "against": disturbed},
        f"node_{transport}_repeats": {
            "value": sender.repeats,
            "unit": "repeats",
            "against": f"the sender of {disturbed}",
        },
    }
    record(output, results)
    return 0 if exact == studies else 1


def node_options(pacs: Orthanc, options: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {"reserve_megabytes": 100, "network_timeout": 20.0}
    if options["checkpoint"] is not None:
        chosen["model_name_or_path"] = options["checkpoint"]
    if options["transport"] != "stow":
        chosen["pacs"] = pacs.address
    if options["transport"] != "dimse":
        chosen["dicomweb_url"] = pacs.dicomweb_url
    if options["transport"] == "sweep":
        chosen["sweep_seconds"] = 5
    return chosen


def disturb(node: NodeProcess, pacs: Orthanc, options: dict[str, Any]) -> None:
    """Kills and stops, evenly over the studies that are done."""
    kinds = sorted(
        [(number / (options["kills"] + 1), "kill") for number in range(1, options["kills"] + 1)]
        + [((number - 0.5) / options["pacs_stops"], "stop") for number in range(1, options["pacs_stops"] + 1)]
    )
    for share, kind in kinds:
        until(lambda share=share: done(node) >= share * options["studies"], MOST, "the node does not get on", node)
        print(f"  {kind} at {done(node)} studies", flush=True)
        if kind == "kill":
            node.kill()
            node.start()
        else:
            pacs.stop()
            time.sleep(DOWN)
            pacs.start()


def done(node: NodeProcess) -> int:
    return sum(1 for _ in node.spool.glob("done/*/*"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--pacs_stops", type=int, default=2)
    parser.add_argument("--transport", choices=("dimse", "stow", "sweep"), default="dimse")
    parser.add_argument("--checkpoint", help="that answers; otherwise a stand-in")
    parser.add_argument("--seconds", type=float, default=0.1, help="that the stand-in takes")
    parser.add_argument("--pause", type=float, default=0.05, help="of the sender, after each study, in seconds")
    parser.add_argument("--size", type=int, default=256, help="of the phantoms")
    measures = "studies that have their results once, against those sent"
    options = parsed(
        parser,
        measures,
        seconds=240,
        quick={"studies": 30, "kills": 1, "pacs_stops": 1},
        quick_seconds=60,
    )
    sys.exit(main(**options))
