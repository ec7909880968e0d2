"""The commands as a person types them: what they leave, and one line with a status for bad
input."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import typer

from medbook.cli import DATA_OPTIONS, app, main

pytestmark = pytest.mark.slow

MEDBOOK = [sys.executable, "-m", "medbook"]


def medbook(*words, cwd=None):
    return subprocess.run([*MEDBOOK, *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def inside(capfd):
    """The command in this process, which has Keras loaded: for the many ways to be refused."""

    def run(*words):
        try:
            main([str(word) for word in words])
            status = 0
        except SystemExit as end:
            status = end.code or 0
        shown = capfd.readouterr()
        return subprocess.CompletedProcess(words, status, shown.out, shown.err)

    return run


def check_one_line(process, *fragments):
    """A clear end: status 1, no traceback, the last line from medbook, naming what is asked for."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("medbook: ")]
    assert len(lines) == 1, process.stderr
    for fragment in fragments:
        assert fragment in lines[0], lines[0]


def test_every_command_that_reads_data_has_the_same_options_for_it():
    commands = typer.main.get_command(app).commands
    for name in ("train", "strategies", "audit"):
        taken = {each.name for each in commands[name].params}
        assert {"data", *DATA_OPTIONS} <= taken and "reading" not in taken


def test_help_is_light():
    code = (
        "import sys; from medbook.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint('keras' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip().endswith("False") and "train" in out


@pytest.mark.timeout(900)
def test_demo_from_dicom_to_report(tmp_path):
    process = medbook("demo", "--out", tmp_path / "demo", "--patients", 40, "--epochs", 3)
    assert process.returncode == 0, process.stderr
    run = tmp_path / "demo" / "run"
    left = {path.name for path in run.iterdir()}
    assert left == {
        "report.html",
        "report.json",
        "model.keras",
        "predictions.csv",
        "history.csv",
        "run.json",
    }
    assert str(run / "report.html") in process.stdout
    table = pd.read_csv(run / "predictions.csv")
    assert not set(table.patient[table.split == "valid"]) & set(
        table.patient[table.split == "test"]
    )


def test_evaluate_a_table(tmp_path):
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, 120)
    table = pd.DataFrame({"y_true": sick, "score": 1 / (1 + np.exp(-rng.normal(2 * sick - 1)))})
    table.to_csv(tmp_path / "scores.csv", index=False)
    process = medbook(
        "evaluate", tmp_path / "scores.csv", "--out", tmp_path / "out", "--resamples", 200
    )
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.json",
        "metrics.csv",
    }


BAD_TABLES = {
    "empty": ("", "empty"),
    "no_truth": ("score\n0.1\n0.9\n", "y_true"),
    "no_score": ("y_true\n0\n1\n", "score"),
    "no_rows": ("y_true,score\n", "no rows"),
    "text_score": ("y_true,score\n0,0.1\n1,high\n", "line 3"),
    "nan_score": ("y_true,score\n0,0.1\n1,nan\n", "line 3"),
    "infinite_score": ("y_true,score\n0,0.1\n1,inf\n", "line 3"),
    "large_score": ("y_true,score\n0,0.1\n1,17\n", "0 to 1"),
    "unknown_class": ("y_true,score\n0,0.1\nmass,0.9\n", "mass"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables(tmp_path, name, inside):
    text, fragment = BAD_TABLES[name]
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    check_one_line(inside("evaluate", path, "--out", tmp_path / "out"), fragment)


def test_one_class_only_is_told_not_crashed(tmp_path):
    (tmp_path / "one.csv").write_text("y_true,score\n" + "1,0.7\n" * 20)
    process = medbook(
        "evaluate", tmp_path / "one.csv", "--out", tmp_path / "out", "--resamples", 100
    )
    assert "Traceback" not in process.stderr


def write_npz(path, **arrays):
    rng = np.random.default_rng(0)
    images = {
        "images": rng.integers(0, 255, (40, 16, 16), dtype="uint8"),
        "labels": rng.integers(0, 2, 40),
    }
    np.savez(path, **(images | arrays))
    return path


BAD_ARRAYS = {
    "one_class": ({"labels": np.zeros(40, int)}, "class"),
    "pickled": ({"labels": np.array([{"a": 1}] * 40, dtype=object)}, "pickle"),
    "lengths": ({"labels": np.zeros(39, int)}, "39"),
    "not_numbers": ({"images": np.full((40, 16, 16), np.nan, "float32")}, "NaN"),
    "patient_in_two_splits": (
        {"patients": np.repeat(["a", "b"], 20), "splits": np.array(["train", "test"] * 20)},
        "patient",
    ),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(tmp_path, name, inside):
    arrays, fragment = BAD_ARRAYS[name]
    path = write_npz(tmp_path / f"{name}.npz", **arrays)
    check_one_line(inside("train", "--data", path, "--out", tmp_path / "run"), fragment)
    assert not (tmp_path / "run" / "model.keras").exists()


def test_bad_names_and_options(tmp_path, inside):
    good = write_npz(tmp_path / "good.npz")
    check_one_line(
        medbook("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "run"), "nowhere"
    )
    check_one_line(
        inside("train", "--data", good, "--out", tmp_path / "run", "--model", "resnet"),
        "resnet",
        "compact",
    )
    check_one_line(
        inside("train", "--data", good, "--out", tmp_path / "run", "--model", "no.keras"),
        "no.keras",
    )
    check_one_line(
        inside("train", "--data", good, "--out", tmp_path / "run", "--precision", "float8"),
        "precision",
    )
    check_one_line(inside("train", "--data", good, "--out", good / "run"), "good.npz")
    check_one_line(
        inside("train", "--data", good, "--out", tmp_path / "run", "--epochs", "0"), "epochs"
    )
    assert inside("train", "--data", good).returncode == 2


@pytest.mark.timeout(900)
def test_one_bad_file_among_many_is_left_out(tmp_path):
    from medbook.images.phantoms import write_study

    write_study(tmp_path / "study", patients=30, prevalence=0.4, size=32, seed=0)
    broken = sorted((tmp_path / "study" / "images").glob("*.dcm"))[3]
    broken.write_bytes(broken.read_bytes()[:700])
    words = ["train", "--data", tmp_path / "study", "--out", tmp_path / "run"]
    process = medbook(*words, "--epochs", 1, "--model", "digits_single")
    assert process.returncode == 0, process.stderr
    assert broken.name in process.stderr and "Traceback" not in process.stderr


def test_index(tmp_path, shared):
    process = medbook("index", shared / "dicom", "--out", tmp_path / "index.csv")
    assert process.returncode == 0, process.stderr
    assert len(pd.read_csv(tmp_path / "index.csv")) == 80
    check_one_line(medbook("index", tmp_path / "nowhere", "--out", tmp_path / "x.csv"), "nowhere")


def write_scores(path, seed, n=120, skill=2.0):
    """A predictions table with ids and a test split; the truth does not depend on the seed."""
    sick = np.random.default_rng(0).integers(0, 2, n)
    score = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(skill * sick - skill / 2)))
    table = pd.DataFrame({"id": [f"c{k}" for k in range(n)], "y_true": sick, "score": score})
    table.sample(frac=1, random_state=seed).to_csv(path, index=False)
    return path


def test_compare_two_tables(tmp_path, inside):
    old = write_scores(tmp_path / "old.csv", 1, skill=0.5)
    new = write_scores(tmp_path / "new.csv", 2, skill=4.0)
    process = inside("compare", old, new, "--out", tmp_path / "out" / "both.csv", "--margin", 0.05)
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(tmp_path / "out" / "both.csv")
    assert (
        table.metric[0] == "auc"
        and table.low[0] > 0
        and (tmp_path / "out" / "both.png").stat().st_size > 5000
    )
    assert (
        "new − old" in process.stdout
        and "not worse by more than 0.05 of AUC: shown" in process.stdout
    )
    other = write_scores(tmp_path / "other.csv", 1, n=50)
    check_one_line(inside("compare", old, other), "in one table only")
    check_one_line(inside("compare", old, tmp_path / "nowhere.csv"), "nowhere.csv")


def test_audit_finds_what_was_planted(tmp_path, inside):
    images = np.random.default_rng(1).integers(0, 255, (60, 16, 16), dtype="uint8")
    images[7] = 0
    images[30] = images[3]
    path = write_npz(tmp_path / "data.npz", images=images, labels=np.arange(60) % 2)
    process = inside("audit", path, "--out", tmp_path / "audit.csv")
    assert process.returncode == 0, process.stderr
    found = pd.read_csv(tmp_path / "audit.csv")
    assert (found.problem.str.contains("blank") & found.rows.eq("(7,)")).any() and found.rows.eq(
        "(3, 30)"
    ).any()
    assert (tmp_path / "audit.png").exists()
    check_one_line(inside("audit", tmp_path / "nowhere"), "nowhere")


@pytest.mark.timeout(600)
def test_strategies_on_a_small_set(tmp_path, inside):
    rng = np.random.default_rng(2)
    labels = (np.arange(240) % 6 == 0).astype(int)
    images = (rng.integers(0, 120, (240, 16, 16)) + 90 * labels[:, None, None]).astype("uint8")
    path = write_npz(tmp_path / "rare.npz", images=images, labels=labels)
    words = [
        "strategies",
        path,
        "--out",
        tmp_path / "out",
        "--only",
        "plain,over-sampling",
        "--seeds",
        "0",
        "--epochs",
        1,
        "--model",
        "digits_single",
    ]
    process = inside(*words)
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert (
        set(table.strategy) == {"plain", "over-sampling"}
        and "best worst recall on valid" in process.stdout
    )
    check_one_line(inside(*words[:4], "--seeds", "one"), "whole numbers")
    check_one_line(inside(*words[:4], "--only", "smote"), "smote", "plain")
    check_one_line(inside(*words[:4], "--thin", "1"), "CLASS=SHARE")
