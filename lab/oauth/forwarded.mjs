// Who says at what address a server is: the operator, or the proxy that he trusts;
// never a client. Each place where the address stands is read, at a server that was
// told it and at one that was not, through the proxy and past it, with honest headers
// and with forged ones. No answer may name the forger's host.

import { Client, decide, leadsTo } from "./client.mjs";
import { CHATGPT, open } from "./hosts.mjs";
import { address, ask, callTools, check, part, secret, setting } from "./play.mjs";

const EVIL = "evil.example";
// What a client can say about its way here.
const FORGERIES = {
  "X-Forwarded-Host": EVIL,
  "X-Forwarded-Proto": "gopher",
  "X-Forwarded-For": "52.0.0.99",
  "X-Forwarded-Prefix": `/${EVIL}`,
  "X-Forwarded-Port": "666",
  "X-Forwarded-Server": EVIL,
  "X-Original-Host": EVIL,
  "X-Real-IP": "52.0.0.99",
  Forwarded: `for=52.0.0.99;proto=https;host=${EVIL}`,
  Via: `1.1 ${EVIL}`,
};
const FORGED = [...Object.entries(FORGERIES).map(([name, value]) => ({ [name]: value })), FORGERIES];
const ALL = [{}, ...FORGED];
const PROGRAM = "open('made.txt', 'w').write('x' * 10)";
const REDIRECT = "https://chatgpt.com/connector_platform_oauth_redirect";

const show = (headers) => Object.keys(headers).join("+").slice(0, 60) || "no headers";

// Reads every place of a server at `at`; gives each as [place, text].
async function places(at, token, headers, withOAuth) {
  const get = async (path) => (await ask(`${at}${path}`, { headers })).text;
  const found = [];
  const refused = await callTools(`${at}/mcp`, undefined, "", { headers });
  found.push(["challenge", `${refused.challenge}`]);
  for (const path of ["/openapi.json", "/"]) found.push([path, await get(path)]);
  const ran = await ask(`${at}/execute`, {
    method: "POST",
    headers: { ...headers, Authorization: `Bearer ${token}` },
    body: { code: PROGRAM, language: "python" },
  });
  found.push(["link of a file", ran.json().files[0].url]);
  // Over MCP links are given by a server that was told its address, and by no other.
  const told = at === setting.named.url || at.endsWith(`:${setting.named.port}`);
  found.push(["result of a tool", (await callTools(`${at}/mcp`, token, PROGRAM, { headers })).text, !told]);
  if (!withOAuth) return found;
  for (const path of ["protected-resource", "authorization-server"]) {
    for (const end of ["", "/mcp"]) found.push([path + end, await get(`/.well-known/oauth-${path}${end}`)]);
  }
  return found;
}

// The page that asks, and where an answer goes; at the address that counts.
async function consent(at, base, headers) {
  const client = new Client({ name: "", base, id: CHATGPT, redirect: REDIRECT });
  const asked = client.request().replace(base, at);
  const page = await ask(asked, { headers });
  const denied = await decide(asked, { decision: "deny" }, { headers: { ...headers, Origin: base } });
  return [["page that asks", page.text], ["issuer of an answer", leadsTo(denied).searchParams.get("iss")]];
}

function judge(what, found, base) {
  const bad = ([, text, silent]) => text.includes(EVIL) || text.includes(":666") || (silent ? /https?:/.test(text) : !text.includes(base));
  const wrong = found.filter(bad);
  check(`${what}: ${found.length} places name ${base}`, wrong.length === 0, wrong.map(([place, text]) => `${place}: ${text.slice(0, 300)}`));
}

// The server that was told: nothing that anybody sends counts, on any way.
async function named() {
  const { url, port, token } = setting.named;
  const straight = `http://${setting.server}:${port}`;
  for (const headers of [...ALL, { Host: EVIL }]) {
    const found = await places(url, token, headers, true);
    found.push(...await consent(url, url, headers));
    judge(`told, by its proxy, ${show(headers)}`, found, url);
  }
  for (const headers of [{}, FORGERIES, { Host: new URL(url).host }]) {
    const found = await places(straight, token, headers, true);
    found.push(...await consent(straight, url, headers));
    judge(`told, past its proxy, ${show(headers)}`, found, url);
  }
  const foreign = await ask(`${straight}/execute`, { method: "POST", headers: { Host: EVIL, Authorization: `Bearer ${token}` }, body: { code: "1", language: "python" } });
  check("told, past its proxy: another Host is refused", foreign.status === 403, foreign);
}

// The server that was not: its proxy says, and past the proxy nobody does.
async function bare() {
  const { url, port, token } = setting.bare;
  const straight = `http://${setting.server}:${port}`;
  for (const headers of ALL) {
    const found = await places(url, token, headers, true);
    found.push(...await consent(url, url, headers));
    judge(`not told, by its proxy, ${show(headers)}`, found, url);
  }
  for (const headers of ALL) {
    const found = await places(straight, token, headers, false);
    const [[, challenge], ...others] = found;
    judge(`not told, past its proxy, ${show(headers)}`, others, straight);
    const metadata = await ask(`${straight}/.well-known/oauth-authorization-server`, { headers });
    const none = metadata.status === 404 && !metadata.text.includes(EVIL) && !challenge.includes("resource_metadata");
    check(`not told, past its proxy, ${show(headers)}: no OAuth is promised`, none, { metadata, challenge });
  }
}

// Wrong tokens are counted by the address that the proxy saw, whatever a client says;
// one proxy replaces what it says, the other adds to it.
async function counted(site, from, other) {
  const guess = (nth) => ask(`${site.url}/execute`, {
    method: "POST", from, body: {},
    headers: { Authorization: `Bearer codex_wrong${nth}`, "X-Forwarded-For": `52.0.1.${nth}`, "X-Real-IP": `52.0.1.${nth}`, Forwarded: `for=52.0.1.${nth}` },
  });
  let last;
  for (let nth = 1; nth <= 200 && last?.status !== 429; nth++) last = await guess(nth);
  check(`who guesses tokens at ${site.url} cannot change his address by a header`, last.status === 429, last);
  const elsewhere = await ask(`${site.url}/execute`, { method: "POST", from: other, body: {}, headers: { Authorization: "Bearer codex_wrong" } });
  check("and locks out nobody else", elsewhere.status === 401, elsewhere);
}

export async function play() {
  await open();
  for (const { token } of [setting.named, setting.bare]) secret(token);
  await part("told", named);
  await part("not told", bare);
  await part("counted", () => counted(setting.named, address(30), address(31)));
  await part("counted where the proxy adds", () => counted(setting.bare, address(32), address(33)));
}
