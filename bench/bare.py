"""What `cargo xtask bench` measures beside servers: subprocess.run, and no server.

Reads requests as lines of JSON, and answers each with a line, as bench/naive.py does.
With `--bubblewrap` around the interpreter as well. Never reads a request before it
has answered the last one.

BENCH_PACKAGES names the directory whose packages programs import, as there.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

LANGUAGES = {
    "python": ("main.py", "/usr/bin/python3"),
    "javascript": ("main.js", "/usr/bin/node"),
}
PACKAGES = os.environ.get("BENCH_PACKAGES")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": os.environ["HOME"],
}
if PACKAGES:
    ENVIRONMENT["PYTHONUSERBASE"] = PACKAGES
    ENVIRONMENT["PYTHONDONTWRITEBYTECODE"] = "1"

# Namespaces of all kinds, and of the machine only what interpreters read.
BUBBLEWRAP = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
BUBBLEWRAP += ["--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]
for path in ["/usr", "/lib", "/lib64", "/etc", *([PACKAGES] if PACKAGES else [])]:
    BUBBLEWRAP += ["--ro-bind-try", path, path]


def run(request: dict, wrapped: bool) -> dict:
    name, interpreter = LANGUAGES[request["language"]]
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, name)
        source.write_text(request["code"])
        words = [interpreter, str(source)]
        if wrapped:
            box = ["--ro-bind", directory, directory, "--chdir", directory]
            words = [*BUBBLEWRAP, *box, *words]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=directory,
            env=ENVIRONMENT,
            text=True,
            timeout=request["timeout"],
        )
    return {
        "output": done.stdout,
        "error": done.stderr,
        "exit_code": done.returncode,
        "files": [],
    }


def main() -> None:
    wrapped = "--bubblewrap" in sys.argv[1:]
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), wrapped)), flush=True)


if __name__ == "__main__":
    main()
