"""LiteGPT's processor: radiographs and prompts -> the model's tensors."""

import json
import sys
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_transforms import normalize, rescale
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase
from transformers.utils import is_torch_tensor

from .answer_automaton import answer_tokens
from .answer_grammar import AnswerGrammar
from .answers import AnswerError, text_to_box
from .chat_pipeline_litegpt import RadiographTextPipeline  # noqa: F401 (its file must travel wherever this one does)
from .constrained_decoding import AnswerLogitsProcessor, ConstrainedGreedy
from .image_sources import as_source, flat_images
from .insertion import Insertion
from .pipeline_litegpt import ChestXrayFindingsPipeline  # noqa: F401 (its file must travel wherever this one does)
from .radiograph import SquashedRadiograph, holds_images, in_standard_view, load_radiograph, squash_radiograph
from .sentence_truth import CALIBRATION
from .tasks import TASKS

IMAGE_TOKEN, IMAGE_END_TOKEN, VISUAL_TOKEN = "<image>", "</image>", "<visual>"
IDENTIFIER_TOKENS = tuple(dict.fromkeys(task.identifier for task in TASKS.values() if task.identifier))
IMAGE_TOKENS = (IMAGE_TOKEN, IMAGE_END_TOKEN, VISUAL_TOKEN)
LITEGPT_TOKENS = (*IMAGE_TOKENS, *IDENTIFIER_TOKENS)
TURN_MARKS = ("[INST]", "[/INST]")

# Llama 2's chat format. The system message goes into the first user turn. An image item becomes `<image>` and stands
# first in its turn, wherever the user put it: a checkpoint is trained on no other order. The answer has the space
# after `[/INST]` in its first token, see `answer_tokens`.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- macro text_of(content, role) -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- elif content is undefined or content is not iterable or content is mapping -%}"
    "{{ raise_exception('A message of a chat has a text or a list of items as its content.') }}"
    "{%- else -%}"
    "{%- set images = content | selectattr('type', 'equalto', 'image') | list -%}"
    "{%- if images and role != 'user' -%}"
    "{{ raise_exception('An image of a chat stands in a turn of the user, not in one of the role ' ~ role ~ '.') }}"
    "{%- endif -%}"
    "{%- for item in images -%}<image>{{ ' ' if not loop.last or images | length < content | length }}{%- endfor -%}"
    "{%- for item in content -%}"
    "{%- if item['type'] == 'text' and item['text'] is string -%}{{ item['text'] }}"
    "{%- elif item['type'] == 'text' -%}"
    "{{ raise_exception('An item of the type text in a chat has its words under text.') }}"
    "{%- elif item['type'] != 'image' -%}"
    "{{ raise_exception('An item of a chat has the type image or text, not ' ~ item['type'] ~ '.') }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{%- set role = message['role'] -%}"
    "{%- if role == 'system' -%}"
    "{%- set ns.system = '<<SYS>>\n' + text_of(message['content'], role) + '\n<</SYS>>\n\n' -%}"
    "{%- elif role == 'user' -%}"
    "{{ bos_token + ' [INST] ' + ns.system + text_of(message['content'], role) + ' [/INST]' }}"
    "{%- set ns.system = '' -%}"
    "{%- elif role == 'assistant' -%}"
    "{% generation %}{{ ' ' + text_of(message['content'], role) | trim + eos_token }}{% endgeneration %}"
    "{%- else -%}"
    "{{ raise_exception('A message of a chat has the role system, user or assistant, not ' ~ role ~ '.') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

CHAT_TEMPLATE_WITHOUT_SPACE = CHAT_TEMPLATE.replace("bos_token + ' [INST] '", "(bos_token or '') + '[INST] '")

# Options of an image processor by which the squashed picture does not change, and those by which it does.
_VALUE_OPTIONS = {"do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
_SQUASH_OPTIONS = {"do_resize", "size", "resample", "do_center_crop", "crop_size"}
# These speak of pictures as they are handed over. Here they are PIL images in RGB by then.
_IDLE_OPTIONS = {"return_tensors", "input_data_format", "do_convert_rgb", "disable_grouping"}

_tables: dict[str, np.ndarray] = {}  # (3, 256): an image processor's values of the grey levels


class LiteGPTProcessor(ProcessorMixin):
    """One image processor for each tower and the language model's tokenizer.

    Images may be DICOM, PNG or JPEG files (path, URL, bytes, base64, file object, what `datasets.Image(decode=False)`
    gives), `pydicom.Dataset`s, PIL images, arrays or tensors (see `load_radiograph`; with more than three axes they
    are as many images as the axes before the last three count), singly or in (nested) lists, generators or columns of
    a data set. A list of one list for each prompt is held against the `<image>`s of each. Each image becomes an 8-bit
    grey picture that is squashed whole, without a crop, to the tower's square input. That is done once in grey, with
    Pillow whether torchvision is there or not; the values are the image processors' own, looked up by grey level.

    Options of the image processors can be given with a call. As floats are in [0, 1] in any case, `do_rescale=False`
    changes nothing for them, and is refused for all else, whose grey levels would reach the towers as they are.

    Args:
        image_processor: for the first tower; gives `pixel_values`.
        aux_image_processor: for the second tower; gives `aux_pixel_values`.
        tokenizer: has the tokens of `add_litegpt_tokens`.
        num_towers: 2; with 1 the second image processor is not used.
        image_seq_length: visual tokens of one radiograph (`LiteGPTConfig.num_visual_tokens`).
        finding_labels, diagnosis_labels: the label vocabularies that the checkpoint was trained on, in the answers'
            order.
        instructions: identifier ("identify", "vqa", ...) -> the instruction that the checkpoint was trained with.
        windowing: of DICOM files, "dicom" or "paper" (what the paper's weights were trained with).
        fast: approximate resizing and JPEG 2000 decoding, see `squash_radiograph`.
        num_threads: that decode one JPEG 2000 stream.
        pack_pixel_values: `pixel_values` has the pixels of both towers in its six channels, and there are no
            `aux_pixel_values`: for trainers that hand on `pixel_values` alone, as TRL's GRPOTrainer does.
        score_temperatures: of the scores of "finding" (an answer's boxes) and "diagnosis", and where the model has a
            detector of "detector" (its boxes) and "fused" (both together), of "candidate" (what answers leave out) and
            "view" (several views together); 1 leaves them as the model has them.
        score_thresholds: finding label -> the score from which on a box is reported at the operating point.
        detector_thresholds, fused_thresholds: the same of what a detector finds, and of what it and the answer say
            together.
        candidate_thresholds, view_thresholds: the same of findings with the candidates beside them, and of what
            several views say together.
        box_order: in which the checkpoint was trained to name findings, "label" or "position".
        sentence_calibration: how the log-odds of a report's sentences become probabilities, "slope" and "intercept",
            and the "threshold" below which a sentence is doubtful.
    """

    def __init__(
        self,
        image_processor=None,
        aux_image_processor=None,
        tokenizer=None,
        num_towers: int = 2,
        image_seq_length: int = 49,
        finding_labels: list[str] | None = None,
        diagnosis_labels: list[str] | None = None,
        instructions: dict[str, str] | None = None,
        windowing: str = "dicom",
        fast: bool = False,
        num_threads: int = 1,
        pack_pixel_values: bool = False,
        score_temperatures: dict[str, float] | None = None,
        score_thresholds: dict[str, float] | None = None,
        detector_thresholds: dict[str, float] | None = None,
        fused_thresholds: dict[str, float] | None = None,
        candidate_thresholds: dict[str, float] | None = None,
        view_thresholds: dict[str, float] | None = None,
        box_order: str = "label",
        sentence_calibration: dict[str, float] | None = None,
        chat_template: str | None = None,
    ):
        tokenizer.padding_side = "left"  # as generation in batches needs it
        self.num_towers = num_towers
        self.image_seq_length = image_seq_length
        self.finding_labels = list(finding_labels or [])
        self.diagnosis_labels = list(diagnosis_labels or [])
        self.instructions = dict(instructions or {})
        self.windowing = windowing
        self.fast = fast
        self.num_threads = num_threads
        self.pack_pixel_values = pack_pixel_values
        self.score_temperatures = {"finding": 1.0, "diagnosis": 1.0} | (score_temperatures or {})
        self.score_thresholds = dict(score_thresholds or {})
        self.detector_thresholds = dict(detector_thresholds or {})
        self.fused_thresholds = dict(fused_thresholds or {})
        self.candidate_thresholds = dict(candidate_thresholds or {})
        self.view_thresholds = dict(view_thresholds or {})
        self.box_order = box_order
        self.sentence_calibration = CALIBRATION | (sentence_calibration or {})
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.image_token_ids = [tokenizer.convert_tokens_to_ids(VISUAL_TOKEN)]
        if chat_template is None:
            chat_template = chat_template_for(tokenizer)
        aux_image_processor = aux_image_processor if aux_image_processor is not None else image_processor
        super().__init__(image_processor, aux_image_processor, tokenizer, chat_template=chat_template)

    def prompt(self, task: str, about: str | None = None, num_images: int = 1) -> str:
        """The prompt of a task ("identify", "vqa", ...) as in training; `<image>` is not yet expanded.

        Args:
            about: the phrase, box or question that the task needs, see `TASKS`; of a chat its turns so far, the user's
                last, as JSON: [{"role": "user", "content": "..."}].
            num_images: radiographs of one study that are shown.

        Raises:
            ValueError: the checkpoint has no instruction for this task; the task needs to be told what it is about, or
                is about the radiograph alone; that is no box or no chat where it should be one, or holds a token of
                the prompt's own, such as `<image>`.
        """
        return self.apply_chat_template(self.messages(task, about, num_images), add_generation_prompt=True)

    def messages(self, task: str, about: str | None = None, num_images: int = 1) -> list[dict[str, Any]]:
        """The turns of `prompt` as a chat has them, with {"type": "image"} for each radiograph.

        Raises:
            ValueError: as `prompt`.
        """
        if task not in self.instructions:
            raise ValueError(
                f"no instruction for the task '{task}'; this checkpoint knows: {', '.join(self.instructions)}"
            )
        needed = TASKS[task].about if task in TASKS else None
        if (needed is None) != (about is None):
            told = "nothing" if about is None else repr(about)
            raise ValueError(f"[{task}] is about {needed or 'the radiograph alone'}; it was told {told}.")
        turns = _turns(about) if needed == "chat" else [{"role": "user", "content": about or ""}]
        own = {*IMAGE_TOKENS, *TURN_MARKS, *self.tokenizer.all_special_tokens}
        # A chat may begin as a task does, with its identifier.
        for token in sorted(own if needed == "chat" else own.union(LITEGPT_TOKENS)):
            if any(token in turn["content"] for turn in turns):
                raise ValueError(f"{token} is a token of the prompt's own and cannot stand in {about!r}.")
        if needed == "box":
            try:
                text_to_box(about)
            except AnswerError as error:
                raise ValueError(f"[{task}] is about a box: {error}.") from None
        images = [{"type": "image"}] * num_images
        if needed == "chat":
            first, *others = turns
            first = {**first, "content": [*images, {"type": "text", "text": first["content"]}]}
            return [first, *others]
        identifier = TASKS[task].identifier if task in TASKS else f"[{task}]"
        words = self.instructions[task].replace("{about}", about or "")
        return [{"role": "user", "content": [*images, {"type": "text", "text": f"{identifier} {words}"}]}]

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens of an answer after a prompt, in training as in every chat, without the end-of-sequence token."""
        return answer_tokens(self.tokenizer, answer)[0]

    @cached_property
    def answer_grammar(self) -> AnswerGrammar:
        """The answers that this checkpoint may give: to the tasks of its instructions, with its labels.

        Raises:
            ValueError: a label or the tokenizer does not fit the answer language.
        """
        return AnswerGrammar(self.tokenizer, self.instructions, self.finding_labels, self.diagnosis_labels)

    def constrained_greedy(
        self, jump_ahead: bool = True, least_insertion: float | None = None, compiled: bool = False
    ) -> ConstrainedGreedy:
        """For `generate(custom_generate=...)`: greedy answers in the answer language, several tokens a pass.

        Args:
            jump_ahead: False reads one token a pass; the answers are the same.
            least_insertion: looks for findings that an answer leaves out, of at least this probability of standing in
                it (`insertion.py`); None: it does not.
            compiled: compiles the passes, see `ConstrainedGreedy`.
        """
        insertion = None if least_insertion is None else Insertion(least_insertion, self.box_order)
        return ConstrainedGreedy(self.answer_grammar, self._identifiers, jump_ahead, insertion, compiled)

    def answer_logits_processor(self, max_new_tokens: int) -> AnswerLogitsProcessor:
        """For `generate(logits_processor=[...])`: any decoding, beams and sampling too, in the answer language."""
        return AnswerLogitsProcessor(self.answer_grammar, self._identifiers, max_new_tokens)

    @property
    def _identifiers(self) -> dict[int, str]:
        vocabulary = self.tokenizer.get_vocab()
        # [vqa] begins free questions too, whose answers no grammar has.
        return {vocabulary[f"[{task}]"]: task for task in self.instructions if f"[{task}]" in vocabulary}

    @property
    def tower_image_processors(self) -> list:
        """One image processor for each tower, in the order of the towers."""
        return [self.image_processor, self.aux_image_processor][: self.num_towers]

    def load(self, images: Any) -> list[Image.Image]:
        """Radiographs (one, or nested lists) as 8-bit grey pictures of their own size, in the checkpoint's windowing.

        They are as given; `in_standard_view` turns them as the model is shown them.

        Raises:
            RadiographError: a radiograph cannot be used.
        """
        return [load_radiograph(as_source(image), self.windowing) for image in flat_images(images)]

    def squash(self, source: Any) -> SquashedRadiograph:
        """One radiograph at the towers' sizes; the processor takes it as an image, as often as it is asked about.

        Args:
            source: what `load_radiograph` takes, a torch tensor that is such an array, or a URL (http, https).

        Raises:
            RadiographError: the radiograph cannot be used.
            ValueError: an image processor does something else than squash the whole image.
        """
        processors = self.tower_image_processors
        if not _squash_alike(processors):
            raise ValueError("an image processor crops, or the two resize in different ways: boxes would not fit")
        return self._squash(source, processors)

    def _squash(self, source: Any, processors: list) -> SquashedRadiograph:
        return squash_radiograph(
            as_source(source),
            [_size(processor) for processor in processors],
            Image.Resampling(processors[0].resample),
            self.windowing,
            self.fast,
            self.num_threads,
        )

    def prepare_inputs_layout(self, images=None, text=None, **kwargs):
        _, text, *others = super().prepare_inputs_layout(images=None, text=text, **kwargs)
        if text is not None and self._adds_bos(**kwargs):
            # A prompt begins with the token that the tokenizer is about to add.
            bos = self.tokenizer.bos_token
            text = [sample.removeprefix(bos) if isinstance(sample, str) else sample for sample in text]
        return (None if images is None else _grouped(images)) or None, text, *others

    def _adds_bos(self, text_kwargs: dict | None = None, **kwargs) -> bool:
        options = {**(text_kwargs or {}), **kwargs}
        bos = self.tokenizer.bos_token_id
        return options.get("add_special_tokens") is not False and bos in self.tokenizer("")["input_ids"][:1]

    def validate_inputs(self, images=None, text=None, **kwargs):
        if text is not None:
            self._check_placeholders(images or [], [text] if isinstance(text, str) else text)
        # The library counts pictures; these are still files, datasets, ...
        pictures = [Image.new("L", (1, 1))] * len(list(flat_images(images or []))) or None
        super().validate_inputs(images=pictures, text=text, **kwargs)

    def _check_placeholders(self, images: list, texts: list[str]) -> None:
        """Refuses prompts that have more or fewer `<image>`s than radiographs, or ask a task of none."""
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("`text` must be a string or list of strings.")  # older releases do not say so
        counts = [text.count(IMAGE_TOKEN) for text in texts]
        given = len(list(flat_images(images)))
        if sum(counts) != given:  # older releases of transformers do not compare the two
            raise ValueError(
                "The image tokens in the prompts should be the same as the number of images: "
                f"{IMAGE_TOKEN} stands {sum(counts)} times in the text, but there are {given} radiographs."
            )
        grouped = len(images) == len(texts) and all(isinstance(group, list) for group in images)
        for number, (text, count) in enumerate(zip(texts, counts, strict=True)):
            prompt = f"prompt {number + 1} of {len(texts)}"
            if grouped and count != len(images[number]):
                raise ValueError(
                    f"{IMAGE_TOKEN} stands {count} times in {prompt}, which has {len(images[number])} images."
                )
            tasks = [task for task in self.instructions if f"[{task}]" in text]
            if tasks and not count:
                raise ValueError(f"There is no {IMAGE_TOKEN} in {prompt}, which asks [{tasks[0]}] of a radiograph.")

    def _process_images(self, images, **kwargs):
        images = list(flat_images(images))
        values = self._values(images, kwargs)
        if self.pack_pixel_values and len(values) == 2:
            values = [_packed(*values)]
        names = ("pixel_values", "aux_pixel_values")
        return dict(zip(names, values, strict=False)), [self.expanded_image] * len(images)

    def _values(self, images: list, kwargs: dict[str, Any]) -> list:
        """(images, 3, height, width) for each tower; `kwargs` are options of the image processors."""
        processors = self.tower_image_processors
        options = {name: value for name, value in kwargs.items() if name not in _IDLE_OPTIONS and value is not None}
        if not options.get("do_rescale", True) and any(processor.do_rescale for processor in processors):
            _check_rescaled(images)
            del options["do_rescale"]  # the floats become grey levels all the same
        if options.keys() <= _VALUE_OPTIONS | _SQUASH_OPTIONS and isinstance(options.get("resample", 0), int):
            configured = [type(p).from_dict(p.to_dict() | options) if options else p for p in processors]
            if _squash_alike(configured):
                # A radiograph that is squashed already cannot be squashed in another way.
                sizes = {_size(p) for p in configured} if options.keys() <= _VALUE_OPTIONS else set()
                _check_squashed(images, sizes)
                radiographs = [i if isinstance(i, SquashedRadiograph) else self._squash(i, configured) for i in images]
                return [_pixel_values(radiographs, processor) for processor in configured]
        _check_squashed(images, set())
        pictures = [load_radiograph(as_source(image), self.windowing) for image in images]
        pictures = [in_standard_view(picture).convert("RGB") for picture in pictures]
        options |= {"return_tensors": kwargs.get("return_tensors")}
        return [processor(pictures, **options)["pixel_values"] for processor in processors]

    def _check_special_mm_tokens(self, text, text_inputs, modalities):
        # The library counts `<image>`, which may be left where truncation cuts the placeholders after it.
        for ids in text_inputs["input_ids"]:
            ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
            if ids.count(self.image_token_ids[0]) < self.image_seq_length * ids.count(self.image_token_id):
                raise ValueError(
                    f"Truncation cut into the {self.image_seq_length} placeholders of a radiograph: leave truncation "
                    "out, or let max_length have room for them and the text."
                )
        super()._check_special_mm_tokens(text, text_inputs, modalities)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        return self.expanded_image

    @property
    def expanded_image(self) -> str:
        """What `<image>` in a prompt becomes: the delimiters around one placeholder per visual token."""
        return IMAGE_TOKEN + VISUAL_TOKEN * self.image_seq_length + IMAGE_END_TOKEN

    def _get_num_multimodal_tokens(self, image_sizes: list | None = None, **kwargs) -> MultiModalData:
        # vLLM's hook. The delimiters are text; only the placeholders count.
        if image_sizes is None:
            return MultiModalData()
        count = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.image_seq_length] * count, num_image_patches=[1] * count)

    def __getstate__(self) -> dict[str, Any]:
        # Pickled and hashed (`datasets.map`) is what makes the processor, not what it has worked out since.
        return {name: value for name, value in self.__dict__.items() if name != "answer_grammar"}

    @property
    def model_input_names(self) -> list[str]:
        names = super().model_input_names
        has_aux = self.num_towers == 2 and not self.pack_pixel_values and "aux_pixel_values" not in names
        return names + ["aux_pixel_values"] if has_aux else names


def chat_template_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template in which a turn has the tokens that the tokenizer writes for the turn by itself.

    Llama 2-Chat was trained on `▁[` after the beginning-of-sequence token. Of `<s>[INST]` transformers' tokenizer
    makes `[` or `▁[`, by an option (`legacy`) that is not saved; of `<s> [INST]` it always makes `▁[`. A
    byte-level tokenizer has no space at the beginning of a text, so there is none in its template.
    """
    bos, turn = tokenizer.bos_token or "", "[INST] Look [/INST]"
    by_itself, spaced = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (turn, f"{bos} {turn}"))
    if bos and spaced == [tokenizer.bos_token_id, *by_itself]:
        return CHAT_TEMPLATE
    return CHAT_TEMPLATE_WITHOUT_SPACE


def _turns(chat: str) -> list[dict[str, str]]:
    """The turns of a chat that is to be answered, from JSON."""
    try:
        turns = json.loads(chat)
        roles = [turn["role"] for turn in turns if isinstance(turn["content"], str)]
    except (KeyError, TypeError, ValueError):
        roles, turns = [], None
    known = all(role in ("user", "assistant") for role in roles)
    if not roles or len(roles) < len(turns) or not known or (roles[0], roles[-1]) != ("user", "user"):
        raise ValueError(
            'A chat is a JSON list of {"role": "user" or "assistant", "content": words}, the first and the last one '
            f"of the user; this is none: {chat!r}."
        )
    return turns


def add_litegpt_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Adds the image delimiters, the placeholder, the identifiers and a padding token; returns how many were new.

    The model's embeddings must have room for them: `model.resize_token_embeddings(len(tokenizer))`.
    """
    added = tokenizer.add_special_tokens({"pad_token": "<pad>"}) if tokenizer.pad_token is None else 0
    image_tokens = [AddedToken(token, special=True, normalized=False) for token in IMAGE_TOKENS]
    added += tokenizer.add_tokens(image_tokens, special_tokens=True)
    added += tokenizer.add_tokens([AddedToken(token, normalized=False) for token in IDENTIFIER_TOKENS])
    return added


def _grouped(images: Any) -> list:
    """A list of images, or of one list for each prompt where they come so; empty if there are none.

    None among such lists stands for a prompt without images.
    """
    images = list(images) if holds_images(images) else [images]
    lists = [image for image in images if isinstance(image, (list, tuple))]
    if not lists or any(image is not None and not isinstance(image, (list, tuple)) for image in images):
        return list(flat_images(images))
    groups = [list(flat_images(group or [])) for group in images]
    return groups if any(groups) else []


def _check_rescaled(images: list) -> None:
    for number, image in enumerate(images):
        if not _is_float(image):
            raise ValueError(
                f"do_rescale=False is for arrays of floats in [0, 1]; image {number + 1} of {len(images)} is "
                f"{type(image).__name__} with grey levels, which the towers would get as they are."
            )


def _is_float(image: Any) -> bool:
    if is_torch_tensor(image):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)


def _check_squashed(images: list, sizes: set[tuple[int, int]]) -> None:
    """Refuses squashed radiographs without a picture of each of `sizes`, or any where there are no `sizes`."""
    for image in images:
        if isinstance(image, SquashedRadiograph) and not (sizes and sizes <= image.pictures.keys()):
            raise ValueError(
                "A SquashedRadiograph has the towers' sizes alone; for others, give the radiograph that it is of."
            )


def _squash_alike(processors: list) -> bool:
    return len({p.resample for p in processors}) == 1 and all(
        p.do_resize and not p.do_center_crop and dict(p.size).keys() == {"height", "width"} for p in processors
    )


def _size(processor: Any) -> tuple[int, int]:
    return processor.size["width"], processor.size["height"]


def _pixel_values(radiographs: list[SquashedRadiograph], processor: Any) -> np.ndarray:
    """(n, 3, height, width) float32: what `processor` makes of the pictures, by a table of its 256 grey levels.

    The table comes of the library's NumPy functions: with torchvision a processor rounds its last bit differently.
    """
    options = (processor.do_rescale, processor.rescale_factor, processor.do_normalize)
    key = repr((*options, processor.image_mean, processor.image_std))
    if key not in _tables:
        values = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))
        if processor.do_rescale:
            values = rescale(values, processor.rescale_factor)
        if processor.do_normalize:
            values = normalize(values, processor.image_mean, processor.image_std, input_data_format="channels_first")
        _tables[key] = values[:, 0]
    pictures = np.stack([np.asarray(radiograph.pictures[_size(processor)]) for radiograph in radiographs])
    return np.ascontiguousarray(_tables[key][:, pictures].swapaxes(0, 1))


def _packed(pixel_values: Any, aux_pixel_values: Any) -> np.ndarray:
    """(images, 6, height, width): both towers' pixels, the smaller filled up with zeros at the right and below."""
    both = [np.asarray(values) for values in (pixel_values, aux_pixel_values)]
    height, width = (max(values.shape[axis] for values in both) for axis in (2, 3))
    packed = np.zeros((len(both[0]), 6, height, width), np.float32)
    for start, values in zip((0, 3), both, strict=True):
        packed[:, start : start + 3, : values.shape[2], : values.shape[3]] = values
    return packed


# transformers puts this module into `sys.modules` without telling its package, where dill looks: classes that it does
# not find there are pickled as code, with all that they use, and `datasets.map` would never find what it has cached.
if __package__:
    setattr(sys.modules[__package__], __name__.rpartition(".")[2], sys.modules[__name__])


__all__ = ["LiteGPTProcessor"]
