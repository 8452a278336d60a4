// The rules of mzd.js, with a network that the test plays. Run by TestClientRules.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { subscribe } from "../client/mzd.js";

// A browser's WebSocket as far as the client uses it.
class Socket {
  static all = [];
  closed = false;
  constructor(url) {
    this.url = new URL(url);
    Socket.all.push(this);
  }
  close() {
    this.closed = true;
    this.onclose?.({ code: 1000, reason: "" });
  }
  say(...messages) {
    for (const m of messages) this.onmessage({ data: typeof m === "string" ? m : JSON.stringify(m) });
  }
  lose(reason = "") {
    this.onclose({ code: 1006, reason });
  }
  static get last() {
    return Socket.all.at(-1);
  }
}

// What fetch is asked for, and answers when the test says so.
let fetches;
const fetch = (href, options) =>
  new Promise((resolve, reject) => {
    let body;
    const stream = new ReadableStream({ start: (controller) => (body = controller) });
    options.signal.addEventListener("abort", () => {
      fetches.at(-1).aborted = true;
      reject(options.signal.reason);
    });
    fetches.push({
      url: new URL(href),
      accept: options.headers.Accept,
      refuse: (status, text) => resolve(new Response(text, { status })),
      begin: () => resolve(new Response(stream)),
      write: (text) => body.enqueue(new TextEncoder().encode(text)),
      end: () => body.close(),
      fail: (error) => reject(error),
    });
  });
const settled = () => new Promise((resolve) => setImmediate(resolve)); // what promises lead to has happened

function start(views = "v", options = {}) {
  Socket.all = [];
  fetches = [];
  const seen = { changes: [], states: [] };
  const subscription = subscribe("http://example.test/some/path", views, {
    WebSocket: Socket,
    fetch,
    onChange: ({ type, inserted, deleted, updated }) => seen.changes.push({ type, inserted, deleted, updated }),
    onState: (state, reason) => seen.states.push(reason ? `${state}: ${reason}` : state),
    ...options,
  });
  return { subscription, seen };
}

const columns = [{ name: "user", type: "text" }, { name: "n", type: "int8" }];
const at = (token) => ({ view: "v", timestamp: token.split("-")[0], token });
const base = (inserted, token = "1-g", more = {}) => ({ type: "base", ...at(token), columns, key: ["user"], inserted, deleted: [], ...more });
const delta = (from, token, inserted, deleted = [], more = {}) => ({ type: "delta", from, ...at(token), inserted, deleted, ...more });
const progress = (token, more = {}) => ({ type: "progress", ...at(token), ...more });
const rows = (subscription, name = "v") => [...subscription.views[name].rows.values()];
const since = () => Socket.last.url.searchParams.get("since");

test.beforeEach(() => mock.timers.enable({ apis: ["setTimeout", "Date"] }));
test.afterEach(() => mock.timers.reset());

test("the request", () => {
  const { subscription } = start(["a", "b"], { interval: 100 });
  assert.equal(Socket.last.url.href, "ws://example.test/some/path/api/stream?view=a&view=b&numbers=string&interval=100ms");
  subscription.close();
});

test("an address is looked up from where the page is", () => {
  globalThis.location = { href: "https://example.test/app/page.html" };
  try {
    for (const [url, want] of [
      ["/", "wss://example.test/api/stream"],
      ["", "wss://example.test/api/stream"],
      ["../mzd", "wss://example.test/mzd/api/stream"],
      ["http://127.0.0.1:8875", "ws://127.0.0.1:8875/api/stream"],
      [new URL("https://other.test/at/"), "wss://other.test/at/api/stream"],
    ]) {
      const subscription = subscribe(url, "v", { WebSocket: Socket, fetch });
      assert.equal(Socket.last.url.origin + Socket.last.url.pathname, want);
      subscription.close();
    }
  } finally {
    delete globalThis.location;
  }
  assert.throws(() => subscribe("/", "v", { WebSocket: Socket, fetch }), /Invalid URL/);
});

test("rows by key", () => {
  const { subscription, seen } = start();
  const { v } = subscription.views;
  Socket.last.say(base([["Ada", "1"], ["Bob", "2"], ["Cleo", "3"]]));
  const bob = v.rows.get("Bob");
  assert.deepEqual(bob, { user: "Bob", n: 2n });
  Socket.last.say(delta("1-g", "2-g", [["Ada", "9007199254740993"], ["Dora", "4"]], [["Ada", "1"], ["Cleo", "3"]]));
  assert.deepEqual([...v.rows.keys()], ["Ada", "Bob", "Dora"]);
  assert.equal(v.rows.get("Ada").n, 9007199254740993n);
  assert.equal(v.rows.get("Bob"), bob);
  assert.equal(subscription.rows, v.rows);
  Socket.last.say(progress("3-g"));
  assert.equal(subscription.timestamp, "3");
  Socket.last.say(delta("3-g", "4-g", []));
  assert.deepEqual(seen.changes, [
    { type: "base", inserted: [{ user: "Ada", n: 1n }, { user: "Bob", n: 2n }, { user: "Cleo", n: 3n }], deleted: [], updated: [] },
    {
      type: "delta",
      inserted: [{ user: "Dora", n: 4n }],
      deleted: [{ user: "Cleo", n: 3n }],
      updated: [{ before: { user: "Ada", n: 1n }, after: { user: "Ada", n: 9007199254740993n } }],
    },
    { type: "progress", inserted: [], deleted: [], updated: [] },
    { type: "delta", inserted: [], deleted: [], updated: [] },
  ]);
  assert.deepEqual(seen.states, ["connecting", "live"]);
  subscription.close();
});

test("keys of several columns, and of values that are no plain ones", () => {
  const three = [...columns, { name: "tags", type: "jsonb" }];
  const { subscription } = start();
  Socket.last.say(base([["Ada", "1", ["x"]]], "1-g", { columns: three, key: ["n", "user"] }));
  assert.ok(subscription.rows.has(JSON.stringify(["1", "Ada"])));
  Socket.last.say(base([["Ada", "1", ["x"]]], "2-g", { columns: three, key: ["tags"] }));
  assert.deepEqual([...subscription.rows.keys()], ['[["x"]]']);
  Socket.last.say(base([["Ada", "1", null], ["Bob", "2", 7]], "3-g", { columns: three, key: ["tags"] }));
  assert.deepEqual([...subscription.rows.keys()], [null, 7]);
  Socket.last.say(base([["Ada", "1", null], ["Bob", "2", 7]], "4-g", { columns: three, key: ["n"] }));
  assert.deepEqual([...subscription.rows.keys()], [1n, 2n]);
  subscription.close();
});

test("without a key, and with one that is none, a view is a multiset", () => {
  for (const key of [[], ["user"]]) {
    const { subscription, seen } = start();
    Socket.last.say(base([["Ada", "1"], ["Ada", "2"], ["Ada", "2"], ["Ada", "2"]], "1-g", { key }));
    assert.deepEqual(rows(subscription).map(({ n }) => n), [1n, 2n, 2n, 2n]);
    Socket.last.say(delta("1-g", "2-g", [["Ada", "3"]], [["Ada", "2"], ["Ada", "2"]]));
    assert.deepEqual(rows(subscription).map(({ n }) => n).sort(), [1n, 2n, 3n]);
    Socket.last.say(delta("2-g", "3-g", [["Ada", "2"]], [["Ada", "1"]]));
    assert.deepEqual(rows(subscription).map(({ n }) => n).sort(), [2n, 2n, 3n]);
    Socket.last.say(delta("3-g", "4-g", [], [["Ada", "2"], ["Ada", "2"], ["Ada", "3"]]));
    assert.deepEqual(rows(subscription), []);
    assert.equal(seen.changes.length, 4);
    subscription.close();
  }
});

test("a base is a change from what was there", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([["Ada", "1"], ["Bob", "2"], ["Cleo", "3"]]));
  const ada = subscription.rows.get("Ada");
  Socket.last.say(base([["Dora", "4"], ["Bob", "5"], ["Ada", "1"]], "5-h"));
  assert.deepEqual(seen.changes[1], {
    type: "base",
    inserted: [{ user: "Dora", n: 4n }],
    deleted: [{ user: "Cleo", n: 3n }],
    updated: [{ before: { user: "Bob", n: 2n }, after: { user: "Bob", n: 5n } }],
  });
  assert.equal(subscription.rows.get("Ada"), ada);
  assert.deepEqual(rows(subscription).map(({ user }) => user), ["Ada", "Bob", "Dora"]);
  // Other columns are other rows.
  Socket.last.say(base([["Ada", "1"]], "6-i", { columns: [{ name: "name", type: "text" }, { name: "n", type: "int8" }], key: ["name"] }));
  assert.deepEqual(rows(subscription), [{ name: "Ada", n: 1n }]);
  Socket.last.say(base([["Ada", "1"]], "7-j"));
  assert.deepEqual(rows(subscription), [{ user: "Ada", n: 1n }]);
  subscription.close();
});

test("several views move together", () => {
  const { subscription, seen } = start(["a", "2"], {
    onChange: ({ views }) => seen.changes.push([...Object.values(views)].map((v) => [...v.rows.values()].map((r) => r.n))),
  });
  const shape = { columns: [{ name: "n", type: "int8" }], key: [] };
  const cut = (type, token, a, b, more) => ({ type, ...at(token), view: undefined, ...more, views: { a, 2: b } });
  Socket.last.say(cut("base", "1-g.h", { ...shape, inserted: [["1"]], deleted: [] }, { ...shape, inserted: [], deleted: [] }));
  Socket.last.say(cut("delta", "2-g.h", { inserted: [["2"]], deleted: [["1"]] }, { inserted: [["7"]], deleted: [] }, { from: "1-g.h" }));
  Socket.last.say(cut("progress", "3-g.h", { checksum: "" }, { checksum: "" }));
  // If one of them cannot move, none does.
  Socket.last.say(cut("delta", "4-g.h", { inserted: [["3"]], deleted: [["2"]] }, { inserted: [], deleted: [["8"]] }, { from: "3-g.h" }));
  assert.deepEqual(seen.changes, [[[], [1n]], [[7n], [2n]], [[7n], [2n]]]);
  assert.deepEqual(rows(subscription, "a"), [{ n: 2n }]);
  assert.equal(subscription.rows, subscription.views.a.rows); // the first that was asked for
  assert.equal(subscription.state, "reconnecting");
  subscription.close();
});

test("parts apply together", () => {
  const { subscription, seen } = start();
  Socket.last.say({ ...base([["Ada", "1"]]), more: true });
  assert.equal(seen.changes.length, 0);
  assert.deepEqual(rows(subscription), []);
  Socket.last.say({ ...at("1-g"), type: "base", inserted: [["Bob", "2"]], deleted: [] });
  assert.equal(seen.changes.length, 1);
  assert.deepEqual([...subscription.rows.keys()], ["Ada", "Bob"]);
  Socket.last.say({ ...delta("1-g", "2-g", [["Cleo", "3"]]), more: true });
  Socket.last.lose();
  mock.timers.tick(10_000);
  assert.equal(since(), "1-g");
  Socket.last.say(delta("1-g", "3-g", [["Cleo", "4"]]));
  assert.deepEqual([...subscription.rows.values()].map(({ n }) => n), [1n, 2n, 4n]);
  subscription.close();
});

// The examples of docs/protocol.md.
const [two, three, none] = ["c6ad0812e8ac2cd4", "fc19278c759d93f3", "0000000000000000"];

test("checksums", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([["Ada", "12"], ["Bob", "3"]], "1-g", { checksum: two }));
  assert.equal(subscription.verified, true);
  Socket.last.say(progress("2-g", { checksum: two }));
  Socket.last.say(delta("2-g", "3-g", [["Ada", "13"]], [["Ada", "12"]], { checksum: three }));
  Socket.last.say(delta("3-g", "4-g", [], [["Ada", "13"], ["Bob", "3"]], { checksum: none }));
  assert.equal(subscription.verified, true);
  Socket.last.say(base([["Bob", "3"], ["Ada", "13"]], "5-g", { checksum: three }));
  assert.deepEqual(seen.states, ["connecting", "live"]);
  assert.equal(seen.changes.length, 5);
  subscription.close();
});

test("what does not add up is not shown, and a base is asked for", () => {
  for (const wrong of [
    delta("1-g", "2-g", [["Ada", "14"]], [["Ada", "12"]], { checksum: three }),
    progress("2-g", { checksum: three }),
    base([["Bob", "3"]], "2-g", { checksum: three }),
    delta("1-g", "2-g", [], [["Cleo", "1"]]), // not held
    delta("1-g", "2-g", [], [["Ada", "12"], ["Ada", "12"]]), // not held twice
    delta("0-g", "2-g", [["Ada", "13"]], [["Ada", "12"]], { checksum: three }), // from elsewhere
    '{"type":"delta"',
    '{"type":"delta","from":"1-g","inserted":[["a',
    '{"type":"delta","from":"1-g","timestamp":"2","token":"2-g","view":"v","inserted":[["Cleo","1"],["Dora",no]],"deleted":[["Ada","12"]]}',
  ]) {
    const { subscription, seen } = start();
    Socket.last.say(base([["Ada", "12"], ["Bob", "3"]], "1-g", { checksum: two }));
    const socket = Socket.last;
    socket.say(wrong);
    assert.ok(socket.closed);
    assert.equal(subscription.verified, false);
    socket.say(delta("1-g", "2-g", [["Ada", "13"]], [["Ada", "12"]], { checksum: three })); // too late: nobody listens
    assert.deepEqual(rows(subscription), [{ user: "Ada", n: 12n }, { user: "Bob", n: 3n }]);
    mock.timers.tick(10_000);
    assert.equal(since(), null);
    assert.equal(Socket.last.url.searchParams.get("mismatch"), "1-g");
    Socket.last.say(base([["Ada", "13"], ["Bob", "3"]], "9-g", { checksum: three }));
    assert.equal(subscription.verified, true);
    assert.deepEqual(rows(subscription), [{ user: "Ada", n: 13n }, { user: "Bob", n: 3n }]);
    assert.equal(seen.changes.length, 2);
    Socket.last.lose();
    mock.timers.tick(10_000);
    const last = fetches.at(-1) ?? Socket.last; // the third attempt
    assert.equal(last.url.searchParams.get("since"), "9-g");
    assert.equal(last.url.searchParams.has("mismatch"), false); // it was told
    subscription.close();
  }
});

test("a server that is wrong again and again is asked less and less", async () => {
  const { subscription } = start();
  const attempts = () => Socket.all.length + fetches.length;
  const wrong = [base([["Ada", "12"], ["Bob", "3"]], "1-g", { checksum: two }), progress("2-g", { checksum: three })];
  for (const longest of [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]) {
    const count = attempts();
    if (count % 3 === 0) {
      fetches.at(-1).begin();
      for (const m of wrong) fetches.at(-1).write(`data: ${JSON.stringify(m)}\n\n`);
      await settled();
    } else {
      Socket.last.say(...wrong);
    }
    mock.timers.tick(longest / 2 - 1);
    assert.equal(attempts(), count, `too soon, of ${longest}`);
    mock.timers.tick(longest / 2 + 1);
    assert.equal(attempts(), count + 1, `too late, of ${longest}`);
  }
  subscription.close();
});

test("texts of all kinds are found", () => {
  const odd = ['"', "\\", '\\"],[', "[[", "]]", "{", "a,b", "👩‍👩‍👧‍👦", "\u0007", "", "__proto__"];
  const { subscription } = start();
  const list = odd.map((text, i) => [text, [{ "k]": [text, [1, [2]], {}] }, [], null, true, -1.5e-7], String(i)]);
  const shape = { columns: [{ name: "a", type: "text" }, { name: "__proto__", type: "jsonb" }, { name: "c", type: "numeric" }], key: ["a"] };
  Socket.last.say(base(list, "1-g", shape));
  assert.deepEqual([...subscription.rows.keys()], odd);
  for (const [text, json, n] of list) {
    const row = subscription.rows.get(text);
    assert.deepEqual([row.a, Object.getOwnPropertyDescriptor(row, "__proto__").value, row.c], [text, json, n]);
  }
  Socket.last.say(base([[]], "2-g", { columns: [], key: [] })); // a row of no columns
  assert.deepEqual(rows(subscription), [{}]);
  subscription.close();
});

test("errors", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([]));
  Socket.last.say({ type: "error", code: "unknown_view", message: "no view" });
  assert.deepEqual(seen.states, ["connecting", "live", "reconnecting: no view"]);
  mock.timers.tick(10_000);
  assert.equal(since(), "1-g");
  Socket.last.say({ type: "error", code: "bad_token", message: "no token" });
  mock.timers.tick(10_000);
  assert.equal(fetches.at(-1).url.searchParams.has("since"), false); // the third attempt
  subscription.close();
});

test("a server that stops says when to come back", () => {
  const { subscription } = start();
  Socket.last.say(base([]));
  Socket.last.say({ type: "error", code: "stopping", message: "mzd is stopping", retry_ms: 1234 });
  Socket.last.lose(); // its close comes too late to count
  mock.timers.tick(1234 + 124);
  assert.equal(Socket.all.length, 1);
  mock.timers.tick(250 - 124);
  assert.equal(Socket.all.length, 2);
  assert.equal(since(), "1-g");
  subscription.close();
});

test("what a server says to all alike does not bring all back as one", async () => {
  const { subscription } = start();
  const full = { type: "error", code: "too_many_connections", message: "all connections are in use", retry_ms: 1000 };
  const attempts = () => Socket.all.length + fetches.length;
  for (const longest of [250, 500, 1000, 2000, 4000, 8000, 10_000]) {
    const count = attempts();
    if (count % 3 === 0) {
      fetches.at(-1).refuse(503, JSON.stringify(full));
      await settled();
    } else {
      Socket.last.say(full);
    }
    mock.timers.tick(1000 + longest / 2 - 1);
    assert.equal(attempts(), count, `too soon, of ${longest}`);
    mock.timers.tick(longest / 2 + 1);
    assert.equal(attempts(), count + 1, `too late, of ${longest}`);
  }
  subscription.close();
});

test("a view that is not ready is the reason, and it waits", () => {
  const { subscription, seen } = start();
  const socket = Socket.last;
  const wait = { type: "error", code: "view_not_ready", message: "view v has no data yet" };
  for (let i = 0; i < 10; i++) {
    socket.say(wait);
    mock.timers.tick(15_000);
  }
  socket.say(base([["Ada", "1"]]));
  socket.say({ ...wait, code: "view_failed" });
  socket.say(delta("1-g", "2-g", [["Bob", "1"]]));
  assert.deepEqual([...subscription.rows.keys()], ["Ada", "Bob"]);
  assert.equal(Socket.all.length, 1);
  assert.deepEqual(seen.states, ["connecting", "connecting: view v has no data yet", "live", "live: view v has no data yet", "live"]);
  subscription.close();
});

test("messages and fields of servers to come are ignored", () => {
  const { subscription, seen } = start();
  Socket.last.say({ type: "greeting", token: "0-g" }, base([["Ada", "1"]], "1-g", { news: [["x"]] }), { type: "more", list: [[1]] });
  Socket.last.say(delta("1-g", "2-g", [["Bob", "1"]], [], { about: { a: [[["b"]]] } }));
  assert.deepEqual([...subscription.rows.keys()], ["Ada", "Bob"]);
  assert.equal(seen.changes.length, 2);
  subscription.close();
});

test("it comes back later and later, and soon again after success", async () => {
  const { subscription, seen } = start();
  const attempts = () => Socket.all.length + fetches.length;
  Socket.last.say(base([]));
  for (const longest of [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]) {
    const count = attempts();
    if (fetches.at(-1)?.url && count % 3 === 0) {
      fetches.at(-1).fail(new Error("gone"));
      await settled();
    } else {
      Socket.last.lose("gone");
    }
    mock.timers.tick(longest / 2 - 1);
    assert.equal(attempts(), count, `too soon, of ${longest}`);
    mock.timers.tick(longest / 2 + 1);
    assert.equal(attempts(), count + 1, `too late, of ${longest}`);
  }
  assert.equal(fetches.length, 3); // every third goes another way
  Socket.last.say(delta("1-g", "2-g", []));
  assert.deepEqual(seen.states, ["connecting", "live", "reconnecting: gone", "live"]);
  // One that is lost again at once is none that has succeeded.
  const count = attempts();
  Socket.last.lose();
  mock.timers.tick(4999);
  assert.equal(attempts(), count);
  mock.timers.tick(5001);
  assert.equal(attempts(), count + 1);
  Socket.last.say(delta("2-g", "3-g", []));
  mock.timers.tick(10_001);
  Socket.last.say(progress("4-g"));
  Socket.last.lose();
  mock.timers.tick(250);
  assert.equal(attempts(), count + 2);
  subscription.close();
});

test("connections on which nothing comes are none that succeed", () => {
  const { subscription } = start();
  for (let s = 0; s < 110; s++) mock.timers.tick(1000);
  assert.equal(fetches.length, 1); // the third attempt
  subscription.close();
});

test("server-sent events, where websockets do not get through", async () => {
  const { subscription, seen } = start();
  const blocked = () => {
    Socket.last.onerror({}); // as in Node 20
    mock.timers.tick(10_000);
  };
  blocked();
  blocked();
  const first = fetches[0];
  assert.equal(first.url.href, "http://example.test/some/path/api/stream?view=v&numbers=string");
  assert.equal(first.accept, "text/event-stream");
  first.begin();
  const text = `retry: 1000\n\n: hello\n\nid: 1-g\ndata: ${JSON.stringify(base([["Zoë", "12"]]))}\n\n`;
  for (const part of text.split(/(?<=[:ë])/)) {
    first.write(part);
    await settled();
  }
  assert.deepEqual(rows(subscription), [{ user: "Zoë", n: 12n }]);
  for (let i = 0; i < 10; i++) {
    mock.timers.tick(15_000);
    first.write(":\n\n"); // a comment is a sign of life
    await settled();
  }
  assert.equal(first.aborted, undefined);
  first.end();
  await settled();
  mock.timers.tick(10_000);
  assert.equal(since(), "1-g"); // websockets have another chance
  blocked();
  blocked();
  fetches[1].refuse(503, JSON.stringify({ type: "error", code: "stopping", message: "mzd is stopping", retry_ms: 500 }));
  await settled();
  mock.timers.tick(500 + 10_000);
  assert.equal(since(), "1-g");
  blocked();
  blocked();
  fetches[2].refuse(502, "<html>");
  await settled();
  assert.equal(seen.states.at(-1), "reconnecting: status 502");
  subscription.close();
});

test("server-sent events, until websockets get through", async () => {
  const { subscription, seen } = start();
  const send = async (message) => {
    fetches[0].write(`data: ${JSON.stringify(message)}\n\n`);
    await settled();
  };
  for (let i = 0; i < 2; i++) {
    Socket.last.lose("blocked");
    mock.timers.tick(10_000);
  }
  fetches[0].begin();
  await send(base([["Ada", "1"]]));
  let time = 1;
  const minutes = async (n) => {
    for (let i = 0; i < 4 * n; i++) {
      mock.timers.tick(15_000);
      await send(progress(`${++time}-g`));
    }
  };
  await minutes(4);
  assert.equal(Socket.all.length, 2);
  await minutes(2);
  assert.equal(Socket.all.length, 3);
  Socket.last.lose("still blocked");
  await minutes(3);
  assert.equal(Socket.all.length, 3);
  await minutes(2); // one that says nothing
  assert.equal(Socket.all.length, 4);
  const silent = Socket.last;
  await minutes(5);
  assert.equal(Socket.all.length, 5);
  assert.ok(silent.closed);
  // One that does: it was behind when it was opened, so that another one goes on.
  const opened = since();
  await send(progress(`${++time}-g`));
  assert.notEqual(opened, `${time}-g`);
  const third = Socket.last;
  third.say(progress(`${time}-g`));
  assert.ok(third.closed && fetches[0].aborted);
  assert.equal(Socket.all.length, 6);
  assert.equal(since(), `${time}-g`);
  Socket.last.say(delta(`${time}-g`, "999-g", [["Bob", "2"]]));
  assert.deepEqual([...subscription.rows.keys()], ["Ada", "Bob"]);
  assert.deepEqual(seen.states, ["connecting", "reconnecting: blocked", "live"]);
  assert.equal(fetches.length, 1);
  mock.timers.tick(40_000);
  assert.equal(Socket.all.length, 6);
  subscription.close();
});

test("a websocket that is tried is closed with the subscription", async () => {
  const { subscription } = start();
  for (let i = 0; i < 2; i++) {
    Socket.last.lose();
    mock.timers.tick(10_000);
  }
  fetches[0].begin();
  for (let i = 0; i < 20; i++) {
    mock.timers.tick(15_000);
    fetches[0].write(":\n\n");
    await settled();
  }
  assert.equal(Socket.all.length, 3);
  assert.equal(Socket.last.closed, false);
  subscription.close();
  assert.ok(Socket.last.closed);
  const count = fetches.length;
  mock.timers.tick(1_000_000);
  assert.deepEqual([Socket.all.length, fetches.length], [3, count]);
});

test("what callbacks throw is seen, and ends nothing", async () => {
  const thrown = [];
  const listeners = process.rawListeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", ({ message }) => thrown.push(message));
  try {
    const { subscription } = start("v", {
      onState(state) {
        throw new Error(state);
      },
      onChange({ timestamp }) {
        throw new Error(timestamp);
      },
    });
    Socket.last.say(base([["Ada", "1"]]), delta("1-g", "2-g", [["Bob", "1"]]));
    assert.equal(subscription.state, "live");
    for (let i = 0; i < 2; i++) {
      Socket.last.lose();
      mock.timers.tick(10_000);
    }
    fetches[0].begin();
    for (const message of [delta("2-g", "3-g", [["Cleo", "1"]]), progress("4-g")]) fetches[0].write(`data: ${JSON.stringify(message)}\n\n`);
    await settled();
    assert.equal(subscription.timestamp, "4");
    assert.equal(subscription.state, "live");
    assert.deepEqual([...subscription.rows.keys()], ["Ada", "Bob", "Cleo"]);
    subscription.close();
    await settled();
    assert.deepEqual(thrown, ["connecting", "live", "1", "2", "reconnecting", "live", "3", "4", "closed"]);
  } finally {
    process.removeAllListeners("unhandledRejection");
    for (const listener of listeners) process.on("unhandledRejection", listener);
  }
});

test("without a WebSocket, only server-sent events", async () => {
  Object.defineProperty(globalThis, "WebSocket", { value: undefined, configurable: true, writable: true });
  const { subscription } = start("v", { WebSocket: undefined });
  fetches[0].begin();
  for (let i = 0; i < 30; i++) {
    mock.timers.tick(15_000);
    fetches[0].write(":\n\n");
    await settled();
  }
  assert.equal(fetches.length, 1);
  subscription.close();
  await settled();
  assert.equal(fetches[0].aborted, true);
});

test("a silent connection is given up", () => {
  const { subscription } = start();
  Socket.last.say(base([]));
  const socket = Socket.last;
  mock.timers.tick(44_000);
  socket.say(progress("2-g"));
  mock.timers.tick(44_999);
  assert.equal(socket.closed, false);
  mock.timers.tick(1);
  assert.equal(socket.closed, true);
  mock.timers.tick(10_000);
  assert.notEqual(Socket.last, socket);
  subscription.close();
});

test("a long interval is no silence", () => {
  const { subscription } = start("v", { interval: 3_690_500 });
  Socket.last.say(base([]));
  mock.timers.tick(3_690_500 + 44_999);
  assert.equal(Socket.last.closed, false);
  mock.timers.tick(1);
  assert.equal(Socket.last.closed, true);
  subscription.close();
});

test("it looks at once when the network is back or the page is seen again", () => {
  globalThis.document = new EventTarget();
  const window = new EventTarget();
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.removeEventListener = window.removeEventListener.bind(window);
  try {
    const { subscription } = start();
    Socket.last.say(base([]));
    Socket.last.lose();
    document.hidden = true;
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(Socket.all.length, 1);
    document.hidden = false;
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(Socket.all.length, 2);
    window.dispatchEvent(new Event("online")); // it is connecting already
    assert.equal(Socket.all.length, 2);
    Socket.last.lose();
    window.dispatchEvent(new Event("online"));
    assert.equal(fetches.length, 1);
    // A night asleep: the clock has moved, the timers have not.
    mock.timers.setTime(Date.now() + 8 * 3_600_000);
    const socket = fetches.at(-1);
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(socket.aborted, true);
    subscription.close();
    const count = Socket.all.length;
    window.dispatchEvent(new Event("online"));
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(Socket.all.length, count);
  } finally {
    delete globalThis.document;
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test("close is the end", () => {
  const { subscription, seen } = start();
  Socket.last.lose();
  subscription.close();
  const count = Socket.all.length;
  mock.timers.tick(100_000);
  assert.equal(Socket.all.length, count);
  assert.equal(seen.states.at(-1), "closed");
});

test("nothing changes after close, not even what has just come", () => {
  const { subscription, seen } = start("v", {
    onState(state) {
      if (state === "live") subscription.close();
    },
  });
  Socket.last.say(base([["Ada", "1"]]));
  assert.deepEqual(seen.changes, []);
  assert.equal(subscription.state, "closed");
});
