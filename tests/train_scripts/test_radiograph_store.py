from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from litegpt.datasets_scripts.vindr_cxr import load_vindr_cxr
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.train_scripts.patch_features import patch_feature_file
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.views import Movement


@pytest.fixture(scope="module")
def rows(phantom_release, tmp_path_factory):
    return load_vindr_cxr(phantom_release, split="train", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def store(rows, loaded, tmp_path) -> RadiographStore:
    return RadiographStore(rows, loaded[1].tower_image_processors, tmp_path)


def test_an_unmoved_radiograph_gives_the_processors_tensors(rows, loaded, store):
    processor = loaded[1]
    expected = processor(images=[rows[3]["image"], rows[5]["image"]], text=["<image>"] * 2, return_tensors="pt")
    pixels, aux_pixels = store.pixel_values([3, 5], [Movement(), Movement()])
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-6, rtol=0)
    torch.testing.assert_close(aux_pixels, expected["aux_pixel_values"], atol=1e-6, rtol=0)


def test_boxes_move_with_the_picture(store):
    side = store.pictures[0].shape[1]
    picture = np.zeros((1, side, side), dtype=np.uint8)
    picture[0, 16:32, 20:40] = 255
    store.pictures = [picture, picture]
    finding = {"label": 4, "box": [20 / side, 16 / side, 40 / side, 32 / side]}
    for seed in range(5):
        movement = Movement.random(np.random.default_rng(seed))
        pixels = store.pixel_values([0], [movement])[0][0, 0]
        # Seen, but not quite: the border is blurred by half a pixel.
        ys, xs = torch.nonzero(pixels > (pixels.max() + pixels.min()) / 2, as_tuple=True)
        (moved,) = movement.findings([finding])
        seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert np.allclose(np.array(moved["box"]) * side, seen, atol=1.0)
        assert moved["label"] == 4


def test_a_finding_moved_out_of_sight_is_left_out():
    movement = Movement(scale=(1.0, 1.0), shift=(0.05, 0.0))
    gone, cut = {"label": 0, "box": [0.96, 0.1, 1.0, 0.2]}, {"label": 1, "box": [0.8, 0.1, 1.0, 0.2]}
    (kept,) = movement.findings([gone, cut])
    assert kept["label"] == 1 and kept["box"] == pytest.approx([0.85, 0.1, 1.0, 0.2])


def test_views_are_never_mirrored():
    scales = [Movement.random(np.random.default_rng(seed)).scale for seed in range(100)]
    assert min(min(scale) for scale in scales) > 0.85


def grey_values(store: RadiographStore, movements: list[Movement], row: int = 3) -> torch.Tensor:
    """(movements, height, width) in 0..255 of one radiograph, as moved."""
    processor = store.image_processors[0]
    pixels = store.pixel_values([row] * len(movements), movements)[0][:, 0]
    return 255 * (pixels * processor.image_std[0] + processor.image_mean[0])


def test_a_power_of_grey_values_keeps_black_white_and_the_neighbours_of_a_batch(store):
    plain, darker, brighter = grey_values(store, [Movement(), Movement(gamma=1.5), Movement(gamma=0.7)])
    torch.testing.assert_close(plain, grey_values(store, [Movement()])[0])
    torch.testing.assert_close(darker, 255 * (plain / 255).clamp(0, 1) ** 1.5, atol=0.05, rtol=0)
    torch.testing.assert_close(brighter, 255 * (plain / 255).clamp(0, 1) ** 0.7, atol=0.05, rtol=0)


def test_the_view_of_a_crop_is_that_part_of_the_picture(store):
    side = store.pictures[0].shape[1]
    half = Movement(scale=(2.0, 2.0), shift=(0.5, 0.5))  # the upper left quarter
    picture = np.zeros((1, side, side), dtype=np.uint8)
    picture[0, : side // 2, : side // 2] = 200
    store.pictures = [picture, picture]
    seen = grey_values(store, [half], row=0)[0]
    torch.testing.assert_close(seen[:-2, :-2], torch.full((side - 2, side - 2), 200.0), atol=0.05, rtol=0)


def test_contrast_is_equalised_where_a_movement_says_so(store):
    cv2 = pytest.importorskip("cv2", reason="the extra clahe is not installed")
    before = np.array(store.pictures[0])
    plain, equalised = grey_values(store, [Movement(), Movement(equalised=True)])
    expected = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(before[3])
    torch.testing.assert_close(equalised, torch.from_numpy(expected).float(), atol=0.05, rtol=0)
    torch.testing.assert_close(plain, torch.from_numpy(before[3]).float(), atol=0.05, rtol=0)
    assert (equalised - plain).abs().mean() > 2
    assert (store.pictures[0] == before).all()  # the stored ones stay


def test_stored_features_are_the_towers_and_are_found_again(loaded, store, tmp_path):
    model = loaded[0].model.eval()
    views = [(0, Movement()), (1, Movement()), (1, Movement.random(np.random.default_rng(0)))]
    features = patch_feature_file(model, store, views, tmp_path)
    rows, movements = zip(*views, strict=True)
    with torch.no_grad():
        expected = model.get_patch_features(*store.pixel_values(rows, movements))
    torch.testing.assert_close(features, expected)
    (file,) = tmp_path.glob("patch-features-*.bin")
    changed = file.stat().st_mtime_ns
    patch_feature_file(model, store, views, tmp_path)
    assert file.stat().st_mtime_ns == changed


def test_other_towers_do_not_take_stored_features_for_theirs(loaded, store, tmp_path, tiny_checkpoint):
    views = [(0, Movement())]
    patch_feature_file(loaded[0].model, store, views, tmp_path)
    other = load_checkpoint(tiny_checkpoint)[0].model
    with torch.no_grad():
        other.vision_tower.layernorm.bias.add_(1)
    features = patch_feature_file(other, store, views, tmp_path)
    assert len(list(tmp_path.glob("patch-features-*.bin"))) == 2
    with torch.no_grad():
        torch.testing.assert_close(features, other.get_patch_features(*store.pixel_values([0], [Movement()])))


def test_radiographs_of_another_size_are_kept_apart(rows, loaded, tmp_path):
    RadiographStore(rows, [loaded[1].image_processor], tmp_path)
    small = with_side(loaded[1].image_processor, 32)
    store = RadiographStore(rows, [small], tmp_path)
    assert store.pictures[0].shape == (len(rows), 32, 32)
    expected = np.asarray(rows[0]["image"].resize((32, 32), Image.Resampling.BICUBIC))
    assert (store.pictures[0][0] == expected).all()


def test_a_picture_that_cannot_be_decoded_is_named_and_nothing_is_left(rows, loaded, tmp_path):
    table = rows.cast_column("image", datasets.Image(decode=False)).select(range(4)).to_dict()
    whole = table["image"][2]["bytes"]
    spoilt_pictures = ((whole[:200], "can't be decoded"), (b"no PNG", "can't be decoded"), (None, "has no picture"))
    for spoilt, reason in spoilt_pictures:
        table["image"][2] = None if spoilt is None else {"bytes": spoilt, "path": None}
        corrupt = type(rows).from_dict(table, features=rows.features)
        with pytest.raises(ValueError, match=f"^{table['image_id'][2]}: .*{reason}"):
            RadiographStore(corrupt, loaded[1].tower_image_processors, tmp_path)
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_an_interrupted_store_starts_over(rows, loaded, tmp_path):
    processors = loaded[1].tower_image_processors
    expected = RadiographStore(rows, processors, tmp_path).pictures[0][:]
    (whole,) = tmp_path.glob("radiographs-*.npy")
    whole.with_suffix(".incomplete").write_bytes(whole.read_bytes()[:1000])
    whole.unlink()
    assert (RadiographStore(rows, processors, tmp_path).pictures[0] == expected).all()
    assert not list(tmp_path.glob("*.incomplete"))


def test_programs_that_start_together_share_a_folder(rows, loaded, tmp_path):
    processors, views = loaded[1].tower_image_processors, [(row, Movement()) for row in range(len(rows))]

    def write(_):
        store = RadiographStore(rows, processors, tmp_path)
        return store.pictures[0][:], patch_feature_file(loaded[0].model.eval(), store, views, tmp_path)

    with ThreadPoolExecutor(2) as threads:
        (pictures, features), (other_pictures, other_features) = threads.map(write, range(2))
    assert (pictures == other_pictures).all() and pictures.any()
    assert torch.equal(features, other_features)


def with_side(image_processor, side: int):
    values = image_processor.to_dict()
    return type(image_processor)(**{**values, "size": {"height": side, "width": side}})
