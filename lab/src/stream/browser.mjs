// Reads streams as pages in Chromium do: with fetch, with @microsoft/fetch-event-source
// and with the browser's own EventSource. That one sends nothing but GET and no header,
// so a proxy of this script makes the POST of it and passes the answer on as it comes.
//
//   node browser.mjs SETTING CHROMIUM
//
// clients.py says what SETTING holds and what is printed. Judges nothing, and never
// mends what a client took for an event.

import { readFileSync } from 'node:fs';
import { createServer, request as ask } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

import { Chromium } from '../../browser/chromium.mjs';

const { url, token, texts } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const browser = Chromium.start(process.argv[3]);

// Milliseconds that one stream may take.
const PATIENCE = 10_000;

// The names that a page listens for: those of the documentation, what an event
// without a name is called, and what the programs forge.
const NAMES = [
  'queued', 'start', 'stdout', 'stderr', 'dropped', 'truncated', 'end', 'error', 'result',
  'message', 'forged',
];

const headers = {
  Authorization: `Bearer ${token}`,
  'Content-Type': 'application/json',
  Accept: 'text/event-stream',
};

// Answers GET /texts/N with what the server answers when the text of that number is asked for.
const proxy = createServer((request, answer) => {
  const [, number] = request.url.split('/texts/');
  const text = texts[number];
  if (!text) {
    answer.setHeader('Content-Type', 'text/html');
    answer.end('<title>streams</title>');
    return;
  }
  const inner = ask(`${url}/execute`, { method: 'POST', headers }, (reply) => {
    answer.writeHead(reply.statusCode, reply.headers);
    reply.pipe(answer);
  });
  inner.end(JSON.stringify(text.request));
});
await new Promise((done) => proxy.listen(0, '127.0.0.1', done));

// The scripts of fetch-event-source as one expression: the page may load none.
function fetchEventSource() {
  const { resolve } = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
  const source = (file) => readFileSync(resolve(`@microsoft/fetch-event-source/lib/cjs/${file}.js`), 'utf8');
  const module = (file) => `((exports, require) => {${source(file)}\nreturn exports; })`;
  return `${module('fetch')}({}, () => ${module('parse')}({})).fetchEventSource`;
}

// What follows runs in the page. `hear(name, data)` is given each event.

// Reads as docs/streaming.md shows it.
async function byFetch({ options, hear }) {
  const response = await fetch('/execute', options);
  let text = '';
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    text += part;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      const name = event.match(/^event: (.*)$/m);
      const data = event.match(/^data: (.*)$/m);
      if (data) hear(name?.[1] ?? 'message', data[1]);
    }
  }
}

async function byLibrary({ options, hear, library }) {
  await library('/execute', {
    ...options,
    openWhenHidden: true,
    onmessage: ({ event, data }) => hear(event || 'message', data),
    onerror: (error) => { throw error; },
  });
}

function byEventSource({ number, names, hear }) {
  return new Promise((done) => {
    const source = new EventSource(`/texts/${number}`);
    for (const name of names) {
      source.addEventListener(name, (event) => {
        if (event instanceof MessageEvent) return hear(event.type, event.data);
        // The stream has ended; it would send the request again.
        source.close();
        done();
      });
    }
  });
}

// Runs one of those in a page with what it needs, and gives what it heard.
async function inPage(page, read, given) {
  return page.evaluate(`(async () => {
    const heard = [];
    const hear = (name, data) => heard.push([name, data]);
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error('the stream did not end')), ${PATIENCE}));
    const given = { ...${JSON.stringify(given)}, hear, library: ${read === byLibrary ? fetchEventSource() : null} };
    const failure = await Promise.race([(${read})(given), late]).then(() => null, String);
    return { events: heard, failure };
  })()`);
}

// Opens a page and waits until it is there.
async function open(address) {
  const page = await browser.page(address);
  await page.until(address, `location.href === ${JSON.stringify(address)} && document.readyState === 'complete'`);
  return page;
}

const own = await open(`${url}/docs`);
const foreign = await open(`http://127.0.0.1:${proxy.address().port}/`);
const CLIENTS = {
  'fetch': [own, byFetch],
  '@microsoft/fetch-event-source': [own, byLibrary],
  'EventSource': [foreign, byEventSource],
};

for (const [client, [page, read]] of Object.entries(CLIENTS)) {
  for (const [number, { name, request }] of texts.entries()) {
    const options = { method: 'POST', headers, body: JSON.stringify(request) };
    const told = await inPage(page, read, { options, number, names: NAMES });
    console.log(JSON.stringify({ client, text: name, ...told }));
  }
}
await browser.close();
process.exit();
