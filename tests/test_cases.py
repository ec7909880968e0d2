import subprocess
import sys

import numpy as np
import pytest

from medbook.evaluation import cases, metrics, ranking
from tests.metric_samples import by_name

pytestmark = pytest.mark.filterwarnings("ignore::medbook.evaluation.cases.UndefinedMetric")


@pytest.mark.parametrize(
    "labels, scores, words",
    [
        ([], [], "y_true has shape"),
        ([0, 1], [0.1], r"y_true has shape \(2,\), y_score \(1,\)"),
        ([0, 1], [0.1, np.nan], r"y_score of shape \(2,\) holds 1 values"),
        ([0, 1], [0.1, np.inf], "NaN or infinite"),
        ([0, np.nan], [0.1, 0.2], "y_true of shape"),
        ([0, 2], [0.1, 0.2], "y_true holds label 2"),
        ([0, 3], np.eye(3)[:2], "y_true holds label 3"),
        ([0, -1], [0.1, 0.2], "whole numbers"),
        ([0, 0.5], [0.1, 0.2], "whole numbers"),
        (["ill", "well"], [0.1, 0.2], "y_true holds"),
        ([0, 1], ["a", "b"], "y_score holds"),
        ([0, 1], [[0.1, 0.2], [0.3]], "y_score has rows of different lengths"),
        ([0, 1], np.zeros((2, 2, 2)), r"y_score has shape \(2, 2, 2\)"),
        ([[0, 2], [1, 1]], [[0.1, 0.2], [0.3, 0.4]], r"y_true of shape \(2, 2\) holds 2"),
        ([[0, 1], [1, 1]], [0.1, 0.2], "many labels need"),
        ([0, 1], [[3.0, 1.0], [1.0, 2.0]], "rows that sum to"),
    ],
)
@pytest.mark.parametrize("metric", [ranking.auc, metrics.sensitivity, metrics.accuracy], **by_name)
def test_bad_input_gets_one_line_that_names_the_argument(metric, labels, scores, words):
    with pytest.raises(ValueError, match=words) as error:
        metric(labels, scores)
    assert "\n" not in str(error.value)


def test_checked_cases_are_looked_at_and_cannot_be_written_to():
    y = np.array([1, 0, 1, 0])
    s = np.array([0.9, 0.8, 0.3, 0.1])
    for labels, scores in [
        (y, s),
        (y, np.c_[1 - s, s]),
        (y, np.eye(3)[[0, 1, 2, 0]]),
        (np.c_[y, y], np.c_[s, s]),
        (y.tolist(), s > 0.5),
    ]:
        found = cases.check_cases(labels, scores)
        assert found.y_true.dtype == np.int64 and found.y_score.dtype == np.float64
        for checked in found[1:]:
            with pytest.raises(ValueError, match="read-only"):
                checked[0] = 0
    found = cases.check_cases(y, s)
    assert np.shares_memory(found.y_true, y) and np.shares_memory(
        found.y_score, s
    )  # a million cases are not copied
    assert y.flags.writeable and s.flags.writeable
    with pytest.raises(ValueError, match="whole numbers"):
        cases.check_cases(np.array([2**63 + 1, 0], np.uint64), [0.1, 0.2])


def test_numbers_in_object_arrays_are_numbers():
    y = [0, 1, 1.0, np.True_]
    s = [0.1, 0.8, np.float32(0.25), 1]
    found = cases.check_cases(np.array(y, object), np.array(s, object))
    assert found.y_true.tolist() == [0, 1, 1, 1] and found.y_score.tolist() == [0.1, 0.8, 0.25, 1]
    for labels, scores in [(["0", "1"], [0.1, 0.2]), ([0, None], [0.1, 0.2])]:
        with pytest.raises(ValueError, match="not numbers"):
            cases.check_cases(np.array(labels, object), scores)


def test_import_is_light():
    heavy = "'keras', 'tensorflow', 'matplotlib', 'sklearn', 'pandas'"
    code = (
        f"import sys, medbook.evaluation.ranking; "
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
