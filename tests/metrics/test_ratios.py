import numpy as np
import pytest

from litegpt.metrics.ratios import macro_mean, number_or_none, ratio, weight_rows


def test_a_ratio_without_a_denominator_is_nan_or_what_one_says():
    assert ratio([1, 2], [4, 0]).tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert ratio([1, 2], [4, 0], otherwise=0).tolist() == [0.25, 0]
    assert ratio([[1, 2], [3, 4]], [[2], [0]], otherwise=0).tolist() == [[0.5, 1], [0, 0]]
    assert float(ratio(1, 2)) == 0.5


def test_the_macro_mean_leaves_labels_without_a_value_out():
    assert macro_mean([0.5, np.nan, 1.0]) == 0.75
    assert np.isnan(macro_mean([])) and np.isnan(macro_mean([np.nan]))
    assert macro_mean([[0.5, np.nan], [np.nan, np.nan]]).tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


def test_json_has_no_nan():
    assert number_or_none(np.float64(0.5)) == 0.5 and number_or_none(np.nan) is None


def test_weights_are_rows_for_as_many_images_as_there_are():
    assert weight_rows(None, 2).tolist() == [[1, 1]] and weight_rows(np.array([1, 2]), 2).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="weights are for 2 images, not for 3"):
        weight_rows(np.ones((4, 2)), 3)
