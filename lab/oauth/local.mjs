// Clients on the server's own machine, by plain HTTP and without documents, as
// editors and command lines do: they register themselves. The server has no public
// address of its own, and loopback is enough.

import { readFileSync } from "node:fs";

import { Consent, start } from "../browser/oauth.mjs";
import { Client, decide, leadsTo } from "./client.mjs";
import { listen, next } from "./hosts.mjs";
import { ask, check, part, secret, setting } from "./play.mjs";

const { port, token } = setting.bare;
secret(token);

// As VS Code registers: every way back that it has, and grants that nobody offers.
async function vscode(browser, host) {
  const back = await listen();
  const redirect = `http://127.0.0.1:${back}/`;
  const client = new Client({ name: `an editor at ${host}`, base: `http://${host}:${port}`, redirect });
  await client.discover();
  const redirects = ["https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect", "http://127.0.0.1/", "http://127.0.0.1:33418/"];
  await client.register({
    client_name: "Visual Studio Code",
    redirect_uris: redirects,
    grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    application_type: "native",
  });
  const consent = await Consent.open(browser, client.request());
  const seen = await consent.read();
  client.check("this machine is the largest word, and known", seen.heading === "127.0.0.1" && seen.largest && !seen.typed, seen);
  const answer = next(redirect);
  await consent.decide("allow", { token });
  const landed = await consent.landed();
  if (!client.check("the browser lands at the editor's port", landed === `127.0.0.1:${back}`, landed)) return;
  await client.take(await answer);
  await client.live();
}

// As Cursor registers: its answer goes to an app by a scheme of its own.
async function cursor() {
  const redirect = "cursor://anysphere.cursor-mcp/oauth/callback";
  const client = new Client({ name: "an app with its own scheme", base: `http://127.0.0.1:${port}`, redirect });
  await client.discover();
  await client.register({ client_name: "Cursor", token_endpoint_auth_method: "none" });
  const asked = client.request();
  const untyped = await decide(asked, { decision: "allow", token });
  client.check("what it is has to be typed", untyped.status === 200 && untyped.text.includes("Type cursor: in the second field"), untyped.text);
  const agreed = await decide(asked, { decision: "allow", token, host: "cursor:" });
  client.check("the answer goes to the app", leadsTo(agreed).protocol === "cursor:", agreed);
  await client.take(leadsTo(agreed));
  await client.live();
}

// That the trap does catch who comes: the checks that nobody came mean something.
async function trap() {
  for (const host of ["loopback.stranger.example", "private.stranger.example", "metadata.stranger.example", "loopback6.stranger.example"]) {
    const id = `https://${host}/client.json`;
    const found = await ask(id);
    check(`the trap waits at ${host}`, found.status === 200 && found.json().client_id === id, found);
  }
  const caught = readFileSync(setting.trap, "utf8").trim().split("\n");
  check("and notes who comes", caught.length === 4, caught);
}

export async function play() {
  await part("the trap", trap);
  const browser = start(setting);
  for (const host of ["127.0.0.1", "localhost"]) await part(host, () => vscode(browser, host));
  await part("an app with its own scheme", cursor);
  check("the browser had nothing to say of the pages here", browser.complaints.length === 0, browser.complaints);
  await browser.close();
}
