"""What the programs of this folder take, beside the arguments of transformers and TRL."""

from dataclasses import dataclass
from typing import Any, Literal

from litegpt.common.arguments import Count, Place, Share, WholeNumber, argument
from litegpt.datasets_scripts.arguments import CACHE_DIR, DATA_DIR, NUM_PROC
from litegpt.modeling_litegpt.arguments import DetectorArguments
from litegpt.processing.tasks import TASKS

PSEUDO_BOXES = (
    "predictions.jsonl of `litegpt localize` over the training radiographs: each label has the box that a "
    "classifier's map draws, in place of those of the data, if there are any."
)


@dataclass
class DataArguments:
    data_dir: Place = argument(DATA_DIR)
    word_data_dirs: list[Place] = argument(
        "Further data sets, whose splits train are asked what they tell in words, such as reports or questions. Their "
        "labels may be others than the checkpoint's.",
        default=[],
    )
    train_split: str = argument("The split to train on, or a slice: train[:-100].", default="train")
    validation_split: str | None = argument(
        "A split or slice that is not trained on, such as validation[:64] or train[-100:]. Its loss and the answers "
        "to it are shown as --eval_strategy says.",
        default=None,
    )
    pseudo_boxes: str | None = argument(PSEUDO_BOXES, default=None)
    template_words: bool = argument(
        "Give rows that have labels and boxes template reports, phrases and questions, for the tasks about words.",
        default=False,
    )
    train_towers: bool = argument("Train the towers too; by default they are frozen.", default=False)
    cache_features: bool = argument("Compute the frozen towers' features once, before training.", default=False)
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    training_cache_dir: str | None = argument(
        "Radiographs and features at the towers' size; OUTPUT_DIR/cache by default.", default=None
    )
    num_proc: Count = argument(NUM_PROC, default=1)
    total_batch_size: Count | None = argument(
        "Examples in an optimizer step, whatever the number of processes: gradient_accumulation_steps becomes "
        "total_batch_size / (per_device_train_batch_size x processes).",
        default=None,
    )


@dataclass
class ExampleArguments:
    tasks: list[str] = argument(
        f"What to ask of every radiograph: {', '.join(TASKS)}. Several are mixed.", default=["identify"]
    )
    task_weights: dict[str, float] = argument(
        "How often each task is shown, whatever the number of its examples: {identify: 1, refer: 2} shows refer twice "
        "as often; a task without a weight has 1. By default every example of every task is shown once an epoch.",
        default={},
    )
    second_view: bool = argument(
        "Show the lateral of a frontal radiograph's study as a second image of [report], where rows have study_id.",
        default=False,
    )
    with_findings_only: bool = argument(
        "Leave out radiographs without findings (boxes), as the paper's stage one does.", default=False
    )
    box_order: Literal["label", "position"] = argument(
        "Findings of an answer by label, or by position: from top to bottom, then from left to right. The order "
        "changes no score of labels and boxes; text scores compare with the order by label.",
        default="label",
    )
    augmented_views: WholeNumber = argument(
        "Randomly moved views of a radiograph beside the plain one. With findings all are shown in an epoch, without "
        "findings one of them: so radiographs with findings are shown more often.",
        default=0,
    )
    view_strength: float = argument(
        "How many times as far as usual a view is scaled and shifted, and its grey values changed.", default=1.0
    )
    max_gamma: float = argument("Its grey values to a power between exp(-max_gamma) and exp(max_gamma).", default=0.0)

    def __post_init__(self):
        for task, weight in self.task_weights.items():
            if task not in self.tasks:
                raise ValueError(f"task_weights: {task} is not one of the tasks {', '.join(self.tasks)}.")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
                raise ValueError(f"task_weights: the weight of {task} must be a number above 0, not {weight}.")


@dataclass
class RecipeArguments:
    linear_warmup_cosine_lr: bool = argument(
        "The release's learning rates in place of lr_scheduler_type: from warmup_lr to learning_rate over "
        "warmup_steps, then a cosine from learning_rate to min_lr that counts the warm-up's steps too.",
        default=False,
    )
    warmup_lr: Share = argument("linear_warmup_cosine_lr: the first step's rate.", default=1e-6)
    min_lr: Share = argument("linear_warmup_cosine_lr: the rate at the end.", default=1e-6)
    steps_per_epoch: Count | None = argument(
        "An epoch is so many optimizer steps (the paper: 549); by default it shows every example once.", default=None
    )
    sample_with_replacement: bool = argument(
        "Draw examples at random, rather than each of them once before any is seen again.", default=False
    )
    detector_loss_weight: float = argument(
        "Train the detector too, its loss counting so much; 0: it stays as it is. With train_towers: the joint stage.",
        default=0.0,
    )


@dataclass
class RolloutArguments:
    """Which radiographs `grpo.py` asks about, and what an answer is worth."""

    tasks: list[str] = argument("What to ask, of the questions whose answers have boxes.", default=["identify"])
    reward_functions: list[str] = argument(
        "What an answer is worth, files of train_scripts/rewards/: box_f1, answer_format, candidate_scores. "
        "reward_weights says how much each counts.",
        default=["box_f1"],
    )
    abnormal_share: Share | None = argument(
        "The share of radiographs with findings in what is asked about; by default as it comes.", default=None
    )
    moved_share: Share = argument("How often a radiograph is shown moved at random, with its boxes.", default=0.0)
    rollouts_drawn: WholeNumber = argument(
        "Radiographs whose true and answered boxes are drawn into TensorBoard with each line of the log.", default=4
    )


@dataclass
class TowerArguments(DetectorArguments):
    model_name_or_path: str = argument("The LiteGPT checkpoint whose towers are trained.")
    data_dir: Place = argument(DATA_DIR)
    train_split: str = argument("The split to train on, or a slice: train[:-100].", default="train")
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    training_cache_dir: str | None = argument(
        "Radiographs at the towers' size; OUTPUT_DIR/cache by default.", default=None
    )
    num_proc: Count = argument(NUM_PROC, default=1)
    repeat_findings: Count = argument(
        "How often an epoch shows a radiograph with findings; the others are shown once.", default=2
    )
    labels_only: bool = argument("Learn which findings a radiograph has, not where they are.", default=False)
    freeze_towers: bool = argument("Only the detector learns; the towers stay as they are.", default=False)
    patch_heads: bool = argument(
        "Heads that read every patch alone, thrown away afterwards; false: the towers learn for the detector alone.",
        default=True,
    )
    pseudo_boxes: str | None = argument(PSEUDO_BOXES, default=None)
    view_strength: float = argument(
        "How many times as far as usual a view is scaled and shifted, and its grey values changed.", default=1.0
    )
    max_gamma: float = argument("Its grey values to a power between exp(-max_gamma) and exp(max_gamma).", default=0.0)


@dataclass
class CXRCLIPArguments:
    """What a CXR-CLIP is made of, and what it is trained on."""

    data_dirs: list[Place] = argument(f"One or several of: {DATA_DIR}")
    model_name_or_path: str | None = argument("A CXR-CLIP checkpoint to start from; else towers.", default=None)
    vision_model: str | None = argument(
        "Image tower: a folder or name on the Hub, such as microsoft/swin-tiny-patch4-window7-224.", default=None
    )
    vision_config: dict[str, Any] | None = argument("A fresh image tower, with `model_type`.", default=None)
    text_model: str | None = argument(
        "Text tower with its tokenizer: a folder or name, such as emilyalsentzer/Bio_ClinicalBERT.", default=None
    )
    text_config: dict[str, Any] | None = argument(
        "A fresh text tower, with `model_type`; its tokenizer learns from the training texts.", default=None
    )
    image_size: Count = argument("Pixels of the square input, for towers that do not say.", default=224)
    projection_dim: Count = argument("Width of the common space.", default=512)
    max_length: Count = argument("Tokens of a text; longer ones are cut.", default=256)
    train_split: str = argument("The split to train on, or a slice, of each data set.", default="train")
    validation_split: str | None = argument(
        "A split or slice that is not trained on, of each data set: its loss, zero-shot AUROC and retrieval are shown "
        "as --eval_strategy says.",
        default=None,
    )
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    training_cache_dir: str | None = argument(
        "Radiographs at the tower's size; OUTPUT_DIR/cache by default.", default=None
    )
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class StudyArguments:
    """What of a study is shown: the rows of the paper's Table 4 are `study_sampling`, `augment`, `multi_view`."""

    study_sampling: bool = argument(
        "Draw pictures and sections of a study; false: its first frontal picture and its whole report.", default=True
    )
    augment: bool = argument("Show pictures and sentences in another way each time.", default=True)
    multi_view: bool = argument("Two pictures and two texts of each study; false: one of each.", default=True)
    equalise: Share = argument("How often a picture's contrast is equalised (CLAHE; extra `clahe`).", default=0.5)
    min_crop_area: Share = argument("The smallest part of a picture that is shown.", default=0.8)
    max_gamma: float = argument(
        "Grey values to a power between exp(-max_gamma) and exp(max_gamma); not the paper's.", default=0.0
    )
    prompts: Share = argument("How often one of a report's two texts is its labels' prompts instead.", default=0.0)
    negatives: WholeNumber | None = argument("Negative labels in a text of prompts; none: all.", default=3)
    labels_only: bool = argument("Prompts alone, where there are reports too.", default=False)
    abnormal_share: Share | None = argument(
        "The share of studies with findings in what is shown; by default as it comes.", default=None
    )
    release: bool = argument(
        "As the published code does: sections drawn with replacement, sentences left in order, no sentence for "
        '"No finding", a Swin tower\'s first token in place of the mean.',
        default=False,
    )
    shuffle_reports: bool = argument("The control: each study gets another one's text.", default=False)


@dataclass
class ContrastArguments:
    image_loss_weight: float = argument("ICL's weight.", default=1.0)
    text_loss_weight: float = argument("TCL's weight.", default=0.5)
    multi_view_weight: float = argument("MVS' weight; 0: images are contrasted without any text.", default=1.0)
    chunk_size: Count | None = argument(
        "Studies in memory at once: the batch is computed in such chunks, twice; the gradient is exactly its own.",
        default=None,
    )


@dataclass
class ECAMPArguments:
    """What an ECAMP is made of, and what it is trained on."""

    data_dirs: list[Place] = argument(f"One or several of: {DATA_DIR}")
    model_name_or_path: str | None = argument(
        "An ECAMP checkpoint that is trained further, with its parts and losses.", default=None
    )
    vision_tower: str | None = argument(
        "A folder whose ViT the encoder starts from, such as facebook/vit-mae-base, downloaded.", default=None
    )
    vision_config: dict[str, Any] = argument(
        "The encoder and its decoder, values of ViTMAEConfig; ViT-B/16 and the paper's decoder by default.",
        default={},
    )
    text_config: dict[str, Any] = argument(
        "The text encoder, values of BertConfig; six layers by default. Its tokenizer learns from the training texts.",
        default={},
    )
    tokenizer: str | None = argument(
        "Folder of a tokenizer, in place of one that learns from the texts.", default=None
    )
    image_mean: float = argument("Of the grey values, of which the encoder sees the difference.", default=0.4721)
    image_std: float = argument("Their deviation.", default=0.3037)
    super_resolution_weight: float = argument("Of the large picture's loss; 0: there is none.", default=1.0)
    text_weight: float = argument("Of the masked words' loss; 0: there is no text.", default=1.0)
    fusion: Literal["both", "global", "local", "add", "none"] = argument(
        "What words see of the image: patches and their mean, one of them, the mean as MRM adds it, or nothing.",
        default="both",
    )
    train_split: str = argument("The split to train on, or a slice, of each data set.", default="train")
    validation_split: str | None = argument(
        "A split or slice that is not trained on, of each data set: its losses, and how many descriptors are said "
        "with the right picture and with another one, are shown as --eval_strategy says.",
        default=None,
    )
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    training_cache_dir: str | None = argument(
        "Radiographs at the size that the model is given; OUTPUT_DIR/cache by default.", default=None
    )
    num_proc: Count = argument(NUM_PROC, default=1)
    release: bool = argument(
        "As the published code does where it differs from the paper: losses over all pixels and all tokens, padding "
        "too; descriptors masked like other words; entities in one form alone; mirror images; windows that stay where "
        "they were when the picture is cropped; no darkness in super-resolution; a head of its own for words.",
        default=False,
    )


@dataclass
class ReportArguments:
    """Which text a radiograph is shown with."""

    distilled: str | None = argument(
        "JSON lines of distilled reports, as `litegpt distil-reports` writes them; else the rows' own.", default=None
    )
    distilled_share: Share = argument("How often a report's distilled one stands in it.", default=0.8)
    negatives: WholeNumber | None = argument(
        "Negative labels in a text of prompts, where there is no report; none: all.", default=4
    )
    abnormal_share: Share | None = argument(
        "The share of radiographs with findings in what is shown; by default as it comes.", default=None
    )
    shuffle_reports: bool = argument("The control: each radiograph gets another one's text.", default=False)


@dataclass
class MaskingArguments:
    """Which words are masked, and what they count."""

    max_length: Count = argument("Tokens of a text; longer ones are cut.", default=256)
    mask_descriptors: bool = argument("Mask the two words before each entity always.", default=True)
    entity_share: Share = argument("Of the entities that are masked.", default=0.75)
    other_share: Share = argument("Of the other words.", default=0.7)
    alpha: float = argument('What the words of "there is no" count, above 0; 1: as all others.', default=0.05)


@dataclass
class PictureArguments:
    """How a radiograph is shown, and where super-resolution is judged."""

    min_crop_area: Share = argument("The smallest part of a picture that is shown.", default=0.2)
    context: Literal["whole", "boxes", "similarity"] = argument(
        "Where super-resolution is judged: everywhere; in a window of 6/7 of a side around the row's boxes, "
        "everywhere without any; or in one around what a CXR-CLIP sees of the report.",
        default="whole",
    )
    context_model: str | None = argument("The CXR-CLIP checkpoint of `context: similarity`.", default=None)


@dataclass
class SplitArguments:
    """Which radiographs are learnt from, chosen by and tested on."""

    data_dir: Place = argument(DATA_DIR)
    train_split: str = argument("The split to train on, or a slice.", default="train")
    validation_split: str = argument(
        "The split or slice by which the best checkpoint is chosen; it shares nothing with the other two.",
        default="validation",
    )
    test_split: str = argument("The split or slice that is looked at once, at the end.", default="test")
    allow_shared_patients: bool = argument(
        "Splits may have patients in common, as some published ones; the scores then say so.", default=False
    )
    part: float = argument(
        "Share of the training radiographs, whole patients drawn by --seed; the smaller lie in the larger.",
        default=1.0,
        choices=[0.01, 0.1, 1.0],
    )
    positive_share: Share | None = argument(
        "The share of radiographs with a label, mask or box in what an epoch shows; by default as it comes.",
        default=None,
    )
    max_gamma: float = argument(
        "Grey values to a power between exp(-max_gamma) and exp(max_gamma); not the paper's.", default=0.0
    )
    patience: Count | None = argument(
        "Evaluations without a better one after which training ends; by default it does not.", default=None
    )
    labels: list[str] | None = argument(
        "Names of the data's labels; all but No finding by default, of detection those that have boxes.", default=None
    )
    unmentioned_negative: bool = argument(
        "Classification: what a report does not mention is negative, as users of CheXpert have it, not unknown.",
        default=False,
    )
    cache_dir: str | None = argument(CACHE_DIR, default=None)
    training_cache_dir: str | None = argument(
        "Radiographs and masks at the tower's size; OUTPUT_DIR/cache by default.", default=None
    )
    num_proc: Count = argument(NUM_PROC, default=1)


@dataclass
class FinetuneArguments(SplitArguments):
    """An image tower and a task."""

    task: Literal["classification", "segmentation", "detection"] = argument(
        "What the head answers: labels, a mask, or boxes.", default="classification"
    )
    tower: str | None = argument(
        "The folder of a checkpoint whose image tower is taken: ECAMP, CXR-CLIP, LiteGPT, CLIP, or a tower alone.",
        default=None,
    )
    tower_config: dict[str, Any] | None = argument(
        "A fresh tower, with `model_type` and `image_size`, where no --tower is given; in a YAML file.", default=None
    )
    random_weights: bool = argument("The control: the tower's sizes and input with random weights.", default=False)
    frozen: bool = argument("Only the head learns: a linear probe.", default=False)
    single_label: bool = argument(
        "Classification: exactly one diagnosis holds of each radiograph; accuracy in place of AUROC.", default=False
    )
    min_crop_area: Share = argument("The smallest part of a picture that is shown; 1: always all of it.", default=0.08)
    min_positives: Count = argument("Test radiographs with and without a label, or boxes, that it needs.", default=10)


@dataclass
class ClassifierArguments(SplitArguments):
    """A network that learns labels of whole radiographs, and how it pools what it sees."""

    trunk: str | None = argument(
        "What it starts from: the folder of a checkpoint whose image tower is taken (ECAMP, CXR-CLIP, LiteGPT, CLIP, "
        "or a tower alone), or a network of the Hub, such as microsoft/resnet-50.",
        default=None,
    )
    trunk_config: dict[str, Any] | None = argument(
        "A fresh trunk, with `model_type` and `image_size`, where no --trunk is given; in a YAML file.", default=None
    )
    random_weights: bool = argument("The control: the trunk's sizes and input with random weights.", default=False)
    trunk_stage: str | None = argument(
        "The trunk ends at this stage, such as stage3 of a ResNet, whose map is twice as fine.", default=None
    )
    image_size: Count | None = argument(
        "Pixels of the square input, where it is not the trunk's own; of convolutional trunks alone.", default=None
    )
    transition_width: WholeNumber | None = argument(
        "Of the transition layer; by default as wide as the trunk; 0: there is none.", default=None
    )
    pooling: Literal["lse", "average", "max", "pcam"] = argument("How places become one.", default="lse")
    lse_r: float = argument("Log-Sum-Exp's r: near 0 the average, large the maximum.", default=10.0)
    balance: Literal["batch", "none"] = argument(
        "Whether positive and negative labels of a batch weigh the same, as the paper's W-CEL.", default="batch"
    )
    min_crop_area: Share = argument("The smallest part of a picture that is shown; 1: always all of it.", default=1.0)
    min_positives: Count = argument("Validation radiographs with and without a label that it needs.", default=1)


@dataclass
class MemoryArguments:
    architecture: str = argument("litegpt, biomedclip, pubmedclip or minigpt_v2.", default="litegpt")
    batch_size: Count = argument("Radiographs on each GPU.", default=4)
    prompt_tokens: Count = argument("Of the prompt, beside the visual ones.", default=64)
    answer_tokens: Count = argument("Of the answer.", default=192)
    lora_r: Count = argument("Rank of LoRA.", default=64)
