"""The `litegpt` command: one name for every program.

    litegpt --help                       # the commands, a line each
    litegpt predict --help               # what one takes
    litegpt predict --model_name_or_path outputs/demo/checkpoint --output_dir outputs/predictions radiograph.dicom

A command is a line in `COMMANDS`: the program, and the classes of what it takes. Arguments are read before a program
is imported, so help and a mistyped option are answered at once. Programs that train take the options of transformers
and TRL as well, which only they know: their arguments are read when they are imported.
"""

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from litegpt import __version__
from litegpt.common.arguments import argument_parser, did_you_mean, parse
from litegpt.common.programs import program

EXTRAS = {
    "highdicom": "dicom",
    "pynetdicom": "dicom",
    "dicomweb_client": "dicom",
    "ray": "ray",
}  # package -> extra that has it
FOLDERS = Path(__file__).resolve().parent  # of an installed package; in a clone they lie beside this one


@dataclass(frozen=True)
class Command:
    """A program as the command knows it.

    Attributes:
        file: of the program, with its `main`.
        arguments: classes of the folder's `arguments.py`, in the order in which `main` takes them.
        summary: its line of `litegpt --help`.
        trains: whether it takes the options of transformers and TRL, too.
    """

    file: str
    arguments: tuple[str, ...]
    summary: str
    trains: bool = False

    @property
    def module(self) -> str:
        return "litegpt." + self.file.removesuffix(".py").replace("/", ".")

    def argument_classes(self) -> list[type]:
        module = import_module(f"litegpt.{self.file.partition('/')[0]}.arguments")
        return [getattr(module, name) for name in self.arguments]

    def description(self) -> str:
        """How the program's file opens, read without importing it."""
        path = next(path for folder in (FOLDERS, FOLDERS.parent) if (path := folder / self.file).is_file())
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or self.summary


COMMANDS = {
    "predict": Command(
        "inference_scripts/predict.py", ("PredictArguments",), "findings, boxes and diagnoses of radiographs"
    ),
    "predict-many": Command(
        "inference_scripts/many/predict_many.py",
        ("PredictManyArguments",),
        "the same of thousands to millions, on one machine or many",
    ),
    "ask": Command(
        "inference_scripts/ask.py", ("AskArguments",), "questions, phrases and reports, here or from a server"
    ),
    "node": Command(
        "inference_scripts/node/node.py", ("NodeArguments",), "radiographs from a PACS, and reports back into it"
    ),
    "explain": Command(
        "inference_scripts/explain.py", ("ExplainArguments",), "where a model sees what it says, as maps"
    ),
    "app": Command(
        "inference_scripts/app/app.py", ("AppArguments",), "a page where people drop radiographs and see what is found"
    ),
    "export": Command(
        "inference_scripts/export_boxes.py",
        ("ExportArguments",),
        "boxes to Label Studio, CVAT, COCO or Kaggle, to be corrected",
    ),
    "hospital": Command(
        "inference_scripts/hospital/hospital.py",
        ("HospitalArguments",),
        "a PACS, the node and a viewer on this machine, to see it all",
    ),
    "prepare vindr-cxr": Command(
        "datasets_scripts/vindr_cxr.py", ("ReadersArguments", "PreparationOptions"), "VinDr-CXR, ready for training"
    ),
    "prepare chestx-ray14": Command(
        "datasets_scripts/chestx_ray14.py",
        ("PreparationArguments", "PreparationOptions"),
        "ChestX-ray14, ready for training",
    ),
    "prepare open-i": Command(
        "datasets_scripts/open_i.py", ("PreparationArguments", "PreparationOptions"), "Open-i, with its reports"
    ),
    "prepare mimic-cxr": Command(
        "datasets_scripts/mimic_cxr.py",
        ("PreparationArguments", "PreparationOptions"),
        "MIMIC-CXR-JPG, with its reports and labels",
    ),
    "prepare ms-cxr": Command(
        "datasets_scripts/ms_cxr.py",
        ("PreparationArguments", "PreparationOptions"),
        "MS-CXR: phrases of reports with their boxes",
    ),
    "prepare padchest-gr": Command(
        "datasets_scripts/padchest_gr.py",
        ("PreparationArguments", "PreparationOptions"),
        "PadChest-GR: reports sentence by sentence, with boxes",
    ),
    "prepare vqa-rad": Command(
        "datasets_scripts/vqa_rad.py",
        ("PreparationArguments", "PreparationOptions"),
        "VQA-RAD: questions on radiographs, with answers",
    ),
    "prepare chexpert": Command(
        "datasets_scripts/chexpert.py",
        ("PreparationArguments", "PreparationOptions"),
        "CheXpert and CheXpert Plus, ready for training",
    ),
    "prepare rsna-pneumonia": Command(
        "datasets_scripts/rsna_pneumonia.py",
        ("PreparationArguments", "PreparationOptions"),
        "RSNA Pneumonia, ready for training",
    ),
    "prepare siim-pneumothorax": Command(
        "datasets_scripts/siim_pneumothorax.py",
        ("PreparationArguments", "PreparationOptions"),
        "SIIM-ACR Pneumothorax, ready for training",
    ),
    "prepare covidx": Command(
        "datasets_scripts/covidx.py",
        ("PreparationArguments", "PreparationOptions"),
        "COVIDx CXR, ready for training",
    ),
    "prepare coco-boxes": Command(
        "datasets_scripts/coco_boxes.py",
        ("OwnDataArguments", "PreparationOptions"),
        "boxes that were drawn or corrected in CVAT, as COCO",
    ),
    "prepare label-studio": Command(
        "datasets_scripts/label_studio.py",
        ("ReadersArguments", "PreparationOptions"),
        "boxes that were drawn or corrected in Label Studio",
    ),
    "prepare llava-chats": Command(
        "datasets_scripts/llava_chats.py",
        ("OwnDataArguments", "PreparationOptions"),
        "chats about radiographs, in LLaVA's JSON",
    ),
    "prepare phantom": Command(
        "datasets_scripts/phantom_cxr.py", ("PhantomArguments",), "synthetic radiographs in VinDr-CXR's layout"
    ),
    "chats": Command(
        "datasets_scripts/export_chats.py", ("ChatsArguments",), "a prepared data set as chats, in LLaVA's JSON"
    ),
    "distil-reports": Command(
        "datasets_scripts/distil_reports.py",
        ("DistilReportsArguments",),
        "reports as short sentences, for ECAMP's training",
    ),
    "new": Command("modeling_litegpt/new_checkpoint.py", ("NewCheckpointArguments",), "a fresh checkpoint"),
    "convert": Command(
        "modeling_litegpt/convert_weights_to_hf.py", ("ConversionArguments",), "a checkpoint of published weights"
    ),
    "convert-cxr-clip": Command(
        "modeling_towers/convert_cxr_clip.py",
        ("CXRCLIPConversionArguments",),
        "a checkpoint of CXR-CLIP's published weights",
    ),
    "convert-ecamp": Command(
        "modeling_towers/convert_ecamp.py",
        ("ECAMPConversionArguments",),
        "an image tower of ECAMP's or MRM's published weights",
    ),
    "pretrain-boxes": Command(
        "train_scripts/pretrain_boxes.py", ("TowerArguments",), "train the towers on labels and boxes", trains=True
    ),
    "pretrain-cxr-clip": Command(
        "train_scripts/pretrain_cxr_clip.py",
        ("CXRCLIPArguments", "StudyArguments", "ContrastArguments"),
        "train image and text towers on reports and labels",
        trains=True,
    ),
    "pretrain-ecamp": Command(
        "train_scripts/pretrain_ecamp.py",
        ("ECAMPArguments", "ReportArguments", "MaskingArguments", "PictureArguments"),
        "train an image tower on masked pictures and masked reports",
        trains=True,
    ),
    "finetune-tower": Command(
        "train_scripts/finetune_tower.py",
        ("FinetuneArguments",),
        "an image tower on labels, masks or boxes, and its test",
        trains=True,
    ),
    "train-classifier": Command(
        "train_scripts/train_classifier.py",
        ("ClassifierArguments",),
        "a classifier on labels alone, that shows where it sees each",
        trains=True,
    ),
    "train": Command(
        "train_scripts/sft.py",
        ("DataArguments", "ExampleArguments", "RecipeArguments"),
        "fine-tune a checkpoint on questions and answers",
        trains=True,
    ),
    "grpo": Command(
        "train_scripts/grpo.py",
        ("DataArguments", "RolloutArguments"),
        "reinforce a trained checkpoint by rewards that can be verified",
        trains=True,
    ),
    "memory": Command("train_scripts/memory_per_gpu.py", ("MemoryArguments",), "what training takes on each GPU"),
    "calibrate": Command(
        "evaluation_scripts/calibrate.py", ("CalibrationArguments",), "scores and thresholds that can be relied on"
    ),
    "evaluate": Command(
        "evaluation_scripts/evaluate_litegpt.py", ("EvaluationArguments",), "answers, figures, controls, a report"
    ),
    "evaluate-words": Command(
        "evaluation_scripts/evaluate_words.py",
        ("WordEvaluationArguments",),
        "phrases, reports and questions: answers, figures beside controls, a report",
    ),
    "calibrate-words": Command(
        "evaluation_scripts/calibrate_words.py",
        ("WordCalibrationArguments",),
        "probabilities of a report's sentences that can be relied on",
    ),
    "evaluate-cxr-clip": Command(
        "evaluation_scripts/evaluate_cxr_clip.py",
        ("CXRCLIPEvaluationArguments",),
        "zero-shot, retrieval and probes of a CXR-CLIP checkpoint, a report",
    ),
    "localize": Command(
        "evaluation_scripts/localize.py",
        ("LocalizationArguments",),
        "maps of a classifier or of LiteGPT's answers against true boxes",
    ),
    "compare": Command(
        "evaluation_scripts/compare_runs.py",
        ("ComparisonArguments",),
        "which of two evaluations is better",
    ),
    "paper-tables": Command(
        "evaluation_scripts/paper_tables.py",
        ("PaperTablesArguments",),
        "the paper's tables, from scratch",
    ),
    "cxr-clip-tables": Command(
        "evaluation_scripts/cxr_clip_tables.py",
        ("CXRCLIPTablesArguments",),
        "CXR-CLIP's tables beside finished evaluations",
    ),
    "chestx-ray8-tables": Command(
        "evaluation_scripts/chestx_ray8_tables.py",
        ("ChestXray8TablesArguments",),
        "ChestX-ray8's tables beside finished runs of localize",
    ),
    "push": Command("hub/push_to_hub.py", ("PushArguments",), "a checkpoint, adapter or data set onto the Hub"),
    "refresh": Command("hub/refresh_checkpoint.py", ("RefreshArguments",), "today's code into an older checkpoint"),
}


@program
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"litegpt {__version__}")
        return 0
    name, words = words[0], words[1:]
    if name in _groups():
        if not words or words[0] in ("-h", "--help"):
            print(overview(name))
            return 0
        name, words = f"{name} {words[0]}", words[1:]
    if name not in COMMANDS:
        near = did_you_mean(name, list(COMMANDS)) or "; litegpt --help lists them"
        print(f"litegpt: there is no command {name}{near}", file=sys.stderr)
        return 2
    return run(name, COMMANDS[name], words)


def run(name: str, command: Command, words: list[str]) -> int:
    """Reads the arguments, then imports the program and runs it."""
    if not command.trains:
        arguments = parse(command.argument_classes(), words, f"litegpt {name}", command.description())
    elif {"-h", "--help"} & set(words):
        print(argument_parser(command.argument_classes(), f"litegpt {name}", command.description()).format_help())
        print(f"Beside these, every option of transformers and TRL: litegpt {name} --help_all lists them.")
        return 0
    try:
        module = import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = f"{EXTRAS[error.name]} (pip install {error.name.replace('_', '-')})"
        raise SystemExit(f"litegpt {name} needs {error.name}, of the extra {extra}.") from None
    if command.trains:
        parser = module.argument_parser()
        parser.prog = f"litegpt {name}"
        arguments = parser.parse(["--help"] if "--help_all" in words else words)
    return module.main(*arguments) or 0


def overview(group: str = "") -> str:
    """The commands, a line each; those of a group alone where one is named."""
    chosen = {name: command for name, command in COMMANDS.items() if name.startswith(f"{group} " if group else "")}
    width = max(map(len, chosen))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in chosen.items()]
    return "\n".join(["usage: litegpt COMMAND [--help] ...", "", *lines])


def _groups() -> set[str]:
    return {name.partition(" ")[0] for name in COMMANDS if " " in name}


if __name__ == "__main__":
    sys.exit(main())
