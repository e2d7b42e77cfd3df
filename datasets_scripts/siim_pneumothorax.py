"""SIIM-ACR Pneumothorax Segmentation (2019; radiographs of ChestX-ray14), from Kaggle, to this project's rows.

    from litegpt.datasets_scripts.rows import load_rows

    rows = load_rows("path/to/siim-pneumothorax", split="test", num_proc=8)
    rows[0]["diagnoses"], rows[0]["mask"]    # [0], a grey picture of 1024 x 1024: 255 where the pneumothorax is

or, once for all programs, a folder that `datasets.load_dataset` reads:

    litegpt prepare siim-pneumothorax --data_dir path/to/siim --output_dir prepared/siim-pneumothorax --num_proc 8

The layout (https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation):

    dicom-images-train/STUDY/SERIES/IMAGEID.dcm    1024 x 1024; also PNG or JPEG, in any folder
    stage_2_train.csv, or train-rle.csv            ImageId, EncodedPixels ("-1", or run lengths); the first is read
                                                   where both are there

Run lengths are pairs: how many pixels lie between the last run and this one, and how many it has; pixels are counted
column by column. An image may have several lines: its mask is their union.

A row without the diagnosis "Pneumothorax" is one without a pneumothorax, *not* a normal one: nobody looked for
anything else. So "No finding" is no label here. `findings` are empty: a mask is no box.

Images are split by the ratios of GLoRIA: of the sorted names 70 % are train, 15 % test and 15 % validation
(`splits.seventy_fifteen_fifteen`). GLoRIA's code splits the table's lines, so that an image with several masks may
stand on both sides; here it stands on one, and the splits are therefore not those of published figures.
"""

import io
import os

import numpy as np
from PIL import Image

from litegpt.common.addresses import absolute, is_folder
from litegpt.common.arguments import parse
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.annotations import ImageAnnotation
from litegpt.datasets_scripts.arguments import PreparationArguments
from litegpt.datasets_scripts.image_files import ImageIds, file_counts, find_files, match, paths_by_split
from litegpt.datasets_scripts.picture_boxes import picture_size
from litegpt.datasets_scripts.preparation.many_machines import run_preparation
from litegpt.datasets_scripts.preparation.release import DataSetFacts, PreparationOptions, Release
from litegpt.datasets_scripts.preparation.splits import seventy_fifteen_fifteen
from litegpt.datasets_scripts.tables import has_columns, read_csv

DIAGNOSIS_LABELS: tuple[str, ...] = ("Pneumothorax",)
TABLES = ("stage_2_train.csv", "train-rle.csv")
COLUMNS = ("ImageId", "EncodedPixels")
LAYOUT = f"{' or '.join(TABLES)} with a column EncodedPixels (SIIM-ACR Pneumothorax)"
MASK_SIDE = 1024  # pixels of the images that the masks were drawn on
NO_MASK = "-1"

HOMEPAGE = "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation"
FACTS = DataSetFacts(
    name="siim_pneumothorax",
    pretty_name="SIIM-ACR Pneumothorax",
    homepage=HOMEPAGE,
    licence="Kaggle competition rules of the SIIM-ACR Pneumothorax Segmentation",
    licence_link=f"{HOMEPAGE}/rules",
)


def table_of(data_dir: str) -> str | None:
    """Path of the table with the masks; None where there is none."""
    paths = [os.path.join(data_dir, name) for name in TABLES]
    return next((path for path in paths if has_columns(path, COLUMNS)), None)


def recognise(data_dir: str) -> bool:
    """Whether a folder is a release: it has a table with the masks."""
    return table_of(data_dir) is not None


def facts(data_dir: str) -> DataSetFacts:
    """What cards say of a release: the same of each."""
    return FACTS


def add_runs(mask: np.ndarray, cell: str, where: str) -> None:
    """Sets the pixels of a cell's run lengths, "gap length gap length ...", in a mask written column by column.

    Args:
        mask: (width * height,) bool; pixel (x, y) is number x * height + y.
        where: the file and the line, for the sentences.

    Raises:
        ValueError: the numbers are no pairs, no whole numbers or negative, a run has no pixel, or one ends outside.
    """
    try:
        numbers = [int(text) for text in cell.split()]
    except ValueError:
        raise ValueError(f"{where}: the run lengths are not whole numbers: {cell[:40]!r}.") from None
    if not numbers or len(numbers) % 2:
        raise ValueError(f"{where}: the run lengths are {len(numbers)} numbers, not pairs of a gap and a length.")
    end = 0
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        if gap < 0 or length < 1:
            raise ValueError(f"{where}: a run of {length} pixels after a gap of {gap} cannot be.")
        start, end = end + gap, end + gap + length
        if end > len(mask):
            raise ValueError(f"{where}: a run ends at pixel {end:,} of {len(mask):,}: outside the picture.")
        mask[start:end] = True


def read_masks(path: str) -> dict[str, np.ndarray | None]:
    """{image_id: mask}, None where there is no pneumothorax.

    A mask is (1024, 128) uint8: rows of 1024 pixels, packed by `numpy.packbits`.

    Raises:
        FileNotFoundError, ValueError: as `read_csv` and `add_runs`.
    """
    masks: dict[str, np.ndarray | None] = {}
    image_id_in = ImageIds()
    for where, row in read_csv(path, COLUMNS):
        image_id = image_id_in(row["ImageId"], where)
        masks.setdefault(image_id, None)
        if row["EncodedPixels"] == NO_MASK:
            continue
        by_column = np.zeros(MASK_SIDE * MASK_SIDE, dtype=bool)
        add_runs(by_column, row["EncodedPixels"], where)
        packed = np.packbits(by_column.reshape(MASK_SIDE, MASK_SIDE).T, axis=1)
        before = masks[image_id]
        masks[image_id] = packed if before is None else before | packed
    return masks


def mask_png(packed: np.ndarray, size: tuple[int, int]) -> bytes:
    """PNG of a mask at the size of the radiograph that lies there: grey, 255 inside; scaled by the nearest pixel."""
    image = Image.fromarray(np.unpackbits(packed, axis=1) * np.uint8(255))
    if size != image.size:
        image = image.resize(size, Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def read_release(data_dir: str | os.PathLike) -> Release:
    """Reads the table and the names of the images; of images with a mask the header.

    `counts`, for each split: images, images_with_masks.

    Raises:
        FileNotFoundError: there is no table, or none of the radiographs.
        ValueError: the table cannot be read; it names the file and the line.
    """
    data_dir = absolute(data_dir)
    if not is_folder(data_dir):
        raise FileNotFoundError(f"{data_dir} is no folder: data_dir must be the folder of a SIIM-ACR release.")
    table = table_of(data_dir)
    if table is None:
        raise FileNotFoundError(
            f"{data_dir} has neither {' nor '.join(TABLES)} with the columns {', '.join(COLUMNS)}."
        )
    masks = read_masks(table)
    files = find_files(data_dir)
    paths = match(list(masks), files, table, data_dir)
    split_of = seventy_fifteen_fifteen(sorted(masks))
    annotations: dict[str, list[ImageAnnotation]] = {split: [] for split in ("train", "validation", "test")}
    for image_id, mask in masks.items():
        png = None
        if mask is not None:
            png = mask_png(mask, picture_size(paths.get(image_id)) or (MASK_SIDE, MASK_SIDE))
        annotations[split_of[image_id]].append(
            ImageAnnotation(image_id, (), DIAGNOSIS_LABELS if png else (), optional={"mask": png})
        )
    counts = {
        split: {"images": len(images), "images_with_masks": sum(bool(image.diagnoses) for image in images)}
        for split, images in annotations.items()
    }
    counts["none"] = file_counts(files, masks)
    return Release(
        facts=FACTS,
        finding_labels=(),
        diagnosis_labels=DIAGNOSIS_LABELS,
        annotations=annotations,
        images=paths_by_split(annotations, paths),
        counts=counts,
        columns=("sex", "age", "mask"),
    )


@program
def main(arguments: PreparationArguments, options: PreparationOptions) -> None:
    """Prepares a release."""
    with refuse_bad_input():
        run_preparation(read_release, arguments, options)


if __name__ == "__main__":
    main(*parse([PreparationArguments, PreparationOptions], None, "siim_pneumothorax.py", __doc__))
