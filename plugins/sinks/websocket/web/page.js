// The page: the count and the chart of the demo, or else every view as a table.
// All of it comes from one stream, so that its parts always agree.

import { subscribe } from "./mzd.js";

const element = (id) => document.getElementById(id);
const demoViews = ["counter", "top10"];
const numeric = new Set(["int2", "int4", "int8", "uint2", "uint4", "uint8", "float4", "float8", "numeric"]);
const times = new Set(["date", "timestamp", "timestamptz"]);
const format = new Intl.NumberFormat("en", { maximumFractionDigits: 20 });

start();

async function start() {
  const list = await listViews();
  const names = list.views.map((view) => view.name);
  element("notice").textContent = list.notice;
  element("notice").hidden = !list.notice;
  if (names.length === 0) {
    showEmpty("No views are configured.");
    element("links").hidden = true;
    return;
  }
  const demo = demoViews.every((name) => names.includes(name));
  const shown = demo ? demoViews : names.slice(0, 32);
  const pictures = demo ? [new Counter(), new Chart()] : shown.map((name) => new Table(name));
  element("curl").textContent = streamAddress(shown);
  let waiting = true;
  subscribe(location.origin, shown, {
    interval: "100ms",
    onState(state, reason) {
      showState(state, reason);
      if (waiting) showEmpty(`Waiting for the first complete picture of ${shown.join(", ")}${reason ? `: ${reason}` : ""}.`);
    },
    onChange({ type, timestamp, views, changes }) {
      waiting = false;
      element("empty").hidden = true;
      showClock(timestamp);
      if (type !== "progress") for (const picture of pictures) picture.draw(views, changes);
      summarize(demo, views, timestamp);
    },
  });
}

// The address of the stream that the page shows, as a shell takes it.
function streamAddress(names) {
  const [first, ...more] = names.map(encodeURIComponent);
  const stream = `${location.origin}/api/stream`;
  return more.length === 0 ? `${stream}/${first}` : `'${stream}?view=${[first, ...more].join("&view=")}'`;
}

// Asks for the list of views until there is an answer.
async function listViews() {
  for (;;) {
    try {
      const response = await fetch("/api/views");
      if (response.ok) return await response.json();
    } catch {
      // The server is away, as the state says.
    }
    showState("reconnecting");
    await new Promise((resolve) => setTimeout(resolve, 1000 + 1000 * Math.random()));
  }
}

function showState(state, reason) {
  const words = { connecting: "connecting", live: "live", reconnecting: "reconnecting", closed: "closed" };
  element("state").dataset.state = state === "live" && reason ? "reconnecting" : state;
  element("state").title = reason ?? "";
  element("state-text").textContent = state === "live" && reason ? "waiting" : words[state];
  document.body.classList.toggle("stale", state !== "live" || Boolean(reason));
}

function showEmpty(text) {
  element("empty").textContent = text;
  element("empty").hidden = false;
}

const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

// Timestamps are milliseconds since 1970, unless the upstream counts otherwise.
function timeOf(timestamp) {
  const ms = Number(timestamp);
  return ms >= 1e12 && ms < 8.64e15 ? new Date(ms) : undefined;
}

function showClock(timestamp) {
  const time = timeOf(timestamp);
  element("clock-label").textContent = "complete through";
  element("clock").textContent = time ? clockTime.format(time) : timestamp;
  if (time) element("clock").dateTime = time.toISOString();
}

// Says the essence to those who listen instead of looking, now and then.
let lastSummary = -Infinity;
function summarize(demo, views, timestamp) {
  if (!demo || performance.now() - lastSummary < 20_000) return;
  const first = ranking(views.top10)[0];
  if (!first) return;
  lastSummary = performance.now();
  const time = timeOf(timestamp);
  const through = time ? `, complete through ${clockTime.format(time)}` : "";
  element("summary").textContent =
    `${element("count").textContent} edits${through}. Most active: ${first.name}, ${first.text}.`;
}

// The running count: the one number of the view.
class Counter {
  draw({ counter }) {
    const row = counter.rows[0] ?? [];
    const value = row.findLast((v, i) => numeric.has(counter.columns[i]?.type)) ?? "0";
    element("count-section").hidden = false;
    element("count").textContent = number(value);
  }
}

// The rows of a view of names and numbers, the largest number first.
function ranking(view) {
  const value = view.columns.findLastIndex((c) => numeric.has(c.type));
  const named = view.columns.findIndex((c) => (view.key.length ? view.key.includes(c.name) : !numeric.has(c.type)));
  return view.rows
    .map((row) => ({ name: String(row[named] ?? "(none)"), amount: Number(row[value]), text: number(row[value]) }))
    .sort((a, b) => b.amount - a.amount || (a.name < b.name ? -1 : 1));
}

// The bars, each of which belongs to a name and moves to its place.
class Chart {
  #bars = new Map();

  draw({ top10 }) {
    const ranks = ranking(top10);
    const most = Math.max(1, ...ranks.map((r) => r.amount));
    element("top-section").hidden = false;
    const left = new Set(this.#bars.keys());
    ranks.forEach(({ name, amount, text }, place) => {
      left.delete(name);
      const bar = this.#bars.get(name) ?? this.#add(name, place);
      bar.item.style.transform = `translateY(${place * 100}%)`;
      bar.item.classList.toggle("lead", place === 0);
      bar.item.setAttribute("aria-posinset", place + 1);
      bar.item.setAttribute("aria-setsize", ranks.length);
      bar.bar.style.transform = `translateX(${Math.max(0, amount / most) * 100 - 100}%)`;
      bar.value.textContent = text;
    });
    for (const name of left) this.#remove(name);
  }

  #add(name, place) {
    const item = document.createElement("li");
    const track = part(item, "div", "track");
    const bar = part(track, "div", "bar");
    const label = part(track, "span", "name");
    const value = part(track, "span", "value");
    label.dir = "auto";
    label.textContent = label.title = name;
    // It appears where it belongs: the first place is no movement.
    item.className = "gone";
    item.style.transform = `translateY(${place * 100}%)`;
    bar.style.transform = "translateX(-100%)";
    element("bars").append(item);
    item.getBoundingClientRect();
    item.className = "";
    const added = { item, bar, value };
    this.#bars.set(name, added);
    return added;
  }

  #remove(name) {
    const { item } = this.#bars.get(name);
    this.#bars.delete(name);
    item.className = "gone";
    item.style.transform = `translateY(${10 * 100}%)`;
    item.setAttribute("aria-hidden", "true");
    setTimeout(() => item.remove(), 600);
  }
}

// A view as a table, as far as it fits.
class Table {
  static most = 100;
  #name;
  #rows = new Map(); // JSON text of a row and which copy it is: its element
  #columns = "";
  #body;
  #head;
  #rest;

  constructor(name) {
    this.#name = name;
    const section = part(element("tables"), "section");
    const title = part(section, "h2");
    const label = part(title, "span");
    label.dir = "auto";
    label.textContent = name;
    this.#rest = part(title, "span", "rest");
    const scroll = part(section, "div", "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", name);
    const table = part(scroll, "table");
    this.#head = part(part(table, "thead"), "tr");
    this.#body = part(table, "tbody");
  }

  draw(views, changes) {
    const view = views[this.#name];
    const change = changes[this.#name];
    element("tables").hidden = false;
    const columns = JSON.stringify(view.columns);
    const started = columns !== this.#columns;
    if (!started && !change?.inserted.length && !change?.deleted.length) return;
    if (started) this.#start(view, columns);

    const all = view.rows;
    const amount = view.columns.findLastIndex((c) => numeric.has(c.type));
    all.sort(order(view.columns, amount));
    const most = Math.max(1, ...all.map((row) => Number(row[amount] ?? 0)));
    const copies = new Map();
    const kept = new Map();
    const rows = all.slice(0, Table.most).map((row) => {
      const text = JSON.stringify(row);
      const copy = (copies.get(text) ?? 0) + 1;
      copies.set(text, copy);
      const id = `${copy} ${text}`;
      const tr = this.#rows.get(id) ?? this.#row(view, row, amount, !started);
      kept.set(id, tr);
      tr.style.setProperty("--share", Math.max(0, Number(row[amount] ?? 0)) / most);
      return tr;
    });
    for (const [id, tr] of this.#rows) {
      if (!kept.has(id)) tr.remove();
    }
    this.#rows = kept;
    let next = this.#body.firstChild;
    for (const tr of rows) {
      if (tr === next) next = next.nextSibling;
      else this.#body.insertBefore(tr, next);
    }
    const more = all.length > rows.length ? `, the first ${rows.length} shown` : "";
    this.#rest.textContent = ` ${format.format(all.length)} ${all.length === 1 ? "row" : "rows"}${more}`;
  }

  #start(view, columns) {
    this.#columns = columns;
    this.#rows = new Map();
    this.#head.replaceChildren();
    this.#body.replaceChildren();
    for (const column of view.columns) {
      const th = part(this.#head, "th", numeric.has(column.type) ? "numeric" : "");
      th.scope = "col";
      th.dir = "auto";
      th.textContent = column.name;
    }
  }

  #row(view, row, amount, fresh) {
    const tr = document.createElement("tr");
    if (fresh) tr.className = "fresh";
    tr.onanimationend = () => (tr.className = "");
    row.forEach((value, i) => {
      const isNumber = numeric.has(view.columns[i]?.type);
      const td = part(tr, "td", isNumber ? `numeric${i === amount ? " amount" : ""}` : "");
      td.dir = "auto";
      if (value === null) {
        td.classList.add("null"); // which is another thing than an empty text
        td.textContent = "null";
        return;
      }
      td.textContent = td.title = isNumber ? number(value) : times.has(view.columns[i]?.type) ? moment(value) : plain(value);
    });
    return tr;
  }
}

// The order of a table's rows: the latest first where there are times, else the largest.
function order(columns, amount) {
  const time = columns.findIndex((c) => times.has(c.type));
  return (a, b) => {
    if (time >= 0 && a[time] !== b[time]) return String(a[time]) < String(b[time]) ? 1 : -1;
    if (amount >= 0 && a[amount] !== b[amount]) return Number(b[amount]) - Number(a[amount]);
    return String(a) < String(b) ? -1 : 1;
  };
}

// A time as people write it, in their own time zone if it names one; seconds only where they are not zero.
function moment(value) {
  const time = new Date(value);
  if (typeof value !== "string" || !value.includes("T") || Number.isNaN(time.getTime())) return plain(value);
  const two = (n) => String(n).padStart(2, "0");
  const seconds = time % 60_000 ? `:${two(time.getSeconds())}` : "";
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}${seconds}`;
}

// A number with separators; what is not one is shown as it is.
function number(value) {
  if (/^-?\d+$/.test(value)) return format.format(BigInt(value));
  return typeof value === "number" ? format.format(value) : plain(value);
}

function plain(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function part(parent, tag, className = "") {
  const child = document.createElement(tag);
  if (className) child.className = className;
  parent.append(child);
  return child;
}
