// A reverse proxy with https before the servers, which prints "ready" when it listens.
//
//     node proxy.mjs CERTIFICATE KEY ADDRESS NAME PORT [NAME PORT…]
//
// Before the first server it does what docs/deploy.md has nginx do: it names the host
// and the caller and leaves all other headers as they came. That server knows its own
// address, so they must mean nothing. The others learn their address here, so before
// them it lets no word of a caller about its way through, and adds to X-Forwarded-For.
// A host that it does not know goes to the first, as with one `server` of nginx.

import { readFileSync } from "node:fs";
import { request as ask } from "node:http";
import { createServer } from "node:https";

const [certificate, key, address, ...pairs] = process.argv.slice(2);
const ports = new Map();
for (let at = 0; at < pairs.length; at += 2) ports.set(pairs[at], Number(pairs[at + 1]));
const first = ports.keys().next().value;

function forwarded(request, name, caller) {
  const headers = { ...request.headers, "x-forwarded-proto": "https" };
  if (name === first) return { ...headers, "x-forwarded-for": caller };
  for (const word of ["forwarded", "x-forwarded-prefix", "x-forwarded-port"]) delete headers[word];
  const before = request.headers["x-forwarded-for"];
  return {
    ...headers,
    "x-forwarded-host": request.headers.host,
    "x-forwarded-for": before ? `${before}, ${caller}` : caller,
  };
}

const options = { cert: readFileSync(certificate), key: readFileSync(key) };
const server = createServer(options, (request, answer) => {
  const name = ports.has(request.headers.host) ? request.headers.host : first;
  const headers = forwarded(request, name, request.socket.remoteAddress.replace("::ffff:", ""));
  const { method, url: path } = request;
  const inner = ask({ host: address, port: ports.get(name), method, path, headers }, (reply) => {
    answer.writeHead(reply.statusCode, reply.rawHeaders);
    reply.pipe(answer);
  });
  inner.on("error", () => answer.destroy());
  answer.on("close", () => inner.destroy());
  request.pipe(inner);
});
server.listen(443, () => console.log("ready"));
