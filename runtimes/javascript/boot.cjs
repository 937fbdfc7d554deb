// Preloaded before the program: decides by parsing what the program is, runs it
// as that, and gives it a bare file name in stack traces.
//
// A program with `import`, `export` or `import.meta` is an ES module. Any other is
// CommonJS, and may await at its top level, which plain Node does not allow beside
// `require` and `return`. The rule holds wherever Node starts the program's file
// again: in worker threads, forks and other children of the program.
//
// It must leave nothing behind: no frame in a stack trace, no cached module, no
// flag, no variable. Whatever it does not handle, plain Node does.
'use strict';

const fs = require('fs');
const Module = require('module');
const vm = require('vm');
const threads = require('worker_threads');

// Parameters of the function that Node wraps around a CommonJS module.
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];

// What V8 says where a script holds what only a module may.
const ONLY_IN_MODULES = [
  'Cannot use import statement outside a module',
  "Cannot use 'import.meta' outside a module",
  "Unexpected token 'export'",
];

// What V8 says of an `await` in a module's function that is not async.
const RESERVED = 'Unexpected reserved word';

// An `await` that a script may take for a name.
const AWAIT_OR_NAME = /(?<![.\w$]|\bfor\s+)await\b(?=\s*[([`+\-/]|\s*\n)/g;

const LINE_END = /\r\n|[\n\r\u2028\u2029]/;

// Carries the program's path to processes and threads that the program starts.
const PROGRAM = 'CODEX_SERVER_PROGRAM';

// Options with which Node loads this file in a process or thread of the program's.
const PRELOAD = `--experimental-vm-modules --require=${JSON.stringify(__filename)}`;

// Where a Node that was started ahead waits for its program.
const CHANNEL = 62;

// Node's exit code where the program waits for what can't come.
const UNSETTLED = 13;

// Appended to the program: V8 calls it by this name in stack traces and in
// reports of uncaught errors; for everything else it keeps its real path.
const nameLine = (name) => `\n//# sourceURL=${name}`;

const withoutHashbang = (source) => source.replace(/^#!/, '//');

// Runs a parse and returns its error, or undefined.
function errorOf(parse) {
  try {
    parse();
  } catch (error) {
    return error;
  }
}

const parseScript = (source) => errorOf(() => vm.compileFunction(source, PARAMETERS, { filename: 'main.js' }));

// Says whether the text is the whole body of an async function: unlike a wrapper
// that is put around it, the constructor takes no brace that closes one.
const isAsyncBody = (source) => errorOf(() => new (async () => {}).constructor(withoutHashbang(source))) === undefined;

// Says whether the text is CommonJS that awaits at its top level. There `await (f())`
// is a call of a function in a script, so such words get a `void`, which only the
// operator bears.
function awaits(source, scriptError) {
  if (scriptError !== undefined) return isAsyncBody(source);
  const clear = source.replace(AWAIT_OR_NAME, 'await void');
  return clear !== source && parseScript(clear) !== undefined && isAsyncBody(clear);
}

// Compiles a function of CommonJS's parameters that returns the program's body. The
// body has a scope of its own, for it may declare a `require` itself; an arrow
// function keeps the `this` and the `arguments` around it. The line before the
// program's first is number 0, which V8 would not heed in a text with a `nameLine`.
const compileAsync = (source, importModuleDynamically) =>
  new vm.Script(`(function (${PARAMETERS}) { return async () => {\n${withoutHashbang(source)}\n}})`, {
    filename: 'main.js',
    lineOffset: -1,
    importModuleDynamically,
  });

// Needs --experimental-vm-modules, whose warning would land in the program's output.
const parseModule = (source, name) =>
  errorOf(() => {
    const warn = process.emitWarning;
    process.emitWarning = () => {};
    try {
      new vm.SourceTextModule(source, { identifier: name });
    } finally {
      process.emitWarning = warn;
    }
  });

const isModuleSyntax = (error) => ONLY_IN_MODULES.includes(error?.message);

// The first read of the program's file is Node's own, to run it: that one gets the named text.
function runScript(path, source) {
  const read = fs.readFileSync;
  fs.readFileSync = function readFileSync(...args) {
    fs.readFileSync = read;
    return args[0] === path && args[1] === 'utf8' ? source + nameLine('main.js') : read(...args);
  };
}

// Node tells modules by the ending, so the program runs from a second file; started
// anew it is a module by either, where Node is new enough to look into the text.
function runModule(path, source) {
  const target = path.replace(/\.js$/, '.mjs');
  fs.writeFileSync(target, source + nameLine('main.mjs'));
  process.argv[1] = target;
  const run = Module.runMain;
  Module.runMain = () => {
    Module.runMain = run;
    run(target);
  };
}

// Node makes the main module and looks up nothing anew; only in place of its text,
// which Node can't compile, the body is compiled here.
function runAsync(path, source) {
  const compile = Module.prototype._compile;
  Module.prototype._compile = function _compile(content, filename, ...rest) {
    Module.prototype._compile = compile;
    if (filename !== path) return compile.call(this, content, filename, ...rest);
    const names = compile.call(this, 'return arguments', filename, ...rest);
    const outer = compileAsync(source, importer(compile, filename)).runInThisContext();
    settle(outer.apply(this.exports, names));
  };
}

// Does what `import()` does in the program's file: only a function that Node itself
// has compiled looks from there. Needs --experimental-vm-modules.
function importer(compile, path) {
  const asked = new Module(path, null);
  compile.call(asked, 'module.exports = (name, options) => import(name, options)', path);
  return (name, script, attributes) => asked.exports(name, { with: attributes, assert: attributes });
}

// Runs the body as Node runs a module's: from the queue of promises, without a
// frame below it, and with its reports of errors and of an await without an end.
function settle(body) {
  const onBeforeExit = () => {
    if (process.exitCode !== undefined) return;
    process.exitCode = UNSETTLED;
    process.once('exit', onExit);
  };
  const onExit = () => fs.writeSync(2, 'Warning: Detected unsettled top-level await at main.js\n');
  const onEnd = () => {
    process.off('beforeExit', onBeforeExit);
    if (!process.listeners('exit').includes(onExit)) return;
    process.off('exit', onExit);
    process.exitCode = undefined;
  };
  process.on('beforeExit', onBeforeExit);
  const onError = (error) => {
    onEnd();
    reject(error);
  };
  Promise.resolve().then(body).then(onEnd, onError);
}

// Leaves a rejection to Node, past listeners for unhandled ones: these hear of no
// module's body either.
function reject(reason) {
  const { inspect } = require('util');
  const { emit, _fatalException } = process;
  const rejected = Promise.reject(reason);
  process.emit = function (...args) {
    if (args[2] !== rejected) return emit.apply(this, args);
    process.emit = emit;
    process._fatalException = (error, ...rest) => {
      process._fatalException = _fatalException;
      // What is no error comes in one, whose report is to show it instead.
      if (error !== reason) {
        delete error.code;
        Object.defineProperty(error, 'name', { value: '' });
        error.stack = `${inspect(reason)}\n    at main.js`;
      }
      return _fatalException(reason, ...rest);
    };
    return false;
  };
}

// The error of a program that is none, as Node tells it of the file: of a script,
// of CommonJS that awaits, or of a module. Only that of a module does not tell where
// it is.
function syntaxError(source, scriptError) {
  const asyncError = errorOf(() => compileAsync(source));
  if (isModuleSyntax(scriptError) || isModuleSyntax(asyncError)) {
    return named(parseModule(source, 'main.mjs'), 'main.mjs');
  }
  const moduleError = parseModule(source, 'main.js');
  if (!isFurther(asyncError, scriptError) || isAtEnd(scriptError, source)) return named(scriptError, 'main.js');
  // Of the end it would speak as of the brace that closes the body, and of an await
  // out of place otherwise than Node, which takes the file for a module.
  const isOfBody = asyncError === undefined || lineOf(asyncError) > source.split(LINE_END).length;
  const isOpen = columnOf(asyncError) < 0 && asyncError?.message === moduleError.message;
  const isOfAwait = wordAt(asyncError).startsWith('await') && moduleError.message === RESERVED;
  return named(isOfBody || isOpen || isOfAwait ? moduleError : asyncError, 'main.js');
}

const lineOf = (error) => Number(/^.*:(\d+)\n/.exec(error?.stack)?.[1]);
const columnOf = (error) => (error?.stack.split('\n')[2] ?? '').indexOf('^');
// The line from where the error is.
const wordAt = (error) => error?.stack.split('\n')[1]?.slice(columnOf(error)) ?? '';

// Says whether a body that awaits reads further than a script, which stops at an
// await; but both do where the body takes it for a name and stops behind it.
function isFurther(asyncError, scriptError) {
  if (asyncError === undefined) return true;
  const lines = lineOf(asyncError) - lineOf(scriptError);
  if (lines !== 0) return lines > 0;
  const columns = columnOf(asyncError) - columnOf(scriptError);
  return columns > 0 && !/^await\s*$/.test(wordAt(scriptError).slice(0, columns));
}

// Says whether the error is that the text ends too soon.
function isAtEnd(error, source) {
  const lines = source.trimEnd().split(LINE_END);
  const column = columnOf(error);
  return lineOf(error) >= lines.length && (column < 0 || column >= lines.at(-1).length);
}

// Uncaught, it is reported as Node does: the line, the caret and this text.
// The frames are this file's; without any, Node puts the text in brackets.
function named(error, name) {
  error.stack = error.stack.replace(/\n    at [^]*$/, `\n    at ${name}`);
  return error;
}

const read = (path) => fs.readFileSync(path, 'utf8').replace(/^\uFEFF/, '');

function boot(path) {
  const source = read(path);
  const scriptError = parseScript(source);
  if (!isModuleSyntax(scriptError) && awaits(source, scriptError)) {
    passOn(path);
    return runAsync(path, source);
  }
  if (scriptError === undefined) return runScript(path, source);
  if (parseModule(source, 'main.mjs') === undefined) return runModule(path, source);
  throw syntaxError(source, scriptError);
}

// The same in a process or thread that a program with top-level await started:
// its own file is run by the rule, any other by plain Node.
function bootAgain(program) {
  restoreOptions();
  passOn(program);
  beforeMain((path) => {
    if (path !== program && `${path}.js` !== program) return;
    const source = read(program);
    if (awaits(source, parseScript(source))) runAsync(program, source);
  });
}

// Calls with the path of what Node is about to run: a thread hears of it late. A
// getter leaves no frame below the program.
function beforeMain(act) {
  const plain = Object.getOwnPropertyDescriptor(Module, 'runMain');
  Object.defineProperty(Module, 'runMain', {
    configurable: true,
    get() {
      Object.defineProperty(Module, 'runMain', plain);
      act(process.argv[1]);
      return plain.value;
    },
  });
}

// Has Node load this file wherever the program starts Node again, even with an
// environment of its own.
function passOn(program) {
  const pass = (pairs) => {
    if (!Array.isArray(pairs)) return pairs;
    const env = Object.fromEntries(pairs.map((pair) => pair.split(/=([^]*)/, 2)));
    return Object.entries(withOptions(env, program)).map(([name, value]) => `${name}=${value}`);
  };
  for (const spawner of [process.binding('spawn_sync'), process.binding('process_wrap').Process.prototype]) {
    const { spawn } = spawner;
    spawner.spawn = function (...args) {
      const [options] = args;
      // Newer Nodes give the values one by one.
      if (typeof options === 'object') args[0] = { ...options, envPairs: pass(options.envPairs) };
      else args[3] = pass(args[3]);
      return spawn.apply(this, args);
    };
  }
  threads.setEnvironmentData(PROGRAM, program);
  threads.Worker = new Proxy(threads.Worker, {
    construct(Worker, [file, options, ...rest], target) {
      const env = options?.env ?? process.env;
      // Only such a thread does without the flags of this one.
      const isApart = options?.execArgv !== undefined || env !== process.env;
      const passed = isApart && typeof env === 'object' ? { ...options, env: withOptions(env, program) } : options;
      return Reflect.construct(Worker, [file, passed, ...rest], target);
    },
  });
  Module.syncBuiltinESMExports();
}

function withOptions(env, program) {
  const options = env.NODE_OPTIONS ? `${env.NODE_OPTIONS} ${PRELOAD}` : PRELOAD;
  return { ...env, NODE_OPTIONS: options, [PROGRAM]: program };
}

function restoreOptions() {
  delete process.env[PROGRAM];
  const options = process.env.NODE_OPTIONS;
  if (options === PRELOAD) delete process.env.NODE_OPTIONS;
  else if (options?.endsWith(` ${PRELOAD}`)) process.env.NODE_OPTIONS = options.slice(0, -PRELOAD.length - 1);
}

// Node says that writes to pipes are synchronous here, but it makes them wait in
// memory when a pipe is full: process.exit() and a kill would lose them. The
// streams are still made only when they are first asked for.
function blockingStream(name) {
  const plain = Object.getOwnPropertyDescriptor(process, name);
  Object.defineProperty(process, name, {
    ...plain,
    get() {
      Object.defineProperty(process, name, plain);
      const stream = plain.get.call(process);
      stream._handle?.setBlocking?.(true);
      return stream;
    },
  });
}

// Does once what a program makes Node load and compile at its first use, so that it is
// there when the program comes: its output, a module. It leaves no module in
// `require.cache`, no handle and no global.
function rehearse() {
  for (const name of ['net', 'stream', 'tty']) require(name);
  const nowhere = () => true;
  const stream = { write: nowhere, on: nowhere, once: nowhere, removeListener: nowhere };
  const out = new console.Console(stream);
  out.log('%d a', 1, { a: 1 }, [1, 2], 'x');
  out.log(4);
  const text = 'let a = 1; a';
  awaits(text, parseScript(text));
  const module = new Module(process.argv[1], null);
  module.filename = process.argv[1];
  module.paths = [];
  module._compile(text, process.argv[1]);
}

// In a box that is made ahead: says that all is prepared, and goes on when the program
// is there. Nothing is left of it.
function wait() {
  try {
    fs.fstatSync(CHANNEL);
  } catch {
    // Started for this program.
    return;
  }
  rehearse();
  try {
    fs.writeSync(CHANNEL, 'r');
  } catch {
    // The program is there already, and nobody waits for this.
  }
  const told = Buffer.alloc(1);
  const count = fs.readSync(CHANNEL, told);
  fs.closeSync(CHANNEL);
  if (count === 0) process.reallyExit(0);
  if (told[0] === 0) {
    // Nothing is to be read: then this is what programs find there, by the same number.
    fs.closeSync(0);
    fs.openSync('/dev/null', 'r+');
  }
}

// What notebooks have to show values: loaded when it is first asked for. What is shown
// is left in a file that the server reads when all is over.
function shows() {
  const put = (value) =>
    Object.defineProperty(globalThis, 'display', { value, writable: true, configurable: true, enumerable: false });
  const place = `${process.env.TMPDIR ?? '/tmp'}/.codex-results`;
  Object.defineProperty(globalThis, 'display', {
    configurable: true,
    enumerable: false,
    set: put,
    get() {
      const file = `${__dirname}/results.cjs`;
      const { display } = require(file)((kind, fields) => leave(place, kind, fields));
      delete require.cache[file];
      put(display);
      return display;
    },
  });
}

// Appends a frame, as the server reads it. What can't be written is not shown.
function leave(place, kind, fields) {
  const sized = (field) => [Buffer.from(Uint32Array.of(field.length).buffer), field];
  const body = Buffer.concat(fields.flatMap(sized));
  const head = Buffer.alloc(13);
  head.writeUInt32LE(body.length + 9);
  head[4] = kind;
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = fs.constants;
  try {
    const file = fs.openSync(place, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    try {
      fs.writeSync(file, Buffer.concat([head, body]));
    } finally {
      fs.closeSync(file);
    }
  } catch {
    // A full disk, such as.
  }
}

// Worker threads inherit the flags that load this file.
if (process.execArgv.includes(__filename)) process.execArgv = [];
process._preload_modules.length = 0;
delete require.cache[__filename];
const program = process.env[PROGRAM] ?? threads.getEnvironmentData(PROGRAM);
if (program !== undefined) {
  bootAgain(program);
} else if (threads.isMainThread && process.argv[1] !== undefined) {
  blockingStream('stdout');
  blockingStream('stderr');
  shows();
  wait();
  boot(process.argv[1]);
}
