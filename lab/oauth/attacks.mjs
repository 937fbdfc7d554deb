// What an attacker tries over the wire: documents that lead the server astray, codes
// and tokens in other hands, floods, and a consent that nobody gave.

import { readFileSync } from "node:fs";

import { Client, decide, leadsTo } from "./client.mjs";
import { CHATGPT, HOSTILE_PATHS, SLOW_PATHS, STRANGER, open } from "./hosts.mjs";
import { answerNames } from "./names.mjs";
import { address, ask, callTools, check, part, secret, setting } from "./play.mjs";

const { url: base, token } = setting.named;
const CHATGPT_REDIRECT = "https://chatgpt.com/connector_platform_oauth_redirect";
const SLOWEST = 7000;

// Each document from an address that has not asked for one before, as long as there
// are some: one address may ask for twenty a minute.
let asked = 0;
const somewhere = () => address(5 + (asked++ % 15));

// Asks to be let in as the client of a document; gives the reply with its time.
async function present(id, from = somewhere()) {
  const redirect = URL.canParse(id) ? `https://${new URL(id).host}/callback` : CHATGPT_REDIRECT;
  const began = Date.now();
  const reply = await ask(new Client({ name: "", base, id, redirect }).request(), { from });
  return { ...reply, took: Date.now() - began };
}

const isPage = (reply) => reply.status === 200 && reply.text.includes("<form");
// 502 where the document's server is out of order.
const isRefusal = (reply) => [400, 502].includes(reply.status) && !reply.text.includes("<form") && reply.headers.location === undefined;

// Documents at addresses where nobody may be sent: the trap has good ones there.
async function astray() {
  const inside = setting.hosts.map(([name]) => name).filter((name) => !setting.hosts.some(([one, at]) => one === name && at.startsWith("52.")));
  const hosts = [...inside, "10.77.0.2", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:10.77.0.2]", "localhost"];
  for (const host of hosts) {
    const reply = await present(`https://${host}/client.json`);
    check(`a document at ${host} is not fetched`, isRefusal(reply), reply);
  }
  for (const id of [
    "http://app.stranger.example/client.json",
    "https://app.stranger.example:8443/client.json",
    "https://u:p@app.stranger.example/client.json",
    "https://app.stranger.example/client.json?x=1",
    "https://app.stranger.example/client.json#x",
    "https://app.stranger.example/x/../client.json",
    "https://app.stranger.example/%2e%2e/client.json",
    "https://APP.stranger.example/client.json",
    "https://app.stranger.example./client.json",
    "https://app.stranger.example\\@10.77.0.2/client.json",
    "https://app.stranger.example",
    "file:///etc/passwd",
  ]) {
    const reply = await present(id);
    check(`${id} is no client`, isRefusal(reply), reply);
  }
}

// A name that leads elsewhere at each question; one question for each document.
async function rebound() {
  const [good, bad] = ["52.0.0.13", "10.99.0.1"];
  const counts = await answerNames({
    "rebound.stranger.example": (before) => [before % 2 ? bad : good],
    "mixed.stranger.example": () => [good, bad],
  });
  const seen = [];
  const tries = 8;
  for (let nth = 0; nth < tries; nth++) {
    const reply = await present(`https://rebound.stranger.example/${nth}-client.json`);
    seen.push(isPage(reply) ? "page" : isRefusal(reply) ? "refusal" : reply);
  }
  const each = (nth) => seen[nth] === (nth % 2 ? "refusal" : "page");
  check("a name that changes is asked for once a document", counts["rebound.stranger.example"] === tries, counts);
  check("and the document fetched where the name led then, or not at all", seen.every((_, nth) => each(nth)), seen);
  const mixed = await present("https://mixed.stranger.example/client.json");
  check("a name with one bad address among good ones leads nowhere", isRefusal(mixed), mixed);
}

async function hostile() {
  const quick = HOSTILE_PATHS.filter((path) => !SLOW_PATHS.includes(path));
  for (const path of quick) {
    const reply = await present(`https://app.stranger.example${path}`);
    check(`the document ${path} is not taken`, isRefusal(reply) && reply.took < SLOWEST, reply);
  }
  const shown = await present(STRANGER);
  check("a good one of the same host is", isPage(shown), shown);
  const late = [...SLOW_PATHS, ...SLOW_PATHS].map((path, nth) => present(`https://${nth > 1 ? "other" : "app"}.stranger.example${path}`));
  // A host has one place; who is known has others.
  await new Promise((done) => setTimeout(done, 1000));
  const fifth = await present("https://other.stranger.example/fifth-client.json");
  check("while a host's document is waited for another of it is put off", fifth.status === 503 && fifth.took < 1000, fifth);
  const known = await ask(new Client({ name: "", base, id: CHATGPT, redirect: CHATGPT_REDIRECT }).request(), { from: address(4) });
  check("and a client that is known is not", isPage(known), known);
  const waited = await Promise.all(late);
  const [given, put] = [waited.filter(isRefusal), waited.filter((reply) => reply.status === 503)];
  check("slow documents are given up in time", given.length === 2 && put.length === 2 && waited.every((reply) => reply.took < SLOWEST), waited);
  const then = await present("https://other.stranger.example/fifth-client.json");
  check("then the fifth is taken", isPage(then), then);
}

// A client that registered, with a grant's code in its hands.
async function registered(name, from) {
  const client = new Client({ name, base, redirect: `https://${name}.stranger.example/callback`, from });
  await client.discover();
  return client.register({ client_name: name, token_endpoint_auth_method: "none" });
}

async function code(client) {
  const { host } = new URL(client.redirect);
  const agreed = await decide(client.request(), { decision: "allow", token, host });
  return secret(leadsTo(agreed).searchParams.get("code"));
}

async function hands() {
  const [one, other] = [await registered("app", address(20)), await registered("other", address(21))];
  const exchange = (client, code, more = {}) => client.token({
    grant_type: "authorization_code", code, code_verifier: one.verifier, redirect_uri: one.redirect, resource: one.resource, ...more,
  });
  const refused = (what, reply, error) => {
    const tokens = /access_token|refresh_token/.test(reply.text);
    check(what, reply.status === 400 && reply.json().error === error && !tokens, reply);
  };
  const first = await code(one);
  refused("a client cannot use another's code", await exchange(other, first), "invalid_grant");
  refused("nor with another verifier", await exchange(one, first, { code_verifier: other.verifier ?? "x".repeat(43) }), "invalid_grant");
  refused("nor for another redirect", await exchange(one, first, { redirect_uri: other.redirect }), "invalid_grant");
  refused("nor for another resource", await exchange(one, first, { resource: `${setting.bare.url}/mcp` }), "invalid_target");
  await one.exchange(first);
  check("the client itself can, after all that", (await one.call()).status === 200);
  const stolen = { grant_type: "refresh_token", refresh_token: one.tokens.refresh_token };
  refused("a client cannot use another's refresh token", await other.token(stolen), "invalid_grant");
  refused("no refresh token is for another resource", await one.token({ ...stolen, resource: "https://evil.example/mcp" }), "invalid_target");
  await other.revoke(one.tokens.refresh_token);
  check("nor end another's grant", (await one.call()).status === 200);
  const foreign = await callTools(`${setting.bare.url}/mcp`, one.tokens.access_token, "");
  check("a token of one server opens no other", foreign.status === 401, foreign);
  refused("a code that is shown again gives nothing", await exchange(one, first), "invalid_grant");
  check("and ends all that it gave", (await one.call()).status === 401);
  const again = await code(one);
  const many = await Promise.all(Array.from({ length: 8 }, () => exchange(one, again)));
  const won = many.filter((reply) => reply.status === 200);
  for (const reply of won) secret(reply.json().access_token);
  check("of eight that show a code at once one gets tokens at most", won.length <= 1, won.length);
  await one.exchange(await code(one));
  const shown = { grant_type: "refresh_token", refresh_token: one.tokens.refresh_token };
  const turns = await Promise.all(Array.from({ length: 8 }, () => one.token(shown)));
  const next = new Set(turns.map((reply) => reply.json().refresh_token));
  for (const reply of turns) secret(reply.json().access_token);
  check("eight refreshes at once get one and the same successor", turns.every((reply) => reply.status === 200) && next.size === 1, turns.map((reply) => reply.status));
  secret([...next][0]);
}

// What is wrong with a request is told to a client that is known, and to no other.
async function requests() {
  const known = new Client({ name: "a bad request of ChatGPT", base, id: CHATGPT, redirect: CHATGPT_REDIRECT });
  const bad = [
    [{ resource: "https://evil.example/mcp" }, "invalid_target"],
    [{ response_type: "token" }, "unsupported_response_type"],
    [{ code_challenge_method: "plain" }, "invalid_request"],
    [{ prompt: "none" }, "login_required"],
  ];
  for (const [more, error] of bad) {
    const reply = await ask(known.request(more));
    const to = new URL(reply.headers.location ?? "about:blank");
    const query = known.judge(to, `${error} comes back with state and issuer`);
    known.check(`it is told ${error}`, reply.status === 303 && query.get("error") === error && !query.has("code"), to.href);
    const strange = new Client({ name: "a bad request of a stranger", base, id: STRANGER, redirect: "https://app.stranger.example/callback" });
    const page = await ask(strange.request(more));
    strange.check(`nobody is sent there with ${error}`, isRefusal(page), page);
  }
  for (const redirect of ["https://evil.example/", `${CHATGPT_REDIRECT}/x`, `${CHATGPT_REDIRECT}?x`, "https://chatgpt.com:444/connector_platform_oauth_redirect", "https://chatgpt.com@evil.example/connector_platform_oauth_redirect"]) {
    const reply = await ask(known.request({ redirect_uri: redirect }));
    check(`no answer goes to ${redirect}`, isRefusal(reply), reply);
  }
}

// Consent that no person gave on the page.
async function consent() {
  const client = new Client({ name: "", base, id: CHATGPT, redirect: CHATGPT_REDIRECT });
  const url = client.request();
  const agree = { decision: "allow", token };
  for (const origin of ["https://evil.example", "https://chatgpt.com", "null", `${base}.evil.example`]) {
    const reply = await decide(url, agree, { headers: { Origin: origin } });
    check(`a page of ${origin} cannot agree`, reply.status === 403 && !reply.headers.location, reply);
  }
  const got = await ask(`${url}&${new URLSearchParams(agree)}`);
  check("an address cannot agree", isPage(got) && !got.headers.location, got);
  const post = (query) => ask(`${base}/oauth/authorize`, { method: "POST", body: new URLSearchParams({ ...agree, query }), headers: { Origin: base } });
  const { search } = new URL(url);
  const query = search.slice(1);
  const changed = await post(query.replace(encodeURIComponent(CHATGPT_REDIRECT), encodeURIComponent("https://evil.example/")));
  check("the form's request is checked again: another redirect", isRefusal(changed), changed);
  const twice = await post(`${query}&redirect_uri=https://evil.example/`);
  check("and a second one", isRefusal(twice), twice);
  const json = await ask(`${base}/oauth/authorize`, { method: "POST", body: { ...agree, query }, headers: { Origin: base } });
  check("JSON is no form", json.status === 400 && !json.headers.location, json);
  const wrong = await post(query).then(() => ask(`${base}/oauth/authorize`, { method: "POST", body: new URLSearchParams({ decision: "allow", query, token: "codex_wrong" }), headers: { Origin: base } }));
  check("a wrong token agrees to nothing", isPage(wrong) && !wrong.headers.location, wrong);
}

// Floods from one address, which stop neither another address nor who is known.
async function floods() {
  const [flooder, other] = [address(24), address(25)];
  const register = (from, nth) => ask(`${base}/oauth/register`, { method: "POST", from, body: { redirect_uris: [`https://app.stranger.example/${nth}`] } });
  const all = [];
  for (let nth = 0; nth < 60; nth++) all.push(await register(flooder, nth));
  for (const reply of all) if (reply.status === 201) secret(reply.json().client_secret);
  const refused = all.filter((reply) => reply.status === 429);
  check("a flood of registrations is stopped, and told when to come back", refused.length >= 30 && refused.every((reply) => Number(reply.headers["retry-after"]) > 0), all.map((reply) => reply.status));
  const spared = await register(other, "x");
  if (spared.status === 201) secret(spared.json().client_secret);
  check("another address may register", spared.status === 201, spared);
  const fetched = await present("https://other.stranger.example/late-client.json", flooder);
  check("who flooded cannot make the server fetch either", fetched.status === 429, fetched);
  const known = await ask(new Client({ name: "", base, id: CHATGPT, redirect: CHATGPT_REDIRECT }).request(), { from: flooder });
  check("but may ask for a client that is known", isPage(known), known);
  const guesses = [];
  for (let nth = 0; nth < 40; nth++) {
    guesses.push(await ask(`${base}/oauth/token`, { method: "POST", from: address(26), body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: "x", client_id: `codex_cl_${nth}` }) }));
  }
  const last = guesses.at(-1);
  check("who guesses clients is stopped by 429, not by 401", guesses[0].status === 401 && guesses[0].json().error === "invalid_client" && last.status === 429 && last.headers["retry-after"] > 0, last);
}

export async function play() {
  secret(token);
  await open();
  // What the trap knows so far; nothing may be added to it.
  const trapped = () => readFileSync(setting.trap, "utf8");
  await part("documents that lead astray", astray);
  await part("names that change", rebound);
  await part("hostile documents", hostile);
  check("nobody was led into the trap", trapped() === "", trapped());
  await part("codes and tokens in other hands", hands);
  await part("bad requests", requests);
  await part("consent that nobody gave", consent);
  await part("floods", floods);
}
