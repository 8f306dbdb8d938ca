"""A headless Chromium over a pipe, by its DevTools protocol: what a page looks like, asks for, and gets wrong."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("AXE", ROOT / "build" / "axe" / "package" / "axe.min.js"))
"""Deque's checker of accessibility, which scripts/pages fetches."""
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
PATIENCE = "60000"  # milliseconds


def find_chromium() -> str | None:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Browser:
    """A Chromium with nothing of the user's, until the block ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sent = 0
        self._rest = b""

    def __enter__(self) -> Browser:
        with ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            (theirs, self._write), (self._read, answers) = os.pipe(), os.pipe()
            stack.callback(os.close, self._write)
            stack.callback(os.close, self._read)
            command = f'exec "$@" 3<&{theirs} 4>&{answers}'  # where it reads and writes
            self._process = subprocess.Popen(
                ["bash", "-c", command, "chromium", self._path, *FLAGS, f"--user-data-dir={home}", "about:blank"],
                pass_fds=(theirs, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "HOME": home},
            )  # fmt: skip
            os.close(theirs)
            os.close(answers)
            stack.callback(self._process.wait)
            stack.callback(self._process.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def open(self, address: str, width: int, scheme: str) -> Iterator[Page]:
        """A page of its own, so many pixels wide, in a "light" or "dark" scheme, once it is loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            page.ask(f"{domain}.enable")
        page.ask("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in page.events):
            self._receive(page)
        yield page
        self.ask("Target.closeTarget", targetId=target)

    def ask(self, method: str, *, page: Page | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a call; events that come before it are kept by the page."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if page is not None:
            message["sessionId"] = page.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(page)
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, page: Page | None) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if page is not None and "method" in message and message.get("sessionId") == page.session:
            page.events.append(message)
        return message


class Page:
    """A page that was opened, and the events of the browser about it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.ask(method, page=self, **parameters)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until a JavaScript condition holds."""
        waited = f"""new Promise((done, fail) => {{
            const begun = Date.now();
            const look = () => ({condition}) ? done(true)
                : Date.now() - begun > {PATIENCE} ? fail(new Error("waited in vain")) : setTimeout(look, 20);
            look();
        }})"""
        assert self.run(waited)

    def choose_files(self, selector: str, *files: Path) -> None:
        """As a user does in an input of files."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def list_requests(self) -> list[str]:
        """The addresses that it has asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def list_errors(self) -> list[str]:
        """What its scripts and the browser complained of."""
        raised = [
            e["params"]["exceptionDetails"]["text"] for e in self.events if e["method"] == "Runtime.exceptionThrown"
        ]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return raised + [entry["text"] for entry in logged if entry["level"] == "error"]

    def check_accessibility(self) -> list[str]:
        """What axe finds, one line for each rule that is broken."""
        self.run(f"{AXE.read_text()}; 0")
        found = self.run(
            "axe.run().then(said => said.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))]))"
        )
        return [f"{rule}: {places[:3]}" for rule, places in found]

    def take_picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        made = self.ask("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        path.write_bytes(base64.b64decode(made))

    def print_pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.printToPDF", printBackground=True)["data"]))
