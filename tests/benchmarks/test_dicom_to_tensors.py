import json

from benchmarks.dicom_to_tensors import main
from benchmarks.results import record


def test_a_quick_run_records_a_ratio_for_every_transfer_syntax(tmp_path):
    main(str(tmp_path / "bench.json"), width=96, height=128, repeats=1)
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {f"dicom/{name}/exact" for name in ("raw", "rle", "jpegls", "jpeg2000")}
    assert all(result["value"] > 0 and result["unit"] == "x" and result["against"] for result in results.values())


def test_results_of_several_programs_are_merged_and_newer_ones_replace_older_ones(tmp_path):
    path = tmp_path / "below" / "bench.json"
    record(path, {"a": {"value": 1.0, "unit": "x", "against": "b"}, "c": {"value": 2.0, "unit": "s", "against": "d"}})
    record(path, {"a": {"value": 3.0, "unit": "x", "against": "b"}})
    results = json.loads(path.read_text())
    assert results["a"]["value"] == 3.0 and results["c"]["value"] == 2.0
