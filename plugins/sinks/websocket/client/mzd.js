// Follows views of mzd: mzd.d.ts says how it is used, docs/protocol.md what it
// relies on.

const firstDelay = 250; // ms before the first attempt to come back
const longestDelay = 10_000;
const silence = 45_000; // the server speaks at least every 15 s, or 15 s after a tick of the interval
const integers = new Set(["int8", "uint8", "mz_timestamp"]); // with more digits than numbers keep
const quotedNumber = /^"-?\d[\d.eE+-]*"$/;

/** Follows one or more views until close is called. */
export function subscribe(url, views, options = {}) {
  return new Subscription(url, [views].flat(), options);
}

/** The rows of a view, and what the last message changed. */
export class View {
  columns = [];
  key = [];
  rows = new Map();
  inserted = [];
  deleted = [];
  updated = [];
  verified = false;
  #ids = new Map(); // by the text of a row: under what its copies are in rows
  #sum = [0, 0]; // of the hashes of the rows, modulo 2^64: the low half, the high half

  constructor(name) {
    this.name = name;
  }

  // Returns what applies a change, and throws if that would not lead to what the
  // server has. Nothing happens before, so that views move together.
  prepare(change, isBase) {
    const { columns = this.columns, key = this.key, checksum } = change;
    const sum = isBase ? [0, 0] : [...this.#sum];
    // The text that is hashed has numbers as they are, not as strings.
    const isWide = columns.map(({ type }) => type === "numeric" || integers.has(type));
    const left = new Map(); // copies of rows that are deleted
    const read = (sign) => (values) => {
      const text = `[${values.map((v, i) => (isWide[i] && quotedNumber.test(v) ? v.slice(1, -1) : v))}]`;
      addHash(sum, text, sign);
      if (sign < 0) left.set(text, (left.get(text) ?? this.#ids.get(text)?.length ?? 0) - 1);
      return { text, values };
    };
    const deleted = change.deleted.map(read(-1));
    const inserted = change.inserted.map(read(1));
    const wrong = (checksum && checksum !== hex(sum)) || [...left.values()].some((n) => n < 0);
    if (wrong) throw new Error(`${this.name} did not add up`);
    return () => {
      this.#sum = sum;
      this.verified = Boolean(checksum);
      if (isBase) for (const [text, ids] of this.#ids) for (const _ of ids) deleted.push({ text });
      this.#apply(inserted, deleted, columns, key);
    };
  }

  #apply(inserted, deleted, columns, key) {
    const same = JSON.stringify([columns, key]) === JSON.stringify([this.columns, this.key]);
    const gone = new Map();
    for (const { text } of deleted) {
      const ids = this.#ids.get(text);
      const id = ids.pop();
      if (ids.length === 0) this.#ids.delete(text);
      gone.set(id, { text, row: this.rows.get(id) });
    }
    Object.assign(this, { columns, key, inserted: [], updated: [] });
    for (const { text, values } of inserted) {
      const [id, row] = this.#parse(text, values);
      const ids = this.#ids.get(text) ?? [];
      this.#ids.set(text, ids);
      const free = gone.has(id) || !this.rows.has(id) ? id : `${text} ${ids.length + 1}`;
      ids.push(free);
      const before = gone.get(free);
      gone.delete(free);
      if (same && before?.text === text) continue;
      if (before) this.updated.push({ before: before.row, after: row });
      else this.inserted.push(row);
      this.rows.set(free, row); // an updated row stays where it is
    }
    for (const id of gone.keys()) this.rows.delete(id);
    this.deleted = [...gone.values()].map(({ row }) => row);
  }

  // Returns where in rows a row belongs, and the row as an object.
  #parse(text, values) {
    const raw = JSON.parse(`[${values}]`);
    const row = raw.map((v, i) => (integers.has(this.columns[i]?.type) && typeof v === "string" ? BigInt(v) : v));
    const key = this.key.map((name) => this.columns.findIndex((c) => c.name === name));
    const [first] = key.map((i) => row[i]);
    const id = key.length === 0 ? text : key.length > 1 || first === Object(first) ? JSON.stringify(key.map((i) => raw[i])) : first;
    return [id, Object.fromEntries(this.columns.map((c, i) => [c.name, row[i]]))];
  }
}

class Subscription {
  #url;
  #options;
  #connection; // a function that closes it
  #token = ""; // where to resume: the position of what the views hold
  #mismatch; // the last position that was right, if the next was not, until one is again
  #parts = []; // of a message that is not complete yet
  #attempts = 0;
  #heard; // when the server was heard last, or the connection begun
  #reason;
  #timer; // to come back, or to give up on a silent connection
  #wake = () => {
    if (globalThis.document?.hidden) return;
    if (this.#connection) this.#watch();
    else this.#connect();
  };

  state = "";
  timestamp = "";
  verified = false;

  constructor(url, names, options) {
    const base = String(url);
    this.#url = new URL("api/stream", base.endsWith("/") ? base : base + "/");
    this.#options = options;
    this.views = Object.fromEntries(names.map((name) => [name, new View(name)]));
    const query = this.#url.searchParams;
    for (const name of names) query.append("view", name);
    query.set("numbers", "string");
    if (options.interval) query.set("interval", `${options.interval}ms`);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#setState("connecting");
    this.#connect();
  }

  get rows() {
    return Object.values(this.views)[0].rows;
  }

  close() {
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
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
    const url = new URL(this.#url);
    if (this.#token) url.searchParams.set("since", this.#token);
    else if (this.#mismatch !== undefined) url.searchParams.set("mismatch", this.#mismatch);
    // Callbacks of a connection that was given up do nothing.
    let end;
    const hear = (text) => this.#connection === end && this.#hear(text);
    const lose = (reason) => this.#connection === end && this.#reconnect(reason);
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    // Where websockets do not get through, server-sent events may.
    const open = !Socket || this.#attempts % 3 === 2 ? openEvents : openSocket;
    this.#connection = end = open(url, hear, lose, Socket, this.#options.fetch ?? globalThis.fetch);
    this.#heard = Date.now();
    this.#watch();
  }

  // Gives up on a connection that has been silent for too long, looking at the
  // clock now and then: timers do not see that a computer was asleep.
  #watch() {
    clearTimeout(this.#timer);
    const left = this.#heard + silence + (this.#options.interval ?? 0) - Date.now();
    if (left <= 0) this.#reconnect("the connection was silent");
    else this.#timer = setTimeout(() => this.#watch(), Math.min(left, 5000));
  }

  #drop() {
    clearTimeout(this.#timer);
    const end = this.#connection;
    this.#connection = undefined;
    this.#parts = [];
    end?.();
  }

  #reconnect(reason, delay = 0) {
    this.#drop();
    const longest = Math.min(longestDelay, firstDelay * 2 ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), delay || longest * (0.5 + Math.random() / 2));
    this.#setState("reconnecting", reason);
  }

  // Comes back without a position, for a base.
  #startOver(reason) {
    this.#token = "";
    this.verified = false;
    this.#reconnect(reason);
  }

  #hear(text) {
    this.#heard = Date.now();
    if (!text) return; // a sign of life
    let then;
    try {
      then = this.#receive(...scan(text));
    } catch (error) {
      this.#mismatch = this.#token;
      then = () => this.#startOver(error.message);
    }
    then?.();
  }

  // Takes a message, and returns what is to be done then, if anything is.
  #receive(message, texts) {
    const { type, from, token, timestamp } = message;
    if (type === "error") return () => this.#fail(message);
    if (!/^(base|delta|progress)$/.test(type)) return undefined; // of a server to come
    if (type === "delta" && from !== this.#token) throw new Error("a message was missing");
    this.#parts.push([message, texts]);
    if (message.more) return undefined;
    const commits = [...gather(this.#parts)].map(([name, change]) => this.views[name].prepare(change, type === "base"));
    for (const commit of commits) commit();
    this.#parts = [];
    this.#token = token;
    this.timestamp = timestamp;
    const views = Object.values(this.views);
    this.verified = views.every((v) => v.verified);
    if (type !== "base") this.#mismatch = undefined;
    if (this.#mismatch === undefined) this.#attempts = 0;
    return () => {
      this.#setState("live");
      const { rows, inserted, deleted, updated } = views[0];
      this.#options.onChange?.({ type, timestamp, verified: this.verified, views: this.views, rows, inserted, deleted, updated });
    };
  }

  #fail({ code, message, retry_ms }) {
    if (/^view_(not_ready|failed)$/.test(code)) this.#setState(this.state, message); // the stream goes on
    else if (code === "bad_token") this.#startOver(message);
    else this.#reconnect(message, retry_ms);
  }
}

function openSocket(url, hear, lose, Socket) {
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new Socket(url.href);
  socket.onmessage = ({ data }) => hear(data);
  socket.onclose = ({ reason }) => lose(reason);
  // In browsers a close follows, with more to say; in Node 20 none does.
  socket.onerror = () => socket.readyState !== 1 && lose("cannot connect");
  return () => socket.close();
}

function openEvents(url, hear, lose, _, fetch) {
  const aborter = new AbortController();
  const read = async () => {
    const response = await fetch(url.href, { headers: { Accept: "text/event-stream" }, signal: aborter.signal });
    if (!response.ok) return hear(JSON.stringify(await response.json()));
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the stream ended");
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      hear("");
      for (const line of lines) if (line.startsWith("data: ")) hear(line.slice(6));
    }
  };
  read().catch((error) => lose(error.message));
  return () => aborter.abort();
}

// Parses a message, and returns it with the rows, the arrays in its arrays,
// apart, as the texts of their values: checksums are over texts. The message
// has their indexes.
function scan(text) {
  const texts = [];
  const open = []; // the brackets around i
  let rest = "";
  let row, from;
  let end = 0; // of the last row
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      while (text[++i] !== '"' && i < text.length) if (text[i] === "\\") i++;
    } else if (c === "[" || c === "{") {
      open.push(c);
      if (c === "[" && !row && open.at(-2) === "[") {
        rest += text.slice(end, i) + texts.length;
        row = { values: [], depth: open.length };
        from = i + 1;
      }
    } else if (c === "," || c === "]" || c === "}") {
      const inside = row?.depth === open.length;
      if (inside && i > from) row.values.push(text.slice(from, i));
      if (inside) from = i + 1;
      if (c === ",") continue;
      open.pop();
      if (!inside) continue;
      texts.push(row.values);
      row = undefined;
      end = i + 1;
    }
  }
  return [JSON.parse(rest + text.slice(end)), texts];
}

// Joins the parts of a message, by view.
function gather(parts) {
  const changes = new Map();
  for (const [part, texts] of parts) {
    for (const [name, { inserted = [], deleted = [], ...more }] of Object.entries(part.views ?? { [part.view]: part })) {
      const sum = changes.get(name) ?? { inserted: [], deleted: [] };
      changes.set(name, { ...sum, ...more });
      for (const i of inserted) sum.inserted.push(texts[i]);
      for (const i of deleted) sum.deleted.push(texts[i]);
    }
  }
  return changes;
}

const encoder = new TextEncoder();

// Adds a row's hash to a sum, or takes it off.
function addHash(sum, text, sign) {
  const bytes = encoder.encode(text);
  const low = sum[0] + sign * xxh32(bytes, 0);
  sum[1] = (sum[1] + sign * xxh32(bytes, 1) + Math.floor(low / 2 ** 32)) >>> 0;
  sum[0] = low >>> 0;
}

const hex = ([low, high]) => [high, low].map((half) => half.toString(16).padStart(8, "0")).join("");

// See https://github.com/Cyan4973/xxHash: needs no wide multiplication.
function xxh32(bytes, seed) {
  const [p1, p2, p3, p4, p5] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1];
  const { imul } = Math;
  const turn = (x, n) => (x << n) | (x >>> (32 - n));
  const word = (i) => bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
  const n = bytes.length;
  let h = seed + p5;
  let i = 0;
  if (n >= 16) {
    let [a, b, c, d] = [seed + p1 + p2, seed + p2, seed, seed - p1];
    const round = (x, at) => imul(turn(x + imul(word(at), p2), 13), p1);
    for (; i <= n - 16; i += 16) [a, b, c, d] = [round(a, i), round(b, i + 4), round(c, i + 8), round(d, i + 12)];
    h = turn(a, 1) + turn(b, 7) + turn(c, 12) + turn(d, 18);
  }
  h += n;
  for (; i <= n - 4; i += 4) h = imul(turn(h + imul(word(i), p3), 17), p4);
  for (; i < n; i++) h = imul(turn(h + imul(bytes[i], p5), 11), p1);
  h = imul(h ^ (h >>> 15), p2);
  h = imul(h ^ (h >>> 13), p3);
  return (h ^ (h >>> 16)) >>> 0;
}
