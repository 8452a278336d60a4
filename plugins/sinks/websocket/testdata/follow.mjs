// Follows a sink until a view holds the row ["done"], and prints what it saw.
// Run by TestClientAgainstTheSink.

import { subscribe } from "../web/mzd.js";

const seen = { bases: 0, deltas: 0, states: [], rows: {} };
const subscription = subscribe(process.argv[2], ["a", "b"], {
  onState: (state) => seen.states.push(state),
  onChange({ type, views }) {
    if (type === "base") seen.bases++;
    if (type === "delta") seen.deltas++;
    if (type !== "progress") console.error("changed"); // tells the test that it is following
    if (!views.b.rows.some((row) => row[0] === "done")) return;
    for (const name of ["a", "b"]) seen.rows[name] = views[name].rows.map((row) => JSON.stringify(row)).sort();
    subscription.close();
    console.log(JSON.stringify(seen));
  },
});
