"""Headless Chromium, driven over its DevTools protocol: pages are looked at and clicked as a person would."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from services.s3_server import free_ports
from websocket import WebSocket, create_connection

PATIENCE = 60.0  # seconds for something to appear
FIND = """(() => {
  const wanted = %s;
  const seen = element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const named = element => (element.innerText || element.ariaLabel || '').trim();
  const all = [...document.querySelectorAll(%s)].filter(seen)
    .filter(element => !wanted || named(element).match(wanted));
  all.sort((a, b) => (a.innerText || '').length - (b.innerText || '').length);
  if (!all.length) return null;
  all[0].scrollIntoView({block: 'center'});
  const box = all[0].getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""


class Browser:
    """One window. ``with Browser(folder) as page``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count(1)

    def __enter__(self) -> Browser:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        assert program, "Chromium is not installed: apt-get install chromium"
        (port,) = free_ports(1)
        quiet = [
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command = [
            program,
            "--headless",
            "--no-sandbox",
            *quiet,
            f"--user-data-dir={self.folder}",
            f"--remote-debugging-port={port}",
        ]
        command += ["--remote-allow-origins=*", "--window-size=1500,1000", "about:blank"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/json", timeout=2) as answer:
                    pages = [item for item in json.load(answer) if item["type"] == "page"]
                self.socket: WebSocket = create_connection(pages[0]["webSocketDebuggerUrl"], timeout=PATIENCE)
                return self
            except (OSError, IndexError):
                assert time.monotonic() < end, "Chromium did not start"
                time.sleep(0.2)

    def __exit__(self, *arguments: object) -> None:
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def ask(self, script: str) -> Any:
        return self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def open(self, address: str) -> None:
        self.tell("Page.navigate", url="about:blank")
        self.tell("Page.navigate", url=address)

    def leave_and_return(self) -> None:
        """Open an empty page, and go back: the browser fills in again what it remembers of the first one."""
        address = self.ask("location.href")
        self.tell("Page.navigate", url="about:blank")
        self._arrive("about:blank")
        history = self.tell("Page.getNavigationHistory")
        self.tell("Page.navigateToHistoryEntry", entryId=history["entries"][history["currentIndex"] - 1]["id"])
        self._arrive(address)

    def _arrive(self, address: str) -> None:
        end = time.monotonic() + PATIENCE
        while self.ask("document.readyState == 'complete' && location.href") != address:
            assert time.monotonic() < end, f"{address} did not open"
            time.sleep(0.3)

    def text(self) -> str:
        return str(self.ask("document.body ? document.body.innerText : ''") or "")

    def wait(self, *texts: str) -> str:
        """Text of the page once all of ``wanted`` are on it."""
        end = time.monotonic() + PATIENCE
        while True:
            text = self.text()
            if all(item in text for item in texts):
                return text
            assert time.monotonic() < end, (
                f"{[item for item in texts if item not in text]} did not appear on: {text[:3000]}"
            )
            time.sleep(0.3)

    def position(self, selector: str, pattern: str = "") -> tuple[float, float]:
        """Centre of the smallest visible element that matches; ``pattern`` is a regular expression on its text or
        label.
        """
        script = FIND % (f"new RegExp({json.dumps(pattern)})" if pattern else "null", json.dumps(selector))
        end = time.monotonic() + PATIENCE
        while True:
            result = self.ask(script)
            if result:
                return float(result[0]), float(result[1])
            assert time.monotonic() < end, f"no {selector} {pattern!r} on: {self.text()[:2000]}"
            time.sleep(0.3)

    def click(self, selector: str, pattern: str = "") -> None:
        """With the mouse, where the element is."""
        x, y = self.position(selector, pattern)
        time.sleep(0.3)  # until scrolling and animations are over
        x, y = self.position(selector, pattern)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.tell("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="jpeg", quality=70)["data"]))


def keep(browser: Browser, name: str) -> None:
    """A picture of the page, in the folder CAPNET_SCREENSHOTS where it is set."""
    folder = os.environ.get("CAPNET_SCREENSHOTS")
    browser.picture((Path(folder) if folder else browser.folder) / name)
