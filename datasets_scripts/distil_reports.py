"""Reports -> distilled reports: short sentences about ECAMP's entities, a line a study.

    litegpt distil-reports --data_dir prepared/mimic-cxr --output_dir outputs/distilled
    litegpt distil-reports --data_dir prepared/mimic-cxr --output_dir outputs/distilled_by_model \\
        --method model --model_name_or_path path/to/instruction-model

In: a release or a prepared folder whose rows have `study_id`, `report_findings` and `report_impression`; a study's
first row speaks for it. No picture is read. Out: `distilled.jsonl` in the output folder, in the order of the rows:

    {"study_id": "50000014", "distilled": "There is no effusion. There may be atelectasis at the left base."}

`--method rules` needs nothing else, and takes minutes for all of MIMIC-CXR; `report_facts.py` says how it reads.
`--method model` asks a language model that lies in a folder and follows instructions; nothing is sent anywhere. An
answer that is empty, names none of the report's entities or finds no room falls back to the rules; how many did is
said at the end, and how many answers name an entity that their report does not. A report that names no entity is not
asked about, the rules do it. Where nothing is said of any entity the text is empty; a study without a report has no
line.

The same command resumes. A file of your own in this form does as well: `read_distilled` checks it.

Distilled reports are reports: of credentialed data (MIMIC-CXR) they are never passed on.

Source of the idea: Wang et al., ECAMP (2023), arXiv 2312.13316, section 3.1. Prompt and rules are this project's own.
"""

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from litegpt.common.addresses import resolved
from litegpt.common.arguments import parse
from litegpt.common.files import complete_lines, write_text
from litegpt.common.programs import Refusal, program, refuse_bad_input
from litegpt.datasets_scripts.arguments import DistilReportsArguments
from litegpt.datasets_scripts.image_labels import each_row
from litegpt.datasets_scripts.report_entities import mentions
from litegpt.datasets_scripts.report_facts import distilled
from litegpt.datasets_scripts.report_texts import joined, without_masks
from litegpt.datasets_scripts.rows import load_rows

if TYPE_CHECKING:
    import datasets

FILE_NAME = "distilled.jsonl"
FLUSH_EVERY = 100  # lines; an interrupted run loses no more
COLUMNS = ("study_id", "report_findings", "report_impression")

INSTRUCTION = (
    "Summarise the report of a chest radiograph. Write one short sentence for each thing, in one of these forms: "
    '"There is ...", "There may be ..." where the report is unsure, "There is no ..." where it denies it. Keep how '
    "severe it is and where it is. Say nothing that the report does not say, and nothing else."
)
EXAMPLE_REPORT = (
    "The heart is mildly enlarged. Hazy opacity at the right base, which may be atelectasis or early pneumonia. "
    "Neither effusion nor pneumothorax."
)
EXAMPLE_ANSWER = (
    "There is mild cardiomegaly. There is hazy opacity at the right base. There may be atelectasis or pneumonia at "
    "the right base. There is no effusion. There is no pneumothorax."
)


class Report(NamedTuple):
    """A study's report; sections without marks of de-identification, "" where there is none."""

    study_id: str
    findings: str
    impression: str

    @property
    def text(self) -> str:
        return f"{self.findings} {self.impression}".strip()


# --- Files -----------------------------------------------------------------------------------------------------------


def read_distilled(path: str | Path) -> dict[str, str]:
    """{study_id: text} of a file of distilled reports, one's own or this program's; a text may be "".

    Args:
        path: JSON lines with `study_id` (a string or a whole number) and `distilled`; other keys are not looked at.

    Raises:
        OSError: there is no such file.
        ValueError: a line is none of these, a study has two, or there is no line at all; it names file and line.
    """
    texts: dict[str, str] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:  # UnicodeDecodeError is one too
                raise ValueError(f"{where} is no JSON in UTF-8: {error}.") from None
            if not isinstance(entry, dict) or not {"study_id", "distilled"} <= entry.keys():
                raise ValueError(f"{where}: a line is an object with study_id and distilled.")
            study, text = entry["study_id"], entry["distilled"]
            if isinstance(study, bool) or not isinstance(study, (str, int)) or study == "":
                raise ValueError(f"{where}: study_id is {study!r}, not a string.")
            if not isinstance(text, str):
                raise ValueError(f"{where}: distilled is {text!r}, not a string.")
            if str(study) in texts:
                raise ValueError(f"{where}: study {study} is in the file twice.")
            texts[str(study)] = joined(text)
    if not texts:
        raise ValueError(f"{path} has no lines: a file of distilled reports is expected.")
    return texts


def begin(path: Path, settings: dict[str, Any]) -> set[str]:
    """Studies that an earlier run with the same settings distilled; a last line that was cut off is removed.

    Raises:
        ValueError: the lines there were made with other settings, or are damaged.
    """
    settings_path = path.with_suffix(".settings.json")
    try:
        done = {line["study_id"] for line in complete_lines(path)}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} is damaged: delete it, or choose another output_dir.") from None
    if done:
        before = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.exists() else {}
        others = [
            f"{name} {before.get(name)}, not {value}" for name, value in settings.items() if before.get(name) != value
        ]
        if others:
            raise ValueError(
                f"{path} was made otherwise ({'; '.join(others)}): delete it, or choose another output_dir."
            )
    write_text(settings_path, json.dumps(settings, indent=2) + "\n")
    return done


def reports_of(rows: "datasets.Dataset", counts: Counter[str]) -> Iterator[Report]:
    """A report a study: its first row's; `counts` gets the studies and those without text, which are left out.

    Raises:
        Refusal: a row has no study_id.
    """
    seen: set[str] = set()
    rows = rows.select_columns(list(COLUMNS))
    for number, row in enumerate(tqdm(each_row(rows), total=len(rows), desc="Rows", mininterval=1), start=1):
        study = row["study_id"]
        if not study:
            raise Refusal(f"Row {number} has no study_id: a report cannot be told by its study.")
        if study in seen:
            continue
        seen.add(study)
        counts["studies"] += 1
        report = Report(study, *(without_masks(row[section] or "") for section in COLUMNS[1:]))
        if report.text:
            yield report
        else:
            counts["without_text"] += 1


# --- A language model ------------------------------------------------------------------------------------------------


class LanguageModel:
    """Distils reports by a language model that lies in a folder.

    Args:
        folder: a checkpoint that transformers reads: configuration, weights, tokenizer.
        batch_size: reports that are answered together.
        max_new_tokens: of an answer; what is longer is cut off after its last whole sentence.

    Raises:
        OSError, ValueError: it is no folder, or no such checkpoint.
    """

    def __init__(self, folder: str, batch_size: int, max_new_tokens: int):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no folder: a model is read from a folder, never downloaded.")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline = pipeline("text-generation", model=model, tokenizer=tokenizer, device=device)
        self._tokenizer = tokenizer
        self._chats = tokenizer.chat_template is not None
        self._room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens

    def __call__(self, reports: Sequence[Report]) -> list[str]:
        """The answers, in one line each; "" where a report leaves no room for one."""
        prompts = [self.prompt(report) for report in reports]
        lengths = [len(self._tokenizer(prompt, add_special_tokens=not self._chats).input_ids) for prompt in prompts]
        fits = [length + self._max_new_tokens <= self._room for length in lengths]
        outputs = (
            self._pipeline(
                list(itertools.compress(prompts, fits)),
                batch_size=self._batch_size,
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                return_full_text=False,
                add_special_tokens=not self._chats,  # a chat's template has them
            )
            if any(fits)
            else []
        )
        answers = iter(outputs)
        return [one_line(next(answers)[0]["generated_text"]) if fit else "" for fit in fits]

    def prompt(self, report: Report) -> str:
        """What the model reads: the instruction, a made-up example, the report and the entities that it names."""
        example, asked = _question(EXAMPLE_REPORT), _question(report.text)
        if not self._chats:
            return f"{INSTRUCTION}\n\n{example}\nSummary: {EXAMPLE_ANSWER}\n\n{asked}\nSummary:"
        messages = [
            {"role": "user", "content": f"{INSTRUCTION}\n\n{example}"},
            {"role": "assistant", "content": EXAMPLE_ANSWER},
            {"role": "user", "content": asked},
        ]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _question(text: str) -> str:
    things = dict.fromkeys(mention.entity for mention in mentions(text))
    return f"Report: {text}\nThings: {', '.join(things)}"


def one_line(answer: str) -> str:
    """An answer in one line, each sentence once: without thoughts, what follows an empty line, and a cut-off end."""
    answer = re.sub(r"<think>.*?(?:</think>|$)", "", answer, flags=re.DOTALL).strip()
    answer = joined(re.split(r"\n\s*\n|\n\s*Report:", answer)[0]).removeprefix("Summary:").strip()
    whole = re.match(r".*[.!?](?=\s|$)", answer)
    return " ".join(dict.fromkeys(re.split(r"(?<=[.!?])\s+", whole[0] if whole else answer)))


def by_rules(reports: Iterable[Report]) -> Iterator[tuple[str, str]]:
    """(study_id, distilled text) of reports."""
    return ((report.study_id, distilled(report.findings, report.impression)) for report in reports)


def by_model(
    reports: Iterable[Report], model: LanguageModel, batch_size: int, counts: Counter[str]
) -> Iterator[tuple[str, str]]:
    """The same by a language model; `counts` gets what fell back to the rules, was not asked about and was made up."""
    reports = iter(reports)
    while batch := list(itertools.islice(reports, batch_size)):
        named = [{mention.entity for mention in mentions(report.text)} for report in batch]
        answers = iter(model([report for report, entities in zip(batch, named, strict=True) if entities]))
        for report, entities in zip(batch, named, strict=True):
            answer = next(answers) if entities else ""
            answered = {mention.entity for mention in mentions(answer)}
            if answered & entities:
                counts["with_others"] += not answered <= entities
            else:
                counts["fallen_back" if entities else "not_asked"] += 1
                answer = distilled(report.findings, report.impression)
            yield report.study_id, answer


# --- The program -----------------------------------------------------------------------------------------------------


@program
def main(args: DistilReportsArguments) -> None:
    """Distils the reports of a split."""
    path = Path(args.output_dir, FILE_NAME)
    settings = {"data": resolved(args.data_dir), "split": args.split, "method": args.method}
    if args.method == "model":
        settings |= {"model": args.model_name_or_path, "max_new_tokens": args.max_new_tokens}
    counts: Counter[str] = Counter()
    with refuse_bad_input():
        if (args.method == "model") != (args.model_name_or_path is not None):
            raise ValueError("--method model and --model_name_or_path go together: give both or neither.")
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        missing = [column for column in COLUMNS if column not in rows.column_names]
        if missing:
            raise ValueError(f"{args.data_dir} has no column {missing[0]}: it has no reports to distil.")
        done = begin(path, settings)
        model = None
        if args.model_name_or_path is not None:
            model = LanguageModel(args.model_name_or_path, args.batch_size, args.max_new_tokens)
        reports = (report for report in reports_of(rows, counts) if report.study_id not in done)
        lines = by_rules(reports) if model is None else by_model(reports, model, args.batch_size, counts)
    written = append(path, lines)
    if not written and not done:
        raise Refusal(f"{args.data_dir}: no study of {args.split} has a report.")
    print(summary(path, len(done), written, counts, model is not None))


def append(path: Path, lines: Iterable[tuple[str, str]]) -> int:
    """Writes a line for each (study_id, text); returns how many."""
    written = 0
    with path.open("a", encoding="utf-8") as file:
        for study, text in lines:
            file.write(json.dumps({"study_id": study, "distilled": text}, ensure_ascii=False) + "\n")
            written += 1
            if written % FLUSH_EVERY == 0:
                file.flush()
    return written


def summary(path: Path, before: int, written: int, counts: Counter[str], asked: bool) -> str:
    """What a person reads at the end."""
    lines = [
        f"{path}: {before + written:,} reports" + (f", {before:,} of them from an earlier run." if before else ".")
    ]
    if counts["without_text"]:
        lines.append(f"{counts['without_text']:,} of {counts['studies']:,} studies have no report, and no line.")
    if asked and written:
        lines.append(
            f"In this run the rules did {counts['fallen_back']:,} of {written:,} reports whose answer was empty, named"
            f" none of the report's entities or found no room, and {counts['not_asked']:,} that name no entity."
        )
        lines.append(f"{counts['with_others']:,} answers name an entity that their report does not.")
    return "\n".join(lines)


if __name__ == "__main__":
    main(*parse([DistilReportsArguments], None, "distil_reports.py", __doc__))
