// A name server whose answers change: what DNS rebinding takes. Answers for IPv4
// alone, with a lifetime of none.

import { createSocket } from "node:dgram";

import { setting } from "./play.mjs";

const [ADDRESS, ANY] = [1, 255];

// Reads the name and the kind that a query asks for, and where its question ends.
function question(query) {
  const labels = [];
  let at = 12;
  while (query[at] > 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + query[at]));
    at += 1 + query[at];
  }
  return { name: labels.join(".").toLowerCase(), kind: query.readUInt16BE(at + 1), ends: at + 5 };
}

function answer(query, ends, addresses) {
  const head = Buffer.from(query.subarray(0, 12));
  head.writeUInt16BE(0x8580, 2); // An answer, by whom it may concern, without error.
  head.writeUInt16BE(addresses.length, 6);
  head.writeUInt32BE(0, 8);
  const records = addresses.map((address) => {
    const fixed = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
    return Buffer.concat([fixed, Buffer.from(address.split(".").map(Number))]);
  });
  return Buffer.concat([head, query.subarray(12, ends), ...records]);
}

// Starts it. `names` has a function for each name, which is given how often it was
// asked before and gives addresses; the counts are what this gives.
export async function answerNames(names) {
  const counts = Object.fromEntries(Object.keys(names).map((name) => [name, 0]));
  const socket = createSocket("udp4");
  socket.on("message", (query, { address, port }) => {
    const { name, kind, ends } = question(query);
    const asks = (kind === ADDRESS || kind === ANY) && names[name];
    const addresses = asks ? names[name](counts[name]++) : [];
    socket.send(answer(query, ends, addresses), port, address);
  });
  await new Promise((done) => socket.bind(53, setting.name_server, done));
  socket.unref();
  return counts;
}
