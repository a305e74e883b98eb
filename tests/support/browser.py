"""A real browser, Chromium, which opens one page of tests/interop/browser and tells what its cases found.

    results = run(page(), {"target": "http://localhost:1234"}, {"/descriptors": …})     # case → "passed", or why not

The page's script is bundled with gRPC-Web's clients of Connect and of Google, whose versions tests/interop/browser/package-lock.json pins; the
bundle goes to build/peers/browser/, which git ignores.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from tests.support.need import ROOT, missing, program
from tests.support.peers import CACHE
from tests.support.processes import Process

SOURCES = ROOT / "tests" / "interop" / "browser"
INPUTS = ("package.json", "package-lock.json", "page.js")
NEED_NODE = "apt-get install nodejs npm, and let npm reach a registry"
BUNDLING = 240.0
# For a browser to start, on a busy machine, and all cases.
PATIENCE = 100.0


def page() -> Path:
    """The bundled script."""
    npm = program("npm", NEED_NODE)
    digest = hashlib.sha256(b"\0".join((SOURCES / name).read_bytes() for name in INPUTS)).hexdigest()[:16]
    folder = CACHE / "browser" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bundle.js").exists():
            for earlier in folder.parent.glob("*/"):
                shutil.rmtree(earlier)
            folder.mkdir()
            for name in INPUTS:
                shutil.copy(SOURCES / name, folder)
            try:
                for command in (
                    [npm, "ci", "--no-audit", "--no-fund"],
                    [str(folder / "node_modules" / ".bin" / "esbuild"), "page.js", "--bundle", "--format=iife", "--outfile=made.js"],
                ):
                    subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUNDLING, check=True)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                missing(f"the browser's page ({' '.join(said.split())[-300:]})", NEED_NODE)
            (folder / "made.js").rename(folder / "bundle.js")
    return folder / "bundle.js"


def run(script: Path, arguments: Mapping[str, str], files: Mapping[str, bytes], origin: str = "localhost") -> dict[str, str]:
    """Open the page, which also may fetch `files`, and wait for what it posts to /results."""
    chromium = program("chromium", "apt-get install chromium")
    posted: queue.Queue[dict[str, str]] = queue.Queue()
    content = {"/": b"<!doctype html><title>weego</title><script src=/script.js></script>", "/script.js": script.read_bytes(), **files}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()
            posted.put(said)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as profile:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        url = f"http://{origin}:{server.server_port}/?{urlencode(arguments)}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0"]
        try:
            with Process([chromium, *options, f"--user-data-dir={profile}", url]) as process:
                try:
                    return posted.get(timeout=PATIENCE)
                except queue.Empty:
                    raise AssertionError(f"the page did not tell its results; Chromium said:\n{process.output}") from None
        finally:
            server.shutdown()
            thread.join()
