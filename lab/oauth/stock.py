"""The OAuth of the PyPI package mcp: it discovers, registers, sends its person to
agree, takes the answer, calls a tool, and refreshes.

    PLAY=SETTING python stock.py python

Only the person is played here: what the protocol takes is the package's own doing.
Prints a line for each check, and `end of checks` when it left out none.
"""

import asyncio
import html
import json
import os
import re
import traceback
import urllib.error
import urllib.parse
import urllib.request

from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

SETTING = json.loads(os.environ["PLAY"])
BASE, TOKEN = SETTING["named"]["url"], SETTING["named"]["token"]
REDIRECT = "http://127.0.0.1:33418/callback"


def check(name, passed, saw=""):
    shown = str(saw).replace("\n", " ")[:1500]
    print(f"ok      {name}" if passed else f"FAILED  {name}: {shown}", flush=True)


def secret(text):
    with open(SETTING["secrets"], "a") as file:
        file.write(f"{text}\n")
    return text


class Storage:
    """A place for what the package learns."""

    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        secret(tokens.access_token)
        secret(tokens.refresh_token)
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        if client.client_secret:
            secret(client.client_secret)
        self.client = client


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: where it leads is the answer."""

    def redirect_request(self, *_):
        return None


class Person:
    """Agrees on the page, and carries the answer back."""

    answer = None

    def agree(self, url):
        page = urllib.request.urlopen(url).read().decode()
        query = html.unescape(re.search(r'name="query" value="([^"]*)"', page)[1])
        form = urllib.parse.urlencode({"query": query, "token": TOKEN, "decision": "allow"}).encode()
        request = urllib.request.Request(url.split("?")[0], form, {"Origin": BASE})
        try:
            # By a page that goes on by itself, or by a redirect.
            page = urllib.request.build_opener(Stay).open(request).read().decode()
            leads = html.unescape(re.search(r'content="0;url=([^"]*)"', page)[1])
        except urllib.error.HTTPError as reply:
            leads = reply.headers["Location"]
        self.answer = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(leads).query))
        secret(self.answer["code"])

    async def redirect(self, url):
        await asyncio.to_thread(self.agree, url)

    async def callback(self):
        answer = self.answer
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


async def ran(client):
    result = await client.call_tool("run_code", {"language": "python", "code": "print(6 * 7)"})
    return result.structured_content["output"] == "42\n"


async def go(name, method, mode):
    storage, person = Storage(), Person()
    metadata = OAuthClientMetadata(
        client_name="Stock",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method=method,
    )
    auth = OAuthClientProvider(f"{BASE}/mcp", metadata, storage, person.redirect, person.callback)
    http = create_mcp_http_client(auth=auth)
    async with Client(streamable_http_client(f"{BASE}/mcp", http_client=http), mode=mode) as client:
        check(f"{name}: it registers and runs a program", await ran(client) and storage.client.client_id.startswith("codex_cl_"))
        check(f"{name}: its answer has its issuer", person.answer["iss"] == BASE, person.answer.get("iss"))
        # What it takes for too old makes it refresh by itself.
        before = storage.tokens
        auth.context.token_expiry_time = 1
        again = await ran(client)
        after = storage.tokens
        changed = before.access_token != after.access_token and before.refresh_token != after.refresh_token
        check(f"{name}: it refreshes by itself and runs another", again and changed)


async def main():
    for mode in ["legacy", "auto"]:
        for method in ["none", "client_secret_post", "client_secret_basic"]:
            name = f"Python {mode}, registered with {method}"
            try:
                await go(name, method, mode)
            except Exception:
                check(name, False, traceback.format_exc())


asyncio.run(main())
print("end of checks")
