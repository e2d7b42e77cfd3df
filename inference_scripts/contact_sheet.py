"""The first overlays of `predict.py` that have findings, side by side in one picture.

    python inference_scripts/contact_sheet.py outputs/demo/overlays outputs/demo/overlays.png

The folder is the `--output_dir` of `predict.py`.
"""

import sys
from pathlib import Path

from PIL import Image

from train_scripts.files import complete_lines

COLUMNS, ROWS, SIDE = 4, 2, 400


def main(folder: str, output: str) -> None:
    results = complete_lines(Path(folder) / "predictions.jsonl")
    chosen = [result for result in results if result["findings"]]
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for place, result in enumerate(chosen[: COLUMNS * ROWS]):
        picture = Image.open(Path(folder) / result["overlay"])
        picture.thumbnail((SIDE, SIDE))
        sheet.paste(picture, (place % COLUMNS * SIDE, place // COLUMNS * SIDE))
    sheet.save(output)
    print(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
