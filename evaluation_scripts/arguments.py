"""What the programs of this folder take; their `main`s get instances of these classes."""

from dataclasses import dataclass

from litegpt.common.arguments import Count, Place, WholeNumber, argument
from litegpt.datasets_scripts.arguments import CACHE_DIR, DATA_DIR, NUM_PROC
from litegpt.evaluation_scripts.reports.published_figures import TABLES
from litegpt.metrics.intervals import NUM_PERMUTATIONS
from litegpt.processing.tasks import DEFAULT_TASKS, LABEL_TASKS

WORD_QUESTIONS = ("refer", "describe", "report", "grounded_report", "question")  # whose answers in words are scored
SENTENCE_TRUTHS = ("facts", "labels")  # what tells whether sentences are true, see `sentence_facts.py`

PRECISION = "float32, bfloat16, ... or auto, as the weights are stored."
PRECISIONS = ["auto", "float32", "bfloat16", "float16"]
PRIOR_SPLIT = (
    "Whose boxes the location prior is learnt from, without those of evaluated radiographs and patients; where the "
    "data has none there, the evaluated split's own, cross-fitted."
)
CXR_CLIP_WORDINGS = ("report", "plain", "paper", "templates")
CXR_CLIP_TASKS = ("zero_shot", "classes", "retrieval", "probe")


@dataclass
class SplitArguments:
    """What the programs take that ask a checkpoint about the radiographs of a split."""

    model_name_or_path: str = argument("A LiteGPT checkpoint.")
    data_dir: Place = argument(DATA_DIR)
    output_dir: str = argument("Where answers, figures and report are written.")
    split: str = argument("The split, or a slice such as test[:100].", default="test")
    tasks: list[str] = argument("What to ask.", default=list(DEFAULT_TASKS), choices=list(LABEL_TASKS))
    batch_size: Count = argument("Prompts answered together.", default=16)
    max_new_tokens: Count = argument("The longest answer.", default=512)
    dtype: str = argument(PRECISION, default="auto", choices=PRECISIONS)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class AnsweringArguments(SplitArguments):
    """Questions about labels."""

    output_dir: str = argument("Where predictions, metrics and report are written.")
    candidates: bool = argument(
        "Look for findings that the answers leave out, where answers are constrained.", default=True
    )
    views: WholeNumber = argument("Moved views of each radiograph that are answered beside it.", default=0)
    written_boxes: bool = argument(
        "Boxes as the answers write them, on a grid of 100, in place of those of most expected IoU.", default=False
    )


@dataclass
class EvaluationArguments(AnsweringArguments):
    with_findings_only: bool = argument(
        "Radiographs with findings alone, as the paper's tables of findings, boxes and their texts.", default=False
    )
    constrained: bool = argument(
        "Answers of the checkpoint's own labels alone, none malformed; or as they come.", default=True
    )
    explain: bool = argument(
        "Maps of the answers' findings beside the radiographs that the report shows; needs the model again.",
        default=False,
    )
    prior_split: str = argument(PRIOR_SPLIT, default="train")
    answers: Place | None = argument(
        "Output folder of `litegpt predict-many` that has the answers, by image_id; the checkpoint, which must be the "
        "same, is asked about the controls alone.",
        default=None,
    )


@dataclass
class CalibrationArguments(AnsweringArguments):
    model_name_or_path: str = argument("The folder of a LiteGPT checkpoint or adapter, written to.")
    output_dir: str = argument("Where predictions and calibration.json are written.")
    split: str = argument("A split that was not trained on, or a slice such as train[-300:].", default="validation")
    tasks: list[str] = argument(
        "What to ask: one of identify and grounding, vqa, or both. What is not asked stays as it was.",
        default=list(DEFAULT_TASKS),
        choices=list(LABEL_TASKS),
    )


@dataclass
class WordAnsweringArguments(SplitArguments):
    """Questions in words."""

    tasks: list[str] = argument(
        "What to ask; what the rows do not tell is left out, and said.",
        default=list(WORD_QUESTIONS),
        choices=list(WORD_QUESTIONS),
    )
    template_words: bool = argument(
        "Ask for the template reports, phrases and questions of rows that have labels and boxes alone.", default=False
    )
    truth: str | None = argument(
        "What tells whether a sentence is true: facts, of template words, or labels, which are read in the reports. "
        "By default facts with --template_words, else labels.",
        default=None,
        choices=list(SENTENCE_TRUTHS),
    )


@dataclass
class WordEvaluationArguments(WordAnsweringArguments):
    second_view: bool = argument(
        "Reports of frontal radiographs from two views: with the first lateral one of the same study.", default=False
    )
    views: WholeNumber = argument(
        "Where phrases are, told by so many moved views of each radiograph beside itself.", default=0
    )
    max_questions: Count | None = argument(
        "Of each task about each radiograph at most so many, drawn at random.", default=None
    )
    prior_split: str = argument(
        "Whose most frequent answers and mean boxes the controls give; where the data has no such split the evaluated "
        "split's own.",
        default="train",
    )
    report_models: list[str] = argument(
        "Models of others that measure reports, too, where their packages are installed.",
        default=[],
        choices=["radgraph", "chexbert"],
    )
    cases: WholeNumber = argument("Radiographs that words.html shows.", default=8)


@dataclass
class WordCalibrationArguments(WordAnsweringArguments):
    model_name_or_path: str = argument("The folder of a LiteGPT checkpoint or adapter, written to.")
    output_dir: str = argument("Where reports and calibration_words.json are written.")
    split: str = argument("A split that was not trained on, or a slice such as train[-300:].", default="validation")
    tasks: list[str] = argument("What to ask.", default=["report"], choices=["report", "grounded_report"])


@dataclass
class ComparisonArguments:
    runs: list[str] = argument("Two output folders of evaluate_litegpt.py: run A and run B.")
    output: str | None = argument("comparison.json; written where it is given.", default=None)
    data_dir: Place | None = argument("Where the data set is now, if it was moved.", default=None)
    split: str | None = argument("The split that both answered, if not as they say.", default=None)
    num_permutations: WholeNumber = argument("Of the test.", default=NUM_PERMUTATIONS)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class CXRCLIPEvaluationArguments:
    model_name_or_path: str = argument("A CXR-CLIP checkpoint.")
    data_dir: Place = argument(DATA_DIR)
    output_dir: str = argument("Where embeddings, metrics and report are written.")
    split: str = argument("The split, or a slice such as test[:100].", default="test")
    train_split: str | None = argument(
        "What probes learn from, of the same data; without it there are none.", default=None
    )
    tasks: list[str] = argument(
        "What to measure; what the data does not allow is left out, and said.",
        default=list(CXR_CLIP_TASKS),
        choices=list(CXR_CLIP_TASKS),
    )
    wordings: list[str] = argument(
        "Of zero-shot's sentences; the first one is the headline. biovil is for Pneumonia alone.",
        default=list(CXR_CLIP_WORDINGS),
        choices=[*CXR_CLIP_WORDINGS, "biovil"],
    )
    min_positives: Count = argument("Positive, and negative, radiographs that a label needs.", default=10)
    frontal_only: bool = argument("Without radiographs that are known to be no frontal ones.", default=False)
    controls: bool = argument("Probes of the same network with random weights too, a second pass.", default=True)
    batch_size: Count = argument("Radiographs or texts encoded together.", default=64)
    dtype: str = argument(PRECISION, default="auto", choices=PRECISIONS)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class CXRCLIPTablesArguments:
    runs: list[str] = argument(
        "Finished evaluations as DATA:ROW=FOLDER, such as VinDr:s_m_c=outputs/eval; the tables name both.", default=[]
    )
    output_dir: str = argument("Where tables.md and tables.json are written.", default="outputs/cxr_clip_tables")


@dataclass
class PaperTablesArguments:
    data_dir: str = argument("VinDr-CXR, as released or prepared.")
    weights_dir: str = argument("A converted checkpoint for each architecture, in a folder of its name.")
    output_dir: str = argument("Where all rows and tables are written.")
    rows: list[str] = argument(
        "Of the tables.", default=list(dict.fromkeys(row for table in TABLES.values() for row in table.paper))
    )
    tables: list[int] = argument("Of the paper.", default=list(TABLES))
    launch_options: str = argument("Options of `accelerate launch`, in one string.", default="")
    sft_options: str = argument("Options of sft.py, for both stages, in one string.", default="")
    evaluation_options: str = argument("Options of evaluate_litegpt.py, in one string.", default="")
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class ChestXray8TablesArguments:
    runs: list[str] = argument(
        "Finished runs of litegpt localize as ROW=FOLDER, such as resnet50_lse=outputs/localize; ROW is any name.",
        default=[],
    )
    output_dir: str = argument("Where tables.md and tables.json are written.", default="outputs/chestx_ray8_tables")


@dataclass
class LocalizationArguments:
    model_name_or_path: str = argument("The folder of a radiograph classifier, or of a LiteGPT.")
    data_dir: Place = argument(DATA_DIR)
    output_dir: str = argument("Where predictions, metrics and report are written.")
    split: str = argument("The split, or a slice such as test[:100].", default="test")
    method: str | None = argument(
        "How maps are made: of a classifier cam or positive, by default its own; of a LiteGPT one of "
        "`litegpt explain`.",
        default=None,
    )
    box_rule: str | None = argument(
        "Boxes around each isolated region of a map, or around the highest one alone; by default the checkpoint's.",
        default=None,
        choices=["regions", "peak"],
    )
    box_thresholds: list[float] | None = argument(
        "Of a map brought to 0..255, above which a region gets a box; by default the checkpoint's, the paper's 60 "
        "and 180.",
        default=None,
    )
    random_weights: bool = argument(
        "The control of the same network with random weights, a second pass.", default=True
    )
    prior_split: str = argument(PRIOR_SPLIT, default="train")
    min_positives: Count = argument("Positive, and negative, radiographs that a label's AUROC needs.", default=10)
    batch_size: Count = argument("Radiographs looked at together.", default=32)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    num_proc: Count = argument(NUM_PROC, default=1)
