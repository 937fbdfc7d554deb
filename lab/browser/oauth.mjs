// The page on which a person agrees, in a real browser: fills it in, presses a
// button, and follows the answer to where it lands, over TLS. Chromium holds the
// redirect after a form against the form's policy, so landing is a check of that too.
//
// Believes no certificate but those of the authority that the play made.

import { createHash, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Chromium } from "./chromium.mjs";

// Milliseconds for a browser to come to where an answer goes.
const PATIENCE = 8_000;

// Sizes of windows that pictures are taken in.
const SIZES = {
  phone: { width: 360, height: 740, deviceScaleFactor: 2, mobile: true },
  desktop: { width: 1280, height: 800, deviceScaleFactor: 1, mobile: false },
};

// Starts a browser that believes in an authority; `setting` says in which.
export function start(setting) {
  const key = new X509Certificate(readFileSync(setting.authority)).publicKey.export({ type: "spki", format: "der" });
  const print = createHash("sha256").update(key).digest("base64");
  return Chromium.start(setting.chromium, { flags: [`--ignore-certificate-errors-spki-list=${print}`] });
}

// The page that asks.
export class Consent {
  static async open(browser, url) {
    const consent = new Consent();
    consent.page = await browser.page(url);
    await consent.page.until("the page that asks", "document.querySelector('form')");
    return consent;
  }

  // What stands on it: the heading, the text, whether the host has to be typed, and
  // whether anything is as large as the heading.
  read() {
    return this.page.evaluate(`{
      const size = (one) => parseFloat(getComputedStyle(one).fontSize);
      const heading = document.querySelector("h1");
      const others = [...document.body.querySelectorAll("*")].filter((one) => one !== heading && !heading.contains(one) && one.innerText?.trim());
      ({
        heading: heading.innerText,
        text: document.body.innerText,
        typed: Boolean(document.querySelector("[name=host]")),
        largest: others.every((one) => size(one) < size(heading)),
        loaded: performance.getEntriesByType("resource").length,
        width: document.documentElement.scrollWidth,
      })
    }`);
  }

  // Fills it in and presses a button, with the keys and the mouse of the browser.
  async decide(decision, { token, host } = {}) {
    const { tab, evaluate, until } = this.page;
    // The page's own focus first, or the browser says that it came too late.
    await until("the focus", "document.activeElement?.name === 'token'");
    for (const [name, text] of Object.entries({ token, host })) {
      if (text === undefined) continue;
      await evaluate(`document.querySelector("[name=${name}]").focus()`);
      await tab("Input.insertText", { text });
    }
    await evaluate(`document.querySelector("[name=decision][value=${decision}]").click()`);
  }

  // The host of the client that it came to in the end, or the page where it stopped.
  async landed() {
    const { evaluate } = this.page;
    for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(50)) {
      const host = await evaluate("document.querySelector('#landed') && location.host").catch(() => null);
      if (host) return host;
    }
    return evaluate("location.href + document.body.innerText");
  }

  // Takes pictures at each size; gives whether the page fits each.
  async pictures(directory, name) {
    const fits = [];
    for (const [size, metrics] of Object.entries(SIZES)) {
      await this.page.tab("Emulation.setDeviceMetricsOverride", metrics);
      fits.push((await this.read()).width <= metrics.width);
      const { data } = await this.page.tab("Page.captureScreenshot", { format: "png" });
      writeFileSync(join(directory, `${name}-${size}.png`), Buffer.from(data, "base64"));
    }
    await this.page.tab("Emulation.clearDeviceMetricsOverride");
    return fits.every(Boolean);
  }
}
