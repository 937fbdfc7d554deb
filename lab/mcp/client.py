"""Uses a server as the PyPI package mcp does, and prints a JSON line for each check.

    python client.py legacy|auto VERSION http URL TOKEN
    python client.py legacy|auto VERSION tunnel URL
    python client.py legacy|auto VERSION stdio COMMAND [ARGUMENT…]

client.mjs makes the same checks and says what a line looks like.
"""

import asyncio
import base64
import hashlib
import json
import os
import pathlib
import sys
import traceback
import uuid

from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

MODE, VERSION, KIND, *ADDRESS = sys.argv[1:]
PROGRAMS = json.loads(pathlib.Path(__file__).with_name("programs.json").read_text())
PNG = b"\x89PNG\r\n\x1a\n"
# Files that the program `report` writes, with their types.
WRITTEN = {
    "chart.png": "image/png",
    "table.xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
# Seconds for a cancelled program to be gone.
PATIENCE = 3


def report(check, passed, saw):
    print(json.dumps({"check": check, "passed": bool(passed), "saw": saw}, default=repr), flush=True)


def runs(mark):
    """Whether a process of this machine has the mark among its arguments."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            pass  # It has just ended.
    return False


async def becomes(wanted, mark):
    end = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < end:
        if runs(mark) == wanted:
            return True
        await asyncio.sleep(0.02)
    return False


def server():
    if KIND != "stdio":
        url, *tokens = ADDRESS
        headers = {"Authorization": f"Bearer {token}" for token in tokens}
        http = create_mcp_http_client(headers=headers)
        return streamable_http_client(url, http_client=http)
    command, *arguments = ADDRESS
    return StdioServerParameters(command=command, args=arguments, env=dict(os.environ))


async def tools(client):
    names = sorted(tool.name for tool in (await client.list_tools()).tools)
    return names == ["create_session", "fork_context", "list_files", "list_languages", "read_file", "run_code", "run_command", "write_file"], names


async def languages(client):
    listed = (await client.call_tool("list_languages", {})).structured_content["languages"]
    return any(one["name"] == "python" and one["available"] for one in listed), listed


async def picture(client):
    result = await client.call_tool("run_code", {"code": PROGRAMS["picture"]})
    images = [block for block in result.content if block.type == "image"]
    begin = base64.b64decode(images[0].data)[:8]
    return images[0].mime_type == "image/png" and begin == PNG, begin.hex()


async def structured(client):
    told = (await client.call_tool("run_code", {"code": "print(6 * 7)"})).structured_content
    return (told["status"], told["exit_code"], told["output"]) == ("success", 0, "42\n"), told


async def file(client):
    sent = {"in.csv": "city,people\nBern,134\nZürich,421\n".encode(), "in.bin": bytes(range(256))}
    files = [
        {"path": "in.csv", "content": sent["in.csv"].decode()},
        {"path": "in.bin", "content": base64.b64encode(sent["in.bin"]).decode(), "encoding": "base64"},
    ]
    result = await client.call_tool("run_code", {"code": PROGRAMS["report"], "files": files})
    told = result.structured_content
    # What the program says of each file that it read or wrote: its SHA-256.
    said = dict(line.split(" ") for line in told["output"].splitlines())
    seen = {name: hashlib.sha256(data).hexdigest() for name, data in sent.items()}
    known = True
    for name, kind in WRITTEN.items():
        uri = next(one["uri"] for one in told["files"] if one["path"] == name)
        linked = any(block.type == "resource_link" and str(block.uri) == uri for block in result.content)
        contents = (await client.read_resource(uri)).contents[0]
        known = known and linked and contents.mime_type == kind
        seen[name] = hashlib.sha256(base64.b64decode(contents.blob)).hexdigest()
    return known and said == seen, {"known": known, "said": said, "seen": seen}


async def progress(client):
    heard = []

    async def hear(_progress, _total, message):
        heard.append(message)

    await client.call_tool("run_code", {"code": PROGRAMS["slow"]}, progress_callback=hear)
    return len(heard) >= 2 and any("step" in one for one in heard), heard


async def cancel(client):
    mark = f"mark-{uuid.uuid4()}"
    arguments = {"code": PROGRAMS["endless"], "args": [mark], "timeout": 30}
    running = asyncio.ensure_future(client.call_tool("run_code", arguments))
    began = await becomes(True, mark)
    running.cancel()
    try:
        ended = repr(await running)
    except asyncio.CancelledError:
        ended = "cancelled"
    gone = await becomes(False, mark)
    return began and ended == "cancelled" and gone, {"began": began, "ended": ended, "gone": gone}


async def refusal(client):
    result = await client.call_tool("run_code", {"code": "print(1)", "language": "no-such-language"})
    return result.is_error and result.content[0].text, result


async def failing(client):
    result = await client.call_tool("run_code", {"code": PROGRAMS["failing"]})
    told = result.structured_content
    right = (told["exit_code"], told["output"]) == (3, "about to fail\n")
    return not result.is_error and right, result


CHECKS = {
    "tools": tools,
    "languages": languages,
    "picture": picture,
    "structured content": structured,
    "file and resource": file,
    "progress": progress,
    "cancel": cancel,
    "refusal is an error": refusal,
    "failing program is a result": failing,
}


# A client without sessions cancels by closing its stream, of which the product tells
# a tunnel nothing.
if KIND == "tunnel" and MODE != "legacy":
    del CHECKS["cancel"]


async def main():
    async with Client(server(), mode=MODE) as client:
        report("version", client.protocol_version == VERSION, client.protocol_version)
        for name, check in CHECKS.items():
            try:
                passed, saw = await check(client)
                report(name, passed, saw)
            except Exception:
                report(name, False, traceback.format_exc())


asyncio.run(main())
