// Passes requests on to a server with a token added, for clients that can send none.
// All else, Host and Origin among it, stays as it came. Prints where it listens.
//
//   node proxy.mjs URL TOKEN

import http from 'node:http';

const [target, token] = process.argv.slice(2);
const { hostname, port } = new URL(target);

const proxy = http.createServer((incoming, outgoing) => {
  const { method, url: path } = incoming;
  const headers = { ...incoming.headers, authorization: `Bearer ${token}` };
  const passed = http.request({ hostname, port, method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    outgoing.flushHeaders();
    answer.pipe(outgoing);
    answer.on('error', () => outgoing.destroy());
  });
  passed.on('error', () => outgoing.destroy());
  // A client that closes its stream closes the server's.
  outgoing.on('close', () => passed.destroy());
  incoming.pipe(passed);
});

proxy.listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${proxy.address().port}`);
});
