// Starts Chromium without a window and speaks the browser's own protocol with
// it over two pipes, so that its scripts need nothing but node.
//
// Checks nothing itself: it gives what was asked of the network and what the
// browser said, and the scripts judge. Never lets a page open a dialog unseen.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// Milliseconds that a page is waited for.
export const PATIENCE = 30_000;

// A running browser with an empty profile of its own.
export class Chromium {
  #process;
  #profile;
  #last = 0;
  #waiting = new Map();
  #listeners = [];

  // The addresses that any page asked for.
  asked = [];
  // What the browser said: errors, refusals by a policy, dialogs.
  complaints = [];

  // Starts the program; `flags` are added to those that every script wants.
  static start(chromium, { width = 1200, height = 1600, flags = [] } = {}) {
    const browser = new Chromium();
    browser.#profile = mkdtempSync(join(tmpdir(), "codex-browser-"));
    browser.#process = spawn(
      chromium,
      [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-default-apps", "--disable-extensions", `--window-size=${width},${height}`,
        `--user-data-dir=${browser.#profile}`, "--remote-debugging-pipe", ...flags, "about:blank",
      ],
      { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
    );
    let rest = "";
    const output = browser.#process.stdio[4];
    output.setEncoding("utf8");
    output.on("data", (text) => {
      const parts = (rest + text).split("\0");
      rest = parts.pop();
      for (const part of parts) browser.#heard(JSON.parse(part));
    });
    return browser;
  }

  #heard(message) {
    if (message.id) {
      const { yes, no } = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      return message.error ? no(new Error(message.error.message)) : yes(message.result);
    }
    const { method, params, sessionId } = message;
    if (method === "Network.requestWillBeSent") this.asked.push(params.request.url);
    if (method === "Log.entryAdded") this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.text);
    if (method === "Page.javascriptDialogOpening") this.complaints.push(`dialog: ${params.message}`);
    for (const listener of this.#listeners) listener(method, params, sessionId);
  }

  // Hands every event of the browser to `listener(method, params, session)`.
  listen(listener) {
    this.#listeners.push(listener);
  }

  // Calls a method of the protocol, of a page's session where one is given.
  call(method, params = {}, session = undefined) {
    const id = ++this.#last;
    return new Promise((yes, no) => {
      this.#waiting.set(id, { yes, no });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
    });
  }

  // Opens an address in a page of its own. `evaluate(expression)` gives its
  // value; `until(what, expression)` waits until it gives something; `tab`
  // calls a method of the protocol for this page; `asked` and `complaints`
  // are those of the whole browser.
  async page(url) {
    const { targetId } = await this.call("Target.createTarget", { url: "about:blank" });
    const { sessionId: session } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const tab = (method, params) => this.call(method, params, session);
    for (const domain of ["Page", "Network", "Log", "Runtime"]) await tab(`${domain}.enable`);
    await tab("Page.navigate", { url });
    const evaluate = async (expression) => {
      const { result, exceptionDetails } = await tab("Runtime.evaluate", {
        expression, awaitPromise: true, returnByValue: true,
      });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    };
    const until = async (what, expression) => {
      const end = Date.now() + PATIENCE;
      for (;;) {
        const found = await evaluate(`{ const v = ${expression}; v instanceof Node ? true : v; }`).catch(() => null);
        if (found) return found;
        if (Date.now() > end) throw new Error(`waited in vain for ${what}: ${await evaluate("document.body.innerText.slice(0, 2000)")}`);
        await new Promise((done) => setTimeout(done, 50));
      }
    };
    return { session, tab, evaluate, until, asked: this.asked, complaints: this.complaints };
  }

  // Ends the browser and its children, and deletes its profile.
  async close() {
    const ended = new Promise((done) => this.#process.once("exit", done));
    // Asked to close it ends its own children too; else it is made to.
    const force = setTimeout(() => this.#process.kill("SIGKILL"), 5_000);
    this.call("Browser.close").catch(() => {});
    await ended;
    clearTimeout(force);
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

// Prints that a check passed, or throws what it was.
export function check(good, what) {
  if (!good) throw new Error(what);
  console.log(`ok: ${what}`);
}
