// Says where this Node really is: `key=value` lines on standard output.
//
// It runs on the host, as the server's user. `mount` names what Node needs
// besides the system's own directories; a shim in PATH says nothing of it.
'use strict';

const fs = require('fs');
const path = require('path');

const bin = path.dirname(process.execPath);
const modules = path.join(path.dirname(bin), 'lib', 'node_modules');
const places = new Set([bin]);
const lines = [`version=${process.versions.node}`, `interpreter=${process.execPath}`];

// Packages installed with `npm install --global`.
if (fs.existsSync(modules)) {
  places.add(modules);
  lines.push(`env.NODE_PATH=${modules}`);
}

// Shared libraries may lie anywhere (rpath); loaded ones say where.
for (const line of fs.readFileSync('/proc/self/maps', 'utf8').split('\n')) {
  const library = line.slice(line.indexOf('/'));
  if (line.includes('/') && path.basename(library).includes('.so')) places.add(path.dirname(library));
}

for (const place of places) lines.push(`mount=${place}`);
console.log(lines.join('\n'));
