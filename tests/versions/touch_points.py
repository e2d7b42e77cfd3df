"""What the code that travels with checkpoints uses of transformers, beyond what `import transformers` offers.

In: nothing. Out: `TOUCH_POINTS`, the one list of them. `tests/test_touch_points.py` holds it against the code, and
`make test-versions` against every release of transformers: a name that has gone is the first thing to know of.

    >>> missing()
    []
"""

import importlib

# Name -> why it is used. Underscored ones are hooks that the library asks subclasses to fill, or have no public form.
TOUCH_POINTS = {
    # Classes that ours inherit, and types
    "transformers.cache_utils.Cache": "layers of our own, of fixed size, for compiled passes",
    "transformers.cache_utils.CacheLayerMixin": "base class of these",
    "transformers.cache_utils.DynamicCache": "what constrained decoding reads into and cuts back",
    "transformers.configuration_utils.PreTrainedConfig": "base class",
    "transformers.feature_extraction_utils.BatchFeature": "what processors return",
    "transformers.generation.BaseStreamer": "type of generate's streamer",
    "transformers.generation.GenerationMixin": "base class",
    "transformers.modeling_outputs.BaseModelOutputWithPast": "base class of an output; its cache field's name",
    "transformers.modeling_outputs.BaseModelOutputWithPooling": "what get_image_features returns in the library",
    "transformers.modeling_outputs.CausalLMOutputWithPast": "base class of an output",
    "transformers.modeling_utils.PreTrainedModel": "base class",
    "transformers.pipelines.PIPELINE_REGISTRY": "makes chest-xray-findings known for a model that is loaded already",
    "transformers.pipelines.base.ChunkPipeline": "base class",
    "transformers.pipelines.image_classification.ImageClassificationPipeline": "base class",
    "transformers.pipelines.image_text_to_text.ImageTextToTextPipeline": "base class",
    "transformers.pipelines.zero_shot_image_classification.ZeroShotImageClassificationPipeline": "base class",
    "transformers.processing_utils.MultiModalData": "what vLLM's hook returns",
    "transformers.processing_utils.ProcessorMixin": "base class",
    "transformers.processing_utils.Unpack": "types of keyword arguments",
    "transformers.quantizers.AutoQuantizationConfig": "reads a quantization that is given as a dictionary",
    "transformers.tokenization_utils_base.AddedToken": "tokens of images and identifiers",
    "transformers.tokenization_utils_base.PreTrainedTokenizerBase": "type",
    "transformers.utils.ModelOutput": "base class of an output",
    "transformers.utils.TransformersKwargs": "types of keyword arguments",
    # Functions
    "transformers.activations.ACT2FN": "the projector's activation, by its name in the configuration",
    "transformers.image_transforms.normalize": "the image processors' values, to the last bit",
    "transformers.image_transforms.rescale": "the image processors' values, to the last bit",
    "transformers.integrations.is_deepspeed_zero3_enabled": "a head that is sharded is called once by all processes",
    "transformers.utils.can_return_tuple": "return_dict=False",
    "transformers.utils.is_torch_tensor": "an image that is a tensor",
    "transformers.utils.logging": "the library's logger",
    "transformers.utils.torch_compilable_check": "errors that torch.compile does not stumble over",
    # Hooks and declarations of base classes
    "transformers.PreTrainedModel._can_compile_fullgraph": "declares",
    "transformers.PreTrainedModel._init_weights": "hook: projections start as CLIP's",
    "transformers.PreTrainedModel._no_split_modules": "hook: parts that a device map leaves whole",
    "transformers.PreTrainedModel._keep_in_fp32_modules_strict": "declares: CXR-CLIP's scale is never rounded",
    "transformers.PreTrainedModel._skip_keys_device_placement": "declares: a device map does not move the cache",
    "transformers.PreTrainedModel._supports_attention_backend": "declares",
    "transformers.PreTrainedModel._supports_flash_attn": "declares",
    "transformers.PreTrainedModel._supports_flex_attn": "declares",
    "transformers.PreTrainedModel._supports_sdpa": "declares",
    "transformers.PreTrainedModel._tied_weights_keys": "declares: the head and the embeddings",
    "transformers.PreTrainedModel._tp_plan": "declares: how vLLM splits the head",
    "transformers.pipelines.base.Pipeline._forward": "hook",
    "transformers.pipelines.base.Pipeline._load_feature_extractor": "declares",
    "transformers.pipelines.base.Pipeline._load_image_processor": "declares",
    "transformers.pipelines.base.Pipeline._load_processor": "declares",
    "transformers.pipelines.base.Pipeline._load_tokenizer": "declares",
    "transformers.pipelines.base.Pipeline._pipeline_calls_generate": "declares",
    "transformers.pipelines.base.Pipeline._sanitize_parameters": "hook",
    "transformers.processing_utils.ProcessorMixin._check_special_mm_tokens": "hook: placeholders that truncation cuts",
    "transformers.processing_utils.ProcessorMixin._process_images": "hook: pixels of the second tower",
    # Attributes of the library's objects
    "transformers.DynamicCache.batch_select_indices": "rows whose answers have ended are forgotten",
    "transformers.DynamicCache.crop": "wrong guesses are forgotten",
    "transformers.DynamicCache.get_seq_length": "a cache that holds something is refused",
    "transformers.DynamicCache.update": "the prompts' part of a cache",
    "transformers.PreTrainedConfig._attn_implementation": "flash attention takes no mask of a tree: sdpa instead",
    "transformers.PreTrainedTokenizerFast.added_tokens_decoder": "tokens that write no text of a grounded report",
    "transformers.PreTrainedTokenizerFast.all_special_tokens": "tokens that no question may hold",
    "transformers.PreTrainedTokenizerFast.backend_tokenizer": "decodes a token without its special meaning",
}
# Hooks that only a server asks for: no class of the library need have them.
SERVERS_HOOKS = {"_get_num_multimodal_tokens": "vLLM: placeholders of a radiograph"}

# Underscored attributes of other libraries.
OTHERS = {"PIL.Image.Image._size": "Pillow rounds the size of a reduced JPEG 2000 where the standard rounds up"}


def missing() -> list[str]:
    """The touch points that the installed transformers does not have."""
    return [name for name in TOUCH_POINTS if not _exists(name)]


def _exists(name: str) -> bool:
    module_name, _, attributes = name.rpartition(".")
    path = [attributes]
    while True:
        try:
            thing = importlib.import_module(module_name)
            break
        except ModuleNotFoundError:
            module_name, _, attribute = module_name.rpartition(".")
            path.insert(0, attribute)
    for attribute in path:
        if not hasattr(thing, attribute):
            return False
        thing = getattr(thing, attribute)
    return True
