"""Data cards: whole, true, and files fetched with a checked hash."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medbook.images import Card, DataError, cards, data_cards, datasets, load
from medbook.images.sources import load_card
from tests.image_sets import class_folder, medmnist, own_folders  # noqa: F401


def test_every_card_is_whole():
    known = cards()
    assert len(known) == 14 and {"bccd", "phantoms", "pneumoniamnist", "organsmnist"} <= set(known)
    for card in known.values():
        assert (
            card.title
            and card.classes
            and card.licence != "not stated"
            and card.source
            and card.citation
        )
        assert card.notes[0].startswith(f"symmetry {card.symmetry}:"), card.name
        assert card.task == (
            "binary"
            if len(card.classes) == 2
            else "multi-label"
            if card.name == "chestmnist"
            else "multi-class"
        )
        if "mnist" in card.name:
            assert (
                sorted(card.files, key=int) == ["28", "64", "128", "224"]
                and len(card.md5) == 32
                and sum(card.counts.values()) > 700
            )
    assert sum(len({item["md5"] for item in card.files.values()}) for card in known.values()) == 48


def test_the_page_of_cards_is_made_from_the_cards():
    page = Path(__file__).parents[1] / "data" / "README.md"
    assert page.read_text(encoding="utf-8") == data_cards.cards_markdown()


@pytest.mark.parametrize(
    "text, says",
    [
        ("title = ", "not a readable card"),
        ('colour = "red"', "no field 'colour'"),
        ('symmetry = "vertical"', "symmetry is 'vertical'"),
    ],
)
def test_a_bad_card_is_told(tmp_path, text, says):
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(DataError, match=says):
        data_cards.read_card(tmp_path / "odd.toml")


def test_phantoms_are_made_once_and_read(monkeypatch):
    data = load("phantoms", patients=12, seed=1, size=32)
    assert (
        data.shape == (32, 32, 1)
        and data.card.title.startswith("Phantoms")
        and data.task == "binary"
    )
    assert (
        data.patients is not None
        and not datasets.shared_patients(data.patients, data.splits)
        and data.classes[1] != "normal"
    )
    folder = data_cards.make_phantoms(patients=12, seed=1)
    monkeypatch.setattr(
        "medbook.images.phantoms.write_study", lambda *a, **k: pytest.fail("written twice")
    )
    assert data_cards.make_phantoms(patients=12, seed=1) == folder


def test_the_data_folder_is_searched_first(tmp_path, monkeypatch):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    medmnist(tmp_path / "deep" / "er" / "breastmnist.npz")
    monkeypatch.setenv("MEDBOOK_DATA", str(tmp_path))
    data = load("breastmnist")
    assert len(data) == 40 and data.classes[0] == "malignant"
    assert "byte for byte" in data.card.notes[-2] and "other counts" in data.card.notes[-1]
    assert len(load("deep/er/breastmnist.npz")) == 40 and load("breastmnist", size=20).shape == (
        20,
        20,
        1,
    )
    medmnist(tmp_path / "breastmnist_64.npz", sizes=(30, 10, 10), shape=(64, 64))
    assert len(load("breastmnist", size=64)) == 50 and load("breastmnist", size=48).shape == (
        48,
        48,
        1,
    )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine that holds one data set, and a card that names it."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder = tmp_path / "www"
    folder.mkdir()
    medmnist(folder / "toymnist.npz")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/toymnist.npz"
    md5 = hashlib.md5((folder / "toymnist.npz").read_bytes()).hexdigest()
    yield lambda **change: Card(
        "toymnist",
        classes=("a", "b"),
        task="binary",
        shape=(28, 28, 1),
        files={"28": {"url": url, "md5": md5} | change},
    )
    web.shutdown()
    web.server_close()


def test_download_with_the_right_hash_is_kept(server, monkeypatch):
    data = load_card(server())
    assert len(data) == 40 and [path.name for path in data_cards.cache_folder().iterdir()] == [
        "toymnist.npz"
    ]
    assert (
        len(load_card(server(url="http://127.0.0.1:9/toymnist.npz"))) == 40
    )  # from the cache, no connection


def test_long_work_shows_a_bar_on_a_terminal(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    load_card(server())
    load(class_folder(tmp_path / "set"), progress=True)
    shown = capsys.readouterr().err
    assert "fetching toymnist.npz" in shown and "checking files" in shown
    load(tmp_path / "set", progress=False)
    assert capsys.readouterr().err == ""


def test_download_with_a_wrong_hash_is_thrown_away(server):
    with pytest.raises(DataError, match="has not the published MD5 0000"):
        load_card(server(md5="0" * 32))
    assert list(data_cards.cache_folder().iterdir()) == []


@pytest.mark.parametrize("change", [{"url": "http://127.0.0.1:9/toymnist.npz"}, {"url": "lost"}])
def test_offline_says_where_to_put_the_file(server, change):
    url = (
        change["url"]
        if ":" in change["url"]
        else server().files["28"]["url"].replace("toymnist.npz", "lost.npz")
    )
    with pytest.raises(
        DataError, match="toymnist.npz: cannot be downloaded .*MEDBOOK_DATA"
    ) as caught:
        load_card(server(url=url))
    assert "\n" not in str(caught.value)


def test_an_equal_study_of_an_earlier_program_is_kept_with_its_digest():
    before = load("phantoms", patients=12, images_per_patient=1).digest()
    (folder,) = data_cards.cache_folder().glob("phantoms-*")
    folder.rename(folder.with_name("phantoms-earlier"))
    assert load("phantoms", patients=12, images_per_patient=1).digest() == before
    assert [path.name for path in data_cards.cache_folder().iterdir()] == [folder.name]
