"""Reads streams as programs in Python do that use a client of PyPI.

    python clients.py SETTING

SETTING is a file of JSON: {"url": the server's, "token": …, "texts": [{"name": …,
"request": the body}]}. For each client and text a line of JSON is printed, as
clients.mjs and browser.mjs do: {"client": …, "text": …, "events": [[name, data], …],
"failure": what was raised, or null}.

Judges nothing, and never mends what a client took for an event.
"""

import asyncio
import json
import pathlib
import sys

import aiohttp
import aiohttp_sse_client.client
import aiohttp_sse_client2.client
import httpx
import httpx_sse
import requests
import sseclient

SETTING = json.loads(pathlib.Path(sys.argv[1]).read_text("utf-8"))
URL = SETTING["url"] + "/execute"
HEADERS = {"Authorization": "Bearer " + SETTING["token"], "Accept": "text/event-stream"}
# Seconds without a byte.
PATIENCE = 10
# Bytes of a line that aiohttp may read; by itself it gives up at 128 KiB.
LINE = 4 * 1024 * 1024


def events(lines):
    """Yields the events of lines, as people write it who use no client for events."""
    event = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("event", "data"):
            event[name] = value
        elif not line and "data" in event:
            yield event.get("event", "message"), event["data"]
            event = {}


def with_httpx(request, heard):
    """Reads with httpx and its `iter_lines`."""
    with httpx.stream("POST", URL, json=request, headers=HEADERS, timeout=PATIENCE) as answer:
        answer.raise_for_status()
        heard.extend(events(answer.iter_lines()))


def with_httpx_sse(request, heard):
    """Reads with httpx-sse."""
    with httpx.Client(headers=HEADERS, timeout=PATIENCE) as client:
        with httpx_sse.connect_sse(client, "POST", URL, json=request) as source:
            heard.extend((event.event, event.data) for event in source.iter_sse())


def answered(request):
    """Returns what requests gets, before its body is read."""
    answer = requests.post(URL, json=request, headers=HEADERS, stream=True, timeout=PATIENCE)
    answer.raise_for_status()
    return answer


def with_requests(request, heard):
    """Reads with requests and its `iter_lines`, as text."""
    with answered(request) as answer:
        heard.extend(events(answer.iter_lines(decode_unicode=True)))


def with_sseclient(request, heard):
    """Reads with sseclient-py on top of requests."""
    with answered(request) as answer:
        heard.extend((event.event, event.data) for event in sseclient.SSEClient(answer).events())


class Ended(Exception):
    """The stream has ended; without it these clients would send the request again."""


def ended():
    """Leaves a client that is about to connect again."""
    raise Ended


def with_aiohttp(source):
    """Returns what reads with one of the two clients for aiohttp."""

    async def read(request, heard):
        timeout = aiohttp.ClientTimeout(sock_read=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=LINE) as session:
            reading = source(
                URL, option={"method": "POST"}, session=session, on_error=ended,
                json=request, headers=dict(HEADERS),
            )
            async with reading:
                async for event in reading:
                    heard.append((event.type or "message", event.data))

    def run(request, heard):
        try:
            asyncio.run(read(request, heard))
        except Ended:
            pass

    return run


CLIENTS = {
    "httpx": with_httpx,
    "httpx-sse": with_httpx_sse,
    "requests": with_requests,
    "sseclient-py": with_sseclient,
    "aiohttp-sse-client": with_aiohttp(aiohttp_sse_client.client.EventSource),
    "aiohttp-sse-client2": with_aiohttp(aiohttp_sse_client2.client.EventSource),
}

for client, read in CLIENTS.items():
    for text in SETTING["texts"]:
        heard, failure = [], None
        try:
            read(text["request"], heard)
        except Exception as error:
            failure = repr(error)
        told = {"client": client, "text": text["name"], "events": heard, "failure": failure}
        print(json.dumps(told), flush=True)
