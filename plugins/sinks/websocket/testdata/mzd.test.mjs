// The rules of mzd.js, with a socket that the test plays. Run by TestClientRules.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { subscribe } from "../web/mzd.js";

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
  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
  lose(reason = "") {
    this.onclose({ code: 1006, reason });
  }
  static get last() {
    return Socket.all.at(-1);
  }
}

function start(views = "v", options = {}) {
  Socket.all = [];
  const seen = { changes: [], states: [] };
  const subscription = subscribe("http://example.test/some/path", views, {
    WebSocket: Socket,
    onChange: (change) => seen.changes.push(change),
    onState: (state, reason) => seen.states.push(reason ? `${state}: ${reason}` : state),
    ...options,
  });
  return { subscription, seen };
}

const base = (inserted, token = "1-g") => ({
  type: "base", view: "v", timestamp: token.split("-")[0], token,
  columns: [{ name: "user", type: "text" }, { name: "n", type: "int8" }], key: ["user"], inserted, deleted: [],
});
const delta = (from, token, inserted, deleted = []) => ({
  type: "delta", view: "v", from, timestamp: token.split("-")[0], token, inserted, deleted,
});

test.beforeEach(() => mock.timers.enable({ apis: ["setTimeout"] }));
test.afterEach(() => mock.timers.reset());

test("the request", () => {
  const { subscription } = start(["a", "b"], { interval: "100ms" });
  assert.equal(Socket.last.url.href, "ws://example.test/some/path/api/stream?view=a&view=b&numbers=string&interval=100ms");
  subscription.close();
});

test("bases, deltas and progress", () => {
  const { subscription, seen } = start();
  const view = subscription.views.v;
  Socket.last.say(base([["Ada", "1"], ["Bob", "2"], ["Bob", "2"]]));
  assert.deepEqual(view.rows, [["Ada", "1"], ["Bob", "2"], ["Bob", "2"]]);
  assert.deepEqual(view.key, ["user"]);
  Socket.last.say(delta("1-g", "2-g", [["Ada", "9007199254740993"]], [["Ada", "1"], ["Bob", "2"]]));
  assert.deepEqual(view.objects(), [{ user: "Bob", n: "2" }, { user: "Ada", n: "9007199254740993" }]);
  Socket.last.say({ type: "progress", view: "v", timestamp: "3", token: "3-g" });
  assert.equal(subscription.timestamp, "3");
  Socket.last.say(delta("3-g", "4-g", []));
  Socket.last.say(base([["Cleo", "3"]], "5-h"));
  assert.deepEqual(view.rows, [["Cleo", "3"]]);
  assert.deepEqual(seen.changes.map((c) => c.type), ["base", "delta", "progress", "delta", "base"]);
  assert.deepEqual(seen.changes[1].changes.v, { inserted: [["Ada", "9007199254740993"]], deleted: [["Ada", "1"], ["Bob", "2"]] });
  assert.deepEqual(seen.states, ["connecting", "live"]);
  subscription.close();
});

test("several views", () => {
  const { subscription, seen } = start(["a", "b"]);
  const shape = { columns: [{ name: "n", type: "int8" }], key: [] };
  Socket.last.say({ type: "base", timestamp: "1", token: "1-g.h", views: { a: { ...shape, inserted: [["1"]], deleted: [] }, b: { ...shape, inserted: [], deleted: [] } } });
  Socket.last.say({ type: "delta", from: "1-g.h", timestamp: "2", token: "2-g.h", views: { a: { inserted: [["2"]], deleted: [["1"]] }, b: { inserted: [["7"]], deleted: [] } } });
  Socket.last.say({ type: "progress", timestamp: "3", token: "3-g.h" });
  assert.deepEqual(subscription.views.a.rows, [["2"]]);
  assert.deepEqual(subscription.views.b.rows, [["7"]]);
  assert.equal(seen.changes.length, 3);
  subscription.close();
});

test("parts apply together", () => {
  const { subscription, seen } = start();
  Socket.last.say({ ...base([["Ada", "1"]]), more: true });
  assert.equal(seen.changes.length, 0);
  assert.deepEqual(subscription.views.v.rows, []);
  Socket.last.say(base([["Bob", "2"]]));
  assert.equal(seen.changes.length, 1);
  assert.deepEqual(subscription.views.v.rows, [["Ada", "1"], ["Bob", "2"]]);
  Socket.last.say({ ...delta("1-g", "2-g", [["Cleo", "3"]]), more: true });
  Socket.last.lose();
  mock.timers.tick(10_000);
  assert.equal(Socket.last.url.searchParams.get("since"), "1-g");
  Socket.last.say(delta("1-g", "3-g", [["Cleo", "4"]]));
  assert.deepEqual(subscription.views.v.rows, [["Ada", "1"], ["Bob", "2"], ["Cleo", "4"]]);
  subscription.close();
});

test("a delta from elsewhere is not applied", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([["Ada", "1"]]));
  const socket = Socket.last;
  socket.say(delta("2-g", "3-g", [["Bob", "1"]]));
  assert.ok(socket.closed);
  socket.say(delta("1-g", "2-g", [["Bob", "1"]])); // too late: nobody listens
  assert.deepEqual(subscription.views.v.rows, [["Ada", "1"]]);
  mock.timers.tick(10_000);
  assert.notEqual(Socket.last, socket);
  assert.equal(Socket.last.url.searchParams.get("since"), "1-g");
  assert.deepEqual(seen.states, ["connecting", "live", "reconnecting: a message was missing"]);
  subscription.close();
});

test("a change that does not fit asks for a base", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([["Ada", "1"]]));
  Socket.last.say(delta("1-g", "2-g", [], [["Bob", "1"]]));
  assert.equal(seen.changes.length, 1);
  mock.timers.tick(10_000);
  assert.equal(Socket.last.url.searchParams.has("since"), false);
  Socket.last.say(base([["Ada", "5"]], "5-g"));
  assert.deepEqual(subscription.views.v.rows, [["Ada", "5"]]);
  subscription.close();
});

test("an error is told and starts over", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([]));
  Socket.last.say({ type: "error", code: "unknown_view", message: "no view" });
  assert.deepEqual(seen.states, ["connecting", "live", "reconnecting: no view"]);
  mock.timers.tick(10_000);
  assert.equal(Socket.last.url.searchParams.has("since"), false);
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
  socket.say(wait);
  socket.say(delta("1-g", "2-g", [["Bob", "1"]]));
  assert.deepEqual(subscription.views.v.rows, [["Ada", "1"], ["Bob", "1"]]);
  assert.equal(Socket.all.length, 1);
  assert.deepEqual(seen.states, ["connecting", "connecting: view v has no data yet", "live", "live: view v has no data yet", "live"]);
  subscription.close();
});

test("it comes back later and later, and soon again after success", () => {
  const { subscription, seen } = start();
  Socket.last.say(base([]));
  for (const longest of [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]) {
    const count = Socket.all.length;
    Socket.last.lose("gone");
    mock.timers.tick(longest / 2 - 1);
    assert.equal(Socket.all.length, count, `too soon, of ${longest}`);
    mock.timers.tick(longest / 2 + 1);
    assert.equal(Socket.all.length, count + 1, `too late, of ${longest}`);
  }
  Socket.last.say(delta("1-g", "2-g", []));
  assert.deepEqual(seen.states, ["connecting", "live", "reconnecting: gone", "live"]);
  const count = Socket.all.length;
  Socket.last.lose();
  mock.timers.tick(250);
  assert.equal(Socket.all.length, count + 1);
  subscription.close();
});

test("a silent connection is given up", () => {
  const { subscription } = start();
  Socket.last.say(base([]));
  const socket = Socket.last;
  mock.timers.tick(44_000);
  assert.equal(socket.closed, false);
  mock.timers.tick(1_000);
  assert.equal(socket.closed, true);
  mock.timers.tick(10_000);
  assert.notEqual(Socket.last, socket);
  subscription.close();
});

test("a long interval is no silence", () => {
  const { subscription } = start("v", { interval: "1h1m30s500ms" });
  Socket.last.say(base([]));
  mock.timers.tick(3_690_500 + 44_999);
  assert.equal(Socket.last.closed, false);
  mock.timers.tick(1);
  assert.equal(Socket.last.closed, true);
  subscription.close();
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
