"""The server that `cargo xtask bench` compares ours with.

What a reader of a blog post writes in ten minutes: FastAPI, a temporary file and
subprocess.run. It is NO SANDBOX: whoever can call it owns the machine. Never let it
listen on anything but loopback.

BENCH_PACKAGES names the directory whose packages its programs import, so that they
see the very packages that programs of our server see.
"""

import base64
import os
import pathlib
import socket
import subprocess
import tempfile
import time
from typing import Literal

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

# The file that a program is written to, and what runs it.
LANGUAGES = {
    "python": ("main.py", "/usr/bin/python3"),
    "javascript": ("main.js", "/usr/bin/node"),
}
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # matplotlib keeps its list of fonts below it.
    "HOME": os.environ["HOME"],
}
if "BENCH_PACKAGES" in os.environ:
    ENVIRONMENT["PYTHONUSERBASE"] = os.environ["BENCH_PACKAGES"]
    # They are compiled already, and not this server's to change.
    ENVIRONMENT["PYTHONDONTWRITEBYTECODE"] = "1"

app = FastAPI()


class Request(BaseModel):
    code: str
    language: Literal["python", "javascript"] = "python"
    timeout: float = Field(10, ge=1, le=30)


@app.post("/execute")
def execute(request: Request) -> dict:
    name, interpreter = LANGUAGES[request.language]
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, name)
        source.write_text(request.code)
        started = time.monotonic()
        try:
            done = subprocess.run(
                [interpreter, str(source)],
                capture_output=True,
                cwd=directory,
                env=ENVIRONMENT,
                text=True,
                timeout=request.timeout,
            )
            output, error, exit_code = done.stdout, done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            output, error, exit_code = "", "timed out", 124
        return {
            "output": output,
            "error": error,
            "exit_code": exit_code,
            "execution_time": time.monotonic() - started,
            "files": [
                {"path": file.name, "content": base64.b64encode(file.read_bytes()).decode()}
                for file in sorted(pathlib.Path(directory).iterdir())
                if file != source and file.is_file()
            ],
        }


def main() -> None:
    # With its protocol named: asyncio turns Nagle's algorithm off only then, and
    # each answer would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    host, port = listener.getsockname()
    print(f"listening on http://{host}:{port}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
