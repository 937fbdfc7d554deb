// Clients that sign with keys of their own, at a server that lets them: ChatGPT, and
// strangers whose assertions are not good.

import { createHmac, generateKeyPairSync, randomUUID, sign as signBytes } from "node:crypto";

import { Client, decide, leadsTo } from "./client.mjs";
import { CHATGPT, came, open, published } from "./hosts.mjs";
import { address, ask, check, part, secret, setting } from "./play.mjs";

const { url: base, token } = setting.keyed;
const KIND = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SLOWEST = 7000;

// A key with its id.
function key(kid) {
  const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { kid, ...pair, jwk: { ...pair.publicKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" } };
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// What a client signs; `header` and `claims` change parts, `by` makes the signature.
function assertion(id, { kid, privateKey }, { header = {}, claims = {}, by } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const head = { alg: "RS256", typ: "JWT", kid, ...header };
  const body = { iss: id, sub: id, aud: base, iat: now, exp: now + 300, jti: randomUUID(), ...claims };
  const message = `${encode(head)}.${encode(body)}`;
  const signature = (by ?? ((text) => signBytes("sha256", Buffer.from(text), privateKey)))(message);
  return secret(`${message}.${Buffer.from(signature).toString("base64url")}`);
}

const form = (text) => ({ client_assertion_type: KIND, client_assertion: text });

// Publishes a stranger's document that can do nothing but sign.
function publish(id, more) {
  published.set(id, {
    client_id: id,
    redirect_uris: [`https://${new URL(id).host}/callback`],
    token_endpoint_auth_method: "private_key_jwt",
    ...more,
  });
}

// A client with a grant's code; people agree without a browser here.
async function asked({ name, id, redirect, from, sign }) {
  const client = new Client({ name, base, id, redirect, from, takesKeys: true, sign });
  await client.discover();
  const agreed = await decide(client.request(), { decision: "allow", token, host: new URL(redirect).host });
  client.answer = leadsTo(agreed);
  return client;
}

const fetched = (url) => came.filter((one) => one === url).length;

async function chatgpt() {
  const jwks = "https://chatgpt.com/oauth/jwks.json";
  const one = key("one");
  published.set(jwks, { keys: [key("zero").jwk, one.jwk] });
  const redirect = "https://chatgpt.com/connector_platform_oauth_redirect";
  const sign = () => form(assertion(CHATGPT, one, { claims: { aud: `${base}/oauth/token` } }));
  const signing = await asked({ name: "ChatGPT that signs", id: CHATGPT, redirect, from: address(30), sign });
  const { metadata } = signing;
  const algorithms = metadata.token_endpoint_auth_signing_alg_values_supported;
  signing.check("the metadata says how it may", JSON.stringify(algorithms) === '["RS256","ES256"]', metadata);
  signing.check("nobody asks for keys before there is a grant to use", fetched(jwks) === 0);
  await signing.take(signing.answer);
  await signing.live();
  signing.check("its keys are fetched once", fetched(jwks) === 1, came);
  const plain = await asked({ name: "ChatGPT that does not", id: CHATGPT, redirect, from: address(30) });
  await plain.take(plain.answer);
  await plain.live();
  const registered = await ask(metadata.registration_endpoint, { method: "POST", body: { redirect_uris: [redirect], token_endpoint_auth_method: "private_key_jwt" } });
  check("nobody registers to sign", registered.status === 400 && registered.json().error === "invalid_client_metadata", registered);
}

async function bad() {
  const id = "https://app.stranger.example/signer.json";
  const jwks = "https://app.stranger.example/signer-keys.json";
  const [own, other] = [key("own"), key("own")];
  publish(id, { jwks_uri: jwks });
  published.set(jwks, { keys: [own.jwk] });
  const good = () => assertion(id, own);
  let shown = form(good());
  const client = await asked({ name: "a stranger that signs", id, redirect: "https://app.stranger.example/callback", from: address(31), sign: () => shown });
  await client.take(client.answer);
  const now = Math.floor(Date.now() / 1000);
  const pem = own.publicKey.export({ type: "spki", format: "pem" });
  const hmac = (secret) => (text) => createHmac("sha256", secret).update(text).digest();
  const changed = (more) => form(assertion(id, own, more));
  const expected = new Set();
  for (const [what, given] of [
    ["one that was shown before", shown],
    ["one for another server", changed({ claims: { aud: setting.named.url } })],
    ["one for another address of this server", changed({ claims: { aud: `${base}/mcp` } })],
    ["one whose time is over", changed({ claims: { iat: now - 400, exp: now - 1 } })],
    ["one for an hour", changed({ claims: { exp: now + 3600 } })],
    ["one without an end", changed({ claims: { exp: undefined } })],
    ["one without an id", changed({ claims: { jti: undefined } })],
    ["one of another client", changed({ claims: { iss: CHATGPT, sub: CHATGPT } })],
    ["one by another key of the same name", form(assertion(id, other))],
    ["one by a key in its own header", form(assertion(id, other, { header: { jwk: other.jwk } }))],
    ["one by nobody", changed({ header: { alg: "none" }, by: () => "" })],
    ["one by the public key as a secret", changed({ header: { alg: "HS256" }, by: hmac(pem) })],
    ["one by the modulus as a secret", changed({ header: { alg: "HS256" }, by: hmac(Buffer.from(own.jwk.n, "base64url")) })],
    ["one that is another's half", form(`${good().split(".").slice(0, 2).join(".")}.${good().split(".")[2]}`)],
    ["one of another kind", { ...form(good()), client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:saml2-bearer" }],
    ["one without a kind", { client_assertion: good() }],
    ["a kind without one", { client_assertion_type: KIND }],
    ["one with a secret beside it", { ...form(good()), client_secret: "x" }],
    ["nothing", {}],
  ]) {
    shown = given;
    const reply = await client.token({ grant_type: "refresh_token", refresh_token: client.tokens.refresh_token });
    expected.add(reply.text);
    client.check(`${what} is refused`, reply.status === 401 && reply.json().error === "invalid_client", reply);
  }
  client.check("and all in the same words", expected.size === 1, [...expected]);
  shown = form(assertion(id, other));
  const revoked = await client.revoke(client.tokens.refresh_token);
  client.check("nor does a bad one end the grant", revoked.status === 401, revoked);
  // Who asks for what is not known makes the server ask once a minute.
  for (let nth = 0; nth < 5; nth++) {
    shown = form(assertion(id, { ...own, kid: `unknown ${nth}` }));
    const reply = await client.token({ grant_type: "refresh_token", refresh_token: "x" });
    client.check(`unknown key ${nth} is refused`, reply.status === 401, reply);
  }
  client.check("its keys were fetched once", fetched(jwks) === 1, came);
  // All that it signs from here on is good; who it is need not be said twice.
  client.sign = () => form(good());
  const anonymous = new URLSearchParams({ grant_type: "refresh_token", refresh_token: client.tokens.refresh_token, ...form(good()) });
  client.keep(await ask(client.metadata.token_endpoint, { method: "POST", body: anonymous }), "an assertion alone says who it is");
  await client.live();
}

async function rotated() {
  const id = "https://app.stranger.example/rotating.json";
  const [before, after] = [key("before"), key("after")];
  let current = before;
  publish(id, { jwks: { keys: [before.jwk] } });
  const client = await asked({ name: "a stranger whose keys change", id, redirect: "https://app.stranger.example/callback", from: address(32), sign: () => form(assertion(id, current)) });
  await client.take(client.answer);
  client.check("keys in a document come with it", fetched(id) === 1, came);
  publish(id, { jwks: { keys: [after.jwk] } });
  current = after;
  await client.refresh();
  client.check("an unknown key is looked for", fetched(id) === 2, came);
  current = before;
  const old = await client.token({ grant_type: "refresh_token", refresh_token: client.tokens.refresh_token });
  client.check("a key that was taken away is not good any more", old.status === 401, old);
  current = after;
  await client.live();
}

async function silent() {
  const id = "https://other.stranger.example/waiting.json";
  const own = key("own");
  publish(id, { jwks_uri: "https://other.stranger.example/silent.json" });
  const client = await asked({ name: "a stranger whose keys do not come", id, redirect: "https://other.stranger.example/callback", from: address(33), sign: () => form(assertion(id, own)) });
  const exchange = async () => {
    const began = Date.now();
    const code = client.answer.searchParams.get("code");
    const reply = await client.token({ grant_type: "authorization_code", code, code_verifier: client.verifier, redirect_uri: client.redirect });
    return { ...reply, took: Date.now() - began };
  };
  const isPutOff = (reply) => reply.status === 503 && Number(reply.headers["retry-after"]) > 0 && reply.json().error === "temporarily_unavailable";
  const first = await exchange();
  client.check("it is put off in time, and not refused", isPutOff(first) && first.took < SLOWEST, first);
  const then = await exchange();
  client.check("and at once within the next minute", isPutOff(then) && then.took < 1000, then);
}

async function elsewhere() {
  for (const [what, uri] of [
    ["at another host", "https://other.stranger.example/keys.json"],
    ["by plain http", "http://app.stranger.example/keys.json"],
    ["at another port", "https://app.stranger.example:8443/keys.json"],
    ["at an address inside", "https://10.77.0.2/keys.json"],
  ]) {
    const id = `https://app.stranger.example/elsewhere-${what.replaceAll(" ", "-")}.json`;
    publish(id, { jwks_uri: uri });
    const client = new Client({ name: "", base, id, redirect: "https://app.stranger.example/callback" });
    const page = await ask(client.request(), { from: address(34) });
    const refused = page.status === 400 && page.text.includes("jwks_uri must") && !page.text.includes("<form");
    check(`a client with keys ${what} is none`, refused && fetched(id) === 1, page);
  }
}

export async function play() {
  secret(token);
  await open();
  await part("ChatGPT", chatgpt);
  await part("bad assertions", bad);
  await part("keys that change", rotated);
  await part("a silent host", silent);
  await part("keys elsewhere", elsewhere);
}
