// Waits on the server's own machine, and at private addresses there, with good
// certificates and good documents: only the rule that nobody is sent there keeps the
// server away. Prints "ready" when it listens.
//
//     node trap.mjs CERTIFICATE KEY FILE
//
// Writes a line with the address that was called to FILE for each connection.

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";

const [certificate, key, file] = process.argv.slice(2);
writeFileSync(file, "");
const options = { cert: readFileSync(certificate), key: readFileSync(key) };
const server = createServer(options, (request, answer) => {
  const id = `https://${request.headers.host}${request.url}`;
  answer.setHeader("Content-Type", "application/json");
  answer.end(JSON.stringify({ client_id: id, redirect_uris: [`https://${request.headers.host}/callback`] }));
});
server.on("connection", (socket) => appendFileSync(file, `${socket.localAddress}\n`));
server.listen(443, () => console.log("ready"));
