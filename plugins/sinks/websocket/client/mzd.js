// Follows views of mzd: mzd.d.ts says how it is used, docs/protocol.md what it
// relies on.

const firstDelay = 250; // ms before it comes back
const longestDelay = 10_000; // a connection that lasts longer is a good one
const again = 300_000; // until websockets are tried again
const silence = 45_000; // the server speaks every 15 s, or 15 s after a tick of the interval
const integers = new Set(["int8", "uint8", "mz_timestamp"]); // of more digits than numbers have
const quotedNumber = /^"-?\d[\d.eE+-]*"$/;

/** Follows one or more views until close is called. */
export function subscribe(url, views, options = {}) {
  return new Subscription(url, [views].flat(), options);
}

class View {
  columns = [];
  key = [];
  rows = new Map();
  inserted = [];
  deleted = [];
  updated = [];
  verified = false;
  #ids = new Map(); // by the text of a row: under what its copies are in rows
  #sum = [0, 0]; // of their hashes modulo 2^64: the low half, the high half

  constructor(name) {
    this.name = name;
  }

  // Returns what applies a change, and throws if that does not lead to what the
  // server has. Nothing happens before, so that views move together.
  prepare(change, isBase) {
    const { columns = this.columns, key = this.key, checksum } = change;
    const sum = isBase ? [0, 0] : [...this.#sum];
    // What is hashed has numbers as such, not as strings.
    const isWide = columns.map(({ type }) => type === "numeric" || integers.has(type));
    const left = new Map(); // copies of rows that are deleted
    const count = (values, sign) => {
      const text = `[${values.map((v, i) => (isWide[i] && quotedNumber.test(v) ? v.slice(1, -1) : v))}]`;
      addHash(sum, text, sign);
      if (sign < 0) left.set(text, (left.get(text) ?? this.#ids.get(text)?.length ?? 0) - 1);
      return text;
    };
    const deleted = change.deleted.map((values) => count(values, -1));
    const inserted = change.inserted.map((values) => parse(count(values, 1), values, columns, key));
    const [low, high] = sum.map((half) => half.toString(16).padStart(8, "0"));
    const wrong = (checksum && checksum !== high + low) || [...left.values()].some((n) => n < 0);
    if (wrong) throw new Error(`${this.name} did not add up`);
    return () => {
      this.#sum = sum;
      this.verified = Boolean(checksum);
      if (isBase) for (const [text, ids] of this.#ids) for (const _ of ids) deleted.push(text);
      this.#apply(inserted, deleted, columns, key);
    };
  }

  #apply(inserted, deleted, columns, key) {
    const same = JSON.stringify([columns, key]) === JSON.stringify([this.columns, this.key]);
    const gone = new Map();
    for (const text of deleted) {
      const ids = this.#ids.get(text);
      const id = ids.pop();
      if (ids.length === 0) this.#ids.delete(text);
      gone.set(id, { text, row: this.rows.get(id) });
    }
    Object.assign(this, { columns, key, inserted: [], updated: [] });
    for (const { text, id, row } of inserted) {
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
}

// Returns a row as an object, and what it is under.
function parse(text, values, columns, key) {
  const raw = JSON.parse(`[${values}]`);
  const value = (v, type) => (typeof v === "string" && integers.has(type) ? BigInt(v) : v);
  const row = Object.fromEntries(columns.map(({ name, type }, i) => [name, value(raw[i], type)]));
  const under = key.map((name) => row[name]);
  let [id = text] = under;
  if (key.length > 1 || id === Object(id)) id = JSON.stringify(under, (_, v) => (typeof v === "bigint" ? `${v}` : v));
  return { text, id, row };
}

class Subscription {
  #url;
  #options;
  #list; // of the views, in order
  #connection; // a function that closes it
  #begun; // when it was
  #heard; // when the server was last
  #other; // closes a websocket that is tried beside events
  #tried; // when one was
  #token = ""; // the position of the views
  #parts = []; // of a message that is not complete yet
  #attempts = 0;
  #reason;
  #timer; // to come back, or to look at the connection
  #wake = () => {
    if (globalThis.document?.hidden) return;
    if (this.#connection) this.#watch();
    else this.#connect();
  };

  state = "";
  timestamp = "";
  verified = false;

  constructor(url, names, options) {
    this.#url = new URL("api/stream", new URL(`${url}`.replace(/\/?$/, "/"), globalThis.location?.href));
    this.#options = options;
    this.#list = names.map((name) => new View(name));
    this.views = Object.fromEntries(this.#list.map((v) => [v.name, v]));
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
    return this.#list[0].rows;
  }

  close() {
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#drop();
    this.#setState("closed");
  }

  // What a callback throws ends nothing, but is seen.
  async #tell(name, ...what) {
    this.#options[name]?.(...what);
  }

  #setState(state, reason) {
    if (state === this.state && reason === this.#reason) return;
    this.state = state;
    this.#reason = reason;
    this.#tell("onState", state, reason);
  }

  #connect() {
    this.#drop();
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    // Where websockets do not get through, server-sent events may.
    const byEvents = !Socket || this.#attempts % 3 === 2;
    this.#begun = this.#heard = Date.now();
    this.#tried = byEvents && Socket ? this.#begun : Infinity;
    this.#connection = this.#open(byEvents, (text) => this.#hear(text), (reason) => this.#reconnect(reason));
    this.#watch();
  }

  #open(byEvents, hear, lose) {
    const url = new URL(this.#url);
    if (this.#token) url.searchParams.set("since", this.#token);
    let isOver; // nobody listens any more
    const end = (byEvents ? openEvents : openSocket)(url, (text) => isOver || hear(text), (reason) => isOver || lose(reason), this.#options);
    return () => {
      isOver = true;
      end();
    };
  }

  // Gives up on a connection that is silent for too long. It looks at the clock
  // now and then, as timers do not see that a computer was asleep.
  #watch() {
    clearTimeout(this.#timer);
    const now = Date.now();
    const left = this.#heard + silence + (this.#options.interval ?? 0) - now;
    if (left <= 0) return this.#reconnect("the connection was silent");
    if (now - this.#tried >= again) {
      this.#tried = now;
      this.#attempts = 0;
      this.#other?.();
      this.#other = this.#open(false, () => this.#connect(), () => {});
    }
    this.#timer = setTimeout(() => this.#watch(), Math.min(left, 5000));
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#connection?.();
    this.#other?.();
    this.#connection = this.#other = undefined;
    this.#parts = [];
  }

  #reconnect(reason, delay = 0) {
    if (this.#heard - this.#begun > longestDelay) this.#attempts = 0;
    this.#drop();
    const longest = Math.min(longestDelay, firstDelay * 2 ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), delay + longest * (0.5 + Math.random() / 2));
    this.#setState("reconnecting", reason);
  }

  #hear(text) {
    this.#heard = Date.now();
    if (!text) return; // a sign of life
    try {
      this.#receive(...scan(text));
    } catch ({ message }) {
      this.#url.searchParams.set("mismatch", this.#token);
      this.#fail({ code: "bad_token", message });
    }
  }

  #receive(message, texts) {
    const { type, from, token, timestamp } = message;
    if (type === "error") this.#fail(message);
    if (!/^(base|delta|progress)$/.test(type)) return; // or of a server to come
    if (type === "delta" && from !== this.#token) throw new Error("a message was missing");
    this.#parts.push([message, texts]);
    if (message.more) return;
    const commits = [...gather(this.#parts)].map(([name, change]) => this.views[name].prepare(change, type === "base"));
    for (const commit of commits) commit();
    this.#parts = [];
    this.#token = token;
    if (type === "base") this.#url.searchParams.delete("mismatch");
    this.timestamp = timestamp;
    this.verified = this.#list.every((v) => v.verified);
    this.#setState("live");
    const [{ rows, inserted, deleted, updated }] = this.#list;
    const { views, verified } = this;
    if (this.#connection) this.#tell("onChange", { type, timestamp, verified, views, rows, inserted, deleted, updated });
  }

  #fail({ code, message, retry_ms }) {
    if (/^view_(not_ready|failed)$/.test(code)) return this.#setState(this.state, message); // the stream goes on
    if (code === "bad_token") {
      this.#token = "";
      this.verified = false;
    }
    this.#reconnect(message, retry_ms);
  }
}

function openSocket(url, hear, lose, { WebSocket = globalThis.WebSocket }) {
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url.href);
  socket.onmessage = ({ data }) => hear(data);
  socket.onclose = ({ reason }) => lose(reason);
  // In browsers a close follows that says more; in Node 20 none does.
  socket.onerror = () => socket.readyState !== 1 && lose("cannot connect");
  return () => socket.close();
}

function openEvents(url, hear, lose, { fetch = globalThis.fetch }) {
  const aborter = new AbortController();
  const read = async () => {
    const response = await fetch(url.href, { headers: { Accept: "text/event-stream" }, signal: aborter.signal });
    const { ok, status, body } = response;
    if (!ok) return hear(JSON.stringify(await response.json().catch(() => ({ type: "error", message: `status ${status}` }))));
    const reader = body.getReader();
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

// Parses a message. Rows, the arrays in its arrays, come apart as the texts of
// their values, which is what checksums are of; the message has their indexes.
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

function addHash(sum, text, sign) {
  const bytes = encoder.encode(text);
  const low = sum[0] + sign * xxh32(bytes, 0);
  sum[1] = (sum[1] + sign * xxh32(bytes, 1) + Math.floor(low / 2 ** 32)) >>> 0;
  sum[0] = low >>> 0;
}

// https://github.com/Cyan4973/xxHash: it needs no wide multiplication.
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
