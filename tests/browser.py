"""Small notebooks in a real JupyterLab or Voila and a real browser, for the tests of widgets.

    with shown(browser, servers("lab"), ["from medbook... import X", "X()"]) as (page, watch):
        page.locator("canvas").first.hover()
        assert canvas_pixels(page.locator("canvas").first).std() > 0
        watch.check()

Everything is on this machine: `Watch.check` fails when a page asked another one for anything.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import numpy as np
from PIL import Image
from playwright.sync_api import TimeoutError

from tests.pictures import ROOT

FRONTS = ("lab", "voila")
DONE = "all cells have run"
HARMLESS = (
    "favicon.ico",
)  # parts of console messages that are about the front end, not about a widget
# style sheets that Voila's own page asks for; answered here, empty
ICONS = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@"
SETTINGS = ROOT / "medbook" / "lab"
QUIET = (
    f"--LabApp.app_settings_dir={SETTINGS}",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--ServerApp.open_browser=False",
)
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
numbers = itertools.count(1)


@dataclass
class Watch:
    """What a page did: its faults (console errors, errors of its scripts),
    the addresses it asked, the frames it sent its kernel."""

    faults: list = field(default_factory=list)
    addresses: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    received: list = field(default_factory=list)

    def follow(self, page):
        """Note from now on what `page` does."""
        page.on("pageerror", lambda error: self.faults.append(f"{error}\n{error.stack or ''}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("websocket", self._socket)
        page.route(
            lambda url: url.startswith(ICONS),
            lambda route: route.fulfill(body="", content_type="text/css"),
        )

    def _request(self, request):
        if not request.url.startswith(ICONS):
            self.addresses.append(request.url)

    def _console(self, message):
        told = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(part in told for part in HARMLESS):
            self.faults.append(told)

    def _socket(self, socket):
        self.addresses.append(socket.url)
        if "/channels" in socket.url:
            socket.on("framesent", lambda payload: self.sent.append(_bytes(payload)))
            socket.on("framereceived", lambda payload: self.received.append(_bytes(payload)))

    @property
    def asked(self):
        """How many messages widgets have sent the kernel."""
        return sum(b'"comm_msg"' in frame for frame in self.sent)

    @property
    def outside(self):
        """The addresses of other machines that the page asked for something."""
        parts = [(url, urlsplit(url)) for url in self.addresses]
        near = ("127.0.0.1", "localhost", "::1")
        return [
            url
            for url, part in parts
            if part.scheme not in ("data", "blob", "about") and part.hostname not in near
        ]

    def check(self):
        """Fail on an error in the console, and on a request to another machine."""
        assert self.faults == []
        assert self.outside == []


def _bytes(payload):
    return payload.encode() if isinstance(payload, str) else bytes(payload)


@dataclass
class Desk:
    """A running server: "lab" or "voila", the folder that it serves, and its address."""

    front: str
    folder: Path
    address: str

    def url(self, name):
        return (
            f"{self.address}/doc/tree/{name}"
            if self.front == "lab"
            else f"{self.address}/voila/render/{name}"
        )


def _environment(folder, theme):
    """The environment of a server that reads and writes nobody's own settings;
    JupyterLab keeps all cells on the page."""
    user = folder / "settings"
    for plugin, chosen in {
        "apputils-extension/themes": {"theme": THEMES[theme]},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }.items():
        path = user / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(chosen))
    first = {"JUPYTER_PATH": SETTINGS, "PYTHONPATH": ROOT}
    joined = {
        name: os.pathsep.join([str(path), *filter(None, [os.environ.get(name)])])
        for name, path in first.items()
    }
    own = {
        name: value for name, value in os.environ.items() if name != "MEDBOOK_DATA"
    }  # the book runs without it
    return (
        own
        | joined
        | {
            "JUPYTERLAB_SETTINGS_DIR": str(user),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
        }
    )


def _command(front, served, theme):
    """The command that starts a server on a free port of this machine."""
    if front == "lab":
        return [
            sys.executable,
            "-m",
            "jupyterlab",
            str(served),
            *QUIET,
            "--no-browser",
            "--port=0",
            "--allow-root",
            "--IdentityProvider.token=",
        ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        sys.executable,
        "-m",
        "voila",
        str(served),
        "--no-browser",
        f"--port={port}",
        "--Voila.ip=127.0.0.1",
        f"--theme={theme}",
        "--show_tracebacks=True",
        "--VoilaConfiguration.extension_denylist=['jupyterlab-jupytext']",
    ]


def _address(process):
    """The address that a starting server prints; what it says later is read and thrown away."""
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://(?:127\.0\.0\.1|localhost):\d+", line):
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return found[0].replace("localhost", "127.0.0.1")
    raise RuntimeError("the server ended: " + "".join(said[-20:]))


@contextlib.contextmanager
def desk(front="lab", *, theme="light"):
    """A server of notebooks, JupyterLab ("lab") or Voila ("voila"),
    on an empty temporary folder; yields a `Desk`."""
    with tempfile.TemporaryDirectory(prefix="medbook-desk-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        served = folder / "notebooks"
        served.mkdir()
        process = subprocess.Popen(
            _command(front, served, theme),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(folder, theme),
            cwd=served,
        )
        try:
            yield Desk(front, served, _address(process))
        finally:
            process.terminate()
            process.wait(30)


def write_notebook(folder, cells):
    """Write code cells, and a last one that tells that all have run; returns the file's name."""
    name = f"notebook{next(numbers)}.ipynb"
    sources = [*cells, f"print({DONE!r})"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    book.metadata["kernelspec"] = {
        "display_name": "python3",
        "language": "python",
        "name": "python3",
    }
    nbformat.write(book, Path(folder) / name)
    return name


STARTED = r"""[...document.querySelectorAll('.jp-InputPrompt')]
    .some(prompt => /\[(\d+|\*)\]/.test(prompt.textContent))"""
FAILED = "Traceback (most recent call last)"
ENDED = """([done, failed]) => [...document.querySelectorAll('.jp-OutputArea-output')]
    .map(area => area.textContent.trim())
    .some(text => text === done || text.includes(failed))"""


# JupyterLab calls a notebook idle before it has a kernel, and asks for one in a dialog when
# cells are run then
READY = """() => document.querySelector('.jp-KernelName')?.textContent.includes('Python')
    && document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"""


def _run_in_lab(page):
    """Run all cells of the notebook that JupyterLab shows, once its kernel is there;
    ask again where the menu did nothing."""
    page.wait_for_function(READY, timeout=120_000)
    for patience in (8_000, 15_000, 30_000):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(TimeoutError):
            return page.wait_for_function(STARTED, timeout=patience)
    raise TimeoutError("JupyterLab did not run the cells")


@contextlib.contextmanager
def shown(browser, desk, cells, *, width=1280, height=900, timeout=180_000):
    """Open a new notebook of code `cells`, run them all, and yield (page,
    `Watch`) when they have run; AssertionError when one failed."""
    watch = Watch()
    page = browser.new_page(viewport={"width": width, "height": height})
    try:
        watch.follow(page)
        page.goto(desk.url(write_notebook(desk.folder, cells)), timeout=timeout)
        if desk.front == "lab":
            _run_in_lab(page)
        page.wait_for_function(ENDED, arg=[DONE, FAILED], timeout=timeout)
        errors = page.locator(".jp-OutputArea-output", has_text=FAILED).all_inner_texts()
        assert errors == [], errors
        yield page, watch
    finally:
        page.close()


def canvas_pixels(locator):
    """What a canvas shows: uint8 (height, width, 4), in the canvas's own pixels."""
    data = locator.evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA"))


def wait_for_change(page, locator, before, *, timeout=10_000):
    """Wait until a canvas shows something else than `before` (from `canvas_pixels`);
    returns what it shows then."""
    page.wait_for_function(
        """([canvas, before]) => canvas.toDataURL('image/png') !== before""",
        arg=[locator.element_handle(), _data_url(locator, before)],
        timeout=timeout,
    )
    return canvas_pixels(locator)


def _data_url(locator, pixels):
    """The address that the browser would give for these pixels: drawn into a canvas of its own."""
    return locator.evaluate(
        """(canvas, [bytes, width, height]) => {
        const other = document.createElement('canvas');
        [other.width, other.height] = [width, height];
        const data = Uint8ClampedArray.from(atob(bytes), letter => letter.charCodeAt(0));
        other.getContext('2d').putImageData(new ImageData(data, width, height), 0, 0);
        return other.toDataURL('image/png');
    }""",
        [base64.b64encode(pixels.tobytes()).decode(), pixels.shape[1], pixels.shape[0]],
    )
