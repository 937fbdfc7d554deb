"""The bare server that cold starts are compared with.

A FastAPI endpoint around subprocess.run, one uvicorn worker, no sandbox: what
people write in ten minutes. Prints its address the way our server does.
"""

import socket
import subprocess
import time
from typing import Literal

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

INTERPRETERS = {
    "python": ["/usr/bin/python3", "-c"],
    "javascript": ["/usr/bin/node", "-e"],
}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}

app = FastAPI()


class Request(BaseModel):
    code: str
    language: Literal["python", "javascript"] = "python"
    timeout: int = Field(10, ge=1, le=30)


@app.post("/execute")
def execute(request: Request) -> dict:
    started = time.monotonic()
    try:
        done = subprocess.run(
            [*INTERPRETERS[request.language], request.code],
            capture_output=True,
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
