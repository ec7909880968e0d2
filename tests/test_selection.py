"""Search: goes on where it was killed, never reads test, and stops what is hopeless."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
import optuna
import pytest

from medbook.evaluation.ranking import auc
from medbook.training.fitting import fit
from medbook.training.runs import TrainingError
from medbook.training.selection import candidate, search
from tests.made_up import poisoned, scans

matplotlib.use("agg")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reports")]


@pytest.fixture(scope="module")
def data():
    return scans()


SMALL = {"filters": [1, 2], "kernel_size": [1, 3]}


def plain(table):
    return table.drop(columns="seconds")


SPACE = {"learning_rate": (1e-4, 1e-2, "log"), "filters": (1, 3), "kernel_size": [1, 3]}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A search over a range, so that Optuna proposes, in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return search(
        data,
        SPACE,
        trials=3,
        epochs=2,
        pruner="halving",
        out=folder,
        progress=False,
        precision="float32",
    ), folder


def test_a_search_goes_on_where_it_was_and_never_reads_test(data, whole, tmp_path):
    options = dict(epochs=2, pruner="halving", progress=False, precision="float32")
    search(data, SPACE, trials=2, out=tmp_path, **options)
    found = search(
        poisoned(data), SPACE, trials=3, out=tmp_path, **options
    )  # other test data: the same search
    assert plain(found.table).equals(plain(whole[0].table)) and found.best == whole[0].best
    assert (
        len(search(data, SPACE, trials=2, out=tmp_path, **options).table) == 3
    )  # what is there stays


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tests.made_up import scans
from tests.test_selection import SPACE
from medbook.training.selection import search
search(scans(), SPACE, trials=3, epochs=2, pruner="halving", out={out!r}, precision="float32")
"""


def test_a_search_that_is_killed_goes_on(data, whole, tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("trial 1 of 3: learning rate"), line
        time.sleep(0.3)  # some way into the second trial
        process.send_signal(signal.SIGKILL)
    found = search(
        data,
        SPACE,
        trials=3,
        epochs=2,
        pruner="halving",
        out=tmp_path,
        progress=False,
        precision="float32",
    )
    assert plain(found.table).equals(plain(whole[0].table))


def test_a_folder_of_another_search_is_refused(data, whole, tmp_path):
    options = dict(
        trials=1, epochs=2, pruner="halving", out=whole[1], progress=False, precision="float32"
    )
    for space, other, changed, what in (
        (SMALL, data, {}, "space"),
        (SPACE, scans(seed=1), {}, "data"),
        (SPACE, data, {"seed": 1}, "seed"),
        (SPACE, data, {"epochs": 3}, "options"),
        (SPACE, data, {"pruner": None}, "pruner"),
    ):
        with pytest.raises(
            TrainingError,
            match=f"holds another search \\(it differs in {what}\\); choose another folder",
        ):
            search(other, space, **options | changed)
    (tmp_path / "study.db").write_bytes(b"something")
    with pytest.raises(TrainingError, match="is not of a search of medbook"):
        search(data, SPACE, **options | {"out": tmp_path})
    (tmp_path / "search.json").write_text((whole[1] / "search.json").read_text())
    with pytest.raises(TrainingError, match="cannot be read .*start over with resume=False"):
        search(data, SPACE, **options | {"out": tmp_path})
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(TrainingError, match="is no search's note"):
        search(data, SPACE, **options | {"out": tmp_path})


def test_a_trial_is_what_fit_gives(data, whole):
    found = whole[0]
    row = found.table[found.table["status"] == "complete"].iloc[0]
    keras.utils.set_random_seed(int(np.random.SeedSequence([0, 44]).generate_state(1)[0]))
    network = candidate(data, filters=int(row["filters"]), kernel_size=int(row["kernel_size"]))
    run = fit(
        network,
        data,
        epochs=2,
        learning_rate=row["learning_rate"],
        precision="float32",
        progress=False,
    )
    table = run.predictions[run.predictions["split"] == "valid"]
    assert abs(auc(table["y_true"], table["score_lesion"]) - row["value"]) < 1e-6
    assert row["weights"] == network.count_params() and row["epochs"] == 2


def test_a_space_that_fits_is_gone_through_once_and_what_cannot_be_built_is_noted(data):
    found = search(
        data,
        {"depth": [1, 9], "filters": [1]},
        trials=10,
        epochs=1,
        pruner=None,
        progress=False,
        balance="none",
    )
    table = found.table.set_index("depth")
    assert sorted(table.index) == [1, 9] and table["status"].to_dict() == {
        1: "complete",
        9: "failed",
    }
    assert (
        "shrinks to nothing" in table["note"][9]
        and found.best == {"depth": 1, "filters": 1}
        and found.value == table["value"][1]
    )
    assert found.build(data).count_params() == table["weights"][1]
    with pytest.raises(
        TrainingError, match="none of 1 trials was completed; the last: .*shrinks to nothing"
    ):
        search(data, {"depth": [9]}, trials=2, epochs=1, progress=False)


def test_the_figure_and_the_printed_lines(data, capsys):
    found = search(data, SMALL | {"learning_rate": (1e-4, 1e-3, "log")}, trials=2, epochs=1, seed=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("trial 1 of 2: filters") and "best" in lines[1]
    figure = found.plot()
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "epoch",
        "filters",
        "kernel size",
        "learning rate",
    ]
    assert found.options == {"learning_rate": found.best["learning_rate"]}


class StopAll(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


def test_a_pruner_stops_trials_early(data):
    with pytest.raises(
        TrainingError, match="none of 1 trials was completed; the last: stopped early"
    ):
        search(data, {"filters": [1]}, trials=3, epochs=4, pruner=StopAll(), progress=False)


@pytest.mark.parametrize(
    "space, options, message",
    [
        ({}, {}, "the space is empty"),
        ({"kernel_size": []}, {}, r"space\['kernel_size'\] is \[\]"),
        ({"kernel_size": 3}, {}, "give a list of choices, or a range"),
        ({"kernel_size": (5, 3)}, {}, "give a list of choices, or a range"),
        ({"filters": [(1, 2)]}, {}, "one or more numbers, words"),
        (
            {"kernel": [3]},
            {},
            "the space holds 'kernel', which neither the network nor fit takes; they take augment",
        ),
        (SMALL, {"trials": 0}, "trials and epochs must be 1 or more"),
        (SMALL, {"epochs": 0}, "trials and epochs must be 1 or more"),
        (SMALL, {"pruner": "best"}, "pruner must be"),
    ],
)
def test_a_search_refuses(data, space, options, message):
    with pytest.raises(ValueError, match=message):
        search(data, space, **{"trials": 1, "epochs": 1, "progress": False} | options)


def test_a_search_needs_a_valid_split_with_every_class(data):
    with pytest.raises(ValueError, match="no image is in the valid split"):
        search(data.take(data.splits != "valid"), SMALL)
    with pytest.raises(ValueError, match="no image of valid is lesion"):
        search(data.take((data.splits != "valid") | (data.labels == 0)), SMALL)
