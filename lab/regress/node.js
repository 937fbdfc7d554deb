// What ordinary programs ask of Node's common modules: a line for each thing, the
// same inside a box and outside. Nothing that two runs of one machine disagree on
// is printed, but that it is of the right kind.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');

const done = [];
async function check(name, act) {
  let said;
  try {
    said = JSON.stringify(await act());
  } catch (error) {
    said = `throws ${error.code ?? error.name}: ${String(error.message).split('\n')[0]}`;
  }
  done.push(name);
  console.log(`${name}: ${said}`);
}

async function files() {
  const fs = require('node:fs');
  const path = require('node:path');
  const root = 'work';
  fs.mkdirSync(root);
  const at = (name) => path.join(root, name);
  await check('fs.write-read', () => {
    fs.writeFileSync(at('a'), 'héllo');
    fs.appendFileSync(at('a'), '!');
    return fs.readFileSync(at('a'), 'utf8');
  });
  await check('fs.stat', () => {
    const stat = fs.statSync(at('a'));
    return [stat.size, stat.isFile(), stat.isDirectory(), stat.nlink];
  });
  await check('fs.modes', () => {
    fs.chmodSync(at('a'), 0o640);
    return (fs.statSync(at('a')).mode & 0o777).toString(8);
  });
  await check('fs.utimes', () => {
    fs.utimesSync(at('a'), 1000, 2000);
    return fs.statSync(at('a')).mtimeMs;
  });
  await check('fs.links', () => {
    fs.linkSync(at('a'), at('hard'));
    fs.symlinkSync('a', at('soft'));
    return [fs.statSync(at('hard')).nlink, fs.readlinkSync(at('soft')), fs.realpathSync(at('soft')).endsWith('/a')];
  });
  await check('fs.folders', () => {
    fs.mkdirSync(at('x/y/z'), { recursive: true });
    fs.renameSync(at('hard'), at('x/y/z/moved'));
    fs.copyFileSync(at('a'), at('x/copy'));
    fs.cpSync(at('x'), at('again'), { recursive: true });
    return fs.readdirSync(root, { recursive: true }).sort();
  });
  await check('fs.promises', async () => {
    const file = await fs.promises.open(at('p'), 'w+');
    await file.write('0123456789');
    const { bytesRead, buffer } = await file.read(Buffer.alloc(4), 0, 4, 3);
    await file.truncate(5);
    await file.sync();
    const { size } = await file.stat();
    await file.close();
    return [bytesRead, buffer.toString(), size];
  });
  await check('fs.streams', async () => {
    const out = fs.createWriteStream(at('s'));
    for (let i = 0; i < 1000; i++) out.write(`${i}\n`);
    out.end();
    await once(out, 'finish');
    let count = 0;
    for await (const chunk of fs.createReadStream(at('s'), { highWaterMark: 100 })) count += chunk.length;
    return count;
  });
  await check('fs.watch', async () => {
    const watcher = fs.watch(root);
    const change = once(watcher, 'change');
    setTimeout(() => fs.writeFileSync(at('watched'), 'x'), 20);
    const [kind] = await change;
    watcher.close();
    return kind;
  });
  await check('fs.missing', () => fs.readFileSync(at('missing')));
  await check('fs.access', () => fs.accessSync('/etc/hosts', fs.constants.W_OK));
  await check('fs.remove', () => {
    fs.rmSync(root, { recursive: true });
    return fs.existsSync(root);
  });
  await check('path', () => [path.resolve('/a', '../b'), path.relative('/a/b', '/a/c'), path.parse('/x/y.tar.gz'), path.win32.join('a', '..', 'b')]);
}

async function data() {
  const crypto = require('node:crypto');
  await check('crypto.hashes', () => ['md5', 'sha1', 'sha256', 'sha512', 'sha3-256', 'blake2b512'].map((name) => crypto.createHash(name).update('x').digest('hex').slice(0, 16)));
  await check('crypto.list', () => [crypto.getHashes().length, crypto.getCiphers().length, crypto.getCurves().length]);
  await check('crypto.hmac', () => crypto.createHmac('sha256', 'key').update('x').digest('base64'));
  await check('crypto.cipher', () => {
    const [key, iv] = [Buffer.alloc(32, 1), Buffer.alloc(12, 2)];
    const cipher = crypto.createCipheriv('aes-256-gcm', key, iv);
    const text = Buffer.concat([cipher.update('secret'), cipher.final()]);
    const plain = crypto.createDecipheriv('aes-256-gcm', key, iv).setAuthTag(cipher.getAuthTag());
    return [text.toString('hex'), plain.update(text, null, 'utf8') + plain.final('utf8')];
  });
  await check('crypto.keys', async () => {
    const { publicKey, privateKey } = crypto.generateKeyPairSync('ed25519');
    const signature = crypto.sign(null, Buffer.from('x'), privateKey);
    return [signature.length, crypto.verify(null, Buffer.from('x'), publicKey, signature)];
  });
  await check('crypto.derive', async () => {
    const { promisify } = require('node:util');
    const scrypt = (await promisify(crypto.scrypt)('pw', 'salt', 16)).toString('hex');
    const pbkdf2 = (await promisify(crypto.pbkdf2)('pw', 'salt', 1000, 16, 'sha256')).toString('hex');
    return [scrypt, pbkdf2];
  });
  await check('crypto.random', () => [crypto.randomBytes(16).length, crypto.randomUUID().length, crypto.randomInt(5) < 5]);
  await check('crypto.web', async () => Buffer.from(await crypto.webcrypto.subtle.digest('SHA-256', Buffer.from('x'))).toString('hex').slice(0, 16));
  const zlib = require('node:zlib');
  await check('zlib', () => ['gzip', 'deflate', 'deflateRaw', 'brotliCompress'].map((name) => {
    const back = { gzip: 'gunzip', deflate: 'inflate', deflateRaw: 'inflateRaw', brotliCompress: 'brotliDecompress' }[name];
    const packed = zlib[`${name}Sync`](Buffer.alloc(10000, 'abc'));
    return [name, packed.length, zlib[`${back}Sync`](packed).length];
  }));
  await check('zlib.stream', async () => {
    const { pipeline } = require('node:stream/promises');
    const { Readable, Writable } = require('node:stream');
    let size = 0;
    const sink = new Writable({ write(chunk, _, next) { size += chunk.length; next(); } });
    await pipeline(Readable.from([Buffer.alloc(100000, 'x')]), zlib.createGzip(), zlib.createGunzip(), sink);
    return size;
  });
  await check('buffer', () => [Buffer.from('ä€😀').toString('hex'), Buffer.from('ff00', 'hex').readUInt16BE(), Buffer.concat([Buffer.alloc(2), Buffer.from([1])]).toJSON(), Buffer.from('x').equals(Buffer.from('x')), Buffer.from('YQ', 'base64url').toString(), require('node:buffer').constants.MAX_LENGTH > 2 ** 31]);
  await check('string_decoder', () => {
    const decoder = new (require('node:string_decoder').StringDecoder)('utf8');
    return [decoder.write(Buffer.from([0xe2, 0x82])), decoder.write(Buffer.from([0xac])), decoder.end()];
  });
  await check('text', () => [new TextEncoder().encode('é').length, new TextDecoder('utf-16le').decode(Buffer.from('a\0')), new TextDecoder('latin1').decode(Buffer.from([0xe9]))]);
  await check('intl', () => [new Intl.NumberFormat('de-DE').format(1234567.891), new Intl.DateTimeFormat('en-GB', { timeZone: 'Asia/Tokyo', dateStyle: 'full' }).format(0), 'z'.localeCompare('ä', 'sv'), new Date(0).toString().slice(0, 33), Intl.DateTimeFormat().resolvedOptions().timeZone]);
  await check('url', () => [new URL('../x?a=1#h', 'https://u:p@example.com:8080/a/b/').href, new URLSearchParams('a=1&b=2&a=3').getAll('a'), require('node:url').fileURLToPath('file:///a%20b'), require('node:url').domainToASCII('español.com'), require('node:querystring').parse('a=b&c=%20')]);
  await check('util', async () => {
    const util = require('node:util');
    return [util.inspect({ a: [1, { b: new Map([[1, 2]]) }] }, { depth: 5 }), util.format('%s %d %j', 'x', 1, {}), util.isDeepStrictEqual([1], [1]), util.types.isProxy(new Proxy({}, {})), util.stripVTControlCharacters('\x1b[31mx\x1b[0m'), util.styleText ? 1 : 0];
  });
}

async function flow() {
  const { EventEmitter } = require('node:events');
  await check('events', async () => {
    const emitter = new EventEmitter();
    const seen = [];
    emitter.once('a', (x) => seen.push(x));
    emitter.prependListener('a', (x) => seen.push(-x));
    emitter.emit('a', 1);
    emitter.emit('a', 2);
    setTimeout(() => emitter.emit('late', 7), 5);
    return [seen, await once(emitter, 'late'), emitter.listenerCount('a')];
  });
  const stream = require('node:stream');
  await check('stream', async () => {
    const upper = new stream.Transform({ transform(chunk, _, next) { next(null, chunk.toString().toUpperCase()); } });
    const parts = [];
    for await (const chunk of stream.Readable.from(['a', 'b']).pipe(upper)) parts.push(chunk.toString());
    return parts;
  });
  await check('stream.web', async () => {
    const parts = [];
    for await (const part of new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close(); } })) parts.push(part);
    const { readable, writable } = new CompressionStream('gzip');
    const writer = writable.getWriter();
    writer.write(Buffer.alloc(1000));
    writer.close();
    let size = 0;
    for await (const part of readable) size += part.length;
    return [parts, size < 100];
  });
  const timers = require('node:timers/promises');
  await check('timers', async () => {
    const order = [];
    const all = [timers.setTimeout(20, 'b').then((x) => order.push(x)), timers.setTimeout(1, 'a').then((x) => order.push(x)), timers.setImmediate('i').then(() => 0)];
    await Promise.all(all);
    let ticks = 0;
    for await (const _ of timers.setInterval(2)) if (++ticks === 3) break;
    return [order, ticks];
  });
  await check('microtasks', async () => {
    const order = [];
    setTimeout(() => order.push('timeout'), 0);
    process.nextTick(() => order.push('tick'));
    queueMicrotask(() => order.push('microtask'));
    await timers.setTimeout(10);
    return order;
  });
  const hooks = require('node:async_hooks');
  await check('async_hooks', async () => {
    const storage = new hooks.AsyncLocalStorage();
    return storage.run({ id: 7 }, async () => { await timers.setTimeout(1); return storage.getStore().id; });
  });
  await check('async_hooks.create', async () => {
    const kinds = new Set();
    const hook = hooks.createHook({ init(_, kind) { kinds.add(kind); } }).enable();
    await timers.setTimeout(1);
    hook.disable();
    return [kinds.has('Timeout'), kinds.has('PROMISE')];
  });
  const perf = require('node:perf_hooks');
  await check('perf_hooks', async () => {
    perf.performance.mark('a');
    await timers.setTimeout(10);
    const measure = perf.performance.measure('m', 'a');
    return [measure.duration > 5, measure.duration < 5000, perf.performance.timeOrigin > 1e12];
  });
  await check('abort', async () => timers.setTimeout(10000, 0, { signal: AbortSignal.timeout(5) }));
  await check('readline', async () => {
    const lines = [];
    const readline = require('node:readline').createInterface({ input: stream.Readable.from(['a\nb', '\r\nc']) });
    for await (const line of readline) lines.push(line);
    return lines;
  });
  await check('diagnostics_channel', () => {
    const channel = require('node:diagnostics_channel').channel('x');
    let seen;
    channel.subscribe((message) => { seen = message; });
    channel.publish(5);
    return seen;
  });
}

async function machine() {
  const vm = require('node:vm');
  await check('vm', () => {
    const context = vm.createContext({ x: 2 });
    return [vm.runInContext('y = x * 21', context), context.y, new vm.Script('this.constructor.name').runInNewContext()];
  });
  await check('vm.timeout', () => vm.runInNewContext('for(;;);', {}, { timeout: 20 }));
  const v8 = require('node:v8');
  await check('v8', () => [v8.deserialize(v8.serialize({ a: new Map([[1, [2]]]), d: new Date(0) })).a.get(1), v8.getHeapStatistics().used_heap_size > 1e6, v8.getHeapSpaceStatistics().length > 3]);
  await check('v8.snapshot', async () => {
    let size = 0;
    for await (const chunk of v8.getHeapSnapshot()) size += chunk.length;
    return size > 1e5;
  });
  const os = require('node:os');
  await check('os', () => [os.platform(), os.arch(), os.endianness(), os.EOL, os.type(), os.release() === require('node:child_process').execSync('uname -r').toString().trim()]);
  await check('os.figures', () => [os.totalmem() > 1e8, os.freemem() > 0, os.uptime() > 0, os.loadavg().length, os.cpus().length > 0, os.availableParallelism() > 0]);
  await check('os.user', () => { const user = os.userInfo(); return [user.uid === process.getuid(), typeof user.username, typeof user.homedir]; });
  await check('os.networkInterfaces', () => { const lo = os.networkInterfaces().lo; return lo.find((a) => a.family === 'IPv4').address; });
  await check('os.priority', () => { os.setPriority(0, os.getPriority() + 1); return 'lowered'; });
  await check('os.tmpdir', () => { const fs = require('node:fs'); const place = fs.mkdtempSync(os.tmpdir() + '/x-'); fs.rmdirSync(place); return 'made'; });
  await check('process', () => [process.version === process.versions.node.padStart(process.version.length, 'v'), process.argv.length, process.execArgv, process.exitCode, process.cwd() === require('node:fs').realpathSync('.'), process.umask().toString(8), process.hrtime.bigint() > 0n, typeof process.pid]);
  await check('process.figures', () => [process.memoryUsage().rss > 1e7, process.memoryUsage.rss() > 1e7, process.resourceUsage().maxRSS > 1e4, process.cpuUsage().user > 0, process.uptime() > 0]);
  await check('process.signals', async () => { const alive = setTimeout(() => {}, 5000); const got = once(process, 'SIGUSR2'); process.kill(process.pid, 'SIGUSR2'); const [name] = await got; clearTimeout(alive); return name; });
  await check('process.ids', () => [process.getuid() === process.geteuid(), process.getgid() === process.getegid(), process.getuid() !== 0]);
  await check('process.report', () => { const report = process.report.getReport(); return [report.header.platform, report.javascriptHeap.totalMemory > 0, Array.isArray(report.sharedObjects)]; });
  await check('tty', () => [require('node:tty').isatty(0), process.stdout.isTTY ?? false]);
  await check('module', () => [require('node:module').builtinModules.length, require.resolve('node:fs'), typeof module.exports]);
  await check('import', async () => [(await import('node:fs')).default === require('node:fs'), (await import('data:text/javascript,export default 5')).default]);
  await check('wasm', async () => { const bytes = Buffer.from('0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b', 'hex'); return (await WebAssembly.instantiate(bytes)).instance.exports.add(2, 3); });
  await check('shared-memory', () => { const cells = new Int32Array(new SharedArrayBuffer(8)); Atomics.add(cells, 0, 5); return [Atomics.load(cells, 0), Atomics.wait(cells, 0, 5, 1)]; });
  await check('structuredClone', () => structuredClone({ a: [1n, new Set([1])] }).a[0].toString());
  await check('big', () => [new Array(1e6).fill(1).reduce((a, b) => a + b), Buffer.alloc(64 << 20).length, 'x'.repeat(1 << 24).length]);
}

async function processes() {
  const child = require('node:child_process');
  await check('child_process.exec', () => child.execSync('echo $((6 * 7)); pwd >/dev/null').toString());
  await check('child_process.spawn', async () => {
    const cat = child.spawn('cat');
    let out = '';
    cat.stdout.on('data', (data) => { out += data; });
    cat.stdin.end('through a pipe');
    return [...await once(cat, 'close'), out];
  });
  await check('child_process.kill', async () => { const sleep = child.spawn('sleep', ['60']); sleep.kill('SIGTERM'); return once(sleep, 'exit'); });
  await check('child_process.timeout', () => child.spawnSync('sleep', ['60'], { timeout: 30 }).error.code);
  await check('child_process.missing', () => child.spawnSync('no-such-program').error.code);
  await check('child_process.exit', () => child.spawnSync('sh', ['-c', 'echo out; echo err >&2; exit 3']).status);
  await check('child_process.node', () => child.execFileSync(process.execPath, ['-p', '6*7']).toString());
  await check('child_process.fork', async () => {
    require('node:fs').writeFileSync('forked.js', 'process.on("message", (m) => { process.send(m * 2); process.disconnect(); })');
    const forked = child.fork('./forked.js');
    forked.send(21);
    const [answer] = await once(forked, 'message');
    await once(forked, 'exit');
    require('node:fs').unlinkSync('forked.js');
    return answer;
  });
  await check('child_process.detached', async () => { const own = child.spawn('sh', ['-c', 'kill -9 $$'], { detached: true }); return once(own, 'exit'); });
  const { Worker, MessageChannel } = require('node:worker_threads');
  await check('worker_threads', async () => {
    const worker = new Worker('const { parentPort, workerData } = require("node:worker_threads"); parentPort.postMessage(workerData * 2)', { eval: true, workerData: 21 });
    const [answer] = await once(worker, 'message');
    await once(worker, 'exit');
    return answer;
  });
  await check('worker_threads.many', async () => {
    const run = async (i) => { const worker = new Worker(`require("node:worker_threads").parentPort.postMessage(${i} ** 2)`, { eval: true }); return (await once(worker, 'message'))[0]; };
    return Promise.all([1, 2, 3, 4].map(run));
  });
  await check('worker_threads.limits', async () => {
    const worker = new Worker('const a = []; for (;;) a.push(new Array(1e5).fill(0))', { eval: true, resourceLimits: { maxOldGenerationSizeMb: 16 } });
    const [error] = await once(worker, 'error');
    return error.code;
  });
  await check('worker_threads.channel', async () => { const { port1, port2 } = new MessageChannel(); port1.postMessage({ a: 1 }); const [message] = await once(port2, 'message'); port1.close(); return message; });
}

async function network() {
  const net = require('node:net');
  await check('net', async () => {
    const server = net.createServer((socket) => socket.end('hello')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = net.connect(server.address().port, '127.0.0.1');
    let got = '';
    for await (const chunk of socket) got += chunk;
    server.close();
    return got;
  });
  await check('net.unix', async () => {
    const server = net.createServer((socket) => socket.end('hello')).listen('./socket');
    await once(server, 'listening');
    let got = '';
    for await (const chunk of net.connect('./socket')) got += chunk;
    server.close();
    return got;
  });
  await check('http', async () => {
    const http = require('node:http');
    const server = http.createServer((request, response) => response.end(request.url)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/x?y`);
    const text = await answer.text();
    server.closeAllConnections();
    server.close();
    return [answer.status, text];
  });
  await check('dgram', async () => {
    const dgram = require('node:dgram');
    const socket = dgram.createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    socket.send('ping', socket.address().port, '127.0.0.1');
    const [message] = await once(socket, 'message');
    socket.close();
    return message.toString();
  });
  await check('dns.localhost', async () => (await require('node:dns/promises').lookup('localhost', 4)).address);
}

(async () => {
  for (const part of [files, data, flow, machine, processes, network]) await part();
  assert.ok(done.length > 70);
  console.log('end: all');
  process.exit(0);
})();
