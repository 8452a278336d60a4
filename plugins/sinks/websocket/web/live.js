// What the pages share: how values are written, the state of a subscription,
// and bars that move.

export const numeric = new Set(["int2", "int4", "int8", "uint2", "uint4", "uint8", "float4", "float8", "numeric"]);
export const times = new Set(["date", "timestamp", "timestamptz"]);
const format = new Intl.NumberFormat("en", { maximumFractionDigits: 20 });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const element = (id) => document.getElementById(id);

export function part(parent, tag, className = "", text = "") {
  const child = document.createElement(tag);
  if (className) child.className = className;
  if (text) child.textContent = text;
  parent.append(child);
  return child;
}

// Writes a text, if it is another one: who listens to a page hears what is written.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A value as people read it.
export function written(value, type) {
  if (numeric.has(type)) return number(value);
  return times.has(type) ? moment(value) : plain(value);
}

// A number with separators; what is not one is shown as it is.
export function number(value) {
  if (typeof value === "string" && /^-?\d+$/.test(value)) return format.format(BigInt(value));
  return typeof value === "number" || typeof value === "bigint" ? format.format(value) : plain(value);
}

// A time in the reader's time zone if it names one; seconds only where they are not zero.
function moment(value) {
  const time = new Date(value);
  if (typeof value !== "string" || !value.includes("T") || Number.isNaN(time.getTime())) return plain(value);
  const two = (n) => String(n).padStart(2, "0");
  const seconds = time % 60_000 ? `:${two(time.getSeconds())}` : "";
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}${seconds}`;
}

function plain(value) {
  if (value === null || value === undefined) return "";
  return typeof value !== "object" ? String(value) : JSON.stringify(value, (_, v) => (typeof v === "bigint" ? String(v) : v));
}

// The order of two values that are numbers: bigints have more digits than doubles.
export function compare(a, b) {
  if (typeof a === "bigint" && typeof b === "bigint") return a < b ? -1 : Number(a > b);
  return Number(a ?? 0) - Number(b ?? 0);
}

// The time of a timestamp, and how it is written. Timestamps are milliseconds
// since 1970, unless the upstream counts otherwise.
export function clock(timestamp) {
  const ms = Number(timestamp);
  const time = ms >= 1e12 && ms < 8.64e15 ? new Date(ms) : undefined;
  return { time, text: time ? clockTime.format(time) : timestamp };
}

// The state of a subscription, in the header of a page.
export class Status {
  show(state, reason) {
    const held = state === "live" && reason; // there is a connection, but nothing comes
    element("state").dataset.state = held ? "reconnecting" : state;
    write(element("state-text"), held ? "waiting" : state);
    write(element("reason"), reason ?? "");
    document.body.classList.toggle("stale", state !== "live" || Boolean(reason));
  }

  reached({ timestamp, verified }) {
    const { time, text } = clock(timestamp);
    element("verified").hidden = !verified;
    element("through").hidden = false;
    element("clock").textContent = text;
    if (time) element("clock").dateTime = time.toISOString();
  }
}

// Which columns of a view say what a row is, and how much of it.
export function columnsOf({ columns, key }) {
  const amount = columns.findLast((c) => numeric.has(c.type) && !key.includes(c.name))?.name;
  const named = columns.find((c) => (key.length ? key.includes(c.name) : !numeric.has(c.type)))?.name;
  return { named, amount };
}

// Bars, each of which belongs to a row and moves to its place.
export class Bars {
  static most = 10;
  static #added = 0; // which gives each item a name
  #list;
  #bars = new Map(); // by the id of a row

  constructor(list) {
    this.#list = list;
  }

  // Shows the first of the bars {id, name, amount, text, wrong}. The longest one
  // fills the width, unless something longer is named.
  draw(bars, longest = Math.max(...bars.map((b) => Number(b.amount)))) {
    const first = bars.slice(0, Bars.most);
    const begins = this.#bars.size === 0;
    const left = new Set(this.#bars.keys());
    const order = first.map(({ id, name, amount, text, wrong = false }, place) => {
      left.delete(id);
      const { item, bar, value } = this.#bars.get(id) ?? this.#add(id, name, begins ? place : Bars.most);
      move(item, place);
      item.classList.toggle("lead", place === 0);
      item.classList.toggle("wrong", wrong);
      bar.style.transform = `translateX(${Math.max(0, Number(amount) / Math.max(1, longest)) * 100 - 100}%)`;
      write(value, text);
      return item.id;
    });
    for (const id of left) this.#remove(id);
    this.#list.setAttribute("aria-owns", order.join(" ")); // in the document they stand as they came
  }

  #add(id, name, place) {
    const item = document.createElement("li");
    const track = part(item, "div", "track");
    const bar = part(track, "div", "bar");
    const label = part(track, "span", "name", name);
    const value = part(track, "span", "value");
    label.dir = "auto";
    label.title = name;
    item.id = `${this.#list.id}-${++Bars.#added}`;
    // It is where it comes from before it moves.
    item.className = "gone";
    move(item, place);
    bar.style.transform = "translateX(-100%)";
    this.#list.append(item);
    item.getBoundingClientRect();
    item.className = "";
    const added = { item, bar, value };
    this.#bars.set(id, added);
    return added;
  }

  #remove(id) {
    const { item } = this.#bars.get(id);
    this.#bars.delete(id);
    item.className = "gone";
    move(item, Bars.most);
    item.setAttribute("aria-hidden", "true");
    setTimeout(() => item.remove(), 600);
  }
}

// Moves an item to its place. Of two that pass each other the better one is
// above, so that their names are never in one place.
function move(item, place) {
  item.style.transform = `translateY(${place * 100}%)`;
  item.style.zIndex = Bars.most - place;
}
