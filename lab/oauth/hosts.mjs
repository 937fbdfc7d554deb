// The hosts of others: ChatGPT's, Claude's and strangers', with real TLS, each with
// its documents and with the page at which an answer lands. Hostile documents too.

import { readFileSync } from "node:fs";
import { createServer as createPlain } from "node:http";
import { createServer } from "node:https";

import { setting } from "./play.mjs";

export const CHATGPT = "https://chatgpt.com/oauth/client.json";
export const CLAUDE = "https://claude.ai/oauth/mcp-oauth-client-metadata";
export const CLAUDE_CODE = "https://claude.ai/oauth/claude-code-client-metadata";
export const STRANGER = "https://app.stranger.example/client.json";

// As ChatGPT publishes it: the singular says private_key_jwt, the plural both.
const chatgpt = {
  client_id: CHATGPT,
  client_name: "ChatGPT",
  client_uri: "https://chatgpt.com",
  logo_uri: "https://chatgpt.com/logo.png",
  redirect_uris: ["https://chatgpt.com/connector_platform_oauth_redirect"],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  token_endpoint_auth_method: "private_key_jwt",
  token_endpoint_auth_methods_supported: ["none", "private_key_jwt"],
  token_endpoint_auth_signing_alg: "RS256",
  jwks_uri: "https://chatgpt.com/oauth/jwks.json",
};

const claude = {
  client_id: CLAUDE,
  client_name: "Claude",
  client_uri: "https://claude.ai",
  redirect_uris: ["https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  token_endpoint_auth_method: "none",
};

// Without ports and without a type.
const claudeCode = {
  client_id: CLAUDE_CODE,
  client_name: "Claude Code",
  client_uri: "https://claude.ai",
  redirect_uris: ["http://localhost/callback", "http://127.0.0.1/callback"],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  token_endpoint_auth_method: "none",
};

// The document of any client of a stranger's; this one takes another's name.
function stranger(id) {
  return {
    client_id: id,
    client_name: "ChatGPT",
    logo_uri: "https://chatgpt.com/logo.png",
    redirect_uris: [`https://${new URL(id).host}/callback`],
    token_endpoint_auth_method: "none",
  };
}

// What hosts publish besides, by address; a script may change it at any time.
export const published = new Map();

// Requests that came, as addresses, and who waits for one.
export const came = [];
let waiting = [];

function told(url) {
  came.push(url);
  waiting = waiting.filter(({ begin, yes }) => !(url.startsWith(begin) && (yes(new URL(url)), true)));
}

// Gives the address of the next request that begins so.
export function next(begin, patience = 15_000) {
  const coming = new Promise((yes, no) => {
    waiting.push({ begin, yes });
    setTimeout(() => no(new Error(`nothing came to ${begin}`)), patience).unref();
  });
  // Whoever asked may have failed before it waits.
  coming.catch(() => {});
  return coming;
}

const JSON_TYPE = { "Content-Type": "application/json" };

// Documents that must not be taken, by their path at a stranger's.
const HOSTILE = {
  "/moved.json": (id, answer) => answer.writeHead(302, { Location: STRANGER }).end(),
  "/moved-for-good.json": (id, answer) => answer.writeHead(308, { Location: "https://loopback.stranger.example/client.json" }).end(),
  "/other.json": (id, answer) => answer.writeHead(200, JSON_TYPE).end(JSON.stringify(stranger(STRANGER))),
  "/page.json": (id, answer) => answer.writeHead(200, { "Content-Type": "text/html" }).end(JSON.stringify(stranger(id))),
  "/secret.json": (id, answer) => answer.writeHead(200, JSON_TYPE).end(JSON.stringify({ ...stranger(id), client_secret: "x" })),
  "/missing.json": (id, answer) => answer.writeHead(404, JSON_TYPE).end(JSON.stringify(stranger(id))),
  "/list.json": (id, answer) => answer.writeHead(200, JSON_TYPE).end("[]"),
  "/huge.json": (id, answer) => answer.writeHead(200, JSON_TYPE).end(JSON.stringify({ ...stranger(id), more: "x".repeat(17_000) })),
  "/script.json": (id, answer) => answer.writeHead(200, JSON_TYPE).end(JSON.stringify({ ...stranger(id), redirect_uris: ["javascript:alert(1)"] })),
  "/endless.json": (id, answer) => {
    answer.writeHead(200, JSON_TYPE);
    const more = () => answer.destroyed || answer.write(" ".repeat(4096), () => setImmediate(more));
    more();
  },
  "/slow.json": (id, answer) => {
    answer.writeHead(200, JSON_TYPE);
    const text = JSON.stringify(stranger(id));
    let at = 0;
    const timer = setInterval(() => (at < text.length ? answer.write(text[at++]) : answer.end()), 200);
    answer.on("close", () => clearInterval(timer));
  },
  "/silent.json": () => {},
};
export const HOSTILE_PATHS = Object.keys(HOSTILE);
// Those that are waited for in vain.
export const SLOW_PATHS = ["/slow.json", "/silent.json"];

function serve(request, answer) {
  const { host } = request.headers;
  const url = `https://${host}${request.url}`;
  told(url);
  const { pathname } = new URL(url);
  const documents = { [CHATGPT]: chatgpt, [CLAUDE]: claude, [CLAUDE_CODE]: claudeCode };
  const isStrange = host.endsWith(".stranger.example");
  if (published.has(url)) {
    answer.writeHead(200, { ...JSON_TYPE, "Cache-Control": "max-age=3600" });
    return answer.end(JSON.stringify(published.get(url)));
  }
  if (isStrange && HOSTILE[pathname]) return HOSTILE[pathname](url, answer);
  if (isStrange && pathname === "/frame") {
    const inner = new URL(url).searchParams.get("of");
    answer.setHeader("Content-Type", "text/html");
    return answer.end(`<link rel=icon href=data:,><iframe src="${inner.replaceAll("&", "&amp;")}"></iframe>`);
  }
  if (documents[url] || (isStrange && pathname.endsWith("client.json"))) {
    answer.writeHead(200, { ...JSON_TYPE, "Cache-Control": "max-age=3600" });
    return answer.end(JSON.stringify(documents[url] ?? stranger(url)));
  }
  land(request, answer, host);
}

// Where an answer comes to; where it leads on if a client's does, as `leadOn` says.
const onward = new Map();

export function leadOn(redirect, to) {
  onward.set(redirect.replace(/^https?:\/\//, ""), to);
}

function land(request, answer, host) {
  const to = onward.get(host + request.url.split("?")[0]);
  if (to) return answer.writeHead(302, { Location: to }).end();
  answer.setHeader("Content-Type", "text/html");
  answer.end(`<link rel=icon href=data:,><p id=landed>${host}</p>`);
}

// Opens them all.
export async function open() {
  const options = { cert: readFileSync(setting.certificate), key: readFileSync(setting.key) };
  const addresses = new Set(setting.hosts.map(([, address]) => address).filter((one) => one.startsWith("52.")));
  for (const address of addresses) {
    const server = createServer(options, serve);
    await new Promise((done) => server.listen(443, address, done));
    server.unref();
  }
}

// Opens a port of this machine as a native client does; gives its number.
export async function listen() {
  const server = createPlain((request, answer) => {
    told(`http://${request.headers.host}${request.url}`);
    land(request, answer, request.headers.host);
  });
  await new Promise((done) => server.listen(0, done));
  server.unref();
  return server.address().port;
}
