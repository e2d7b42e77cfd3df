"""The overlays of `predict.py` with most findings, side by side in one picture.

python inference_scripts/contact_sheet.py outputs/demo/overlays outputs/demo/overlays.png
"""

import json
import sys
from pathlib import Path

from PIL import Image

COLUMNS, ROWS, SIDE = 4, 2, 400


def main(folder: str, output: str) -> None:
    results = json.loads((Path(folder) / "predictions.json").read_text(encoding="utf-8"))
    chosen = sorted(results, key=lambda result: -len({finding["label"] for finding in result["findings"]}))
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for place, result in enumerate(chosen[: COLUMNS * ROWS]):
        picture = Image.open(Path(folder) / result["overlay"])
        picture.thumbnail((SIDE, SIDE))
        sheet.paste(picture, (place % COLUMNS * SIDE, place // COLUMNS * SIDE))
    sheet.save(output)
    print(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
