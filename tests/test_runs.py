"""Runs that resume after being killed, stop politely, are told from others, and outlive an
upgrade."""

import functools
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest

from medbook.images.sources import load
from medbook.training import runs
from medbook.training.fitting import fit
from medbook.training.runs import Folder, Run, State, TrainingError, differences

pytestmark = pytest.mark.slow

MEDBOOK = [sys.executable, "-m", "medbook"]
SETTINGS = dict(epochs=6, members=2, batch_size=16, balance="auto", augment=True)


def command(data, out):
    """`medbook train` of a tiny network."""
    options = "--model digits_single --members 2 --epochs 6 --batch-size 16 --balance auto"
    return [*MEDBOOK, "train", "--data", str(data), "--out", str(out), *options.split()]


def check_files(folder):
    """Every file that stands is whole, and every finished epoch stands once."""
    assert json.loads((folder / "run.json").read_text())["status"]
    if (folder / "checkpoint.npz").exists():
        State.load(folder / "checkpoint.npz")
    if (folder / "history.csv").exists():
        history = pd.read_csv(folder / "history.csv")
        assert not history.duplicated(["member", "epoch"]).any() and history.notna().all(axis=None)
        for _, rows in history.groupby("member"):
            assert rows.epoch.tolist() == list(range(1, len(rows) + 1))


def results(folder):
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    return history, pd.read_csv(folder / "predictions.csv")


def train_into(data, folder, settings):
    """A whole run, as a process of its own does it; the checkpoint is written after every epoch,
    and beside the folder how long it took."""
    Folder.keep = functools.partialmethod(Folder.keep, least=0)
    start = time.perf_counter()
    fit("digits_single", load(data), out=folder, progress=False, **settings)
    folder.with_name("seconds").write_text(str(time.perf_counter() - start))


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with Keras loaded: a kill costs an epoch, not a start of Python."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medbook.training.fitting", "tests.test_runs"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(squares, processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = processes.Process(target=train_into, args=(squares, folder, SETTINGS))
    process.start()
    process.join()
    return folder


def check_same_results(there, here):
    """Two folders hold the same run."""
    for one, other in zip(results(there), results(here), strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5)


def test_run_folder_is_whole(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {
        "run.json",
        "model.keras",
        "history.csv",
        "predictions.csv",
        "report.html",
        "report.json",
    }
    assert json.loads((uninterrupted / "run.json").read_text())["status"] == "complete"


@pytest.mark.timeout(900)
def test_killed_ten_times(squares, uninterrupted, processes, tmp_path):
    """kill -9 at ten spread moments; the same call goes on each time and ends where an unkilled run
    ends."""
    folder = tmp_path / "run"
    moments = random.Random(7)
    killed = 0
    whole = float(uninterrupted.with_name("seconds").read_text())
    while killed < 10:
        process = processes.Process(target=train_into, args=(squares, folder, SETTINGS))
        process.start()
        process.join(moments.uniform(0, whole))
        if not process.is_alive():  # it came to its end: begin the run anew
            check_same_results(uninterrupted, folder)
            shutil.rmtree(folder)
            continue
        process.kill()
        process.join()
        killed += 1
        if (folder / "run.json").exists():
            check_files(folder)
    process = processes.Process(target=train_into, args=(squares, folder, SETTINGS))
    process.start()
    process.join()
    check_files(folder)
    check_same_results(uninterrupted, folder)
    assert not list(folder.glob(".part*"))


@pytest.mark.timeout(600)
def test_ctrl_c_leaves_a_usable_run(squares, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(squares, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if "epoch 2 of" in line:
            process.send_signal(signal.SIGINT)
            break
    tail = process.communicate()[0]
    assert process.returncode == 130 and "Traceback" not in tail
    run = Run.load(folder)
    assert run.status == "interrupted" and np.isfinite(run.evaluate().table.value.iloc[0])
    assert (folder / "report.html").exists()
    settings = SETTINGS | {"augment": None}
    resumed = fit("digits_single", load(squares), out=folder, progress=False, **settings)
    whole = fit("digits_single", load(squares), progress=False, **settings)
    assert resumed.status == "complete"
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns="seconds"),
        whole.history.drop(columns="seconds"),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        resumed.predictions.filter(like="score_").iloc[:, -1],
        whole.predictions.filter(like="score_").iloc[:, -1],
        atol=1e-5,
    )


@pytest.mark.timeout(600)
def test_full_disk_is_told_in_one_line(squares, tmp_path):
    """A limit on file size stands for the full disk: the checkpoint does not fit, and no half of it
    stays."""
    folder = tmp_path / "run"
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "limited", *command(squares, folder)]
    process = subprocess.run(limited, capture_output=True, text=True)
    assert process.returncode == 1
    lines = [line for line in process.stderr.splitlines() if line.startswith("medbook:")]
    assert len(lines) == 1 and "free some space" in lines[0] and "Traceback" not in process.stderr
    assert not (folder / "checkpoint.npz").exists() and not list(folder.glob(".part*"))


def test_other_settings_are_refused(squares, uninterrupted):
    with pytest.raises(TrainingError, match="seed 0 there, 1 here"):
        fit("digits_single", load(squares), out=uninterrupted, seed=1, progress=False, **SETTINGS)


def test_complete_run_is_read_not_trained(squares, uninterrupted):
    before = (uninterrupted / "model.keras").stat().st_mtime_ns
    run = fit("digits_single", load(squares), out=uninterrupted, progress=False, **SETTINGS)
    assert run.status == "complete" and (uninterrupted / "model.keras").stat().st_mtime_ns == before


def stop_after(epoch, monkeypatch):
    """Let the next run in a folder end as if killed, when its checkpoint of `epoch` is written."""

    class Killed(Exception):
        pass

    def keep(self, state, *, least=0):
        plain(self, state, least=0)
        if state.epoch == epoch:
            raise Killed

    plain = Folder.keep
    monkeypatch.setattr(Folder, "keep", keep)
    return Killed


@pytest.mark.parametrize(
    "balance, word",
    [
        ("auto", "weights"),
        ("inverse-weights", "weights"),
        ("over-sampling", "shares 0.5 0.5"),
        ("none", None),
    ],
)
def test_a_run_of_version_0_1_goes_on(squares, tmp_path, monkeypatch, balance, word):
    """Its run.json has another word for inverse weights, no name of the strategy, another
    device."""
    data = load(squares)
    settings = dict(epochs=3, balance=balance, progress=False)
    with monkeypatch.context() as patch:
        with pytest.raises(stop_after(2, patch)):
            fit("digits_single", data, out=tmp_path / "run", **settings)
    note = tmp_path / "run" / "run.json"
    there = json.loads(note.read_text())
    assert there["settings"].pop("strategy") == {"auto": "inverse-weights", "none": None}.get(
        balance, balance
    )
    there["settings"]["balance"] = word
    there["device"] = "tensorflow on CPU (64 cores)"
    there["versions"]["medbook"] = "0.1.0"
    note.write_text(json.dumps(there))
    (tmp_path / "run" / ".partial-checkpoint.npz").write_text("half of one")
    resumed = fit("digits_single", data, out=tmp_path / "run", **settings)
    whole = fit("digits_single", data, **settings)
    assert resumed.history.epoch.tolist() == [1, 2, 3] and not list(
        (tmp_path / "run").glob(".part*")
    )
    np.testing.assert_allclose(
        resumed.predictions.filter(like="score_").iloc[:, -1],
        whole.predictions.filter(like="score_").iloc[:, -1],
        atol=1e-6,
    )


def test_what_differs_is_said_plainly(squares, tmp_path):
    """An old run with weights is not taken for one with a strategy of other weights."""
    fit(
        "digits_single",
        load(squares),
        out=tmp_path / "run",
        epochs=1,
        balance="inverse-weights",
        progress=False,
    )
    note = tmp_path / "run" / "run.json"
    there = json.loads(note.read_text())
    here = json.loads(note.read_text())
    there["settings"]["balance"] = "weights"
    assert differences(there, here) == []
    here["settings"] |= {"strategy": "root-weights", "balance": "weights 0.8 1.2"}
    assert differences(there, here) == ["balance weights there, weights 0.8 1.2 here"]
    here["settings"]["precision"] = "another"
    here["device"] = "another"
    assert len(differences(there, here)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}}', "null"])
def test_a_note_that_is_none_is_told(squares, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(TrainingError, match="is no run's note; remove it"):
        fit("digits_single", load(squares), out=tmp_path, progress=False)


def test_files_of_others_are_left_alone(squares, tmp_path):
    (tmp_path / "model.keras").write_text("mine")
    with pytest.raises(TrainingError, match="model.keras, which is not of a run of medbook"):
        fit("digits_single", load(squares), out=tmp_path, progress=False)
    assert (tmp_path / "model.keras").read_text() == "mine"


def test_every_epoch_is_kept_where_asked(squares, tmp_path):
    """The weights after each epoch, as the explorer takes them; none without `keep_epochs`, and
    none of an older run."""
    data = load(squares)
    run = fit(
        "digits_single",
        data,
        out=tmp_path / "run",
        epochs=3,
        members=2,
        keep_epochs=True,
        progress=False,
    )
    kept = {path.name for path in (tmp_path / "run" / "epochs").iterdir()}
    assert kept == {f"member{member}-epoch{epoch}.npz" for member in (1, 2) for epoch in (1, 2, 3)}
    again = fit("digits_single", data, out=tmp_path / "run", epochs=2, resume=False, progress=False)
    assert not (tmp_path / "run" / "epochs").exists() and run.model is not again.model


def test_the_last_epoch_kept_is_the_trained_network(squares, tmp_path):
    run = fit(
        "digits_single",
        load(squares),
        out=tmp_path / "run",
        epochs=2,
        members=1,
        keep_epochs=True,
        progress=False,
    )
    with np.load(tmp_path / "run" / "epochs" / "member1-epoch2.npz") as stored:
        for place, value in enumerate(run.model.get_weights()):
            np.testing.assert_array_equal(stored[f"weights_{place}"], value)


def test_a_state_comes_back_and_a_damaged_one_is_told(tmp_path):
    state = State(
        member=1, epoch=3, history=[{"epoch": 1, "loss": 0.7}], arrays={"weights_0": np.eye(2)}
    )
    state.save(tmp_path / "checkpoint.npz")
    again = State.load(tmp_path / "checkpoint.npz")
    assert (again.member, again.epoch, again.history) == (1, 3, state.history)
    assert (again.arrays["weights_0"] == np.eye(2)).all()
    (tmp_path / "checkpoint.npz").write_bytes(b"half")
    with pytest.raises(TrainingError, match="is damaged; start over with resume=False"):
        runs._load_checkpoint(tmp_path / "checkpoint.npz")


def test_random_layers_depend_on_the_seed_alone():
    network = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dropout(0.5)])

    def dropped(seed):
        runs.reseed(network, seed)
        return keras.ops.convert_to_numpy(network(np.ones((1, 64), "float32"), training=True))

    first = dropped([0, 0, 1])
    assert (dropped([0, 0, 2]) != first).any() and (dropped([0, 0, 1]) == first).all()


def test_progress_prints_a_line_an_epoch(squares, capsys):
    fit("digits_single", load(squares), epochs=2, members=2)
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 4
        and lines[0].startswith("network 1 of 2, epoch 1 of 2:  ")
        and "valid loss" in lines[0]
    )
