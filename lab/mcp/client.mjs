// Uses a server as a stock MCP client does, and prints a JSON line for each check:
// {"check": name, "passed": true or false, "saw": what came}.
//
//   node client.mjs sdk|client legacy|auto VERSION http URL TOKEN
//   node client.mjs sdk|client legacy|auto VERSION tunnel URL
//   node client.mjs sdk|client legacy|auto VERSION stdio COMMAND [ARGUMENT…]
//
// tunnel is HTTP at the product's side of a tunnel, which asks for no token.
// sdk is @modelcontextprotocol/sdk, client is @modelcontextprotocol/client;
// VERSION is the one that they have to agree upon. client.py makes the same checks.

import { createHash, randomUUID } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const [library, mode, version, kind, ...address] = process.argv.slice(2);
const programs = JSON.parse(readFileSync(new URL('programs.json', import.meta.url)));
// The packages are where the command was started, not beside this script.
const { resolve } = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const load = (name) => import(pathToFileURL(resolve(name)));

const PNG = '89504e470d0a1a0a';
// Files that the program `report` writes, with their types.
const WRITTEN = {
  'chart.png': 'image/png',
  'table.xlsx': 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
};
// Milliseconds for a cancelled program to be gone.
const PATIENCE = 3000;

function report(check, passed, saw) {
  console.log(JSON.stringify({ check, passed: Boolean(passed), saw }));
}

async function attempt(check, action) {
  try {
    const [passed, saw] = await action();
    report(check, passed, saw);
  } catch (error) {
    report(check, false, String(error?.stack ?? error));
  }
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

// Whether a process of this machine has the mark among its arguments.
function runs(mark) {
  return readdirSync('/proc').some((entry) => {
    if (!/^\d+$/.test(entry)) return false;
    try {
      return readFileSync(`/proc/${entry}/cmdline`, 'utf8').includes(mark);
    } catch {
      return false; // It has just ended.
    }
  });
}

async function becomes(wanted, mark) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(20)) {
    if (runs(mark) === wanted) return true;
  }
  return false;
}

async function connect() {
  const old = library === 'sdk';
  const base = '@modelcontextprotocol/';
  const { Client } = await load(old ? `${base}sdk/client/index.js` : `${base}client`);
  let transport;
  if (kind !== 'stdio') {
    const [url, token] = address;
    const from = await load(old ? `${base}sdk/client/streamableHttp.js` : `${base}client`);
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    transport = new from.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  } else {
    const [command, ...args] = address;
    const from = await load(`${base}${old ? 'sdk/client' : 'client'}/stdio${old ? '.js' : ''}`);
    transport = new from.StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' });
  }
  const options = old ? undefined : { versionNegotiation: { mode } };
  const client = new Client({ name: 'codex-check', version: '1' }, options);
  let agreed;
  if (old) {
    // It tells its transport alone which version was agreed upon.
    const tell = transport.setProtocolVersion?.bind(transport);
    transport.setProtocolVersion = (one) => {
      agreed = one;
      tell?.(one);
    };
  }
  await client.connect(transport);
  agreed ??= client.getNegotiatedProtocolVersion?.();
  const call = (name, args, options) => {
    const request = { name, arguments: args };
    return old ? client.callTool(request, undefined, options) : client.callTool(request, options);
  };
  return { client, agreed, run: (args, options) => call('run_code', args, options), call };
}

const { client, agreed, run, call } = await connect();

report('version', agreed === version, agreed);

await attempt('tools', async () => {
  const names = (await client.listTools()).tools.map((tool) => tool.name).sort();
  const known = 'create_session,fork_context,list_files,list_languages,read_file,run_code,run_command,write_file';
  return [names.join() === known, names];
});

await attempt('languages', async () => {
  const listed = (await call('list_languages', {})).structuredContent.languages;
  return [listed.some((one) => one.name === 'python' && one.available), listed];
});

await attempt('picture', async () => {
  const result = await run({ code: programs.picture });
  const image = result.content.find((block) => block.type === 'image');
  const begin = Buffer.from(image?.data ?? '', 'base64').subarray(0, 8).toString('hex');
  return [image?.mimeType === 'image/png' && begin === PNG, { begin, type: image?.mimeType }];
});

await attempt('structured content', async () => {
  const { structuredContent: told } = await run({ code: 'print(6 * 7)' });
  return [told.status === 'success' && told.exit_code === 0 && told.output === '42\n', told];
});

await attempt('file and resource', async () => {
  const sent = {
    'in.csv': Buffer.from('city,people\nBern,134\nZürich,421\n'),
    'in.bin': Buffer.from(Array.from({ length: 256 }, (_, index) => index)),
  };
  const files = [
    { path: 'in.csv', content: sent['in.csv'].toString() },
    { path: 'in.bin', content: sent['in.bin'].toString('base64'), encoding: 'base64' },
  ];
  const result = await run({ code: programs.report, files });
  // What the program says of each file that it read or wrote: its SHA-256.
  const lines = result.structuredContent.output.trim().split('\n');
  const said = Object.fromEntries(lines.map((line) => line.split(' ')));
  const seen = {};
  for (const [name, bytes] of Object.entries(sent)) seen[name] = sha256(bytes);
  let known = true;
  for (const [name, type] of Object.entries(WRITTEN)) {
    const { uri } = result.structuredContent.files.find((one) => one.path === name);
    const linked = result.content.some((block) => block.type === 'resource_link' && block.uri === uri);
    const [contents] = (await client.readResource({ uri })).contents;
    known &&= linked && contents.mimeType === type;
    seen[name] = sha256(Buffer.from(contents.blob ?? '', 'base64'));
  }
  const same = Object.keys(seen).every((name) => said[name] === seen[name]);
  return [known && same && lines.length === 4, { known, said, seen }];
});

await attempt('progress', async () => {
  const heard = [];
  await run({ code: programs.slow }, { onprogress: (told) => heard.push(told.message) });
  return [heard.length >= 2 && heard.some((one) => one.includes('step')), heard];
});

// A client without sessions cancels by closing its stream, of which the product tells
// a tunnel nothing.
const cancels = kind !== 'tunnel' || mode === 'legacy';
if (cancels) await attempt('cancel', async () => {
  const mark = `mark-${randomUUID()}`;
  const stop = new AbortController();
  const args = { code: programs.endless, args: [mark], timeout: 30 };
  const running = run(args, { signal: stop.signal }).then(
    () => 'answered',
    () => 'thrown',
  );
  const began = await becomes(true, mark);
  stop.abort();
  const ended = await running;
  const gone = await becomes(false, mark);
  return [began && ended === 'thrown' && gone, { began, ended, gone }];
});

await attempt('refusal is an error', async () => {
  const result = await run({ code: 'print(1)', language: 'no-such-language' });
  return [result.isError === true && result.content[0].text.length > 0, result];
});

await attempt('failing program is a result', async () => {
  const result = await run({ code: programs.failing });
  const told = result.structuredContent;
  return [!result.isError && told.exit_code === 3 && told.output === 'about to fail\n', result];
});

await client.close();
process.exit(0);
