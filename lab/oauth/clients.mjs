// The clients that people have, each from the refusal to the end of its grant, with
// consent in a browser; and what the page must never do.

import { Consent, start } from "../browser/oauth.mjs";
import { Client } from "./client.mjs";
import { CHATGPT, CLAUDE, CLAUDE_CODE, STRANGER, came, leadOn, listen, next, open } from "./hosts.mjs";
import { address, check, part, secret, setting } from "./play.mjs";

const { url: base, token } = setting.named;
secret(token);

// Each with the name that its document says and whether the page knows its host.
const port = () => listen();
const clients = [
  { name: "ChatGPT", id: CHATGPT, redirect: "https://chatgpt.com/connector_platform_oauth_redirect", says: "ChatGPT", known: true },
  { name: "Claude", id: CLAUDE, redirect: "https://claude.ai/api/mcp/auth_callback", says: "Claude", known: true },
  { name: "Claude at claude.com", id: CLAUDE, redirect: "https://claude.com/api/mcp/auth_callback", says: "Claude", known: true },
  { name: "Claude Code", id: CLAUDE_CODE, redirect: async () => `http://localhost:${await port()}/callback`, says: "Claude Code", known: true },
  { name: "a stranger", id: STRANGER, redirect: "https://app.stranger.example/callback", says: "ChatGPT", known: false },
  {
    name: "a stranger with a secret", redirect: "https://other.stranger.example/callback", says: "Tester", known: false,
    members: { client_name: "Tester", token_endpoint_auth_method: "client_secret_basic" },
  },
];

async function go(browser, { name, id, redirect, says, known, members }, nth) {
  const to = typeof redirect === "string" ? redirect : await redirect();
  const client = new Client({ name, base, id, redirect: to, from: address(nth) });
  await client.discover();
  if (members) await client.register(members);
  const consent = await Consent.open(browser, client.request());
  const seen = await consent.read();
  const { hostname } = new URL(to);
  client.check("the host is the largest word of the page", seen.heading === hostname && seen.largest, seen);
  client.check("its name is its own word only", seen.text.includes(`calls itself “${says}”`), seen.text);
  client.check(`the host ${known ? "need not" : "has to"} be typed`, seen.typed === !known, seen);
  client.check("the page loads nothing", seen.loaded === 0, seen);
  const fits = await consent.pictures(setting.pictures, name.replaceAll(" ", "-").toLowerCase());
  client.check("the page fits a phone and a desktop", fits);
  const answer = next(to);
  await consent.decide("allow", { token, host: known ? undefined : hostname });
  const landed = await consent.landed();
  if (!client.check("the browser lands at the client", landed === new URL(to).host, landed)) return;
  await client.take(await answer);
  await client.live();
}

// Clients whose address leads on, to another host than the one that was agreed to:
// browsers hold every step after a form against the policy of the form's page.
async function lead(browser) {
  const own = `http://localhost:${await port()}/callback`;
  const ipv6 = `http://[::1]:${await port()}/callback`;
  const ways = [
    ["ChatGPT", CHATGPT, clients[0].redirect, "https://chatgpt.com/connected"],
    ["Claude", CLAUDE, "https://claude.ai/api/mcp/auth_callback", "https://claude.com/connected"],
    ["Claude Code", CLAUDE_CODE, own, "https://claude.ai/connected"],
    ["a stranger", STRANGER, "https://app.stranger.example/callback", "https://other.stranger.example/connected"],
    ["a program at IPv6", undefined, ipv6, undefined],
  ];
  for (const [who, id, redirect, to] of ways) {
    const client = new Client({ name: to ? `${who} leads on` : who, base, id, redirect });
    if (!id) await (await client.discover()).register({ client_name: who, token_endpoint_auth_method: "none" });
    if (to) leadOn(redirect, to);
    const consent = await Consent.open(browser, client.request());
    const { typed } = await consent.read();
    const answer = next(redirect);
    await consent.decide("allow", { token, host: typed ? new URL(redirect).hostname : undefined });
    const landed = await consent.landed();
    client.check("the browser gets to its end", landed === new URL(to ?? redirect).host, landed);
    secret(client.judge(await answer, "the answer came on the way").get("code"));
  }
}

async function refuse(browser) {
  const known = new Client({ name: "no to ChatGPT", base, id: CHATGPT, redirect: clients[0].redirect });
  let consent = await Consent.open(browser, known.request());
  const answer = next(known.redirect);
  await consent.decide("deny");
  const landed = await consent.landed();
  known.check("the browser lands at the client", landed === new URL(known.redirect).host, landed);
  const query = known.judge(await answer, "the client is told, by whom and about what");
  known.check("it is told access_denied and gets no code", query.get("error") === "access_denied" && !query.has("code"), query.toString());
  const strange = new Client({ name: "no to a stranger", base, id: STRANGER, redirect: "https://app.stranger.example/callback" });
  consent = await Consent.open(browser, strange.request());
  await consent.decide("deny");
  await consent.page.until("the page that says no", "document.querySelector('a[href*=access_denied]')");
  const at = await consent.page.evaluate("location.origin");
  const followed = came.some((url) => url.startsWith(strange.redirect) && url.includes("access_denied"));
  strange.check("the browser stays, and nobody is told", at === base && !followed, at);
  const wrong = await Consent.open(browser, strange.request());
  await wrong.decide("allow", { token: `${token.slice(0, -2)}xx`, host: "app.stranger.example" });
  await wrong.page.until("the page again", "document.body.innerText.includes('no valid token of this server')");
  const kept = await wrong.page.evaluate("document.documentElement.outerHTML + JSON.stringify([localStorage.length, document.cookie])");
  strange.check("a wrong token is not shown again and kept nowhere", !kept.includes(token.slice(0, -2)) && kept.endsWith('[0,""]'), kept);
  const untyped = await Consent.open(browser, strange.request());
  await untyped.decide("allow", { token, host: "chatgpt.com" });
  await untyped.page.until("the page again", "document.body.innerText.includes('in the second field, exactly so')");
  const still = await untyped.page.evaluate("document.querySelector('form') !== null && location.pathname");
  strange.check("another host than shown is not enough", still === "/oauth/authorize", still);
}

// A foreign page puts the question into a frame.
async function frame(browser) {
  const client = new Client({ name: "framed", base, id: CHATGPT, redirect: clients[0].redirect });
  const inner = client.request();
  const page = await browser.page(`https://app.stranger.example/frame?of=${encodeURIComponent(inner)}`);
  await page.until("the foreign page", "document.querySelector('iframe')");
  const said = [];
  const refused = () => said.some((one) => /frame-ancestors|X-Frame-Options/i.test(one));
  for (let tries = 0; tries < 100 && !refused(); tries++) {
    said.push(...browser.complaints.splice(0));
    await new Promise((done) => setTimeout(done, 50));
  }
  client.check("a foreign page that frames the question is refused", refused(), said);
  // The browser's own page about the refusal stands there.
  const { targetInfos } = await browser.call("Target.getTargets");
  const { targetId } = targetInfos.find((one) => one.type === "iframe");
  const { sessionId } = await browser.call("Target.attachToTarget", { targetId, flatten: true });
  const expression = "document.forms.length + document.body.innerText";
  const { result } = await browser.call("Runtime.evaluate", { expression }, sessionId);
  client.check("and shows nothing to agree on", result.value.startsWith("0") && !result.value.includes("token"), result);
}

export async function play() {
  await open();
  const browser = start(setting);
  for (const [nth, client] of clients.entries()) await part(client.name, () => go(browser, client, nth));
  await part("no", () => refuse(browser));
  await part("on", () => lead(browser));
  // Who says no, or asks badly, gets a page with the status of a bad request.
  const said = browser.complaints.splice(0).filter((one) => !one.includes("the server responded with a status of 400"));
  check("the browser had nothing to say of the pages", said.length === 0, said);
  await part("framed", () => frame(browser));
  const hosts = [base, "https://chatgpt.com", "https://claude.ai", "https://claude.com", "https://app.stranger.example", "https://other.stranger.example", "http://localhost:", "http://[::1]:"];
  const others = browser.asked.filter((one) => !hosts.some((host) => one.startsWith(host)) && !/^(data|about|chrome)/.test(one));
  check("the browser asked nobody else", others.length === 0, others);
  await browser.close();
}
