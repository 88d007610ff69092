"""One JupyterLab and one Chromium for all of the widgets' tests; without one of them the tests are skipped.

Nothing waits for a time that passes: the bounds are for a page that hangs, not for a machine that is busy.
"""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from outside import Outside

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOKEN = "secret"
PATIENCE = 300  # seconds
NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there: nothing the browser asks for leaves the machine
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--disable-domain-reliability"]
# Clicking "Run all" as soon as the kernel is called idle loses cells: the kernel's own answer must be waited for.
RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    await app.commands.execute('notebook:run-all-cells');
}"""
ASK = """async (expression) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const asked = kernel.requestExecute({code: '', user_expressions: {answer: expression}, store_history: false});
    return (await asked.done).content.user_expressions.answer;
}"""
DO = """async (code) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const done = await kernel.requestExecute({code, store_history: false}).done;
    return done.content.status === 'ok' ? '' : `${done.content.ename}: ${done.content.evalue}`;
}"""


@pytest.fixture(scope="session")
def chromium():
    """The path of the system's browser; nothing is downloaded."""
    pytest.importorskip("playwright", reason="browser tests need playwright: pip install -e '.[test]'")
    found = next(filter(None, (os.environ.get("FSSLIB_CHROMIUM"), *map(shutil.which, CHROMIUM))), None)
    if found is None:
        pytest.skip("browser tests need Chromium: install your system's, or name it in the variable FSSLIB_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def outside():
    """Where the server and its kernels believe the rest of the world to be."""
    place = Outside()
    yield place
    place.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory, outside):
    """A running JupyterLab: `folder` for notebooks, `url(name)` of an opened notebook."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    settings = home / "settings"
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    books = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    books.parent.mkdir(parents=True)
    books.write_text('{"windowingMode": "none"}')  # cells that are out of sight stay on the page
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": home / name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"HOME": home, "IPYTHONDIR": home / "ipython", "JUPYTERLAB_SETTINGS_DIR": settings}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": home / "workspaces"}
    proxies = {f"{kind}_proxy": outside.address for kind in ("http", "https")} | {"no_proxy": "127.0.0.1,localhost"}
    proxies |= {name.upper(): value for name, value in proxies.items()}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    options += ["--LabApp.extension_manager=readonly", f"--notebook-dir={folder}"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**os.environ, **{name: str(place) for name, place in places.items()}, **proxies},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for_server(server, port, home / "log")
        yield Lab(folder, f"http://127.0.0.1:{port}")
    finally:
        server.terminate()  # the server ends its kernels
        try:
            server.wait(300)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for_server(server: subprocess.Popen, port: int, log: Path) -> None:
    # The machine's own proxy settings must not stand between the test and its server.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(5 * PATIENCE):
        if server.poll() is not None:
            break
        try:
            direct.open(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=PATIENCE).read()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


class Lab:
    """The server's folder and addresses."""

    def __init__(self, folder: Path, address: str):
        self.folder, self.address = folder, address

    def write(self, name: str, *cells: str, outputs: list | None = None) -> None:
        """A notebook with these code cells; `outputs` are stored with the last one."""
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        notebook.cells[-1].outputs = outputs or []
        nbformat.write(notebook, self.folder / f"{name}.ipynb")

    def url(self, name: str) -> str:
        """Each notebook in a work space of its own: nothing is left open from before."""
        return f"{self.address}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}&reset"


class Tab:
    """An opened notebook: `page` for the browser's side, `ask` and `do` for the kernel's."""

    def __init__(self, page):
        self.page = page

    def ask(self, expression: str):
        """The value of a Python expression in the notebook's kernel, behind everything the widget has sent."""
        answer = self.page.evaluate(ASK, f"__import__('json').dumps({expression})")
        assert answer["status"] == "ok", answer
        return json.loads(ast.literal_eval(answer["data"]["text/plain"]))

    def do(self, code: str) -> str:
        """Run code in the kernel; the error it ends with, or an empty text."""
        return self.page.evaluate(DO, code)

    def until(self, expression: str, wanted):
        """Wait until a Python expression has this value: messages of the widget are on their way for a moment."""
        end = time.monotonic() + PATIENCE
        while (found := self.ask(expression)) != wanted and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        assert found == wanted


@pytest.fixture(scope="session")
def browser(chromium, lab):
    """A browser context with a touch screen.

    `noise` collects console errors and uncaught exceptions, `strangers` what pages ask of anybody but the server (the
    browser's own calls home, for updates, are no page's doing; they get nowhere).
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        program = play.chromium.launch(
            executable_path=chromium, headless=True, args=QUIET, proxy={"server": NOWHERE, "bypass": "127.0.0.1"}
        )
        context = program.new_context(has_touch=True, viewport={"width": 1100, "height": 1000})
        context.set_default_timeout(1000 * PATIENCE)
        # anywidget gives a model two seconds by the clock, which a busy machine exceeds.
        context.add_init_script("AbortSignal.timeout = () => new AbortController().signal")
        context.noise, context.strangers = [], []

        def noted(request) -> None:
            if not request.url.startswith((f"{lab.address}/", lab.address.replace("http", "ws"), "data:", "blob:")):
                context.strangers.append(request.url)

        context.on("request", noted)
        context.on("page", lambda page: page.on("websocket", noted))
        context.on("console", lambda message: message.type == "error" and context.noise.append(message.text))
        context.on("weberror", lambda error: context.noise.append(str(error.error)))
        yield context
        program.close()


@pytest.fixture(scope="session")
def open_tab(browser, lab):
    """Open a notebook that `lab.write` made; `run` executes all of it."""

    def opened(name: str, run: bool = True) -> Tab:
        page = browser.new_page()
        page.goto(lab.url(name))
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        if run:
            page.evaluate(RUN_ALL)
        return Tab(page)

    return opened
