// Builds the package set: `install.cjs TREE CACHE AT`, in a directory that holds
// package.json, package-lock.json and added.txt. Prints `key=value` lines, see
// runtimes/README.md.
//
// It runs on the host, as the server's user, and runs no code of a package:
// npm is told to leave their scripts alone. The server loads them afterwards,
// in a sandbox. What comes from git npm prepares by code that comes along, whatever
// it was told of scripts: so npm may start no program.
'use strict';

const fs = require('fs');
const path = require('path');
const { spawn } = require('child_process');

// Characters of npm's last words kept for the log of a failure.
const KEPT = 4000;

// Packages of hundreds of modules. `import` opens all of a package's modules before
// it reads the first, which is more files than a box may have open where no cgroup
// counts them; what `require` gets is loaded one file after the other, and has the
// same names.
const LARGE = ['date-fns', 'mathjs'];

// Loaded before npm: a Node that starts no other program.
const ALONE = `
const children = require('child_process');
for (const name of ['exec', 'execFile', 'execFileSync', 'execSync', 'fork', 'spawn', 'spawnSync']) {
  children[name] = () => { throw new Error('npm may start no program here'); };
}
require('module').syncBuiltinESMExports();
`;

// What npm prints, what that means, and the cure; the first that fits counts.
const FAILURES = [
  [/ENOSPC/, 'the disk is full', 'Make room where the server keeps its data, then start the installation again.'],
  [
    /npm may start no program|ENOGIT|EALLOWGIT/,
    'what was added needs a package from git, which would run code of its own when it is fetched',
    'Leave it out, or ask for another version of it.',
  ],
  [
    /EINTEGRITY/,
    'a downloaded package is not the pinned one: its hash is another',
    'Start the installation again; if it stays so, the package registry or a proxy on the way changes files, and nothing of it was used.',
  ],
  [
    /E404|'([^']+)' is not in this registry/,
    'there is no package of that name',
    'Look at the names of what was added.',
  ],
  [/ETARGET|notarget/, 'there is no such version of what was added', 'Ask for another version, or leave it out.'],
  [/ERESOLVE/, 'what was added does not go with the pinned packages', 'Ask for another version of it, or leave the version out.'],
  [/EINVALIDTAGNAME|EINVALIDPACKAGENAME|Invalid (package|tag) name/i, 'what was added is no name that npm understands', 'Give a name, or a name and a version such as ajv@8.'],
  [
    /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|E50\d|network/,
    'the package registry cannot be reached',
    "Look at the connection and npm's proxy and registry settings, then start the installation again; what was fetched is kept.",
  ],
];

const say = (key, value) => fs.writeSync(1, `${key}=${String(value).replace(/\s+/g, ' ').trim()}\n`);

function fail(error, cure) {
  say('error', error);
  if (cure) say('cure', cure);
  process.exit(1);
}

// Standard input ends when the server does, even by SIGKILL.
process.stdin.on('end', () => process.kill(0, 'SIGKILL')).resume();

// The npm beside this Node first: it is made for it.
function npm() {
  const places = [path.dirname(process.execPath), ...(process.env.PATH || '').split(':')];
  return places.map((place) => path.join(place, 'npm')).find((file) => fs.existsSync(file));
}

function lines(file) {
  return fs.readFileSync(file, 'utf8').split('\n').map((line) => line.trim()).filter((line) => line && !line.startsWith('#'));
}

function listed(modules) {
  const folders = fs.readdirSync(modules).filter((name) => !name.startsWith('.'));
  return folders.flatMap((name) => (name.startsWith('@') ? fs.readdirSync(path.join(modules, name)).map((inner) => `${name}/${inner}`) : [name]));
}

function loadLikeRequire(directory) {
  const file = path.join(directory, 'package.json');
  const about = JSON.parse(fs.readFileSync(file, 'utf8'));
  const entry = about.exports?.['.'];
  if (!entry?.require) return;
  entry.import = entry.require;
  fs.writeFileSync(file, JSON.stringify(about, null, 2));
}

function main(tree, cache) {
  process.umask(0o022);
  const program = npm();
  if (!program) {
    return fail('there is no npm beside this Node', 'Install npm (on Debian and Ubuntu: apt install npm), then start the installation again.');
  }
  const total = Object.keys(JSON.parse(fs.readFileSync('package-lock.json', 'utf8')).packages).length - 1;
  const added = lines('added.txt');
  say('progress', `0/${total + 2} preparing`);
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=http', '--cache', cache];
  const words = added.length ? ['install', '--save-exact', ...quiet, '--', ...added] : ['ci', ...quiet];
  fs.writeFileSync('alone.cjs', ALONE);
  const env = { ...process.env, NODE_OPTIONS: '--require ./alone.cjs' };
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], env });
  let text = '';
  let done = 0;
  const seen = (chunk) => {
    text = (text + chunk).slice(-64 * 1024);
    const fetched = String(chunk).match(/fetch GET 200/g);
    if (fetched) {
      done = Math.min(total, done + fetched.length);
      say('progress', `${done}/${total + 2} fetching`);
    }
  };
  child.stdout.on('data', seen);
  child.stderr.on('data', seen);
  child.on('error', (error) => fail(`npm does not start: ${error.message}`, 'Install npm (on Debian and Ubuntu: apt install npm), then start the installation again.'));
  child.on('close', (code) => {
    if (code !== 0) {
      process.stderr.write(text.slice(-KEPT));
      const [, error, cure] = FAILURES.find(([pattern]) => pattern.test(text)) ?? ['', `npm failed with exit code ${code}`];
      return fail(error, cure);
    }
    const links = listed('node_modules').filter((name) => !fs.lstatSync(path.join('node_modules', name)).isDirectory());
    if (links.length) return fail(`${links[0]} is a link to a directory of this machine, and no package of the registry`, 'Leave out what needs it.');
    fs.renameSync('node_modules', tree);
    fs.rmSync(path.join(tree, '.bin'), { recursive: true, force: true });
    const names = listed(tree);
    // Where a box sees the set in place, its packages find each other by this.
    fs.symlinkSync('.', path.join(tree, 'node_modules'));
    LARGE.filter((name) => names.includes(name)).forEach((name) => loadLikeRequire(path.join(tree, name)));
    for (const name of names) {
      say('package', `${name} ${JSON.parse(fs.readFileSync(path.join(tree, name, 'package.json'), 'utf8')).version}`);
    }
    say('progress', `${total + 1}/${total + 2} checking`);
    process.exit(0);
  });
}

main(...process.argv.slice(2));
