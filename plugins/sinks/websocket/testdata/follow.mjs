// Follows the views a and b of a sink until told to end, and prints at each
// change what it holds, a line of JSON each. Run by TestClientAgainstTheSink.

import { subscribe } from "../client/mzd.js";

// It is cut off again and again, and would wait longer and longer. But as in a
// browser it hears that the network is back.
const network = new EventTarget();
globalThis.addEventListener = network.addEventListener.bind(network);
globalThis.removeEventListener = network.removeEventListener.bind(network);
setInterval(() => network.dispatchEvent(new Event("online")), 100).unref();

// A row as the server has it: int8 values are bigints here, numeric ones strings.
const text = (row) => `[${Object.entries(row).map(([name, v]) => (typeof v === "bigint" || (name === "number" && /\d/.test(v)) ? v : JSON.stringify(v)))}]`;

// A copy that follows the changes alone, which must always be what the rows are.
const copy = { a: [], b: [] };
function follow(name, { inserted, deleted, updated }) {
  for (const row of [...deleted, ...updated.map((u) => u.before)]) {
    const i = copy[name].indexOf(text(row));
    if (i < 0) throw new Error(`${name}: ${text(row)} was deleted, but was not there`);
    copy[name].splice(i, 1);
  }
  copy[name].push(...[...inserted, ...updated.map((u) => u.after)].map(text));
}

const states = [];
const subscription = subscribe(process.argv[2], ["a", "b"], {
  onState: (state, reason) => states.push(reason ? `${state}: ${reason}` : state),
  onChange({ type, timestamp, verified, views }) {
    const rows = {};
    for (const [name, view] of Object.entries(views)) {
      follow(name, view);
      rows[name] = [...view.rows.values()].map(text).sort();
      if (JSON.stringify(rows[name]) !== JSON.stringify(copy[name].sort())) throw new Error(`${name}: the changes do not lead to the rows`);
    }
    const wrong = [...views.a.rows].filter(([key, row]) => key !== row.user).map(([key]) => key);
    console.log(JSON.stringify({ type, timestamp, verified, rows, wrong, states: states.splice(0) }));
  },
});
process.stdin.on("end", () => subscription.close()).resume();
