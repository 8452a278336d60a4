// mzd.js follows views of mzd and keeps their rows.
//
//   import { subscribe } from "/mzd.js";
//
//   const subscription = subscribe(location.origin, ["counter", "top10"], {
//     onChange({ views, timestamp }) {
//       console.log(timestamp, views.counter.rows, views.top10.objects());
//     },
//     onState(state, reason) { console.log(state, reason); },
//     interval: "100ms",
//   });
//   subscription.close();
//
// Several views move together: at every call of onChange they all are what they
// were at one timestamp. int8 and numeric values are strings, because numbers
// in JavaScript lose digits above 2^53; BigInt(value) counts with them.
//
// A module without dependencies, for browsers and for Node 20 and later (where
// there is no global WebSocket, give one as an option).

const firstDelay = 250; // ms before the first attempt to come back
const longestDelay = 10_000;
const silence = 45_000; // the server speaks at least every 15 s, or 15 s after a tick of the interval
const units = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 }; // ms; smaller ones do not matter here

/**
 * Follows one or more views until close is called.
 *
 * onChange(change) is called after each message was applied, with
 *   type       "base", "delta" or "progress" (nothing changed)
 *   timestamp  everything below it is complete, a string of digits
 *   views      the views by name, see View
 *   changes    by name, the rows {inserted, deleted} of this message
 *
 * onState(state, reason) is called when the state of the connection changes:
 * "connecting" at first, "live", "reconnecting", "closed"; and when the reason
 * for it does. reason is text for people, or undefined: why the connection was
 * lost, which view has stopped, or of which the server has no data yet.
 *
 * @param {string|URL} url where mzd serves, as in "http://127.0.0.1:8875"
 * @param {string|string[]} views their names
 * @param {{onChange?: Function, onState?: Function, interval?: string, WebSocket?: Function}} options
 */
export function subscribe(url, views, options = {}) {
  return new Subscription(url, [views].flat(), options);
}

/** The rows of a view, a multiset. */
export class View {
  #rows = new Map(); // JSON text of a row: the row and its number of copies

  constructor(name) {
    this.name = name;
    this.columns = []; // {name, type}
    this.key = []; // names of the columns that identify a row
  }

  /** The rows as arrays of values, a row with n copies n times. */
  get rows() {
    const list = [];
    for (const { row, copies } of this.#rows.values()) {
      for (let i = 0; i < copies; i++) list.push(row);
    }
    return list;
  }

  /** The rows as objects by column name. */
  objects() {
    return this.rows.map((row) => Object.fromEntries(this.columns.map((c, i) => [c.name, row[i]])));
  }

  /** Starts over, as what comes next is the whole view. */
  reset(columns = [], key = []) {
    this.columns = columns;
    this.key = key;
    this.#rows.clear();
  }

  /** Applies changes; false means that they do not fit to what is held. */
  apply({ inserted, deleted }) {
    for (const row of inserted) {
      const text = JSON.stringify(row);
      const held = this.#rows.get(text);
      if (held) held.copies++;
      else this.#rows.set(text, { row, copies: 1 });
    }
    for (const row of deleted) {
      const text = JSON.stringify(row);
      const held = this.#rows.get(text);
      if (!held) return false;
      if (--held.copies === 0) this.#rows.delete(text);
    }
    return true;
  }
}

class Subscription {
  #url;
  #names;
  #options;
  #socket = null;
  #token = ""; // where to resume: the position of what the views hold
  #parts = []; // of a message that is not complete yet
  #attempts = 0;
  #reason;
  #timer = null; // to come back, or to give up on a silent connection
  #online = () => this.#attempts > 0 && !this.#socket && this.#connect();

  constructor(url, names, options) {
    const base = String(url);
    this.#url = new URL("api/stream", base.endsWith("/") ? base : base + "/");
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#names = names;
    this.#options = options;
    /** The views by name. */
    this.views = Object.fromEntries(names.map((name) => [name, new View(name)]));
    /** The state of the connection. */
    this.state = "";
    /** Everything below it is complete; empty before the first message. */
    this.timestamp = "";
    globalThis.addEventListener?.("online", this.#online);
    this.#setState("connecting");
    this.#connect();
  }

  /** Ends the subscription. The views keep what they hold. */
  close() {
    globalThis.removeEventListener?.("online", this.#online);
    this.#drop();
    this.#setState("closed");
  }

  #setState(state, reason) {
    if (state === this.state && reason === this.#reason) return;
    this.state = state;
    this.#reason = reason;
    this.#options.onState?.(state, reason);
  }

  #connect() {
    clearTimeout(this.#timer);
    const query = this.#url.searchParams;
    query.delete("view");
    for (const name of this.#names) query.append("view", name);
    query.set("numbers", "string");
    if (this.#options.interval) query.set("interval", this.#options.interval);
    if (this.#token) query.set("since", this.#token);
    else query.delete("since");

    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    const socket = new Socket(this.#url.href);
    this.#socket = socket;
    this.#parts = [];
    this.#watch();
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(JSON.parse(data));
    };
    socket.onclose = ({ reason }) => {
      if (socket === this.#socket) this.#reconnect(reason);
    };
    socket.onerror = () => {
      // In browsers a close follows, with more to say; in Node 20 none does.
      if (socket === this.#socket && socket.readyState !== 1) this.#reconnect("cannot connect");
    };
  }

  // Gives up on a connection that has been silent for too long.
  #watch() {
    clearTimeout(this.#timer);
    const interval = milliseconds(this.#options.interval ?? "");
    this.#timer = setTimeout(() => this.#reconnect("the connection was silent"), silence + interval);
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#parts = [];
    socket?.close();
  }

  #reconnect(reason) {
    this.#drop();
    const longest = Math.min(longestDelay, firstDelay * 2 ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), longest * (0.5 + Math.random() / 2));
    this.#setState("reconnecting", reason);
  }

  // Comes back without a position, for a base.
  #startOver(reason) {
    this.#token = "";
    this.#reconnect(reason);
  }

  #receive(message) {
    this.#watch();
    if (message.code === "view_not_ready" || message.code === "view_failed") {
      this.#setState(this.state, message.message); // and wait: the server goes on when it can
      return;
    }
    if (message.type === "error") {
      if (message.code !== "stopping") this.#startOver(message.message);
      else this.#reconnect(message.message);
      return;
    }
    if (message.type === "delta" && message.from !== this.#token) {
      this.#reconnect("a message was missing");
      return;
    }
    this.#parts.push(message);
    if (message.more) return;
    const parts = this.#parts;
    this.#parts = [];
    const changes = this.#apply(parts);
    if (!changes) {
      this.#startOver("a change did not fit");
      return;
    }
    this.#token = message.token;
    this.timestamp = message.timestamp;
    this.#attempts = 0;
    this.#setState("live");
    this.#options.onChange?.({ type: message.type, timestamp: this.timestamp, views: this.views, changes });
  }

  // Applies all parts of a message; undefined if they do not fit.
  #apply(parts) {
    const changes = {};
    for (const [i, part] of parts.entries()) {
      const views = part.views ?? (part.view && part.type !== "progress" ? { [part.view]: part } : {});
      for (const [name, change] of Object.entries(views)) {
        const view = this.views[name];
        const sum = (changes[name] ??= { inserted: [], deleted: [] });
        if (part.type === "base" && i === 0) view.reset(change.columns, change.key);
        for (const row of change.inserted) sum.inserted.push(row);
        for (const row of change.deleted) sum.deleted.push(row);
      }
    }
    for (const [name, change] of Object.entries(changes)) {
      if (!this.views[name].apply(change)) return undefined;
    }
    return changes;
  }
}

// The milliseconds of a duration as the server reads it: "500ms", "1m30s".
function milliseconds(duration) {
  let sum = 0;
  for (const [, count, unit] of duration.matchAll(/([\d.]+)([a-zµ]+)/g)) sum += count * (units[unit] ?? 0);
  return sum;
}
