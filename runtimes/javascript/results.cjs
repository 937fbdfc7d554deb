// What values look like, in each form that there is, on their way to the server, and
// `display`, which shows them.
//
// kernel.cjs uses it in a session; boot.cjs when a program that runs once shows
// something. `send` takes a kind of frame and its fields. All that is needed is bound at
// the start, as programs may break what they share with it.
"use strict";

const util = require("node:util");

const RESULT = 1;
// Bytes of a text in a result, and of any other form.
const [TEXT, BYTES] = [1 << 20, 8 << 20];
const { stringify } = JSON;
const { from: bytes } = Buffer;
const { inspect } = util;

const utf8 = (text) => bytes(String(text), "utf8");
const cut = (text) =>
  text.length <= TEXT ? text : `${text.slice(0, TEXT)}… [${text.length - TEXT} characters omitted]`;

// Results: how a value looks, in each form that there is.

const MAGIC = [
  ["image/png", [0x89, 0x50, 0x4e, 0x47]],
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/gif", [0x47, 0x49, 0x46, 0x38]],
  ["application/pdf", [0x25, 0x50, 0x44, 0x46]],
];
const SHOW = Symbol.for("Jupyter.display");

function packed(form, value) {
  if (typeof value === "string") return utf8(value);
  if (value instanceof Uint8Array) return utf8(bytes(value).toString("base64"));
  return utf8(stringify(value));
}

function isTable(value) {
  const flat = (row) =>
    row !== null && typeof row === "object" && !Array.isArray(row) &&
    Object.values(row).every((one) => one === null || typeof one !== "object");
  return Array.isArray(value) && value.length > 0 && value.length <= 1000 && value.every(flat);
}

function bundle(value) {
  const forms = new Map();
  if (value !== null && typeof value === "object") {
    const own = value[SHOW];
    if (typeof own === "function") {
      const given = own.call(value);
      for (const form of Object.keys(given ?? {})) forms.set(form, packed(form, given[form]));
    } else if (value instanceof Uint8Array) {
      const known = MAGIC.find(([, magic]) => magic.every((byte, at) => value[at] === byte));
      if (known) forms.set(known[0], packed(known[0], value));
    } else if (isTable(value)) {
      forms.set("application/json", utf8(stringify({ rows: value })));
    }
  }
  if (!forms.has("text/plain")) forms.set("text/plain", utf8(cut(inspect(value))));
  return forms;
}

module.exports = (send) => {
  function result(forms, isValue) {
    const fields = [bytes([isValue ? 1 : 0])];
    for (const [form, content] of forms) {
      if (content.length <= BYTES) fields.push(utf8(form), content);
    }
    if (fields.length > 1) send(RESULT, fields);
  }

  function display(...values) {
    for (const value of values) result(bundle(value), false);
  }
  const as = (form) => (content) => result(new Map([[form, packed(form, content)]]), false);
  display.html = as("text/html");
  display.markdown = as("text/markdown");
  display.svg = as("image/svg+xml");
  display.json = as("application/json");
  display.png = as("image/png");

  return { bundle, cut, display, result, utf8 };
};
