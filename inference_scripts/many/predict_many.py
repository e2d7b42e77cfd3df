"""Findings, boxes and diagnoses of many radiographs: thousands on one machine, a hospital's archive on a cluster.

    litegpt predict-many --model_name_or_path outputs/demo/checkpoint --output_dir outputs/archive \\
        archive more_radiographs rows.parquet

Reads files and folders (paths, or addresses such as s3://), Parquet files with a column `image`, a text file of paths
(`--list_file`) or a PACS (`--dicomweb_url`). Writes `plan.json` and `plan/`, which say once what is in which shard,
and `results/shard-000123-of-000200.parquet`: a row a radiograph, also for one that cannot be used, with the reason. A
shard whose file is there is done, so the same command resumes. A shard that kills its worker twice is set aside in
`set_aside/`. `summary.json` is written when all shards are there. The status is 1 where anything failed.

    ... --num_workers 8 --threads 2     # processes of this machine, each with the model
    ... --shard 3/16                    # as a task of a Slurm array: every 16th shard
    ... --ray auto --num_workers 64     # actors of a Ray cluster
    ... --base_url http://a:8000/v1 http://b:8000/v1    # vLLM servers answer
    ... --tasks identify vqa report     # other questions: reports, "refer: enlarged heart", "question: ..."
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from litegpt.common.addresses import absolute, entries_of, exists, is_remote, write_bytes
from litegpt.common.arguments import parse
from litegpt.common.digests import Digests
from litegpt.common.programs import program, refuse_bad_input, stopped_by_sigterm
from litegpt.common.shard_runs import Machines, ShardOutcome, own_share, run_shards
from litegpt.inference_scripts.answerers import AnswerSettings
from litegpt.inference_scripts.arguments import PredictManyArguments
from litegpt.inference_scripts.dicomweb import WebPlace
from litegpt.inference_scripts.listing import DIGESTS
from litegpt.inference_scripts.many.plan import Plan, make_plan
from litegpt.inference_scripts.many.prediction_work import PredictionWork
from litegpt.inference_scripts.many.results import Counts, counted, results_there
from litegpt.inference_scripts.many.sources import Sources
from litegpt.modeling_litegpt.provenance import provenance, recorded_config

NAMED = 20  # shards that are set aside, in the summary on the terminal
SECONDS_OF_LOGS = 30  # from one line of progress to the next where nobody watches


@program
def main(args: PredictManyArguments) -> int:
    start, folder = time.perf_counter(), absolute(args.output_dir)
    with refuse_bad_input():
        source = provenance(args.model_name_or_path, recorded_config(args.model_name_or_path))
        if not is_remote(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
        digests = Digests(None if is_remote(folder) else Path(folder, DIGESTS))
        facts = {"checkpoint": source.checkpoint, "checkpoint_sha256": digests.checkpoint(args.model_name_or_path)}
        plan = make_plan(folder, sources(args), {**answer_facts(args), **facts})
    source.warn()
    asked = (args.model_name_or_path, args.constrained, args.threshold, args.candidates, args.views, args.compiled)
    settings = AnswerSettings(*asked, tuple(args.tasks))
    work = PredictionWork(plan, settings, args.base_url, pacs(args))
    numbers = own_share(range(plan.shards), args.shard)
    machines = Machines(args.num_workers or max(1, len(args.base_url)), args.ray, args.threads, args.gpus)
    with stopped_by_sigterm():
        answered = compute(work, numbers, machines, args.shard)
    seconds = time.perf_counter() - start

    there, aside = results_there(folder, args.format), set_aside(folder)
    own = [plan.name(number) for number in numbers]
    counts = counted(folder, [name for name in own if name in there], args.format)
    print(in_words(folder, counts, [name for name in own if name in aside]))
    if answered:
        print(f"{answered:,} radiographs in {seconds:,.0f} s: {answered / seconds:.1f} a second")
    if len(there | aside) == plan.shards:
        if len(own) < plan.shards:
            counts = counted(folder, there, args.format)
        summary = {**as_json(counts), "set_aside": sorted(aside), "shards": plan.shards, **facts}
        summary |= {"plan_sha256": plan.sha256, "last_run": {"radiographs": answered, "seconds": round(seconds, 1)}}
        write_bytes(f"{folder}/summary.json", json.dumps(summary, indent=2).encode() + b"\n")
    return 1 if counts.unusable or aside.intersection(own) or not counts.answered else 0


def pacs(args: PredictManyArguments) -> WebPlace | None:
    if args.dicomweb_url is None:
        return None
    secrets = (args.dicomweb_user, args.dicomweb_password_file, args.dicomweb_token_file)
    return WebPlace(args.dicomweb_url, *secrets, args.tls_ca)


def sources(args: PredictManyArguments) -> Sources:
    return Sources(args.radiographs, args.list_file, pacs(args), args.dicomweb_filters)


def answer_facts(args: PredictManyArguments) -> dict[str, Any]:
    """What the plan says of how radiographs are answered; servers may be others when a run is resumed."""
    names = ("constrained", "threshold", "candidates", "views", "compiled", "tasks")
    names += ("shard_size", "batch_size", "threads", "format")
    return {**{name: getattr(args, name) for name in names}, "at_a_server": bool(args.base_url)}


def compute(work: PredictionWork, numbers: Sequence[int], machines: Machines, share: str) -> int:
    """Answers the shards that have no results; how many radiographs that were."""
    plan, answered = work.plan, 0
    missing = [number for number in numbers if not work.is_done(number)]
    total, left = sum(map(plan.size, numbers)), sum(map(plan.size, missing))
    with tqdm(
        total=total,
        initial=total - left,
        desc="Radiographs",
        unit=" radiographs",
        mininterval=1 if sys.stderr.isatty() else SECONDS_OF_LOGS,
    ) as progress:
        for outcome in run_shards(work, missing, machines):
            log(plan, outcome, share)
            if outcome.set_aside is not None:
                tqdm.write(f"{plan.name(outcome.number)} is set aside: {outcome.set_aside}.", file=sys.stderr)
            else:
                answered += plan.size(outcome.number)
            progress.update(plan.size(outcome.number))
    return answered


def log(plan: Plan, outcome: ShardOutcome, share: str) -> None:
    """Notes who computed a shard, and how long that took; an object store takes no lines, and none are kept there."""
    if is_remote(plan.folder):
        return
    path = Path(plan.folder, "logs", f"{share.replace('/', '-of-')}.jsonl")
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        ended = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        file.write(json.dumps({"shard": plan.name(outcome.number), "ended": ended, **asdict(outcome)}) + "\n")


def set_aside(folder: str) -> set[str]:
    """The shards that are, by name."""
    folder = f"{folder}/set_aside"
    return {name.removesuffix(".json") for name in entries_of(folder)[1]} if exists(folder) else set()


def in_words(folder: str, counts: Counts, aside: Sequence[str]) -> str:
    text = f"{folder}: {counts.answered:,} radiographs answered; {counts.unusable:,} could not be used"
    if counts.others:
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(counts.others.items()))
        text += f"; {sum(counts.others.values()):,} files are no radiographs: {kinds}"
    if aside:
        more = f" and {len(aside) - NAMED} more" if len(aside) > NAMED else ""
        text += f"\n  set aside ({len(aside)}; set_aside/ says why): {', '.join(aside[:NAMED])}{more}"
    return text


def as_json(counts: Counts) -> dict[str, Any]:
    others = dict(sorted(counts.others.items()))
    return {"answered": counts.answered, "unusable": counts.unusable, "no_radiographs": others}


if __name__ == "__main__":
    sys.exit(main(*parse([PredictManyArguments], None, "predict_many.py", __doc__)))
