"""Boxes as a table gives them -> boxes in pixels of the pictures that lie beside it, or a sentence why they cannot be.

In: annotations whose boxes, of findings and of texts, are xyxy in pixels of the picture, of an original of another
size that the table gives, or from 0 to 1. Out: the same annotations, boxes in pixels of the files, and counts of what
was done.

    boxes_in_pixels({"train": annotations}, {"a1": "train/a1.png"}, sizes={"a1": (2336, 2836)}, table="train.csv")
    # a1.png has 512 x 512 pixels: (900, 1500, 1900, 2100) -> (197.3, 270.8, 416.4, 379.1); {"boxes_scaled": 1}

A box that cannot be told to fit is never guessed at. A release is refused

- where a box leaves its picture by more than 1 % of a side in more than 10 % of the pictures with boxes (one picture
  alone may, where others fit): of 629 boxes of four public sources that were looked at none leaves its picture at all;
- where the table gives other sizes than the pictures have, and yet all boxes lie within the pictures: they may have
  been scaled already;
- where all boxes of at least three pictures lie in their upper left quarter: they may be of smaller pictures.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from PIL import Image

from litegpt.common.addresses import open_address
from litegpt.datasets_scripts.annotations import BOXED_TEXTS, Box, Finding, ImageAnnotation

SLACK = 0.01  # of a side: more than rounding in a copy of 256 pixels
STRAY_SHARE = 0.1  # of the pictures with boxes
NUM_FOR_QUARTER = 3
UNIT = 1.01  # 1, and what rounding adds

Size = tuple[float, float]


def boxes_in_pixels(
    annotations: Mapping[str, list[ImageAnnotation]],
    paths: Mapping[str, str],
    sizes: Mapping[str, Size],
    table: str,
) -> tuple[dict[str, list[ImageAnnotation]], dict[str, dict[str, int]]]:
    """Scales the boxes of a table to the pictures' own pixels; of pictures with boxes the header is read.

    A picture that is missing or unreadable keeps its boxes as they are: its decoding will leave it out.

    Args:
        annotations: {split: annotations}, all with boxes of one kind.
        paths: {image_id: path}.
        sizes: {image_id: (width, height)} of what the boxes were drawn on, where the table gives it.
        table: path of the table with the boxes, for the sentences.

    Returns:
        The annotations, and {split: {boxes_scaled, boxes_of_0_to_1, boxes_clipped}}, without counts of 0; the last
        are those that leave their picture by more than `SLACK`, and are cut off there or left out.

    Raises:
        ValueError: the boxes do not fit the pictures.
    """
    boxed = [image for images in annotations.values() for image in images if boxes_of(image)]
    found = {image.image_id: picture_size(paths.get(image.image_id)) for image in boxed}
    pictures = {image_id: size for image_id, size in found.items() if size is not None}
    boxed = [image for image in boxed if image.image_id in pictures]
    unit = bool(boxed) and all(-SLACK <= edge <= UNIT for image in boxed for box in boxes_of(image) for edge in box)
    frames = {image_id: (1.0, 1.0) if unit else sizes.get(image_id, picture) for image_id, picture in pictures.items()}
    if not unit:
        _refuse_boxes_that_fit_both(boxed, frames, pictures, table)
        _refuse_boxes_of_smaller_pictures(boxed, frames, sizes, table)
    _refuse_boxes_that_do_not_fit(boxed, frames, sizes, table)

    results, counts = {}, {}
    for split, images in annotations.items():
        results[split] = [
            _scaled(image, pictures[image.image_id], frames[image.image_id]) if image.image_id in pictures else image
            for image in images
        ]
        fitted = [image for image in images if image.image_id in pictures]
        scaled = [image for image in fitted if frames[image.image_id] != pictures[image.image_id]]
        rules = {
            "boxes_of_0_to_1" if unit else "boxes_scaled": sum(len(boxes_of(image)) for image in scaled),
            "boxes_clipped": sum(leaves(box, frames[image.image_id]) for image in fitted for box in boxes_of(image)),
        }
        counts[split] = {rule: count for rule, count in rules.items() if count}
    return results, counts


def boxes_of(image: ImageAnnotation) -> list[Box]:
    """The boxes of an image's findings, and of its texts those that are no finding's."""
    boxes = [finding.box for finding in image.findings]
    texts = [text for column in BOXED_TEXTS for text in image.optional.get(column) or ()]
    return boxes + [box for text in texts for box in text["boxes"] if box not in boxes]


def leaves(box: Box, size: Size) -> bool:
    """Whether a box leaves a picture by more than `SLACK` of a side."""
    width, height = size
    return min(box[0] / width, box[1] / height) < -SLACK or max(box[2] / width, box[3] / height) > 1 + SLACK


def picture_size(path: str | None) -> tuple[int, int] | None:
    """Width and height of a radiograph by its header, as it is shown; None where it is missing or unreadable."""
    if path is None:
        return None
    try:
        with open_address(path) as file:
            is_dicom = file.read(132)[128:] == b"DICM" or path.lower().endswith((".dicom", ".dcm"))
            file.seek(0)
            if is_dicom:
                import pydicom

                tags = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
                return (int(tags.Columns), int(tags.Rows)) if tags.Columns > 0 and tags.Rows > 0 else None
            with Image.open(file) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) >= 5  # EXIF's Orientation: by a quarter
                return (height, width) if turned else (width, height)
    except Exception:  # what a damaged file raises is its reader's; reading its pixels will say what is wrong
        return None


def _refuse_boxes_that_fit_both(
    boxed: list[ImageAnnotation], frames: Mapping[str, Size], pictures: Mapping[str, Size], table: str
) -> None:
    """Boxes of a larger original reach beyond the copies; those that do not may be the copies' own."""
    smaller = [
        image
        for image in boxed
        if any(side > own * (1 + SLACK) for side, own in zip(*_pair(image, frames, pictures), strict=True))
    ]
    if smaller and not any(leaves(box, pictures[image.image_id]) for image in smaller for box in boxes_of(image)):
        image = smaller[0]
        frame, picture = _pair(image, frames, pictures)
        raise ValueError(
            f"{table}: the boxes are said to be of {_shape(frame)} pixels ({image.image_id}), but all of them lie "
            f"within the pictures as they are ({_shape(picture)}): they may have been scaled already, and nothing "
            "tells; give boxes of the full size, or the pictures' own sizes."
        )


def _refuse_boxes_of_smaller_pictures(
    boxed: list[ImageAnnotation], frames: Mapping[str, Size], sizes: Mapping[str, Size], table: str
) -> None:
    unsized = [image for image in boxed if image.image_id not in sizes]
    if len(unsized) < NUM_FOR_QUARTER:
        return
    if all(
        box[2] < 0.5 * frames[image.image_id][0] and box[3] < 0.5 * frames[image.image_id][1]
        for image in unsized
        for box in boxes_of(image)
    ):
        image = unsized[0]
        raise ValueError(
            f"{table}: all boxes lie in the upper left quarter of their pictures ({image.image_id}: "
            f"{_numbers(boxes_of(image)[0])} of {_shape(frames[image.image_id])} pixels), as if they were of smaller "
            "copies: say in columns width and height which sizes the boxes are of."
        )


def _refuse_boxes_that_do_not_fit(
    boxed: list[ImageAnnotation], frames: Mapping[str, Size], sizes: Mapping[str, Size], table: str
) -> None:
    outside = [
        (image, box)
        for image in boxed
        for box in [next((box for box in boxes_of(image) if leaves(box, frames[image.image_id])), None)]
        if box is not None
    ]
    one_of_several = len(outside) == 1 and len(boxed) > 1
    if len(outside) <= STRAY_SHARE * len(boxed) or one_of_several:
        return
    image, box = outside[0]
    given = image.image_id in sizes
    advice = (
        "they were drawn on pictures of another size"
        if given
        else "if they are of pictures of another size, say which in columns width and height (or train_meta.csv: "
        "image_id, dim0, dim1); if they are x, y, width, height, name the columns x, y, w, h"
    )
    raise ValueError(
        f"{table}: boxes leave {len(outside):,} of the {len(boxed):,} pictures that have any ({image.image_id}: "
        f"{_numbers(box)} of {_shape(frames[image.image_id])} pixels): {advice}."
    )


def _pair(image: ImageAnnotation, frames: Mapping[str, Size], pictures: Mapping[str, Size]) -> tuple[Size, Size]:
    return frames[image.image_id], pictures[image.image_id]


def _shape(size: Size) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _numbers(box: Box) -> str:
    return ", ".join(f"{edge:g}" for edge in box)


def _scaled(image: ImageAnnotation, picture: Size, frame: Size) -> ImageAnnotation:
    if picture == frame:
        return image
    factors = (picture[0] / frame[0], picture[1] / frame[1]) * 2

    def scale(box: Box) -> Box:
        return tuple(edge * factor for edge, factor in zip(box, factors, strict=True))

    def scale_findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(replace(finding, box=scale(finding.box)) for finding in findings)

    def scale_texts(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**text, "boxes": [scale(box) for box in text["boxes"]]} for text in texts]

    return replace(
        image,
        findings=scale_findings(image.findings),
        readings=tuple(replace(reading, findings=scale_findings(reading.findings)) for reading in image.readings),
        optional={
            column: scale_texts(value) if column in BOXED_TEXTS and value else value
            for column, value in image.optional.items()
        },
    )
