"""How long a radiograph takes from the sender to its report in the PACS, where the time goes, and how many a minute.

    python benchmarks/node_speed.py --checkpoint outputs/demo/checkpoint --radiographs 60

First one at a time, with a pause: the median is from the moment at which the sender was told that the radiograph was
accepted to that at which the PACS had SR and PR. Then all that are left as fast as the node takes them.
"""

import argparse
import statistics
import sys
import time
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

STEPS = ("wait", "read", "answer", "objects", "send")


def main(output: str, checkpoint: str | None, seconds: float, transport: str, size: int, **options: Any) -> int:
    if (reason := missing()) is not None:
        print(f"Nothing is measured. {reason}.")
        return 0
    with Workplace() as folder:
        files = radiographs(folder, options["radiographs"] + options["single"], size)
        with Orthanc(folder / "orthanc") as pacs:
            Sender(("PACS", "127.0.0.1", pacs.port), files).run()
            where = {"pacs": pacs.address} if transport == "dimse" else {"dicomweb_url": pacs.dicomweb_url}
            chosen = {} if checkpoint is None else {"model_name_or_path": checkpoint}
            with NodeProcess(folder / "node", {**where, **chosen, "reserve_megabytes": 100}, seconds) as node:
                until(lambda: any(each["event"] == "model_loaded" for each in node.events()), 300, "no model", node)
                single, burst = files[: options["single"]], files[options["single"] :]
                paced = Sender(node.address, single[:1])
                paced.run()  # the first takes longer
                until(lambda: node.count("delivered_total") == 1, 120, "it is not delivered", node)
                before = steps(node)
                paced = Sender(node.address, single[1:], options["pause"])
                paced.run()
                until(lambda: node.count("delivered_total") == len(single), 300, "not all are delivered", node)
                latencies = taken(node, paced)
                parts = differences(steps(node), before)
                before, start = steps(node), time.time()
                fast = Sender(node.address, burst)
                fast.run()
                until(lambda: node.count("delivered_total") == len(files), 900, "not all are delivered", node)
                last = max(delivered(node).values())
                busy = differences(steps(node), before)
                memory = node.resident_megabytes()
    who = "a stand-in" if checkpoint is None else "the checkpoint"
    print(f"  one at a time ({len(latencies)}): {shown(parts)}")
    print(
        f"  as fast as it goes ({len(burst)}): {shown(busy)}; sent in {max(fast.accepted_at.values()) - start:.1f} s"
    )
    print(f"  slowest {max(latencies):.2f} s; memory of the node {memory:.0f} MB")
    median = {"value": statistics.median(latencies), "unit": "s", "against": f"no time; {transport}, {who}, {size} px"}
    rate = {"value": len(burst) / (last - start) * 60, "unit": "a minute", "against": f"{transport}, {who}, {size} px"}
    record(output, {f"node_seconds_{transport}": median, f"node_rate_{transport}": rate})
    return 0


def delivered(node: NodeProcess) -> dict[str, float]:
    """By UID, when the results were in the PACS."""
    from datetime import datetime

    events = [event for event in node.events() if event["event"] == "delivered"]
    return {event["uid"]: datetime.fromisoformat(event["time"]).timestamp() for event in events}


def taken(node: NodeProcess, sender: Sender) -> list[float]:
    at = delivered(node)
    return [at[uid] - accepted for uid, accepted in sender.accepted_at.items()]


def steps(node: NodeProcess) -> dict[str, tuple[float, float]]:
    """Of each step, the seconds so far and the radiographs."""
    found = {}
    for line in node.page("metrics").splitlines():
        for step in STEPS:
            if line.startswith(f'litegpt_node_step_seconds_sum{{step="{step}"}}'):
                found[step] = (float(line.split()[-1]), found.get(step, (0, 0))[1])
            if line.startswith(f'litegpt_node_step_seconds_count{{step="{step}"}}'):
                found[step] = (found.get(step, (0, 0))[0], float(line.split()[-1]))
    return found


def differences(after: dict[str, tuple[float, float]], before: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean seconds a radiograph of each step."""
    return {
        step: (after[step][0] - before[step][0]) / max(1, after[step][1] - before[step][1])
        for step in STEPS
        if step in after and step in before
    }


def shown(parts: dict[str, float]) -> str:
    return "mean seconds: " + ", ".join(f"{step} {seconds:.3f}" for step, seconds in parts.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radiographs", type=int, default=60, help="sent as fast as it goes")
    parser.add_argument("--single", type=int, default=21, help="sent one at a time")
    parser.add_argument("--pause", type=float, default=1.5, help="after each of those, in seconds")
    parser.add_argument("--checkpoint", help="that answers; otherwise a stand-in")
    parser.add_argument("--seconds", type=float, default=0.0, help="that the stand-in takes")
    parser.add_argument("--transport", choices=("dimse", "stow"), default="dimse")
    parser.add_argument("--size", type=int, default=2048, help="of the phantoms")
    measures = "seconds from C-STORE to the report in the PACS, and radiographs a minute"
    options = parsed(
        parser,
        measures,
        seconds=240,
        quick={"radiographs": 20, "single": 6, "size": 512},
        quick_seconds=60,
    )
    sys.exit(main(**options))
