"""What the programs of this folder take; their `main`s get instances of these classes."""

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from litegpt.common.addresses import exists, shown
from litegpt.common.arguments import Bounds, Count, Place, Positive, Share, WholeNumber, argument
from litegpt.common.shard_runs import own_share
from litegpt.processing.tasks import DEFAULT_TASKS, TASKS, join_question, split_question

EXPLAIN_METHODS = ("attention", "gradient_attention", "integrated", "occlusion")
CLASSIFIER_MAPS = ("cam", "positive")
BOX_FORMATS = ("coco", "kaggle", "label-studio", "cvat")
RESULT_FORMATS = ("parquet", "jsonl")
DICOM_KINDS = ("SR", "PR", "SC")
BOX_SOURCES = ("findings", "detected_findings", "fused_findings", "candidates", "view_findings")
AE_TITLE = re.compile(r"(?=.*\S)[\x20-\x5b\x5d-\x7e]{1,16}")  # PS3.5, table 6.2-1
GRID_BOX = re.compile(r"\{(<\d{1,3}>){4}\}")
THRESHOLD = "Leave out findings with a smaller score; operating_point: the checkpoint's own threshold for each label."
COMPILED = "Compile the passes that write an answer: a minute at first, which thousands of radiographs repay."
RADIOGRAPHS = "DICOM, PNG or JPEG files, or folders of them; paths or addresses (s3://, gs://, hf://)."


def threshold(text: str) -> float | str:
    """A score from 0 to 1, or "operating_point"."""
    try:
        value = text if text == "operating_point" else float(text)
    except ValueError:
        value = None
    if value != "operating_point" and not (value is not None and 0 <= value <= 1):
        raise ArgumentTypeError(f"a score from 0 to 1, or operating_point, not {text}")
    return value


def question(text: str) -> str:
    """A question string, or the name of a task alone, "refer", of what another option says."""
    if text.partition(":")[0].strip() not in TASKS:
        raise ArgumentTypeError(f"one of {', '.join(TASKS)}, or such a task and what it is about, not {text!r}")
    return text


def tasks_option() -> list[str]:
    """What is asked, as several programs take it."""
    words = 'What to ask: tasks such as report, or "refer: enlarged heart", "question: Is there a fracture?".'
    return argument(words, default=list(DEFAULT_TASKS), parse=question)


def check_there(paths: list[str]) -> None:
    """Refuses what is not there; raises a ValueError that names it."""
    try:
        missing = [shown(path) for path in paths if not exists(path)]
    except OSError as error:  # of an address: nobody can say
        raise ValueError(str(error)) from None
    if missing:
        raise ValueError(f"no such file or folder: {', '.join(missing)}")


def questions(tasks: list[str], in_pixels: bool = False) -> list[str]:
    """The question strings as answers are called by.

    Args:
        in_pixels: a box may be in pixels of the radiograph; those of several radiographs are on the grid of answers.

    Raises:
        ValueError: a task is not told what it is about, or asked twice.
    """
    pairs = [split_question(text) for text in tasks]
    for task, about in pairs:
        if TASKS[task].about == "box" and not in_pixels and not GRID_BOX.fullmatch(about):
            raise ValueError(
                f"[{task}] of many radiographs is about a box {{<x1><y1><x2><y2>}}, each 0 to 100: {about}"
            )
    asked = [join_question(task, about) for task, about in pairs]
    if len(set(asked)) < len(asked):
        raise ValueError("--tasks has the same question twice")
    return asked


@dataclass
class PredictArguments:
    radiographs: list[Place] = argument(RADIOGRAPHS, positional=True)
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    output_dir: str = argument("Where predictions and pictures are written.")
    batch_size: Count = argument("Radiographs read and answered together.", default=8)
    constrained: bool = argument("Answers in the answer language alone, with the checkpoint's labels.", default=True)
    threshold: float | str | None = argument(
        THRESHOLD,
        default=None,
        parse=threshold,
    )
    candidates: bool = argument("Look for findings that the answer leaves out, too.", default=False)
    views: WholeNumber = argument(
        "Moved views of each radiograph that are answered beside it; what all say together is view_findings.",
        default=0,
    )
    compiled: bool = argument(
        COMPILED,
        default=False,
    )
    tasks: list[str] = tasks_option()
    dicom_out: str | None = argument(
        "A folder for the answers to DICOM radiographs as DICOM objects, to be sent to a PACS; it must be another one "
        "than output_dir.",
        default=None,
    )
    dicom_kinds: list[str] = argument(
        "Which: SR, a structured report; PR, the boxes for viewers to draw; SC, the overlay as a picture.",
        default=["SR", "PR"],
        choices=list(DICOM_KINDS),
    )
    dicom_source: str = argument(
        "Whose boxes they have: the answer's, the detector's, both together's, or those of several views.",
        default="findings",
        choices=[source for source in BOX_SOURCES if source != "candidates"],
    )
    contact_sheet: str | None = argument("A picture of the first eight that have boxes, side by side.", default=None)

    def __post_init__(self):
        check_there(self.radiographs)
        if self.dicom_out is not None and Path(self.dicom_out).resolve() == Path(self.output_dir).resolve():
            raise ValueError("--dicom_out must be another folder than --output_dir")
        if self.dicom_source == "view_findings" and not self.views:
            raise ValueError("--dicom_source view_findings needs --views")
        self.tasks = questions(self.tasks)
        if self.dicom_out is not None and not set(DEFAULT_TASKS) <= set(self.tasks):
            raise ValueError(
                "--dicom_out has findings and diagnoses, no free text: --tasks must have identify and vqa"
            )
        if self.dicom_out is not None and "SC" in self.dicom_kinds and set(self.tasks) != set(DEFAULT_TASKS):
            raise ValueError("an SC shows the whole overlay, and free text is not filed: take SR and PR")
        if "SC" in self.dicom_kinds and self.dicom_source != "findings":
            raise ValueError("an SC shows the answer's own boxes: with another --dicom_source take SR and PR")


@dataclass
class PredictManyArguments:
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    output_dir: Place = argument("Where plan and results are written; a folder or an address.")
    radiographs: list[Place] = argument(
        "Files, folders of them, Parquet files with a column image; paths or addresses such as s3://.",
        default=[],
        positional=True,
    )
    list_file: Place | None = argument("A text file with one of those a line.", default=None)
    dicomweb_url: str | None = argument(
        "Of a PACS's DICOMweb, such as https://pacs/dicom-web, whose CR and DX radiographs are answered.", default=None
    )
    dicomweb_filters: dict = argument(
        'Which studies of it, as JSON: \'{"StudyDate": "20260101-20261231"}\'.', default={}
    )
    dicomweb_user: str | None = argument("Of basic authentication.", default=None)
    dicomweb_password_file: str | None = argument(
        "File of its password; otherwise the environment's LITEGPT_DICOMWEB_PASSWORD.", default=None
    )
    dicomweb_token_file: str | None = argument(
        "File of a bearer token; otherwise the environment's LITEGPT_DICOMWEB_TOKEN.", default=None
    )
    tls_ca: str | None = argument("Authority (PEM) that the PACS's certificate must be of.", default=None)

    shard_size: Count = argument("Radiographs of a shard: the results' files.", default=500)
    format: str = argument("Of the results.", default="parquet", choices=list(RESULT_FORMATS))
    batch_size: Count = argument("Radiographs read and answered together.", default=8)
    constrained: bool = argument("Answers in the answer language alone, with the checkpoint's labels.", default=True)
    threshold: float | str | None = argument(
        THRESHOLD,
        default=None,
        parse=threshold,
    )
    candidates: bool = argument("Look for findings that the answer leaves out, too.", default=False)
    views: WholeNumber = argument("Moved views of each radiograph that are answered beside it.", default=0)
    compiled: bool = argument(
        COMPILED,
        default=False,
    )
    tasks: list[str] = tasks_option()
    base_url: list[str] = argument(
        "Of servers that have the checkpoint, such as http://127.0.0.1:8000/v1; otherwise each worker loads it.",
        default=[],
    )

    num_workers: WholeNumber = argument(
        "That answer at a time; one is this process. 0: one, or one for each server.", default=0
    )
    threads: Count = argument("Of each worker.", default=1)
    gpus: Annotated[float, Bounds(at_least=0)] = argument("Of each worker; 0.5 shares one between two.", default=0.0)
    shard: str = argument("Every so manieth shard alone, such as 3/16: 0/16 to 15/16 make all.", default="0/1")
    ray: str | None = argument(
        "Workers are actors of the Ray cluster at this address; auto: that of this machine; local: one of its own.",
        default=None,
    )

    def __post_init__(self):
        files = (self.list_file, self.dicomweb_password_file, self.dicomweb_token_file, self.tls_ca)
        check_there([*self.radiographs, *(path for path in files if path is not None)])
        if not (self.radiographs or self.list_file or self.dicomweb_url):
            raise ValueError("there is nothing to answer: give files or folders, --list_file or --dicomweb_url")
        if self.dicomweb_url is not None and not re.match("https?://", self.dicomweb_url):
            raise ValueError(f"--dicomweb_url is a URL, not {self.dicomweb_url}")
        if self.dicomweb_filters and self.dicomweb_url is None:
            raise ValueError("--dicomweb_filters needs --dicomweb_url")
        if self.base_url and self.candidates:
            raise ValueError("candidates are not to be had from a server (--base_url)")
        self.tasks = questions(self.tasks)
        own_share(range(0), self.shard)


@dataclass
class AskArguments:
    radiographs: list[Place] = argument(RADIOGRAPHS, positional=True)
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    output_dir: str | None = argument(
        "Where predictions are written; without it answers are on the terminal alone.", default=None
    )
    tasks: list[str] = tasks_option()
    phrase: str | None = argument("What --task refer is about.", default=None)
    box: list[float] | None = argument(
        "What --task describe is about: xmin ymin xmax ymax, in pixels of the radiograph.", default=None, nargs=4
    )
    question: str | None = argument("What --task question asks.", default=None)
    second_view: str | None = argument(
        "Another radiograph of the study, such as a lateral one: reports of one radiograph are told of it.",
        default=None,
    )
    base_url: str | None = argument(
        "Of a server that has the checkpoint, such as http://127.0.0.1:8000/v1; otherwise it is loaded here.",
        default=None,
    )
    concurrency: Count = argument("Radiographs that are asked about at once.", default=8)
    max_new_tokens: Count = argument("The longest answer.", default=512)
    constrained: bool = argument("Answers of the checkpoint's own form alone, where a task has one.", default=True)
    views: WholeNumber = argument("Moved views of each radiograph that are asked about beside it.", default=0)

    def __post_init__(self):
        check_there([*self.radiographs, *([self.second_view] if self.second_view else [])])
        box = None if self.box is None else " ".join(f"{side:g}" for side in self.box)
        told = {"refer": ("phrase", self.phrase), "describe": ("box", box), "question": ("question", self.question)}
        for task, (option, about) in told.items():
            if about is not None and task not in self.tasks:
                raise ValueError(f"--{option} needs --task {task}")
            if about is None and task in self.tasks:
                raise ValueError(f"--task {task} needs --{option}")
        self.tasks = [f"{task}: {told[task][1]}" if task in told else task for task in self.tasks]
        self.tasks = questions(self.tasks, in_pixels=True)
        if self.second_view is not None and len(self.radiographs) > 1:
            raise ValueError("--second_view is of one radiograph's study: give one radiograph")
        if self.second_view is not None and not {"report", "grounded_report"} & set(self.tasks):
            raise ValueError("--second_view is told to reports: ask --task report or grounded_report")


@dataclass
class ExplainArguments:
    radiographs: list[Place] = argument(RADIOGRAPHS, positional=True)
    model_name_or_path: str = argument(
        "A LiteGPT checkpoint or adapter, a CXR-CLIP or a radiograph classifier: folder or Hub repository."
    )
    output_dir: str = argument("Where maps and pictures are written.")
    findings: list[str] | None = argument(
        "LiteGPT: findings that each get a map, as if they had been answered; otherwise those of the answer. "
        "Classifier: labels; otherwise those that it calls present.",
        default=None,
    )
    tokens: bool = argument("LiteGPT: a map for every token of the answer.", default=False)
    method: str | None = argument(
        "LiteGPT: how answers are explained; integrated by default. Classifier: cam or positive.",
        default=None,
        choices=[*EXPLAIN_METHODS, *CLASSIFIER_MAPS],
    )
    texts: list[str] | None = argument("CXR-CLIP: sentences, each of which gets a map of its own.", default=None)
    against: str | None = argument("CXR-CLIP: a contrasting sentence, whose cosines are subtracted.", default=None)

    def __post_init__(self):
        check_there(self.radiographs)
        if not all(text.strip() for text in [*(self.texts or ()), "." if self.against is None else self.against]):
            raise ValueError("a sentence of --texts or --against is empty")
        if self.findings and self.tokens:
            raise ValueError("--tokens explains the answer, --findings given names: choose one of the two")


@dataclass
class HospitalArguments:
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    output_dir: str = argument("For everything: the PACS's database, the node's spool, logs, phantoms.")
    radiographs: list[str] | None = argument(
        "DICOM files, or folders of them, that are sent; otherwise eight synthetic ones.", default=None
    )
    fresh: bool = argument("Begin with an empty PACS, rather than with what an earlier run left.", default=False)
    threshold: float | str | None = argument(
        THRESHOLD,
        default=None,
        parse=threshold,
    )
    ohif_dir: str = argument("Where the viewer is; npm fetches it where it is not there.", default="outputs/ohif")
    viewer_port: WholeNumber = argument("Of the viewer on this machine; 0: any that is free.", default=0)
    pacs_port: WholeNumber = argument("Of the PACS's HTTP interface; 0: any that is free.", default=0)
    pacs_dicom_port: WholeNumber = argument("Of the PACS's DICOM interface; 0: any that is free.", default=0)
    node_port: WholeNumber = argument("Of the node; 0: any that is free.", default=0)

    def __post_init__(self):
        check_there(self.radiographs or [])


@dataclass
class ExportArguments:
    predictions: str = argument("predictions.jsonl of `litegpt predict`, `ask` or `evaluate`.", positional=True)
    output_dir: str = argument("Where the files are written.")
    format: str = argument("What they are for.", choices=list(BOX_FORMATS))
    source: str = argument(
        "Which boxes: the answer's, the detector's, both together's, the answer's and those that it does not name, or "
        "those of several views.",
        default="findings",
        choices=list(BOX_SOURCES),
    )
    threshold: Share = argument("Leave out boxes with a smaller score.", default=0.0)
    model_name_or_path: str | None = argument(
        "The checkpoint that answered, for its labels: folder or Hub repository; by default they are VinDr-CXR's.",
        default=None,
    )
    task: str = argument(
        "Of `litegpt evaluate`: whose answers.", default="identify", choices=["identify", "grounding"]
    )
    pictures: bool = argument("Write the radiographs as PNG, into pictures/.", default=False)
    picture_url: Place = argument(
        "What stands before a picture's name where Label Studio finds it.", default="/data/local-files/?d=pictures/"
    )

    def __post_init__(self):
        check_there([self.predictions])


@dataclass
class NodeArguments:
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    spool: str = argument("Folder of the queue: it holds radiographs until their results are in the PACS.")
    calling_ae_titles: list[str] = argument("Who may send: AE titles.")
    pacs: str | None = argument("Where results go by C-STORE: AE_TITLE@HOST:PORT.", default=None)
    dicomweb_url: str | None = argument(
        "Of the PACS's DICOMweb, such as https://pacs/dicom-web: for the sweep, and without --pacs for results.",
        default=None,
    )
    base_url: str | None = argument(
        "Of a vLLM server that has the checkpoint, such as http://127.0.0.1:8000/v1; otherwise it is loaded here.",
        default=None,
    )

    ae_title: str = argument("The node's own AE title.", default="LITEGPT")
    host: str = argument("Address that the node listens at; 0.0.0.0 is all of the machine's.", default="127.0.0.1")
    port: WholeNumber = argument("DICOM port; 0: any that is free, which the log names.", default=11112)
    check_called_ae_title: bool = argument("Refuse who calls another AE title than the node's.", default=True)
    maximum_associations: Count = argument("Senders at a time.", default=20)
    maximum_megabytes: Count = argument("The largest object that is received.", default=512)
    network_timeout: Positive = argument("Seconds that a sender, or the PACS, may be silent.", default=60.0)

    kinds: list[str] = argument(
        "Results: structured report, presentation state, picture.", default=["SR", "PR"], choices=list(DICOM_KINDS)
    )
    source: str = argument(
        "Which boxes they have: the answer's, those that answer and detector say together, or those of several views.",
        default="findings",
        choices=["findings", "fused_findings", "view_findings"],
    )
    threshold: float | str | None = argument(
        THRESHOLD,
        default=None,
        parse=threshold,
    )
    candidates: bool = argument("Look for findings that the answer leaves out, too.", default=False)
    views: WholeNumber = argument("Moved views of each radiograph that are answered beside it.", default=0)
    constrained: bool = argument("Answers in the answer language alone, with the checkpoint's labels.", default=True)
    batch_size: Count = argument("Radiographs answered together, at most.", default=8)
    reading_threads: Count = argument("Threads that read radiographs ahead.", default=2)

    delivery_tries: Count = argument(
        "Attempts at results that the PACS refuses, before they go to failed/.", default=10
    )
    sweep_seconds: WholeNumber = argument("From one sweep of the PACS to the next; 0: none.", default=0)
    sweep_days: WholeNumber = argument("A sweep looks at studies of today and so many days before.", default=2)
    reserve_megabytes: WholeNumber = argument("Space on the spool's disk that is left free.", default=1000)
    keep_done_days: Positive = argument("How long UIDs of what is done are remembered.", default=30.0)
    keep_failed_days: Positive = argument("How long radiographs are kept in failed/.", default=14.0)

    monitoring_host: str = argument("Address of /health, /metrics and /alive.", default="127.0.0.1")
    monitoring_port: WholeNumber = argument("Their port; 0: any that is free.", default=11180)

    tls_certificate: str | None = argument("The node's certificate (PEM): senders must use TLS.", default=None)
    tls_key: str | None = argument("Its key (PEM), where it is a file of its own.", default=None)
    tls_ca: str | None = argument(
        "Authority (PEM) that senders' certificates, and the PACS's, must be of; without it senders need none.",
        default=None,
    )
    pacs_tls: bool = argument(
        "Send to the PACS over TLS, with the node's certificate where it has one.", default=False
    )
    dicomweb_user: str | None = argument("Of basic authentication.", default=None)
    dicomweb_password_file: str | None = argument(
        "File of its password; otherwise the environment's LITEGPT_DICOMWEB_PASSWORD.", default=None
    )
    dicomweb_token_file: str | None = argument(
        "File of a bearer token; otherwise the environment's LITEGPT_DICOMWEB_TOKEN.", default=None
    )

    def __post_init__(self):
        for title in [self.ae_title, *self.calling_ae_titles]:
            if not AE_TITLE.fullmatch(title):
                raise ValueError(f"{title!r} is no AE title: 1 to 16 characters, no backslash")
        if self.pacs is None and self.dicomweb_url is None:
            raise ValueError("results have nowhere to go: give --pacs, or --dicomweb_url")
        if self.pacs is not None:
            self.pacs_address()
        if self.dicomweb_url is not None and not re.match("https?://", self.dicomweb_url):
            raise ValueError(f"--dicomweb_url is a URL, not {self.dicomweb_url}")
        if self.sweep_seconds and self.dicomweb_url is None:
            raise ValueError("--sweep_seconds needs --dicomweb_url: the sweep asks over DICOMweb")
        if self.source == "view_findings" and not self.views:
            raise ValueError("--source view_findings needs --views")
        if self.base_url is not None and (self.candidates or self.source == "fused_findings"):
            raise ValueError("candidates and fused_findings are not to be had from a server (--base_url)")
        if self.tls_certificate is None and self.tls_key is not None:
            raise ValueError("--tls_key needs --tls_certificate")
        check_there(
            [
                path
                for path in (
                    self.tls_certificate,
                    self.tls_key,
                    self.tls_ca,
                    self.dicomweb_password_file,
                    self.dicomweb_token_file,
                )
                if path is not None
            ]
        )

    def pacs_address(self) -> tuple[str, str, int]:
        """AE title, host and port of `pacs`.

        Raises:
            ValueError: it is not of that form.
        """
        found = re.fullmatch(r"([^\\@]{1,16})@(.+):(\d{1,5})", self.pacs)
        if found is None:
            raise ValueError(f"--pacs is AE_TITLE@HOST:PORT, not {self.pacs}")
        return found[1], found[2].strip("[]"), int(found[3])


@dataclass
class AppArguments:
    model_name_or_path: str = argument("A LiteGPT checkpoint or adapter: folder or Hub repository.")
    port: Annotated[int, Bounds(at_least=1, at_most=65535)] = argument("Where the page is.", default=7860)
    host: str = argument(
        "The address that the page listens on; the default is this machine alone.", default="127.0.0.1"
    )
    base_url: str | None = argument(
        "A server that answers in this process's place, such as http://127.0.0.1:8000/v1; it gets the radiographs.",
        default=None,
    )
    examples: str | None = argument("A folder of radiographs that the page offers.", default=None)

    def __post_init__(self):
        check_there([self.examples] if self.examples else [])
