// Plays one act of the check of OAuth, in a namespace that was made for it.
//
//     PLAY=SETTING node main.mjs clients|forwarded|attacks|keys|local

import { end } from "./play.mjs";

const acts = {
  clients: "./clients.mjs",
  forwarded: "./forwarded.mjs",
  attacks: "./attacks.mjs",
  keys: "./keys.mjs",
  local: "./local.mjs",
};
const { play } = await import(acts[process.argv[2]]);
await play();
end();
process.exit(0);
