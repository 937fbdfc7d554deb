// The Node of a session: runs cells one after the other in one global scope.
//
// Reads cells from a descriptor, whose number is its argument, and answers there with
// results and how each cell went: a program's word, of which the server believes nothing
// but that it came from this box. Cells are evaluated by Node's own inspector, in
// process and in the mode that browsers' consoles have: names may be declared again, and
// the last value is known. It has no `import`, which becomes a call of a helper here.
"use strict";

const fs = require("node:fs");
const inspector = require("node:inspector");
const net = require("node:net");
const path = require("node:path");
const util = require("node:util");
const vm = require("node:vm");
const { createRequire } = require("node:module");

const CHANNEL = Number(process.argv[2]);
const [RUN, FAILED, END] = [1, 2, 3];
const [DONE, RAISED] = [0, 1];
const workspace = process.cwd();

process.argv.splice(1, 2, path.join(workspace, "cell.js"));

let cell = 0;
// How the cell that runs is ended from outside; null while none does.
let give_up = null;
const { from: bytes, concat, alloc } = Buffer;
const { inspect } = util;
const { error: told } = console;

const channel = new net.Socket({ fd: CHANNEL, readable: true, writable: true });
const post = channel.write.bind(channel);

function send(kind, fields) {
  const parts = [];
  let length = 9;
  for (const field of fields) {
    const head = alloc(4);
    head.writeUInt32LE(field.length);
    parts.push(head, field);
    length += 4 + field.length;
  }
  const head = alloc(13);
  head.writeUInt32LE(length);
  head[4] = kind;
  head.writeBigUInt64LE(BigInt(cell), 5);
  post(concat([head, ...parts]));
}

const { bundle, cut, display, result, utf8 } = require("./results.cjs")(send);

// `import`, found outside of strings, comments and regular expressions, and put as a
// call of the helper, on the same line.

const HELPER = "$mport";
const BEFORE_REGEXP = /(?:^|[({[,;=:?!&|+\-*%<>~^]|\b(?:return|typeof|case|in|of|do|else|void|delete|await|yield))\s*$/;

function* code(source) {
  // Yields [start, end] of each stretch that is code, templates' expressions included.
  let at = 0;
  let start = 0;
  const depths = [];
  const stop = function* (end) {
    if (end > start) yield [start, end];
  };
  while (at < source.length) {
    const two = source.slice(at, at + 2);
    const one = source[at];
    let end;
    if (two === "//") {
      end = source.indexOf("\n", at);
      end = end < 0 ? source.length : end;
    } else if (two === "/*") {
      end = source.indexOf("*/", at + 2);
      end = end < 0 ? source.length : end + 2;
    } else if (one === '"' || one === "'") {
      end = at + 1;
      while (end < source.length && source[end] !== one && source[end] !== "\n") {
        end += source[end] === "\\" ? 2 : 1;
      }
      end += 1;
    } else if (one === "`" || (one === "}" && depths.at(-1) === 0)) {
      if (one === "}") depths.pop();
      end = at + 1;
      while (end < source.length && source[end] !== "`" && source.slice(end, end + 2) !== "${") {
        end += source[end] === "\\" ? 2 : 1;
      }
      if (source[end] === "$") {
        depths.push(0);
        end += 2;
      } else {
        end += 1;
      }
    } else if (one === "/" && BEFORE_REGEXP.test(source.slice(Math.max(0, at - 40), at))) {
      end = at + 1;
      let within = false;
      while (end < source.length && source[end] !== "\n" && (within || source[end] !== "/")) {
        if (source[end] === "[") within = true;
        if (source[end] === "]") within = false;
        end += source[end] === "\\" ? 2 : 1;
      }
      end += 1;
    } else {
      if (depths.length > 0 && one === "{") depths[depths.length - 1] += 1;
      if (depths.length > 0 && one === "}") depths[depths.length - 1] -= 1;
      at += 1;
      continue;
    }
    yield* stop(at);
    at = start = end;
  }
  yield* stop(source.length);
}

const STATEMENT =
  /^import(?:\s*(?<all>[\s\S]*?)\s*\bfrom)?\s*(?<name>"[^"\n]*"|'[^'\n]*')(?:\s*with\s*\{[^}]*\})?/;

function statement(text) {
  const found = STATEMENT.exec(text);
  if (!found || /[()=]/.test(found.groups.all ?? "")) return null;
  const { all, name } = found.groups;
  const lines = "\n".repeat(found[0].split("\n").length - 1);
  const call = `await ${HELPER}(${name})`;
  if (all === undefined) return [found[0].length, call + lines];
  const names = [];
  let space = null;
  const braces = /\{([\s\S]*)\}/.exec(all);
  for (const part of all.replace(/\{[\s\S]*\}/, "").split(",").map((one) => one.trim())) {
    if (part === "") continue;
    const star = /^\*\s*as\s+(\S+)$/.exec(part);
    if (star) space = star[1];
    else names.push(`default: ${part}`);
  }
  for (const part of braces ? braces[1].split(",") : []) {
    const [from, to] = part.trim().split(/\s+as\s+/);
    if (from) names.push(to ? `${from}: ${to}` : from);
  }
  const parts = [];
  if (space !== null) parts.push(`${space} = ${call}`);
  if (names.length > 0 || space === null) {
    parts.push(`{ ${names.join(", ")} } = ${space ?? call}`);
  }
  return [found[0].length, `var ${parts.join(", ")}${lines}`];
}

function withoutImports(source) {
  const puts = [];
  let past = 0;
  for (const [start, end] of code(source)) {
    const word = /(?<![\w$.#])import(?![\w$])/g;
    word.lastIndex = start;
    for (let found; (found = word.exec(source)) && found.index < end; ) {
      const at = found.index;
      if (at < past) continue;
      const rest = source.slice(at + 6);
      if (/^\s*\(/.test(rest)) {
        puts.push([at, 6, HELPER]);
      } else if (/(?:^|[;{}\n])\s*$/.test(source.slice(0, at))) {
        const put = statement(source.slice(at));
        if (put) {
          puts.push([at, ...put]);
          past = at + put[0];
        }
      }
    }
  }
  let text = source;
  for (const [at, length, put] of puts.reverse()) {
    text = text.slice(0, at) + put + text.slice(at + length);
  }
  return text;
}

// The one place from which modules are loaded: the workspace.
const loader = new vm.Script("(name) => import(name)", {
  filename: path.join(workspace, "cell.js"),
  importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER,
});
async function load(name) {
  const plain = String(name);
  const target = /^\.{0,2}\//.test(plain)
    ? require("node:url").pathToFileURL(path.resolve(workspace, plain)).href
    : plain;
  if (vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER === undefined) {
    return import(target);
  }
  // It warns that this is an experiment, which is none of the cell's.
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return loader.runInThisContext()(target);
  } finally {
    process.emitWarning = emitWarning;
  }
}

const found = createRequire(path.join(workspace, "cell.js"));
const globals = {
  require: found,
  module: { exports: {}, id: ".", filename: path.join(workspace, "cell.js"), loaded: false, children: [], paths: [] },
  exports: {},
  __filename: path.join(workspace, "cell.js"),
  __dirname: workspace,
  display,
  [HELPER]: load,
};
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

// Cells.

const session = new inspector.Session();
session.connect();
const ask = session.post.bind(session);
const holder = { take(value) { this.value = value; } };
let holderId;
{
  const key = Symbol("holder");
  globalThis[key] = holder;
  const at = Object.getOwnPropertySymbols(globalThis).indexOf(key);
  ask("Runtime.evaluate", {
    expression: `globalThis[Object.getOwnPropertySymbols(globalThis)[${at}]]`,
  }, (_, answer) => { holderId = answer.result.objectId; });
  delete globalThis[key];
}

function real(remote) {
  // The value itself, of which the inspector gives a description.
  if (!remote.objectId) {
    if (remote.unserializableValue === undefined) return remote.value;
    const { unserializableValue: text } = remote;
    return text.endsWith("n") ? BigInt(text.slice(0, -1)) : Number(text);
  }
  holder.value = undefined;
  ask("Runtime.callFunctionOn", {
    objectId: holderId,
    functionDeclaration: "function(value) { this.take(value); }",
    arguments: [{ objectId: remote.objectId }],
  }, () => {});
  const { value } = holder;
  holder.value = undefined;
  return value;
}

function trimmed(stack) {
  const lines = stack.split("\n");
  const end = lines.findIndex((line) => line.includes("node:inspector") || line.includes(__filename));
  return (end < 0 ? lines : lines.slice(0, end)).join("\n");
}

function explained(details, source) {
  // A syntax error says where it is, and nothing else does.
  const thrown = details.exception ? real(details.exception) : undefined;
  let name = "Error";
  let message = "";
  let text;
  try {
    if (thrown instanceof Error) {
      ({ name } = thrown);
      ({ message } = thrown);
      const at = details.stackTrace ? "" : place(details, source);
      text = at + trimmed(inspect(thrown));
    } else {
      message = inspect(thrown);
      text = `Uncaught ${message}`;
    }
  } catch {
    text = details.text;
  }
  return { name: String(name), message: String(message), text: String(text) };
}

function place(details, source) {
  const line = source.split("\n")[details.lineNumber];
  if (line === undefined) return "";
  const mark = " ".repeat(details.columnNumber);
  return `cell-${cell}:${details.lineNumber + 1}\n${line}\n${mark}^\n\n`;
}

function over(outcome, code) {
  give_up = null;
  ask("Runtime.releaseObjectGroup", { objectGroup: "cell" }, () => {});
  const status = alloc(4);
  status.writeUInt32LE(code);
  send(END, [bytes([outcome]), status]);
}

function failed(error) {
  told(error.text);
  send(FAILED, [utf8(error.name), utf8(cut(error.message)), utf8(cut(error.text))]);
  over(RAISED, 1);
}

function thrown(error) {
  const is = error instanceof Error;
  return {
    name: is ? String(error.name) : "Error",
    message: is ? String(error.message) : inspect(error),
    text: is ? trimmed(inspect(error)) : `Uncaught ${inspect(error)}`,
  };
}

function show(value) {
  try {
    if (value !== undefined) {
      globalThis._ = value;
      result(bundle(value), true);
    }
  } catch (error) {
    return failed(thrown(error));
  }
  over(DONE, 0);
}

const INTERRUPTED = { name: "Interrupted", message: "interrupted", text: "Interrupted" };

// Evaluates within a script, since only that can be broken off.
let work = null;
const key = Symbol("cell");
Object.defineProperty(globalThis, key, { value: () => work(), enumerable: false });
const breakable = new vm.Script("(work) => work()").runInThisContext();
const runner = new vm.Script("globalThis[Object.getOwnPropertySymbols(globalThis).find((one) => one.description === 'cell')]()");

function run(source) {
  const expression = `${withoutImports(source)}\n//# sourceURL=cell-${cell}`;
  const number = cell;
  let answered = false;
  const once = (answer) => {
    if (!answered && cell === number) {
      answered = true;
      answer();
    }
  };
  give_up = () => once(() => failed(INTERRUPTED));
  const settle = (error, answer) => once(() => {
    if (error) return failed({ name: "Error", message: error.message, text: error.message });
    if (answer.exceptionDetails) return failed(explained(answer.exceptionDetails, source));
    const value = real(answer.result);
    if (!util.types.isPromise(value)) return show(value);
    // As if it had been awaited, and broken off by the same interrupt.
    give_up = () => failed(INTERRUPTED);
    value.then(
      (kept) => cell === number && give_up && show(kept),
      (error) => cell === number && give_up && failed(thrown(error)),
    );
  });
  work = () => ask("Runtime.evaluate", {
    expression,
    replMode: true,
    awaitPromise: true,
    objectGroup: "cell",
  }, settle);
  try {
    runner.runInThisContext({ breakOnSigint: true });
  } catch {
    give_up?.();
  }
}

// The input of a cell: under the number of standard input, which is free for a moment.
let fed = false;
function feed(given) {
  if (given.length === 0 && !fed) return;
  fed = given.length > 0;
  let name = "/dev/null";
  if (fed) {
    name = path.join(process.env.TMPDIR ?? "/tmp", `.stdin-${process.pid}-${cell}`);
    fs.writeFileSync(name, given, { mode: 0o600 });
  }
  fs.closeSync(0);
  fs.openSync(name, "r");
  if (fed) fs.unlinkSync(name);
  let stream = null;
  Object.defineProperty(process, "stdin", {
    configurable: true,
    enumerable: true,
    get: () => (stream ??= new fs.ReadStream("", { fd: 0, autoClose: false })),
  });
}

function begin(fields) {
  const [source, given, ...pairs] = fields;
  const before = new Map();
  for (let at = 0; at < pairs.length; at += 2) {
    const name = pairs[at].toString();
    before.set(name, process.env[name]);
    process.env[name] = pairs[at + 1].toString();
  }
  restore = () => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
  feed(given);
  run(source.toString());
}
let restore = () => {};

let waiting = alloc(0);
channel.on("data", (chunk) => {
  waiting = concat([waiting, chunk]);
  while (waiting.length >= 13 && waiting.length >= waiting.readUInt32LE(0) + 4) {
    const frame = waiting.subarray(0, waiting.readUInt32LE(0) + 4);
    waiting = waiting.subarray(frame.length);
    const fields = [];
    for (let at = 13; at < frame.length; ) {
      const end = at + 4 + frame.readUInt32LE(at);
      fields.push(frame.subarray(at + 4, end));
      at = end;
    }
    restore();
    cell = Number(frame.readBigUInt64LE(5));
    if (frame[4] !== RUN) continue;
    try {
      begin(fields);
    } catch (error) {
      // Such as no room for its input.
      failed(thrown(error));
    }
  }
});
// The server has let go of this session.
channel.on("end", () => process.reallyExit(0));
channel.on("error", () => process.reallyExit(0));

process.on("SIGINT", () => give_up?.());
// What goes on after its cell is told of, and ends nothing.
process.on("uncaughtException", (error) => told(trimmed(inspect(error))));
process.on("unhandledRejection", (error) => told(trimmed(inspect(error))));

// Told of before there is any cell: it can begin.
over(DONE, 0);
