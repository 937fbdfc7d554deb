// A client of the authorization server, which goes by what the server publishes and
// judges each answer as strictly as the strictest of the real ones.

import { ask, callTools, check, pkce, secret } from "./play.mjs";

const WELL_KNOWN = "/.well-known/";
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Client {
  // `name` is what checks are called after, `base` the server's address; `id` that of
  // the client's document or undefined, `redirect` where answers go; `takesKeys` says
  // whether the server lets clients sign, `sign` gives what the client signs, if it does.
  constructor({ name, base, id, redirect, from, takesKeys = false, sign }) {
    Object.assign(this, { name, base, id, redirect, from, takesKeys, sign, resource: `${base}/mcp` });
  }

  check(what, passed, saw) {
    return check(`${this.name}: ${what}`, passed, saw);
  }

  ask(url, options = {}) {
    return ask(url, { from: this.from, ...options });
  }

  // From a refusal to the metadata of the server that gives tokens.
  async discover() {
    const { base, resource } = this;
    const refused = await callTools(resource, undefined, "", { from: this.from });
    const challenge = /^Bearer .*resource_metadata="([^"]+)"/.exec(refused.challenge ?? "");
    const inserted = `${base}${WELL_KNOWN}oauth-protected-resource/mcp`;
    this.check("the challenge says where to ask", refused.status === 401 && challenge?.[1] === inserted, refused);
    this.check("without a token it names no error", !/error=/.test(refused.challenge), refused.challenge);
    const found = (await this.ask(inserted)).json();
    const atRoot = (await this.ask(`${base}${WELL_KNOWN}oauth-protected-resource`)).json();
    const right = found.resource === resource && same(found.authorization_servers, [base]);
    this.check("the resource is the address as typed", right && same(found, atRoot), { found, atRoot });
    const at = `${found.authorization_servers[0]}${WELL_KNOWN}oauth-authorization-server`;
    const metadata = (await this.ask(at)).json();
    const also = (await this.ask(`${at}/mcp`)).json();
    const able =
      metadata.issuer === base &&
      same(metadata.code_challenge_methods_supported, ["S256"]) &&
      metadata.token_endpoint_auth_methods_supported.includes("none") &&
      metadata.token_endpoint_auth_methods_supported.includes("private_key_jwt") === this.takesKeys &&
      metadata.client_id_metadata_document_supported === true &&
      metadata.authorization_response_iss_parameter_supported === true;
    this.check("the server's metadata has what the client needs", able && same(metadata, also), metadata);
    this.metadata = metadata;
    return this;
  }

  // Registers where it has no document.
  async register(members) {
    const body = { redirect_uris: [this.redirect], ...members };
    const reply = await this.ask(this.metadata.registration_endpoint, { method: "POST", body });
    const told = reply.json();
    const right = reply.status === 201 && told.client_id && same(told.redirect_uris, body.redirect_uris);
    this.check("it registers", right, reply.text.replace(told.client_secret, "…"));
    this.id = told.client_id;
    this.method = told.token_endpoint_auth_method;
    if (told.client_secret) this.secret = secret(told.client_secret);
    return this;
  }

  // The address that a person opens; keeps what belongs to it.
  request(more = {}) {
    const { verifier, challenge } = pkce();
    this.verifier = verifier;
    this.state = `s ${challenge.slice(0, 8)}&=+é`;
    const query = new URLSearchParams({
      response_type: "code",
      client_id: this.id,
      redirect_uri: this.redirect,
      state: this.state,
      code_challenge: challenge,
      code_challenge_method: "S256",
      resource: this.resource,
      ...more,
    });
    return `${this.metadata?.authorization_endpoint ?? `${this.base}/oauth/authorize`}?${query}`;
  }

  // Judges the address of an answer: state and issuer, byte for byte and once.
  judge(url, what) {
    const query = url.searchParams;
    const once = (name, value) => same(query.getAll(name), [value]);
    const right = once("state", this.state) && once("iss", this.base) && url.href.startsWith(this.redirect);
    this.check(what, right, url.href);
    return query;
  }

  // Takes the answer, and exchanges its code.
  async take(url) {
    const code = this.judge(url, "state and issuer come back as they are").get("code");
    return this.exchange(secret(code));
  }

  async exchange(code, more = {}) {
    const form = { grant_type: "authorization_code", code, code_verifier: this.verifier, redirect_uri: this.redirect, resource: this.resource, ...more };
    return this.keep(await this.token(form), "the code gives tokens");
  }

  async refresh(more = {}) {
    return this.keep(await this.token({ grant_type: "refresh_token", refresh_token: this.tokens.refresh_token, resource: this.resource, ...more }), "the refresh token gives new ones");
  }

  keep(reply, what) {
    const tokens = reply.json();
    const right = reply.status === 200 && tokens.token_type === "Bearer" && tokens.expires_in > 0 && tokens.scope && reply.headers["cache-control"] === "no-store";
    if (!this.check(what, right, { status: reply.status, error: tokens.error })) throw new Error("no tokens");
    for (const one of [tokens.access_token, tokens.refresh_token]) secret(one);
    return (this.tokens = tokens);
  }

  // Posts a form to the token endpoint as this client.
  token(form, at = this.metadata.token_endpoint) {
    const headers = {};
    const body = new URLSearchParams(form);
    if (this.method === "client_secret_basic") {
      const pair = [this.id, this.secret].map(encodeURIComponent).join(":");
      headers.Authorization = `Basic ${Buffer.from(pair).toString("base64")}`;
    } else {
      body.set("client_id", this.id);
      if (this.secret) body.set("client_secret", this.secret);
      if (this.sign) for (const [name, value] of Object.entries(this.sign())) body.set(name, value);
    }
    return this.ask(at, { method: "POST", headers, body });
  }

  revoke(token) {
    return this.token({ token }, this.metadata.revocation_endpoint);
  }

  // Calls the tools with an access token.
  call(token = this.tokens.access_token) {
    return callTools(this.resource, token, "print(6 * 7)", { from: this.from });
  }

  // All that a client does with a grant: uses it, refreshes, uses it again, gives it up.
  async live() {
    const ran = (what, came) => {
      const right = came.status === 200 && came.tools.includes("run_code") && came.ran.structuredContent?.output === "42\n";
      this.check(what, right, came);
    };
    ran("the tools are listed and a program runs", await this.call());
    const before = this.tokens;
    await this.refresh();
    const changed = before.access_token !== this.tokens.access_token && before.refresh_token !== this.tokens.refresh_token;
    this.check("both tokens are new", changed);
    ran("a program runs with the new token", await this.call());
    const elsewhere = await this.ask(`${this.base}/execute`, { method: "POST", headers: { Authorization: `Bearer ${this.tokens.access_token}` }, body: { code: "1", language: "python" } });
    this.check("the token opens nothing but /mcp", elsewhere.status === 401, elsewhere);
    const revoked = await this.revoke(this.tokens.refresh_token);
    const after = await this.call();
    const gone = revoked.status === 200 && after.status === 401 && /error="invalid_token"/.test(after.challenge);
    this.check("after its revocation the grant opens nothing", gone, { revoked: revoked.status, after });
    const again = await this.token({ grant_type: "refresh_token", refresh_token: this.tokens.refresh_token });
    this.check("and gives nothing", again.status === 400 && again.json().error === "invalid_grant", again.text);
  }
}

// Where an answer leads: by a redirect, or by a page that goes on by itself.
export function leadsTo(reply) {
  const onward = /http-equiv="refresh" content="0;url=([^"]*)"/.exec(reply.text)?.[1];
  return new URL(reply.headers.location ?? plain(onward ?? ""));
}

const plain = (text) => text.replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(code));

// Agrees, or not, as a person does but without a browser; gives the reply.
export async function decide(url, form, options = {}) {
  const page = await ask(url, options);
  const query = /name="query" value="([^"]*)"/.exec(page.text)?.[1];
  if (page.status !== 200 || query === undefined) throw new Error(`no page to agree on: ${page.status} ${page.text}`);
  const body = new URLSearchParams({ query: plain(query), ...form });
  const at = url.split("?")[0];
  return ask(at, { ...options, method: "POST", body, headers: { Origin: new URL(at).origin, ...options.headers } });
}
