import numpy as np
import pytest

from litegpt.common.programs import Refusal
from litegpt.train_scripts.arguments import RolloutArguments
from litegpt.train_scripts.examples import prompt_ids
from litegpt.train_scripts.prompts import PLAIN, PromptCollator, drawn_prompts
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


@pytest.fixture(scope="module")
def store(rows, processor, cache_dir):
    return RadiographStore(rows, processor.tower_image_processors, cache_dir)


def test_each_radiograph_is_asked_about_once_before_any_is_again(rows, processor):
    drawn = drawn_prompts(rows, 2 * len(rows), RolloutArguments(), processor, seed=0)
    assert sorted(drawn["row"][: len(rows)]) == sorted(drawn["row"][len(rows) :]) == list(range(len(rows)))
    assert drawn["row"][:] == drawn_prompts(rows, 2 * len(rows), RolloutArguments(), processor, seed=0)["row"][:]
    assert drawn["draw"][:] == list(range(2 * len(rows)))


def test_the_share_of_radiographs_with_findings_is_as_asked(rows, processor):
    findings = rows["findings"][:]
    drawn = drawn_prompts(rows, 400, RolloutArguments(abnormal_share=0.75), processor, seed=0)
    assert np.mean([bool(findings[row]) for row in drawn["row"]]) == pytest.approx(0.75, abs=0.06)
    normal = rows.select([row for row, found in enumerate(findings) if not found])
    with pytest.raises(Refusal, match="no radiograph with findings"):
        drawn_prompts(normal, 4, RolloutArguments(abnormal_share=0.5), processor, seed=0)


def test_a_prompt_is_the_one_that_is_trained_on_and_its_picture_the_towers_own(rows, processor, store):
    collator = PromptCollator(rows, store, processor, moved_share=0.0, seed=0)
    row = next(row for row, found in enumerate(rows["findings"]) if found)
    first, second = collator([{"row": row, "task": "identify", "draw": 0}] * 2)
    assert first["image"] is second["image"]
    content = [{"type": "image"}, {"type": "text", "text": first["prompt"][0]["content"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[first["image"]], text=text, add_special_tokens=False, return_tensors="np")
    assert inputs["input_ids"][0].tolist() == prompt_ids(processor, "identify")
    for name, values in zip(
        ("pixel_values", "aux_pixel_values"), store.pixel_values([row], [Movement()]), strict=True
    ):
        np.testing.assert_allclose(inputs[name], values.numpy(), atol=1e-5)
    names = processor.finding_labels
    true = [(names[finding["label"]], finding["box"]) for finding in rows["findings"][row]]
    assert [(finding["label"], finding["box"]) for finding in first["findings"]] == true


def test_a_moved_radiograph_has_its_boxes_moved_along(rows, processor, store):
    collator = PromptCollator(rows, store, processor, moved_share=1.0, seed=0)
    row = next(row for row, found in enumerate(rows["findings"]) if found)
    plain, moved, again, other = (collator.radiograph(row, draw) for draw in (PLAIN, 0, 0, 1))
    assert moved.findings == again.findings != other.findings
    assert moved.findings and moved.findings != plain.findings
    pictures = [np.asarray(next(iter(shown.pictures.values()))).tolist() for shown in (plain, moved, again)]
    assert pictures[1] == pictures[2] != pictures[0]
