"""A real Chromium, driven through Debian's chromedriver: as much of the WebDriver protocol as the tests need.

W3C WebDriver, with chromedriver's `goog/cdp/execute` for what only the DevTools protocol can do (media, screen width,
scripts off, a script that runs before the page's own).
"""

import base64
import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key of an element reference (WebDriver, 12.1)."""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
WAIT_S = 15.0
_ADDRESS = "data-test-address"
"""Attribute in which each loaded page carries its address, so that it can be waited for."""


class Browser:
    """One window. Started with `started`."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        options = {"binary": "/usr/bin/chromium", "args": [*FLAGS, f"--user-data-dir={profile}"]}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self._session = f"/session/{made['sessionId']}"
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=(
            f"addEventListener('DOMContentLoaded', () => document.documentElement.setAttribute('{_ADDRESS}', location.href))"))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, self._session + path, body)

    def quit(self) -> None:
        """End the browser."""
        self._do("DELETE", "")

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A DevTools command."""
        return self._do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def go(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._do("POST", "/url", {"url": address})

    @property
    def address(self) -> str:
        """Where the browser is."""
        return str(self._do("GET", "/url"))

    def js(self, script: str, *arguments: Any) -> Any:
        """The value that a function body returns in the page."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> Any:
        """The first element that fits."""
        return self._do("POST", "/element", {"using": "css selector", "value": css})

    def click(self, css: str) -> None:
        """Click as a person would; fails if it cannot be seen."""
        self._do("POST", f"/element/{self.find(css)[ELEMENT]}/click", {})

    def type(self, css: str, text: str) -> None:
        """Clear a field and type into it."""
        element = self.find(css)[ELEMENT]
        self._do("POST", f"/element/{element}/clear", {})
        self._do("POST", f"/element/{element}/value", {"text": text})

    def press(self, key: str) -> None:
        """Press one key where the focus is."""
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def text(self, css: str) -> str:
        """What is seen of an element."""
        return str(self._do("GET", f"/element/{self.find(css)[ELEMENT]}/text"))

    def seen(self, css: str) -> bool:
        """True if an element can be seen."""
        return bool(self._do("GET", f"/element/{self.find(css)[ELEMENT]}/displayed"))

    def wait_for(self, css: str) -> None:
        """Let the browser wait until an element fits; fails if none does within `WAIT_S`."""
        self._do("POST", "/timeouts", {"implicit": round(WAIT_S * 1000)})
        try:
            self.find(css)
        finally:
            self._do("POST", "/timeouts", {"implicit": 0})

    def wait_until_at(self, end: str) -> None:
        """Wait until a page is loaded whose address ends so."""
        self.wait_for(f"html[{_ADDRESS}$='{end}']")

    def complaints(self) -> list[str]:
        """What the console said since the last time: refused content, errors of scripts."""
        return [entry["message"] for entry in self._do("POST", "/se/log", {"type": "browser"})]

    def screen(self, width: int = 1100, height: int = 900, *, dark: bool = False, media: str = "screen") -> None:
        """What kind of screen it is."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", media=media,
                 features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    @contextmanager
    def before_each_page(self, script: str) -> Iterator[None]:
        """Have a script run in every new page before the page's own."""
        made = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        """Have no script of any page run."""
        self.cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.cdp("Emulation.setScriptExecutionDisabled", value=False)


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """Chromium with a fresh profile in `folder`."""
    driver = subprocess.Popen(["/usr/bin/chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, cwd=folder)
    try:
        assert driver.stdout is not None
        line = next((line for line in driver.stdout if "started successfully on port" in line), "")
        browser = Browser(int(line.rstrip().rstrip(".").split()[-1]), folder / "profile")
        try:
            yield browser
        finally:
            browser.quit()
    finally:
        driver.terminate()
        driver.communicate(timeout=10)
