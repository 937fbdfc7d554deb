// Stock clients with their own OAuth, from npm: each discovers, registers or shows its
// document, sends its person to agree, takes the answer, calls a tool, and refreshes.
//
//     PLAY=SETTING node stock.mjs sdk|client
//
// sdk is @modelcontextprotocol/sdk, client is @modelcontextprotocol/client. Only the
// person is played here: what the protocol takes is the packages' own doing.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

import { decide, leadsTo } from "./client.mjs";
import { open } from "./hosts.mjs";
import { check, end, part, secret, setting } from "./play.mjs";

const library = process.argv[2];
const { url: base, token } = setting.named;
// The packages are where the command was started, not beside this script.
const { resolve } = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const load = (name) => import(pathToFileURL(resolve(name)));

const LOCAL = "http://127.0.0.1:33418/callback";
const STRANGE = "https://app.stranger.example/callback";
const DOCUMENT = "https://app.stranger.example/stock-client.json";

// What a package asks of its host: a place for what it learns, and a person.
class Provider {
  constructor(redirect, method, document) {
    this.redirectUrl = redirect;
    this.clientMetadataUrl = document;
    this.clientMetadata = {
      client_name: "Stock",
      redirect_uris: [redirect],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: method,
    };
  }
  state = () => "a state of its own";
  clientInformation = () => this.information;
  saveClientInformation = (information) => {
    if (information.client_secret) secret(information.client_secret);
    this.information = information;
  };
  tokens = () => this.kept;
  saveTokens = (tokens) => {
    for (const one of [tokens.access_token, tokens.refresh_token]) secret(one);
    this.kept = tokens;
  };
  redirectToAuthorization = async (url) => {
    this.sent = url;
    const { host } = new URL(this.redirectUrl);
    const agreed = await decide(url.href, { decision: "allow", token, host });
    this.answer = leadsTo(agreed).searchParams;
    secret(this.answer.get("code"));
  };
  saveCodeVerifier = (verifier) => (this.verifier = verifier);
  codeVerifier = () => this.verifier;
  saveDiscoveryState = (found) => (this.found = found);
  discoveryState = () => this.found;
}

async function parts() {
  const name = "@modelcontextprotocol/";
  if (library === "client") {
    const { Client, StreamableHTTPClientTransport } = await load(`${name}client`);
    return { Client, Transport: StreamableHTTPClientTransport };
  }
  const { Client } = await load(`${name}sdk/client/index.js`);
  const { StreamableHTTPClientTransport } = await load(`${name}sdk/client/streamableHttp.js`);
  return { Client, Transport: StreamableHTTPClientTransport };
}

const { Client, Transport } = await parts();

async function connect(provider, mode) {
  const transport = new Transport(new URL(`${base}/mcp`), { authProvider: provider });
  const client = new Client({ name: "stock", version: "1" }, mode && { versionNegotiation: { mode } });
  let refused;
  await client.connect(transport).catch((error) => (refused = error));
  return { client, transport, refused };
}

async function ran(client) {
  const request = { name: "run_code", arguments: { language: "python", code: "print(6 * 7)" } };
  const result = await client.callTool(request);
  return result.structuredContent?.output === "42\n";
}

async function go(name, provider, mode) {
  const first = await connect(provider, mode);
  const asked = first.refused?.name === "UnauthorizedError" || first.refused?.constructor.name === "UnauthorizedError";
  check(`${name}: it sends its person to agree`, asked && provider.answer?.get("code"), String(first.refused));
  const id = provider.sent.searchParams.get("client_id");
  const registered = provider.clientMetadataUrl ? id === DOCUMENT : id.startsWith("codex_cl_");
  check(`${name}: it says who it is, and what for`, registered && provider.sent.searchParams.get("resource") === `${base}/mcp`, provider.sent.href);
  check(`${name}: its answer has state and issuer`, provider.answer.get("state") === "a state of its own" && provider.answer.get("iss") === base, provider.answer.toString());
  if (library === "client") await first.transport.finishAuth(provider.answer);
  else await first.transport.finishAuth(provider.answer.get("code"));
  const { client, refused } = await connect(provider, mode);
  check(`${name}: it connects and runs a program`, !refused && (await ran(client)), String(refused));
  // An access token that is no longer good makes it refresh by itself.
  const before = provider.kept;
  provider.kept = { ...before, access_token: `${before.access_token.slice(0, -4)}AAAA` };
  const again = await ran(client);
  const changed = provider.kept.refresh_token !== before.refresh_token && provider.kept.access_token !== before.access_token;
  check(`${name}: it refreshes by itself and runs another`, again && changed);
  await client.close();
}

await open();
const modes = library === "client" ? ["legacy", "auto"] : [undefined];
for (const mode of modes) {
  const called = [library, mode].filter(Boolean).join(" ");
  for (const method of ["none", "client_secret_post", "client_secret_basic"]) {
    const name = `${called}, registered with ${method}`;
    await part(name, () => go(name, new Provider(LOCAL, method), mode));
  }
  const name = `${called}, by its document`;
  await part(name, () => go(name, new Provider(STRANGE, "none", DOCUMENT), mode));
}
end();
process.exit(0);
