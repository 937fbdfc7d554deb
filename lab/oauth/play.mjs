// What every script here needs: the setting, checks, secrets, requests.
//
// A script prints a line for each check and `end of checks` when it left out none.
// Never follows a redirect and never mends an address: what came is what is judged.

import { createHash, randomBytes } from "node:crypto";
import { appendFileSync } from "node:fs";
import { request as askPlainly } from "node:http";
import { request as askSafely } from "node:https";

// What `lab/src/oauth.rs` tells of the world.
export const setting = JSON.parse(process.env.PLAY);

// Milliseconds that an answer is waited for.
const PATIENCE = 20_000;

// Prints what came of a check; `saw` is shown where it failed.
export function check(name, passed, saw = "") {
  const shown = typeof saw === "string" ? saw : JSON.stringify(saw);
  console.log(passed ? `ok      ${name}` : `FAILED  ${name}: ${shown?.replaceAll("\n", " ").slice(0, 1500)}`);
  return passed;
}

// Does a part of the play; an error is one failed check, and the play goes on.
export async function part(name, action) {
  try {
    await action();
  } catch (error) {
    check(name, false, String(error?.stack ?? error));
  }
}

// Says that the script came to its end.
export function end() {
  console.log("end of checks");
}

// Notes a secret, which must be in no file of a server; gives it back.
export function secret(text) {
  if (typeof text !== "string" || text.length < 16) throw new Error(`that is no secret: ${JSON.stringify(text)}`);
  appendFileSync(setting.secrets, `${text}\n`);
  return text;
}

// Asks, from one of the clients' addresses where `from` says which, and gives
// { status, headers, text, json() }; a body that is an object goes as JSON, a
// URLSearchParams as a form.
export function ask(url, { method = "GET", headers = {}, body, from } = {}) {
  const { protocol, hostname } = new URL(url);
  let bytes = body;
  if (body instanceof URLSearchParams) {
    bytes = body.toString();
    headers = { "Content-Type": "application/x-www-form-urlencoded", ...headers };
  } else if (body !== undefined && typeof body !== "string") {
    bytes = JSON.stringify(body);
    headers = { "Content-Type": "application/json", ...headers };
  }
  const options = { method, headers, localAddress: from, agent: false, servername: hostname };
  return new Promise((yes, no) => {
    const send = protocol === "https:" ? askSafely : askPlainly;
    const request = send(url, options, (reply) => {
      const parts = [];
      reply.on("data", (one) => parts.push(one));
      reply.on("error", no);
      reply.on("end", () => {
        const text = Buffer.concat(parts).toString();
        yes({ status: reply.statusCode, headers: reply.headers, text, json: () => JSON.parse(text) });
      });
    });
    request.setTimeout(PATIENCE, () => request.destroy(new Error(`${url} did not answer`)));
    request.on("error", no);
    request.end(bytes);
  });
}

// The nth address of clients.
export function address(nth) {
  const parts = setting.clients.split(".");
  return [...parts.slice(0, 3), Number(parts[3]) + nth].join(".");
}

// A verifier with its challenge.
export function pkce() {
  const verifier = randomBytes(32).toString("base64url");
  return { verifier, challenge: createHash("sha256").update(verifier).digest("base64url") };
}

// Calls a tool of the server at `url` with a token as a client does that speaks the
// older protocol; gives { status, challenge } where it is refused, else what came.
export async function callTools(url, token, code, more = {}) {
  let session;
  const post = async (message) => {
    const headers = {
      Accept: "application/json, text/event-stream",
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      ...(session === undefined ? {} : { "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25" }),
      ...more.headers,
    };
    const reply = await ask(url, { method: "POST", headers, body: { jsonrpc: "2.0", ...message }, from: more.from });
    session ??= reply.headers["mcp-session-id"];
    return reply;
  };
  const result = (reply) => {
    const lines = reply.text.split("\n").filter((line) => line.startsWith("data: {"));
    const texts = lines.length ? lines.map((line) => line.slice(6)) : [reply.text];
    const answer = texts.map((text) => JSON.parse(text)).find((message) => message.id !== undefined);
    if (!answer?.result) throw new Error(`no result: ${reply.text}`);
    return answer.result;
  };
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "play", version: "1" } };
  const first = await post({ id: 1, method: "initialize", params });
  if (first.status !== 200) {
    return { status: first.status, challenge: first.headers["www-authenticate"], text: first.text };
  }
  result(first);
  await post({ method: "notifications/initialized" });
  const { tools } = result(await post({ id: 2, method: "tools/list" }));
  const call = { name: "run_code", arguments: { language: "python", code } };
  const ran = await post({ id: 3, method: "tools/call", params: call });
  return { status: 200, tools: tools.map((tool) => tool.name), ran: result(ran), text: ran.text };
}
