# Builds the package set: `install.py TREE CACHE AT`, in a directory that holds
# packages.lock and added.txt. Prints `key=value` lines, see runtimes/README.md.
#
# It runs on the host, as the server's user, and runs no code of a package:
# only wheels are taken, and nothing of them is imported. The server imports
# them afterwards, in a sandbox. A wheel may ask for what is no wheel, by address,
# and pip would build that with code of its own: so pip may start no program.
import concurrent.futures
import glob
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import urllib.parse

# Parts in which the lock is fetched, and how many at once.
PARTS = 8
AT_ONCE = 2
# Steps after the last download: unpacking, compiling, checking.
STEPS = 3
# Lines of pip's kept for the log of a failure.
KEPT_LINES = 30
# Taken by the first who fails, and never given back.
FAILED = threading.Lock()

# pip as a program that starts no other: neither what builds packages nor git. Only
# keyring, which some operators have their passwords from, is none of a package's.
ALONE = """
import os, runpy, sys
def alone(event, args):
    if event in ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn"):
        program = str(args[0]) if args else event
        if os.path.basename(program) != "keyring":
            raise OSError("pip may start no program here, and was asked for " + os.path.basename(program))
sys.addaudithook(alone)
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

# What pip prints, what that means, and the cure. The first that fits counts:
# without a network pip says in the end that there is no such package.
FAILURES = [
    (r"No space left on device|Errno 28", "the disk is full", "Make room where the server keeps its data, then start the installation again."),
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded package is not the pinned one: its hash is another",
        "Start the installation again; if it stays so, the package index or a proxy on the way changes files, and nothing of it was used.",
    ),
    (
        r"pip may start no program",
        "what was added needs a package that does not come as a wheel of the index, and would have to be built by code of its own",
        "Leave it out, or ask for another version of it.",
    ),
    (
        r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|ProtocolError|SSLError|"
        r"Network is unreachable|Temporary failure in name resolution|Could not fetch URL|HTTP error 5",
        "the package index cannot be reached",
        "Look at the connection and pip's proxy and index settings, then start the installation again; what was fetched is kept.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies|conflict is caused by",
        "what was added does not go with the pinned packages",
        "Ask for another version of it, or leave the version out.",
    ),
    (
        r"No matching distribution found for (?P<name>[^\s(]+)",
        "there is no package {name} that fits this Python and machine and comes as a wheel",
        "Look at its name and version; what has to be compiled first is not taken.",
    ),
    (r"Invalid requirement|InvalidRequirement", "what was added is no requirement that pip understands", "Give a name, or a name and a version such as polars==1.9.0."),
    (r"externally-managed|Permission denied", "pip may not write here", "Look at the owner of the server's data directory."),
]


def say(key, value):
    # In one piece, for several threads may have something to say.
    os.write(1, ("%s=%s\n" % (key, " ".join(str(value).split()))).encode())


def fail(error, cure=None):
    FAILED.acquire()
    say("error", error)
    if cure:
        say("cure", cure)
    # At once, from whichever thread: what the others still fetch is of no use.
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def watch_lifeline():
    # Standard input ends when the server does, even by SIGKILL.
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def pip():
    """The words that start a pip of this interpreter."""
    base = [sys.executable, "-I"]
    if importlib.util.find_spec("pip"):
        return base + ["-c", ALONE]
    # Debian keeps pip apart; its ensurepip knows where.
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        made = subprocess.run(base + ["-m", "venv", "tool"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if made.returncode == 0:
            return [os.path.abspath("tool/bin/python"), "-I", "-c", ALONE]
    fail("this Python has no pip", "Install pip for it (on Debian and Ubuntu: apt install python3-venv), then start the installation again.")


def run(words, seen=lambda line: None):
    """Runs pip and ends with the reason when it fails."""
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")
    said = []
    for line in child.stdout:
        said.append(line)
        seen(line)
    if child.wait() == 0:
        return
    text = "".join(said)
    sys.stderr.write("".join(said[-KEPT_LINES:]))
    for pattern, error, cure in FAILURES:
        found = re.search(pattern, text)
        if found:
            fail(error.format(**found.groupdict()), cure)
    fail("pip failed: " + (said[-1] if said else "it said nothing"))


def requirements(text):
    """The requirements of a file, each with the lines of its hashes."""
    joined = text.replace("\\\n", " ")
    lines = (" ".join(line.split()) for line in joined.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def read(path):
    with open(path) as file:
        return file.read()


def write(path, lines):
    with open(path, "w") as file:
        file.write("".join(line + "\n" for line in lines))
    return path


def plain(name):
    """A name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Download:
    """Fetches the wheels of the lock into CACHE, where they stay for the next time."""

    def __init__(self, tool, cache):
        self.fetch = tool + ["download", "--retries", "3", "--progress-bar", "off", "--only-binary", ":all:", "--no-cache-dir"]
        self.cache = cache
        self.pinned = requirements(read("packages.lock"))
        self.total = len(self.pinned)
        self.done = 0

    def seen(self, line):
        if line.startswith("Ignoring "):
            self.total -= 1
        elif line.startswith("Collecting "):
            self.done += 1
            self.tell(0, line.split()[1].partition("==")[0])

    def tell(self, further, what):
        say("progress", "%d/%d %s" % (max(0, self.done - 1) + further, self.total + STEPS, what))

    def run(self):
        # pip keeps nothing before all is there, so it is asked for a part at a
        # time: what one has fetched survives whatever happens to the next.
        def part(number):
            path = write("part-%d.txt" % number, self.pinned[number::PARTS])
            run(self.fetch + ["-d", self.cache, "--no-deps", "--require-hashes", "-r", path], self.seen)

        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(part, number) for number in range(PARTS)]:
                done.result()

    def added(self):
        """Wheels of what was added and of what that needs, beyond the pinned ones."""
        if not requirements(read("added.txt")):
            return []
        self.tell(1, "what was added")
        bare = [line.partition(" --hash")[0] for line in self.pinned]
        os.makedirs("added")
        write("constraints.txt", bare)
        run(self.fetch + ["-d", "added", "--find-links", self.cache, "-c", "constraints.txt", "-r", "added.txt"])
        names = {plain(re.split(r"[=\s]", line)[0]) for line in bare}
        wheels = sorted(glob.glob(os.path.abspath("added/*.whl")))
        return [wheel for wheel in wheels if plain(os.path.basename(wheel).split("-")[0]) not in names]


def hashed(wheel):
    """A wheel as a requirement that pip takes beside those of the lock."""
    with open(wheel, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return "file://%s --hash=sha256:%s" % (urllib.parse.quote(wheel), digest)


def main(tree, cache, at):
    os.umask(0o022)
    # Whatever the operator's own pip is told, here it fills a directory.
    os.environ.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore")
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_DRY_RUN", "PIP_QUIET"):
        os.environ.pop(name, None)
    threading.Thread(target=watch_lifeline, daemon=True).start()
    say("progress", "0/0 preparing")
    tool = pip()
    download = Download(tool, cache)
    download.run()
    wheels = download.added()
    download.tell(1, "unpacking")
    # Where Python looks below PYTHONUSERBASE: after its own library, so that no
    # package can hide a module of it, and by version, so that no other Python sees it.
    site = sysconfig.get_path("purelib", "posix_user", {"userbase": tree})
    os.makedirs(os.path.dirname(site))
    everything = write("all.txt", download.pinned + [hashed(wheel) for wheel in wheels])
    words = ["install", "--only-binary", ":all:", "--no-deps", "--no-index", "--no-compile", "--no-warn-script-location", "--no-cache-dir"]
    # The hashes are compared once more: the cache is only a directory.
    run(tool + words + ["--find-links", cache, "--require-hashes", "--target", site, "-r", everything])
    # Scripts name an interpreter that a program may not have.
    shutil.rmtree(os.path.join(site, "bin"), ignore_errors=True)
    download.tell(2, "compiling")
    words = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "2", "-x", "/tests/"]
    # The paths that tracebacks name; elsewhere each import would mend them.
    words += ["-s", tree, "-p", at, site]
    # A file that some other version of Python is meant for does not compile.
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for path in sorted(glob.glob(os.path.join(site, "*.dist-info"))):
        name, version = os.path.basename(path)[: -len(".dist-info")].rsplit("-", 1)
        say("package", "%s %s" % (plain(name), version))
    download.tell(3, "checking")


main(*sys.argv[1:])
