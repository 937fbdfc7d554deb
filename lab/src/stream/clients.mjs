// Reads streams as programs in Node do that use a client of npm.
//
//   node clients.mjs SETTING
//
// clients.py says what SETTING holds and what is printed. Judges nothing, and never
// mends what a client took for an event.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { url, token, texts } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
// The packages are where the command was started, not beside this script.
const { resolve } = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const load = (name) => import(pathToFileURL(resolve(name)));

// Milliseconds that one stream may take.
const PATIENCE = 10_000;

const { EventSource: Newest } = await load('eventsource');
const { EventSource: Older } = await load('eventsource-4');
const { EventSourceParserStream } = await load('eventsource-parser/stream');

// What makes any fetch send the request with its token.
function posting(request) {
  return {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${token}`,
      'Content-Type': 'application/json',
      Accept: 'text/event-stream',
    },
    body: JSON.stringify(request),
  };
}

// Reads with eventsource, whose `fetch` option makes a POST of its GET.
function withEventSource(EventSource) {
  // Every event goes through this method, whatever its name.
  class Overheard extends EventSource {
    hear;

    dispatchEvent(event) {
      this.hear(event);
      return super.dispatchEvent(event);
    }
  }
  return (request, heard) => new Promise((done, fail) => {
    const source = new Overheard(`${url}/execute`, {
      fetch: (address, options) => fetch(address, { ...options, ...posting(request) }),
    });
    source.hear = (event) => {
      if ('data' in event) {
        heard.push([event.type, event.data]);
      } else if (event.type === 'error') {
        // The stream has ended; it would send the request again.
        source.close();
        if (event.message) fail(new Error(event.message));
        else done();
      }
    };
  });
}

// Reads with fetch and eventsource-parser.
async function withParser(request, heard) {
  const answer = await fetch(`${url}/execute`, posting(request));
  const events = answer.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const { event, data } of events) heard.push([event ?? 'message', data]);
}

const CLIENTS = {
  'eventsource': withEventSource(Newest),
  'eventsource-4': withEventSource(Older),
  'eventsource-parser': withParser,
};

for (const [client, read] of Object.entries(CLIENTS)) {
  for (const { name, request } of texts) {
    const heard = [];
    let failure = null;
    let timer;
    const late = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error('the stream did not end')), PATIENCE);
    });
    try {
      await Promise.race([read(request, heard), late]);
    } catch (error) {
      failure = String(error);
    }
    clearTimeout(timer);
    console.log(JSON.stringify({ client, text: name, events: heard, failure }));
  }
}
process.exit();
