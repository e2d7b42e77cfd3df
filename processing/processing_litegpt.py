"""LiteGPT's processor: radiographs and prompts -> the model's tensors."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_transforms import normalize, rescale
from transformers.image_utils import load_image
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase
from transformers.utils import is_torch_tensor

from .answer_grammar import AnswerGrammar
from .constrained_decoding import AnswerLogitsProcessor, ConstrainedGreedy
from .pipeline_litegpt import ChestXrayFindingsPipeline  # noqa: F401 (its file must travel wherever this one does)
from .radiograph import SquashedRadiograph, load_radiograph, squash_radiograph

IMAGE_TOKEN, IMAGE_END_TOKEN, VISUAL_TOKEN = "<image>", "</image>", "<visual>"
IDENTIFIER_TOKENS = ("[identify]", "[vqa]", "[grounding]")
LITEGPT_TOKENS = (IMAGE_TOKEN, IMAGE_END_TOKEN, VISUAL_TOKEN, *IDENTIFIER_TOKENS)

# Llama 2's chat format. An image item becomes `<image>`; the system message goes into the first user turn.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- macro text_of(content) -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- else -%}{%- for item in content -%}"
    "{%- if item['type'] == 'image' -%}<image>{{ ' ' if not loop.last }}{%- else -%}{{ item['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set ns.system = '<<SYS>>\n' + text_of(message['content']) + '\n<</SYS>>\n\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ bos_token + '[INST] ' + ns.system + text_of(message['content']) + ' [/INST]' }}{%- set ns.system = '' -%}"
    "{%- else -%}"
    "{{ ' ' }}{% generation %}{{ text_of(message['content']) + eos_token }}{% endgeneration %}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


_tables: dict[str, np.ndarray] = {}  # (3, 256): an image processor's values of the grey levels


class LiteGPTProcessor(ProcessorMixin):
    """One image processor for each tower and the language model's tokenizer.

    Images may be DICOM files (path, bytes, `pydicom.Dataset`), PNG or JPEG files, PIL images or arrays, singly or in
    (nested) lists; each becomes an 8-bit grey picture that is squashed whole, without a crop, to the tower's square
    input. That is done once in grey, with Pillow whether torchvision is there or not; the values are the image
    processors' own, looked up by grey level.

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
        score_temperatures: of the scores of "finding" (boxes) and "diagnosis"; 1 leaves them as the model has them.
        score_thresholds: finding label -> the score from which on a box is reported at the operating point.
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
        score_temperatures: dict[str, float] | None = None,
        score_thresholds: dict[str, float] | None = None,
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
        self.score_temperatures = {"finding": 1.0, "diagnosis": 1.0} | (score_temperatures or {})
        self.score_thresholds = dict(score_thresholds or {})
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.image_token_ids = [tokenizer.convert_tokens_to_ids(VISUAL_TOKEN)]
        if chat_template is None:
            chat_template = CHAT_TEMPLATE
        aux_image_processor = aux_image_processor if aux_image_processor is not None else image_processor
        super().__init__(image_processor, aux_image_processor, tokenizer, chat_template=chat_template)

    def prompt(self, task: str) -> str:
        """The prompt of a task ("identify", "vqa", ...) as in training; `<image>` is not yet expanded.

        Raises:
            ValueError: the checkpoint has no instruction for this task.
        """
        if task not in self.instructions:
            raise ValueError(
                f"no instruction for the task '{task}'; this checkpoint knows: {', '.join(self.instructions)}"
            )
        content = [{"type": "image"}, {"type": "text", "text": f"[{task}] {self.instructions[task]}"}]
        return self.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    @cached_property
    def answer_grammar(self) -> AnswerGrammar:
        """The answers that this checkpoint may give: to the tasks of its instructions, with its labels.

        Raises:
            ValueError: a label or the tokenizer does not fit the answer language.
        """
        return AnswerGrammar(self.tokenizer, self.instructions, self.finding_labels, self.diagnosis_labels)

    def constrained_greedy(self, jump_ahead: bool = True) -> ConstrainedGreedy:
        """For `generate(custom_generate=...)`: greedy answers in the answer language, several tokens a pass.

        Args:
            jump_ahead: False reads one token a pass; the answers are the same.
        """
        return ConstrainedGreedy(self.answer_grammar, self._identifiers, jump_ahead)

    def answer_logits_processor(self, max_new_tokens: int) -> AnswerLogitsProcessor:
        """For `generate(logits_processor=[...])`: any decoding, beams and sampling too, in the answer language."""
        return AnswerLogitsProcessor(self.answer_grammar, self._identifiers, max_new_tokens)

    @property
    def _identifiers(self) -> dict[int, str]:
        return {self.tokenizer.convert_tokens_to_ids(f"[{task}]"): task for task in self.instructions}

    @property
    def tower_image_processors(self) -> list:
        """One image processor for each tower, in the order of the towers."""
        return [self.image_processor, self.aux_image_processor][: self.num_towers]

    def squash(self, source: Any) -> SquashedRadiograph:
        """One radiograph at the towers' sizes; the processor takes it as an image, as often as it is asked about.

        Args:
            source: what `load_radiograph` takes, a torch tensor that is such an array, or a URL.

        Raises:
            RadiographError: the radiograph cannot be used.
            ValueError: an image processor does something else than squash the whole image.
        """
        processors = self.tower_image_processors
        if not self._squashes:
            raise ValueError("an image processor crops, or the two resize in different ways: boxes would not fit")
        return squash_radiograph(
            _local(source),
            [_size(processor) for processor in processors],
            Image.Resampling(processors[0].resample),
            self.windowing,
            self.fast,
            self.num_threads,
        )

    def prepare_inputs_layout(self, images=None, text=None, **kwargs):
        _, *others = super().prepare_inputs_layout(images=None, text=text, **kwargs)
        return None if images is None else list(_flat(images)), *others

    def validate_inputs(self, images=None, text=None, **kwargs):
        # The library counts pictures; these are still files, datasets, ...
        pictures = None if images is None else [Image.new("L", (1, 1))] * len(images)
        if images is not None and text is not None:
            placeholders = "".join(text).count(IMAGE_TOKEN)
            if placeholders != len(images):  # older releases of transformers do not compare the two
                raise ValueError(
                    "The image tokens in the prompts should be the same as the number of images: "
                    f"{IMAGE_TOKEN} stands {placeholders} times in the text, but there are {len(images)} radiographs."
                )
        super().validate_inputs(images=pictures, text=text, **kwargs)

    def _process_images(self, images, **kwargs):
        processors = self.tower_image_processors
        names = ("pixel_values", "aux_pixel_values")[: len(processors)]
        if set(kwargs) <= {"return_tensors"} and self._squashes:
            radiographs = [i if isinstance(i, SquashedRadiograph) else self.squash(i) for i in images]
            values = [_pixel_values(radiographs, processor) for processor in processors]
        else:
            pictures = [load_radiograph(_local(image), self.windowing).convert("RGB") for image in images]
            values = [processor(pictures, **kwargs)["pixel_values"] for processor in processors]
        return dict(zip(names, values, strict=True)), [self.expanded_image] * len(images)

    @property
    def _squashes(self) -> bool:
        processors = self.tower_image_processors
        return len({p.resample for p in processors}) == 1 and all(
            p.do_resize and not p.do_center_crop and dict(p.size).keys() == {"height", "width"} for p in processors
        )

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

    @property
    def model_input_names(self) -> list[str]:
        names = super().model_input_names
        return names + ["aux_pixel_values"] if self.num_towers == 2 and "aux_pixel_values" not in names else names


def add_litegpt_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Adds the image delimiters, the placeholder, the identifiers and a padding token; returns how many were new.

    The model's embeddings must have room for them: `model.resize_token_embeddings(len(tokenizer))`.
    """
    added = tokenizer.add_special_tokens({"pad_token": "<pad>"}) if tokenizer.pad_token is None else 0
    image_tokens = [
        AddedToken(token, special=True, normalized=False) for token in (IMAGE_TOKEN, IMAGE_END_TOKEN, VISUAL_TOKEN)
    ]
    added += tokenizer.add_tokens(image_tokens, special_tokens=True)
    added += tokenizer.add_tokens([AddedToken(token, normalized=False) for token in IDENTIFIER_TOKENS])
    return added


def _flat(images: Any) -> Iterator[Any]:
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flat(image)
    else:
        yield images


def _local(source: Any) -> Any:
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
        return load_image(source)
    return source.cpu().numpy() if is_torch_tensor(source) else source


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


__all__ = ["LiteGPTProcessor"]
