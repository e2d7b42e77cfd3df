"""LiteGPT's processor: radiographs and prompts -> the model's tensors."""

from typing import Any

from transformers.image_utils import load_image, make_flat_list_of_images
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase
from transformers.utils import is_torch_tensor

from .dicom import load_radiograph
from .pipeline_litegpt import ChestXrayFindingsPipeline  # noqa: F401 (its file must travel wherever this one does)

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


class LiteGPTProcessor(ProcessorMixin):
    """One image processor for each tower and the language model's tokenizer.

    Images may be DICOM files (path, bytes, `pydicom.Dataset`), PNG or JPEG files, PIL images or arrays, singly or in
    (nested) lists; each becomes an 8-bit grey picture that is squashed whole, without a crop, to the tower's square
    input.

    Args:
        image_processor: for the first tower; gives `pixel_values`.
        aux_image_processor: for the second tower; gives `aux_pixel_values`.
        tokenizer: has the tokens of `add_litegpt_tokens`.
        num_towers: 2; with 1 the second image processor is not used.
        image_seq_length: visual tokens of one radiograph (`LiteGPTConfig.num_visual_tokens`).
        finding_labels, diagnosis_labels: the label vocabularies that the checkpoint was trained on, in the answers'
            order.
        instructions: identifier ("identify", "vqa", ...) -> the instruction that the checkpoint was trained with.
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
        chat_template: str | None = None,
    ):
        tokenizer.padding_side = "left"  # as generation in batches needs it
        self.num_towers = num_towers
        self.image_seq_length = image_seq_length
        self.finding_labels = list(finding_labels or [])
        self.diagnosis_labels = list(diagnosis_labels or [])
        self.instructions = dict(instructions or {})
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

    @property
    def tower_image_processors(self) -> list:
        """One image processor for each tower, in the order of the towers."""
        return [self.image_processor, self.aux_image_processor][: self.num_towers]

    def prepare_inputs_layout(self, images=None, text=None, **kwargs):
        if images is not None:
            images = _as_rgb(images)
            # Older releases of transformers do not compare the two.
            count, placeholders = len(make_flat_list_of_images(images)), "".join(text or []).count(IMAGE_TOKEN)
            if text is not None and placeholders != count:
                raise ValueError(
                    f"{IMAGE_TOKEN} stands {placeholders} times in the text, but there are {count} radiographs."
                )
        return super().prepare_inputs_layout(images=images, text=text, **kwargs)

    def _process_images(self, images, **kwargs):
        processed, replacements = super()._process_images(images, **kwargs)
        if self.num_towers == 2:
            processed["aux_pixel_values"] = self.aux_image_processor(images, **kwargs)["pixel_values"]
        return processed, replacements

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


def _as_rgb(images: Any) -> Any:
    """The same nesting of lists with every radiograph as an 8-bit grey picture in three equal channels."""
    if isinstance(images, (list, tuple)):
        return [_as_rgb(image) for image in images]
    if isinstance(images, str) and images.startswith(("http://", "https://", "data:")):
        images = load_image(images)
    elif is_torch_tensor(images):
        images = images.cpu().numpy()
    return load_radiograph(images).convert("RGB")


__all__ = ["LiteGPTProcessor"]
