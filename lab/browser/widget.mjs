// Looks at the view of a run (ui://codex/run.html) with a real browser, as a
// chat would show it.
//
//     node widget.mjs CHROMIUM URL TOKEN SCREENSHOTS
//
// Reads the page from the running server, puts it into a sandboxed frame of
// another origin with the policy that hosts give by default, plays the host by
// the protocol, and hands it what real calls of run_code gave. Fails when a
// result is not there as text, when anything is asked of the network, when the
// browser says a word, or when the view breaks the protocol. Writes a picture of
// each state into the folder SCREENSHOTS.

import { createServer } from "node:http";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Chromium, PATIENCE, check } from "./chromium.mjs";

const [chromium, url, token, screenshots] = process.argv.slice(2);
const here = (name) => readFileSync(new URL(name, import.meta.url), "utf8");

const PAGE = "ui://codex/run.html";
const TYPE = "text/html;profile=mcp-app";

// What hosts must send for a view that asks for no domain.
const POLICY = [
  "default-src 'none'", "script-src 'self' 'unsafe-inline'", "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:", "media-src 'self' data:", "object-src 'none'", "connect-src 'none'",
  "frame-src 'none'", "base-uri 'self'",
].join("; ");

// ------------------------------------------------------------------- The server

// Asks the server as a client of the version without sessions that shows views.
async function mcp(method, params, name) {
  const answer = await fetch(`${url}/mcp`, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${token}`,
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": "2026-07-28",
      "Mcp-Method": method,
      ...(name ? { "Mcp-Name": name } : {}),
    },
    body: JSON.stringify({
      jsonrpc: "2.0", id: 1, method,
      params: {
        ...params,
        _meta: {
          "io.modelcontextprotocol/protocolVersion": "2026-07-28",
          "io.modelcontextprotocol/clientInfo": { name: "lab", version: "1" },
          "io.modelcontextprotocol/clientCapabilities": {
            extensions: { "io.modelcontextprotocol/ui": { mimeTypes: [TYPE] } },
          },
        },
      },
    }),
  });
  const text = await answer.text();
  const events = text.split("\n").filter((line) => line.startsWith("data:") && line.length > 6);
  const message = JSON.parse(events.length > 0 ? events.at(-1).slice(5) : text);
  if (message.error) throw new Error(`${method}: ${message.error.message}`);
  return message.result;
}

const run = (given) => mcp("tools/call", { name: "run_code", arguments: given }, "run_code");

// ----------------------------------------------------------------- The browser

const browser = Chromium.start(chromium, { width: 1280, height: 800 });
const SIZES = { phone: [360, 640], desktop: [1280, 800], small: [320, 568] };

// The host's page and the view are of two origins, as in a chat.
function serve(answerOf) {
  const server = createServer(async (request, answer) => {
    const { type, body, policy } = await answerOf(new URL(request.url, "http://host"));
    answer.setHeader("Content-Type", type);
    if (policy) answer.setHeader("Content-Security-Policy", policy);
    answer.end(body);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

const at = (server) => `http://127.0.0.1:${server.address().port}`;

// A chat with one card. `chat(state)` makes the view, `tell(method, params)` sends it a notification.
class Chat {
  static async open(hosts, size, { theme = "light", variables = {}, abilities = ALL, insets = undefined, isSilent = false } = {}) {
    const chat = new Chat();
    chat.page = await browser.page("about:blank");
    // The frame may be a process, and so a session, of its own.
    chat.frame = new Promise((done) => {
      browser.listen(async (method, params, session) => {
        if (method !== "Target.attachedToTarget" || session !== chat.page.session) return;
        for (const domain of ["Network", "Log", "Runtime", "Page"]) await browser.call(`${domain}.enable`, {}, params.sessionId);
        await browser.call("Runtime.runIfWaitingForDebugger", {}, params.sessionId);
        // The first frame is the view's; its address is not known yet.
        done(params.sessionId);
      });
    });
    await chat.page.tab("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: true, flatten: true });
    chat.size = size;
    await chat.resize(...SIZES[size]);
    await chat.page.tab("Page.navigate", { url: `${at(hosts.chat)}/` });
    await chat.page.until("the host", "typeof host === 'object'");
    const context = { theme, styles: { variables }, displayMode: "inline", platform: "web", locale: "en", safeAreaInsets: insets };
    await chat.page.evaluate(`host.isSilent = ${isSilent}; host.begin(${JSON.stringify({ context, abilities })})`);
    await chat.page.until("the handshake", isSilent ? "host.heard.length > 0" : "host.isReady");
    return chat;
  }

  tell(method, params) {
    return this.page.evaluate(`host.tell(${JSON.stringify(`ui/notifications/${method}`)}, ${JSON.stringify(params)})`);
  }

  // Shows a call with its result, and waits until the host has fitted the frame.
  async show(given, result) {
    await this.tell("tool-input", { arguments: given });
    await this.tell("tool-result", result);
    await this.fitted();
  }

  async fitted() {
    await this.inside("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))");
    await this.page.until("the size", "host.isFitted()");
  }

  // Evaluates within the view.
  async inside(expression) {
    const { result, exceptionDetails } = await browser.call("Runtime.evaluate", {
      expression, awaitPromise: true, returnByValue: true, userGesture: true,
    }, await this.frame);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async insideUntil(what, expression) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const found = await this.inside(expression);
      if (found) return found;
      if (Date.now() > end) throw new Error(`waited in vain for ${what}: ${await this.text()}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  text = () => this.inside("document.body.innerText");
  status = () => this.inside("document.getElementById('status').textContent");
  // Waits until the view asks for something.
  until = (method) => this.page.until(method, `host.heard.find((one) => one.method === ${JSON.stringify(method)})`);
  press = (words) => this.inside(`[...document.querySelectorAll("button")].find((one) => (one.ariaLabel ?? one.textContent).startsWith(${JSON.stringify(words)})).click()`);

  // Checks what holds of every card, takes its picture, and ends it as hosts do.
  async close(name) {
    await this.fitted();
    const scrolls = await this.inside(`[...document.querySelectorAll("*")].filter((one) => one !== document.body && (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1) && getComputedStyle(one).overflow !== "visible").map((one) => one.outerHTML.slice(0, 80))`);
    check(scrolls.length === 0, `${name}: nothing scrolls inside ${scrolls.join(" ")}`);
    const fits = await this.inside("document.scrollingElement.scrollHeight <= innerHeight && document.scrollingElement.scrollWidth <= innerWidth && Math.ceil(document.body.getBoundingClientRect().height) === innerHeight");
    check(fits, `${name}: the card has the size that it asked for`);
    const foreign = await this.inside(`[...document.querySelectorAll("main *")].map((one) => one.localName).filter((one) => !${JSON.stringify(ELEMENTS)}.includes(one))`);
    const scripts = await this.inside("document.scripts.length + document.querySelectorAll('iframe, object, embed, a, base, svg').length");
    check(foreign.length === 0 && scripts === 1, `${name}: there are the view's own elements alone ${foreign.join(" ")}`);
    await this.picture(name);
    check((await this.page.evaluate("host.ask('ping', {})")).error === undefined, `${name}: a ping is answered`);
    check((await this.page.evaluate("host.ask('tools/list', {})")).error.code === -32601, `${name}: another method is refused`);
    check((await this.page.evaluate("host.ask('ui/resource-teardown', { reason: 'end' })")).error === undefined, `${name}: the end is agreed to`);
    const faults = await this.page.evaluate("host.faults");
    check(faults.length === 0, `${name}: the protocol was kept ${faults.join("; ")}`);
    await this.page.tab("Page.close");
  }

  // Takes a picture of the whole page, as of a window that is high enough: what
  // lies outside of the window is not painted.
  async picture(name) {
    const [width, height] = SIZES[this.size];
    const wanted = await this.page.evaluate("Math.ceil(document.body.getBoundingClientRect().height)");
    await this.resize(width, Math.min(Math.max(wanted, 100), 3_000));
    await this.inside("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))))");
    const { data } = await this.page.tab("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(screenshots, `${name}.png`), Buffer.from(data, "base64"));
    await this.resize(width, height);
  }

  resize(width, height) {
    return this.page.tab("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 2, mobile: this.size !== "desktop" });
  }
}

const ALL = { openLinks: {}, downloadFile: {}, serverTools: {}, serverResources: {}, logging: {} };
const ELEMENTS = [
  "header", "p", "details", "summary", "span", "pre", "section", "h2", "button", "ul", "li", "bdi", "figure", "figcaption", "img",
];

// --------------------------------------------------------------- What is shown

// Draws a curve and bars with nothing but the standard library.
const DRAW = `import math, struct, zlib
def png(name, width, height, colour):
    rows = b"".join(b"\\0" + b"".join(bytes(colour(x, y)) for x in range(width)) for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    open(name, "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
def axes(x, y):
    return x == 40 or y == 260
def curve(x, y):
    near = abs(y - 150 + 90 * math.sin((x - 40) / 40)) / math.hypot(1, 2.2 * math.cos((x - 40) / 40))
    if x > 40 and near < 2: return (31, 119, 180)
    return (40, 40, 40) if axes(x, y) and x >= 40 and y <= 260 else (255, 255, 255)
def bars(x, y):
    bar, within = divmod(x - 56, 56)
    high = [60, 130, 95, 190, 150, 215][bar] if 0 <= bar < 6 and 0 <= within < 36 else 0
    if 260 - high < y < 260: return (255, 127, 14)
    return (40, 40, 40) if axes(x, y) and x >= 40 and y <= 260 else (255, 255, 255)
png("waves.png", 420, 300, curve)
png("sales.png", 420, 300, bars)
print("drawn: waves.png, sales.png")
`;

const FILES = `open("sales.csv", "w").write("month,sales\\n" + "".join(f"{m},{m * 37 % 101}\\n" for m in range(1, 1300)))
open("report.pdf", "wb").write(b"%PDF-1.4\\n" + bytes(range(256)) * 700)
open("a longer name of a note that somebody made.txt", "w").write("fünf\\n")
print("3 files written")
`;

const COLOURS = `import sys
for step in range(0, 101, 20): print(f"\\r{step:3d}% " + "#" * (step // 5), end="")
print()
print("\\x1b[1mtests\\x1b[0m  \\x1b[32m12 passed\\x1b[0m, \\x1b[31m1 failed\\x1b[0m, \\x1b[33;1m2 warnings\\x1b[0m")
print("\\x1b]0;title\\x07\\x1b[2K\\x1b[38;5;208mother palettes\\x1b[0m are left out")
print("name      value\\nalpha      0.25\\nbeta      12.50")
`;

const TRACEBACK = `def mean(values):
    return sum(values) / len(values)

print("reading 0 rows")
print(mean([]))
`;

// What a program might print to be more than text.
const HOSTILE = [
  "<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "</pre><iframe src=javascript:alert(3)></iframe>",
  "<svg onload=alert(4)>", "</script><script>alert(5)</script>", "<a href=javascript:alert(6)>x</a>",
  "<!--", "&lt;b&gt;", "${alert(7)}", "<style>*{display:none}</style>", "<base href=http://127.0.0.1:9/>",
  "<link rel=stylesheet href=http://127.0.0.1:9/x.css>", "<meta http-equiv=refresh content=0;url=http://127.0.0.1:9/>",
];
const NAMES = ["<img src=x onerror=alert(8)>.txt", "javascript:alert(9).html", "photo\u202egnp.exe", "'\"><b>.csv", "${alert(10)}.svg"];
const EVIL = `import sys, json
for line in json.loads(${JSON.stringify(JSON.stringify(HOSTILE))}):
    print(line); print(line, file=sys.stderr)
print("nul \\0 right-to-left \\u202eabc\\u2066 bell \\x07 unfinished \\x1b[31")
for name in json.loads(${JSON.stringify(JSON.stringify(NAMES))}):
    try: open(name, "w").write("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(11)'/>")
    except OSError as error: print(error)
sys.stdout.flush()
open("no.png", "wb").write(b"\\x89PNG\\r\\n\\x1a\\nno picture <script>alert(12)</script>")
`;

async function outputs(hosts) {
  const given = { code: COLOURS };
  const result = await run(given);
  for (const [size, theme] of [["phone", "dark"], ["desktop", "light"]]) {
    const chat = await Chat.open(hosts, size, { theme });
    await chat.tell("tool-input-partial", { arguments: { code: "import s" } });
    check(await chat.status() === "Writing the code", "code that is being written is told");
    await chat.tell("tool-input", { arguments: given });
    check(await chat.status() === "Running", "a run that goes on is told");
    await chat.fitted();
    await chat.picture(`running-${theme}-${size}`);
    await chat.tell("tool-result", result);
    const text = await chat.insideUntil("the output", "document.getElementById('output').innerText");
    check(await chat.status() === "Done", "a run that went well is done");
    check(text.startsWith("100% ####################\ntests  12 passed, 1 failed, 2 warnings\nother palettes are left out\n"), `a progress bar has its last state, and colours are no garbage: ${JSON.stringify(text)}`);
    check(await chat.inside("document.querySelector('#output .c2').textContent") === "12 passed", "colours are shown");
    check((await chat.inside("document.getElementById('code').textContent")).includes("import sys"), "the code is there");
    check(await chat.inside("document.getElementById('program').open") === false, "the code is folded");
    if (size === "desktop") await chat.inside("document.querySelector('summary').click()");
    await chat.close(`output-${theme}-${size}`);
  }
}

async function failures(hosts) {
  const given = { code: TRACEBACK };
  const chat = await Chat.open(hosts, "phone", { theme: "light" });
  await chat.show(given, await run(given));
  check(await chat.status() === "Failed", "a program that failed is told");
  const text = await chat.text();
  for (const words of ["exit code 1", "ZeroDivisionError", "reading 0 rows"]) check(text.includes(words), `a failure shows ${words}`);
  await chat.close("error-light-phone");
  for (const [name, call, status, words] of [
    ["timeout", { code: "import time\nprint('so far', flush=True)\ntime.sleep(30)", timeout: 1 }, "Stopped: time was up", "so far"],
    ["crash", { code: "import os\nos.kill(os.getpid(), 11)" }, "Killed", "SIGSEGV"],
    ["silence", { code: "x = 1" }, "Done", "Nothing was printed."],
    ["refusal", { code: "x", language: "cobol" }, "Not run", "Send one of"],
  ]) {
    const chat = await Chat.open(hosts, "desktop", { theme: "dark" });
    await chat.show(call, await run(call));
    check(await chat.status() === status, `${name}: the status says so: ${await chat.status()}`);
    check((await chat.text()).includes(words), `${name}: ${words} is shown`);
    await chat.close(`${name}-dark-desktop`);
  }
  const stopped = await Chat.open(hosts, "phone", { theme: "dark" });
  await stopped.tell("tool-input", { arguments: { code: "while True: pass" } });
  await stopped.tell("tool-cancelled", { reason: "The user stopped it." });
  check(await stopped.status() === "Cancelled", "a call that was cancelled is told");
  await stopped.close("cancelled-dark-phone");
}

async function pictures(hosts) {
  const given = { code: DRAW };
  const result = await run(given);
  check(result._meta["codex/pictures"].length === 2, "two pictures came in _meta");
  for (const [size, theme, shown] of [
    ["desktop", "light", result], ["phone", "dark", result],
    // A host that keeps _meta to itself.
    ["phone", "light", { ...result, _meta: undefined }],
  ]) {
    const chat = await Chat.open(hosts, size, { theme });
    await chat.show(given, shown);
    const found = await chat.inside("Promise.all([...document.images].map((one) => one.decode().then(() => [one.naturalWidth, one.alt])))");
    check(JSON.stringify(found) === JSON.stringify(["sales.png", "waves.png"].map((name) => [420, `Picture made by the program: ${name}`])), `both plots are seen and named: ${JSON.stringify(found)}`);
    await chat.press("Download sales.png");
    const { params } = await chat.until("ui/download-file");
    check(params.contents[0].resource.blob.startsWith("iVBOR"), "a plot is handed to the host");
    await chat.close(`plots-${theme}-${size}${shown === result ? "" : "-without-meta"}`);
  }
}

async function files(hosts) {
  const given = { code: FILES };
  const result = await run(given);
  const made = result.structuredContent.files;
  check(made.length === 3 && made.every((file) => file.url.startsWith("https://")), "three files have links");
  const buttons = "document.querySelectorAll('#files button').length";
  const chat = await Chat.open(hosts, "phone", { theme: "light" });
  await chat.show(given, result);
  check(await chat.inside(buttons) === 3, "each file has a button");
  for (const file of made) {
    await chat.press(`Download ${file.path}`);
    const { params } = await chat.until("ui/download-file");
    const { type, resource } = params.contents[0];
    check(type === "resource" && resource.uri === `file:///${encodeURIComponent(file.path)}`, `${file.path} has its name`);
    const content = resource.text === undefined ? Buffer.from(resource.blob, "base64") : Buffer.from(resource.text);
    check(content.length === file.size, `${file.path} is handed to the host whole`);
    await chat.page.evaluate("host.heard.length = 0");
  }
  await chat.page.evaluate("host.refuses = true");
  await chat.press("Download sales.csv");
  await chat.insideUntil("the refusal", "document.getElementById('told').textContent.includes('was not downloaded: denied by the user')");
  await chat.close("files-light-phone");

  const large = { code: "open('large.bin', 'wb').write(bytes(6 << 20))" };
  const linked = await Chat.open(hosts, "phone", { theme: "dark" });
  const big = await run(large);
  await linked.show(large, big);
  await linked.press("Download large.bin");
  const { params } = await linked.until("ui/download-file");
  const link = { type: "resource_link", uri: big.structuredContent.files[0].url, name: "large.bin" };
  check(Object.entries(link).every(([key, value]) => params.contents[0][key] === value), "a file that is too large to be read is handed over as a link");
  await linked.close("large-file-dark-phone");

  const links = await Chat.open(hosts, "desktop", { theme: "dark", abilities: { openLinks: {} } });
  await links.show(given, result);
  await links.press("Download sales.csv");
  const opened = await links.until("ui/open-link");
  check(opened.params.url === made.find((file) => file.path === "sales.csv").url, "without downloads the host is asked to open the link");
  await links.close("files-dark-desktop");

  const nothing = await Chat.open(hosts, "desktop", { theme: "light", abilities: {} });
  const evil = structuredClone(result);
  for (const file of evil.structuredContent.files) file.url = "javascript:alert(1)";
  await nothing.show(given, evil);
  check(await nothing.inside(buttons) === 0, "a host that can do neither is offered no button");
  check((await nothing.text()).includes("sales.csv"), "and shows the names");
  await nothing.close("files-without-links-light-desktop");

  const crooked = await Chat.open(hosts, "desktop", { theme: "light", abilities: { openLinks: {}, downloadFile: {} } });
  await crooked.show(given, evil);
  check(await crooked.inside(buttons) === 0, "no link of another scheme is handed to the host");
  await crooked.close("files-with-crooked-links-light-desktop");
}

async function lengths(hosts) {
  const given = { code: "for n in range(1, 1001): print(f'{n:4d} ' + 'lorem ipsum ' * 2)" };
  const result = await run(given);
  const chat = await Chat.open(hosts, "phone", { theme: "dark" });
  await chat.show(given, result);
  const before = await chat.page.evaluate("host.size.height");
  check(before < 640, `long output fits a phone at first: ${before}`);
  await chat.picture("long-dark-phone");
  await chat.press("Show all");
  await chat.fitted();
  const output = "document.querySelector('#output pre').textContent";
  check(await chat.inside(output) === result.structuredContent.output.replace(/\n+$/, ""), "all of it is shown when asked for");
  check(await chat.page.evaluate("host.size.height") > before + 5_000, "and the card grows");
  await chat.close("long-whole-dark-phone");

  const much = { code: "print('x' * 300000)" };
  const cut = await Chat.open(hosts, "desktop", { theme: "light" });
  await cut.show(much, await run(much));
  check((await cut.text()).includes("The output was cut"), "a result that was cut says so");
  await cut.close("cut-light-desktop");
}

async function hostile(hosts) {
  const given = { code: EVIL };
  const result = await run(given);
  for (const [size, theme] of [["small", "light"], ["desktop", "dark"]]) {
    const chat = await Chat.open(hosts, size, { theme });
    await chat.show(given, result);
    await chat.inside("document.getElementById('all').click()");
    const output = await chat.inside("document.querySelector('#output pre').textContent");
    const error = await chat.inside("document.querySelector('#error pre').textContent");
    const all = await chat.inside("document.body.textContent");
    for (const line of HOSTILE) check(output.includes(line) && error.includes(line), `it is text: ${line}`);
    check(/nul \\x00 right-to-left \\u202eabc\\u2066 bell \\x07 unfinished $/m.test(output), "control characters are seen");
    check(!/[\u202e\u2066\0]/.test(all), "and have no effect");
    const names = await chat.inside("[...document.querySelectorAll('#files bdi')].map((one) => one.textContent)");
    for (const name of NAMES) check(names.includes(name.replace("\u202e", "\\u202e")), `a name is text: ${name}`);
    await chat.insideUntil("the broken picture", "document.images.length === 0 && document.getElementById('pictures').textContent.includes('no picture')");
    await chat.close(`hostile-${theme}-${size}`);
  }
}

// Results that no server of ours gives, and messages that are none.
async function crooked(hosts) {
  const chat = await Chat.open(hosts, "phone", { theme: "light", insets: { top: 10, right: 20, bottom: 30, left: 40 } });
  const padding = await chat.inside("getComputedStyle(document.body).padding");
  check(padding === "24px 36px 44px 56px", `insets are kept free: ${padding}`);
  await chat.tell("tool-input", { arguments: { code: "1" } });
  await chat.page.evaluate("host.strange()");
  check(await chat.status() === "Running", "messages of another window, and those that are none, change nothing");
  const data = `iVBORw0KGgo=" onerror="alert(1)`;
  for (const result of [
    {}, { content: "x", structuredContent: [] }, { content: [null, 7, { type: "text" }] },
    { structuredContent: { status: {}, output: 7, error: [], exit_code: "0", execution_time: "x", files: [null, { path: 7, size: "x", uri: {}, url: 1 }], warnings: [7, {}] } },
    { structuredContent: { status: "<b>", output: "ok", files: "x" }, _meta: { "codex/pictures": [null, { name: 1, media_type: "image/png", data }, { media_type: "image/svg+xml", data: "PHN2Zz4=" }, { media_type: "text/html", data: "iVBORw0KGgo=" }] } },
  ]) {
    await chat.tell("tool-result", result);
    check(await chat.inside("document.images.length") === 0, `a strange result makes no picture: ${JSON.stringify(result).slice(0, 60)}`);
  }
  check((await chat.text()).includes("<b>"), "a status that is unknown is text");
  await chat.close("crooked-light-phone");
}

async function themes(hosts) {
  const colours = "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].join(); })()";
  const silent = await Chat.open(hosts, "phone", { isSilent: true });
  const schemes = [];
  for (const value of ["light", "dark"]) {
    await browser.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] }, await silent.frame);
    schemes.push(await silent.inside(colours));
  }
  check(schemes[0] !== schemes[1], `before the host says its theme it is the browser's: ${schemes.join(" ")}`);
  await silent.page.tab("Page.close");
  const chat = await Chat.open(hosts, "desktop", { theme: "light" });
  const given = { code: "print('hello')" };
  await chat.show(given, await run(given));
  const light = await chat.inside(colours);
  await chat.tell("host-context-changed", { theme: "dark" });
  const dark = await chat.inside(colours);
  check(light !== dark, `light and dark differ: ${light} ${dark}`);
  const variables = {
    "--color-background-primary": "light-dark(#fffaf0, #102030)", "--color-text-primary": "light-dark(#111111, #f0f0e0)",
    "--color-background-secondary": "light-dark(#f3ead7, #1c3145)", "--font-sans": "Georgia, serif", "--border-radius-md": "2px",
    "--color-border-primary": "url(http://127.0.0.1:9/leak)", "width": "1px",
  };
  await chat.tell("host-context-changed", { styles: { variables } });
  check(await chat.inside(colours) === "rgb(16, 32, 48),rgb(240, 240, 224)", "the host's colours are taken in dark");
  await chat.tell("host-context-changed", { theme: "light" });
  check(await chat.inside(colours) === "rgb(255, 250, 240),rgb(17, 17, 17)", "and in light");
  check((await chat.inside("getComputedStyle(document.body).fontFamily")).startsWith("Georgia"), "and its font");
  check(await chat.inside("document.documentElement.style.width + document.documentElement.style.getPropertyValue('--color-border-primary')") === "", "but nothing that fetches");
  await chat.close("host-colours-light-desktop");
}

// ------------------------------------------------------------------------ Begin

let failed = 0;
const servers = [];
try {
  mkdirSync(screenshots, { recursive: true });
  const { tools } = await mcp("tools/list", {});
  const named = tools.find((tool) => tool.name === "run_code")._meta.ui.resourceUri;
  check(named === PAGE, "run_code names its view");
  const [page] = (await mcp("resources/read", { uri: named }, named)).contents;
  check(page.mimeType === TYPE && Object.values(page._meta.ui.csp).flat().length === 0, "the view wants no domain");
  const view = await serve(() => ({ type: "text/html; charset=utf-8", body: page.text, policy: POLICY }));
  const chat = await serve(async (asked) => {
    if (asked.pathname !== "/read") return { type: "text/html; charset=utf-8", body: here("host.html").replace("VIEW", `${at(view)}/`) };
    const uri = asked.searchParams.get("uri");
    return { type: "application/json", body: JSON.stringify(await mcp("resources/read", { uri }, uri)) };
  });
  servers.push(view, chat);
  const hosts = { view, chat };
  for (const part of [outputs, failures, pictures, files, lengths, hostile, crooked, themes]) await part(hosts);
  const { asked, complaints } = browser;
  const others = asked.filter((one) => !one.startsWith(at(chat)) && one !== `${at(view)}/` && !/^(data|about|blob):/.test(one));
  check(others.length === 0, `nothing was asked of the network ${others.join(" ")}`);
  check(asked.includes(`${at(view)}/`), "and what was asked is known");
  check(complaints.length === 0, `the browser had nothing to say ${complaints.join("\n")}`);
} catch (error) {
  console.error(`failed: ${error.stack}`);
  for (const complaint of browser.complaints) console.error(`the browser said: ${complaint}`);
  failed = 1;
} finally {
  await browser.close();
  for (const server of servers) server.close();
}
process.exit(failed);
