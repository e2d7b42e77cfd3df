"""Tables of what finds more than a greedy answer are made of the boxes of each arm."""

import numpy as np

from litegpt.benchmarks.detection_figures import tables
from litegpt.evaluation_scripts.box_sources import SourceBoxes

LEFT, RIGHT = [0.1, 0.2, 0.4, 0.8], [0.6, 0.2, 0.9, 0.8]


def test_an_arm_that_finds_more_stands_beside_its_difference_to_the_written_answer():
    true = [[{"label": "ILD", "box": LEFT}], [{"label": "Edema", "box": RIGHT}], []]
    written = [[{"label": "ILD", "box": LEFT, "score": 0.9}], [], []]
    more = [written[0], [{"label": "Edema", "box": RIGHT, "score": 0.4}], []]
    sources = {"as written": SourceBoxes(written, true, {}), "insertion": SourceBoxes(more, true, {"Edema": 0.5})}
    costs = {name: {"passes": 1.0, "tokens": 9.0, "ms": 2.5} for name in sources}
    lines = tables(sources, costs, len(true), np.array([0, 1, 2]))
    assert lines[2].startswith("| as written | 0.500 [") and lines[2].endswith("| 1.00 | 9 | 2.5 |")
    assert lines[3].startswith("| insertion | 1.000 [") and "| 0.667 [" in lines[3]  # Edema is below its threshold
    assert lines[4].startswith("| insertion, less as written | +0.500 [")
    assert "| Edema | 1 | 0.00 | 1.00 |" in lines and "| ILD | 1 | 1.00 | 1.00 |" in lines
    assert any(line.startswith("| sensitivity at | 0.125 |") for line in lines)
