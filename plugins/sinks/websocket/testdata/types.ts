// What mzd.d.ts lets people write, and what not. Checked by TestClientTypes.

import { subscribe, type Change, type Row, type Subscription } from "mzd";

interface Editor {
  user: string;
  count: bigint;
}

// One view, without saying what its rows are.
const one: Subscription = subscribe("http://127.0.0.1:8875", "top10", {
  onChange({ rows, inserted, updated, timestamp, verified }) {
    const row: Row | undefined = rows.get("Ada");
    console.log(row?.count, inserted.length, updated[0]?.before.user, timestamp.length, verified === true);
  },
  onState: (state, reason) => console.log(state === "live", reason?.length),
  interval: 100,
});
one.close();

// Several, with their rows.
const several = subscribe<{ counter: { n: bigint }; top10: Editor }>(new URL("http://127.0.0.1:8875"), ["counter", "top10"], {
  onChange({ views }: Change<{ counter: { n: bigint }; top10: Editor }>) {
    const count: bigint | undefined = views.top10.rows.get("Ada")?.count;
    for (const { before, after } of views.top10.updated) console.log(after.count - before.count, count);
    for (const { n } of views.counter.rows.values()) console.log(n + 1n);
  },
});
const names: string[] = several.views.top10.columns.map((c) => c.name);
console.log(names, several.state, several.timestamp, several.verified);

// A socket of another library, and a fetch.
class Socket extends EventTarget {
  constructor(public url: string) {
    super();
  }
}
subscribe("http://127.0.0.1:8875", "top10", { WebSocket: Socket, fetch });

// @ts-expect-error: there is no such view
subscribe<{ top10: Editor }>("http://127.0.0.1:8875", "top11");
// @ts-expect-error: there is no such column
several.views.top10.rows.get("Ada")?.edits;
// @ts-expect-error: the rows are not there to be changed
several.views.top10.rows.delete("Ada");
// @ts-expect-error: bigint and number do not mix
several.views.counter.rows.get("")!.n + 1;
// @ts-expect-error: an interval is milliseconds
subscribe("http://127.0.0.1:8875", "top10", { interval: "100ms" });
