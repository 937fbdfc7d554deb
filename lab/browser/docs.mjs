// Looks at the pages of a running server with a real browser, without a window.
//
//     node docs.mjs CHROMIUM URL TOKEN [SCREENSHOT]
//
// Opens URL/docs, sees the operations, puts the token in, tries one and reads
// 4 in the answer; follows the link of a hostile file and of a picture. Fails
// when anything was asked of another host, when the browser says a word about
// the page's policy, or when a hostile file runs.

import { createServer, request as ask } from "node:http";
import { writeFileSync } from "node:fs";

import { Chromium, check } from "./chromium.mjs";

const [chromium, url, token, screenshot] = process.argv.slice(2);
const browser = Chromium.start(chromium);
const open = (address) => browser.page(address);

// A page of somebody else: another name, so another site. Below /code/ it is a
// proxy to the server, as people run one that has more than one thing to serve.
const foreign = createServer((request, answer) => {
  if (request.url.startsWith("/code/")) {
    const headers = { ...request.headers, host: new URL(url).host };
    const inner = ask(url + request.url.slice("/code".length), { method: request.method, headers }, (reply) => {
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    request.pipe(inner);
    return;
  }
  answer.setHeader("Content-Type", "text/html");
  answer.end("<link rel=icon href=data:,><p>chat</p>");
});
await new Promise((done) => foreign.listen(0, "127.0.0.1", done));
const elsewhere = `http://localhost:${foreign.address().port}/`;

async function documentation() {
  const page = await open(`${url}/docs`);
  const { evaluate, until } = page;
  const count = await until("the operations", "document.querySelectorAll('.opblock').length");
  const known = await evaluate("fetch('openapi.json').then(r => r.json()).then(d => Object.values(d.paths).reduce((n, p) => n + Object.keys(p).length, 0))");
  check(count === known, `all ${known} operations are shown`);
  const click = (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`);
  // React listens for events, not for values.
  const type = (selector, text) => evaluate(`{
    const field = document.querySelector(${JSON.stringify(selector)});
    const kind = field instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, ${JSON.stringify(text)});
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }`);
  await click(".auth-wrapper .authorize");
  await until("the field of the token", "document.querySelector('.auth-container input')");
  await type(".auth-container input", token);
  await click(".auth-btn-wrapper .authorize");
  await until("the token to be taken", "document.querySelector('.auth-btn-wrapper .btn-done')");
  await click(".auth-btn-wrapper .btn-done");
  const execute = "[id$='executeCode']";
  await click(`${execute} .opblock-summary-control`);
  await until("the button to try", `document.querySelector("${execute} .try-out__btn")`);
  await click(`${execute} .try-out__btn`);
  await until("the field of the body", `document.querySelector("${execute} textarea")`);
  await type(`${execute} textarea`, JSON.stringify({ code: "print(2+2)", language: "python" }));
  await click(`${execute} .execute`);
  const answer = await until("the answer", `document.querySelector("${execute} .live-responses-table .response .highlight-code, ${execute} .live-responses-table .response pre")?.innerText`);
  check(answer.includes('"output": "4\\n"'), "an operation was tried and answered 4");
  const kept = await evaluate("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])");
  check(kept === '[0,0,""]', "the token is kept nowhere");
  if (screenshot) {
    await evaluate(`document.querySelector("${execute}").scrollIntoView()`);
    const { data } = await page.tab("Page.captureScreenshot", { format: "png" });
    writeFileSync(screenshot, Buffer.from(data, "base64"));
  }
}

async function behindAProxy() {
  const page = await open(`${elsewhere}code/docs`);
  await page.until("the operations behind a proxy", "document.querySelectorAll('.opblock').length");
  const server = await page.evaluate("document.querySelector('.servers option').value");
  check(server === `${elsewhere}code`, "behind a proxy that adds a path the page still finds its server");
}

async function files() {
  const code = [
    "import struct, zlib",
    "c = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))",
    "png = b'\\x89PNG\\r\\n\\x1a\\n' + c(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0)) + c(b'IDAT', zlib.compress((b'\\0' + b'\\xff\\0\\0' * 8) * 8)) + c(b'IEND', b'')",
    "open('plot.png', 'wb').write(png)",
    "evil = '<script>document.title=\"ran\";alert(1)</script>'",
    "open('x.svg', 'w').write('<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\" onload=\"alert(2)\">' + evil + '</svg>')",
    "open('x.html', 'w').write(evil)",
    "open('x.txt', 'w').write(evil)",
  ].join("\n");
  const answer = await fetch(`${url}/execute`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ code, language: "python" }),
  });
  const made = (await answer.json()).files;
  const link = (name) => made.find((file) => file.name === name).url;
  const picture = await open(link("plot.png"));
  const width = await picture.until("the picture", "document.images[0]?.naturalWidth");
  check(width === 8, "a picture is shown by its link");
  const text = await open(link("x.txt"));
  const shown = await text.until("the text", "document.body?.innerText");
  check(shown.startsWith("<script>"), "a text is shown as text");
  // In a frame's place and by address, hostile files are saved or inert.
  for (const name of ["x.html", "x.svg"]) {
    const page = await open(link(name)).catch((error) => error);
    await new Promise((done) => setTimeout(done, 500));
    const title = page.evaluate ? await page.evaluate("document.title") : "";
    check(title !== "ran", `${name} does not run`);
  }
  // A chat shows pictures in a page of its own.
  const chat = await open(elsewhere);
  await chat.until("the chat", "document.body?.innerText");
  for (const name of ["plot.png", "x.svg"]) {
    const seen = await chat.evaluate(`new Promise((done) => { const i = new Image(); i.onload = () => done(i.width); i.onerror = () => done(0); i.src = ${JSON.stringify(link(name))}; })`);
    check(seen > 0, `${name} is shown in a foreign page`);
  }
}

let failed = 0;
try {
  await documentation();
  await behindAProxy();
  await files();
  const { asked, complaints } = browser;
  const others = asked.filter((one) => !one.startsWith(`${url}/`) && !one.startsWith(elsewhere) && !/^(data|about|blob):/.test(one));
  check(others.length === 0, `nothing was asked of anybody else ${others.join(" ")}`);
  check(complaints.length === 0, `the browser had nothing to say ${complaints.join("\n")}`);
  check(asked.filter((one) => one.includes("/docs/")).length >= 3, "the parts came from this server");
} catch (error) {
  console.error(`failed: ${error.message}`);
  for (const complaint of browser.complaints) console.error(`the browser said: ${complaint}`);
  failed = 1;
} finally {
  await browser.close();
  foreign.close();
}
process.exit(failed);
