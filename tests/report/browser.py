"""Headless Chromium through chromedriver: as much of the WebDriver protocol as the report's tests need.

Network events and console messages come from the driver's logs, so that a test can see every request that a page makes.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str | None:
    """What is not installed, in words; None when a browser can be started."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)} not installed (CI installs them)" if names else None


class Browser:
    """One window."""

    def __init__(self, url: str, session: str) -> None:
        self._url = f"{url}/session/{session}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _http(method, self._url + path, body)

    def open(self, path: Path) -> None:
        self._call("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *args: Any) -> Any:
        """What ``return ...`` in ``script`` gives; promises are waited for."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def wait(self, condition: str) -> None:
        """Until the script expression is true."""
        for _ in range(600):
            if self.run(f"return Boolean({condition})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    def find(self, selector: str) -> dict[str, str]:
        found: dict[str, str] = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found

    def text(self, selector: str) -> str:
        """What a reader sees of an element; needs no script in the page."""
        return str(self._call("GET", f"/element/{self.find(selector)[_ELEMENT]}/text"))

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self.find(selector)[_ELEMENT]}/click", {})

    def keys(self, text: str) -> None:
        """Type at whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self._pointer([{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)}])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": int(start[0]), "y": int(start[1])},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 100, "x": int((start[0] + end[0]) / 2), "y": int(end[1])},
            {"type": "pointerMove", "duration": 100, "x": int(end[0]), "y": int(end[1])},
            {"type": "pointerUp", "button": 0},
        ]
        self._pointer(moves)

    def _pointer(self, actions: list[dict[str, Any]]) -> None:
        source = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._call("POST", "/actions", {"actions": [source]})

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def colour_shares(self, png: bytes) -> Counter[tuple[int, int, int]]:
        """What part of the picture has each colour; the browser itself decodes it."""
        script = """
            const image = new Image();
            image.src = "data:image/png;base64," + arguments[0];
            await image.decode();
            const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const words = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
            const counts = new Map();
            for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1 / words.length);
            return [...counts].filter(([, share]) => share > 0.001);
        """
        found = self.run(
            f"return (async function () {{ {script} }}).apply(null, arguments)", base64.b64encode(png).decode()
        )
        shares: Counter[tuple[int, int, int]] = Counter()
        for word, share in found:
            shares[word & 255, word >> 8 & 255, word >> 16 & 255] += share
        return shares

    def emulate(self, scheme: str) -> None:
        """``dark`` or ``light``, as the user's system would ask for."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._cdp("Emulation.setEmulatedMedia", {"features": features})

    def switch_scripts_off(self) -> None:
        self._cdp("Emulation.setScriptExecutionDisabled", {"value": True})

    def _cdp(self, command: str, params: dict[str, Any]) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def console(self) -> list[str]:
        """Warnings and errors since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        entries = self._call("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def _http(method: str, url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error


@contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[Browser]:
    """A fresh headless Chromium; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        session: str | None = None
        url = ""
        try:
            url = _driver_url(driver)
            arguments = [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                "--no-first-run", "--disable-background-networking", "--force-device-scale-factor=1",
                f"--user-data-dir={profile}", f"--window-size={width},{height}",
            ]  # fmt: skip
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            opened = _http("POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
            session = opened["sessionId"]
            assert session is not None
            yield Browser(url, session)
        finally:
            if session is not None:
                _http("DELETE", f"{url}/session/{session}", None)
            driver.terminate()
            driver.wait(timeout=30)
            if driver.stdout is not None:
                driver.stdout.close()


def _driver_url(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return f"http://127.0.0.1:{line.rstrip().rstrip('.').rsplit(' ', 1)[1]}"
    raise AssertionError("chromedriver did not start")
