// Preloaded before main.js: tells CommonJS from ES modules by parsing, and
// gives the program a bare file name in stack traces.
//
// It must leave nothing behind: no frame in a stack trace, no listener, no
// cached module, no flag. Whatever it does not handle, plain Node does.
'use strict';

const fs = require('fs');
const Module = require('module');
const vm = require('vm');
const { isMainThread } = require('worker_threads');

// Parameters of the function that Node wraps around a CommonJS module.
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];

// What V8 says of syntax that a module may hold and a script may not. They only
// choose which of two errors is shown, never how a program runs.
const ALLOWED_IN_MODULES = [
  'Cannot use import statement outside a module',
  "Cannot use 'import.meta' outside a module",
  "Unexpected token 'export'",
  'await is only valid in async functions and the top level bodies of modules',
];

// Appended to the program: V8 calls it by this name in stack traces and in
// reports of uncaught errors; for everything else it keeps its real path.
const nameLine = (name) => `\n//# sourceURL=${name}`;

// Runs a parse and returns its error, or undefined.
function errorOf(parse) {
  try {
    parse();
  } catch (error) {
    return error;
  }
}

const parseScript = (source) => errorOf(() => vm.compileFunction(source, PARAMETERS, { filename: 'main.js' }));

// As a script in which `await` is allowed. The body has a scope of its own, for
// it may declare a `require` or `__dirname` itself.
const parseAsync = (source) =>
  errorOf(() => {
    const body = source.startsWith('#!') ? `//${source}` : source;
    new vm.Script(`(function (${PARAMETERS}) { return (async () => {\n${body}\n})() })`);
  });

// Needs --experimental-vm-modules, whose warning would land in the program's output.
const parseModule = (source) =>
  errorOf(() => {
    const warn = process.emitWarning;
    process.emitWarning = () => {};
    try {
      new vm.SourceTextModule(source, { identifier: 'main.mjs' });
    } finally {
      process.emitWarning = warn;
    }
  });

// The first read of the program's file is Node's own, to run it: that one gets the named text.
function runScript(path, source) {
  const read = fs.readFileSync;
  fs.readFileSync = function readFileSync(...args) {
    fs.readFileSync = read;
    return args[0] === path && args[1] === 'utf8' ? source + nameLine('main.js') : read(...args);
  };
}

// Node tells modules by the ending, so the file gets another name.
function runModule(path, source, withRequire) {
  const target = path.replace(/\.js$/, '.mjs');
  fs.writeFileSync(target, source + nameLine('main.mjs'));
  fs.unlinkSync(path);
  process.argv[1] = target;
  const run = Module.runMain;
  Module.runMain = () => {
    Module.runMain = run;
    if (withRequire) provideRequire(target);
    run(target);
  };
}

// Top-level await beside `require` is common in programs and an error in plain
// Node, so one without `import` and `export` gets CommonJS's names; as globals,
// so that it may declare them itself.
function provideRequire(path) {
  const main = new Module(path, null);
  main.filename = path;
  main.paths = Module._nodeModulePaths(process.cwd());
  process.mainModule = main;
  const names = {
    require: Module.createRequire(path),
    module: main,
    exports: main.exports,
    __filename: path,
    __dirname: process.cwd(),
  };
  for (const [name, value] of Object.entries(names)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
}

function boot(path) {
  const source = fs.readFileSync(path, 'utf8');
  const scriptError = parseScript(source);
  if (scriptError === undefined) return runScript(path, source);
  const moduleError = parseModule(source);
  if (moduleError === undefined) return runModule(path, source, parseAsync(source) === undefined);
  const error = ALLOWED_IN_MODULES.includes(scriptError.message) ? moduleError : scriptError;
  // Uncaught, it is reported as Node does: the line, the caret and this text.
  // The frames are this file's; without any, Node puts the text in brackets.
  error.stack = error.stack.replace(/\n    at [^]*$/, `\n    at ${error === moduleError ? 'main.mjs' : 'main.js'}`);
  throw error;
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

process.execArgv = [];
process._preload_modules.length = 0;
delete require.cache[__filename];
// Worker threads and forked children inherit the flag that loads this file.
if (isMainThread && process.argv[1] !== undefined) {
  blockingStream('stdout');
  blockingStream('stderr');
  boot(process.argv[1]);
}
