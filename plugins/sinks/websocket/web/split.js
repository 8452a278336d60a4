// The split screen: a view as the page of 2020 followed it, and as mzd does,
// over one network that can be cut, and what of the left side is wrong.

import { subscribe } from "./mzd.js";
import { Bars, Status, clock, columnsOf, compare, element, number, part, write } from "./live.js";

// The network of both sides. It can be cut, which both notice, and frozen: then
// nothing arrives and nobody notices, until it is woken and finds its
// connections dead, as a computer does that was asleep.
class Network {
  #sockets = new Set();
  #stop = new AbortController();
  cut = false;
  frozen = false;

  // Changes cut or frozen. Both sides hear of it as from a browser, once they are
  // awake: their connections end, also those that are being made.
  change(what, reason) {
    Object.assign(this, what);
    if (this.frozen) return;
    this.#stop.abort(new Error(reason));
    this.#stop = new AbortController();
    for (const socket of [...this.#sockets]) socket.lose(reason);
    if (!this.cut) window.dispatchEvent(new Event("online"));
  }

  // What both sides use as WebSocket.
  Socket = ((network) =>
    class {
      readyState = 0;
      #real;
      constructor(url) {
        network.#sockets.add(this);
        if (network.frozen) return; // until it is woken
        if (network.cut) {
          setTimeout(() => network.frozen || this.lose("the network is cut"));
          return;
        }
        this.#real = new WebSocket(url);
        this.#real.onopen = () => (this.readyState = 1);
        this.#real.onmessage = (event) => network.frozen || this.onmessage?.(event);
        this.#real.onclose = (event) => network.frozen || this.#end(event);
      }
      close() {
        network.#sockets.delete(this);
        this.#real?.close();
      }
      lose(reason) {
        if (this.#real) this.#real.onmessage = this.#real.onclose = null;
        this.#real?.close();
        this.#end({ code: 1006, reason });
      }
      #end(event) {
        this.readyState = 3;
        if (network.#sockets.delete(this)) this.onclose?.(event);
      }
    })(this);

  // What mzd.js uses where websockets do not get through.
  fetch = async (url, { signal, ...options }) => {
    if (this.cut && !this.frozen) throw new Error("the network is cut");
    const either = AbortSignal.any([signal, this.#stop.signal]);
    if (this.frozen) await new Promise((_, reject) => either.addEventListener("abort", () => reject(either.reason)));
    const { body, status } = await fetch(url, { ...options, signal: either });
    const transform = (chunk, out) => this.frozen || out.enqueue(chunk);
    return new Response(body.pipeThrough(new TransformStream({ transform })), { status });
  };
}

// A view as the page of 2020 followed it: every message is applied that comes
// after it has connected. The first one, the whole view, did not exist then; it
// can be given one.
class Follower2020 {
  rows = new Map(); // by its text: a row as a list, and how often it is there
  timestamp = 0n;
  #network;
  #url;
  #changed;
  #socket;
  #timer;
  #wantsWhole = false; // it applies the next first message, too

  constructor(network, view, changed) {
    this.#network = network;
    this.#url = `${location.origin.replace("http", "ws")}/api/v1/stream/${encodeURIComponent(view)}`;
    this.#changed = changed;
    this.#connect();
  }

  // Begins anew, with the whole view.
  giveSnapshot() {
    this.#wantsWhole = true;
    this.#socket.close();
    this.#connect();
  }

  #connect() {
    clearTimeout(this.#timer);
    const socket = (this.#socket = new this.#network.Socket(this.#url));
    let first = true;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      const { inserted, deleted, timestamp } = JSON.parse(data);
      this.timestamp = BigInt(timestamp);
      if (first && this.#wantsWhole) this.rows.clear();
      if (!first || this.#wantsWhole) {
        for (const row of deleted) this.#add(row, -1);
        for (const row of inserted) this.#add(row, 1);
        this.#wantsWhole = false;
      }
      first = false;
      this.#changed();
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#timer = setTimeout(() => this.#connect(), 1000);
    };
  }

  #add(row, copies) {
    const text = JSON.stringify(row);
    const sum = (this.rows.get(text)?.copies ?? 0) + copies;
    if (sum > 0) this.rows.set(text, { row, copies: sum });
    else this.rows.delete(text);
  }
}

// How many rows of each side were wrong in the last two minutes, and when
// something was broken.
class History {
  static #span = [20_000, 120_000]; // what is shown at first, and at most
  #list = []; // what has held from a time on: {at, left, right, broken}

  note(now) {
    const { left, right, broken } = this.#list.at(-1) ?? {};
    if (now.left === left && now.right === right && now.broken === broken) return;
    this.#list.push({ at: performance.now(), ...now });
    this.draw();
  }

  draw() {
    const now = performance.now();
    const [least, longest] = History.#span;
    const span = Math.min(longest, Math.max(least, now - this.#list[0]?.at));
    const from = now - span;
    this.#list = this.#list.filter((_, i, all) => i === all.length - 1 || all[i + 1].at > from);
    const list = this.#list;
    const most = Math.max(10, ...list.map(({ left, right }) => Math.max(left, right)));
    const x = (at) => ((Math.max(at, from) - from) / span) * 120;
    const end = (i) => x(list[i + 1]?.at ?? now);
    const line = (side) => list.map((held, i) => `${i ? "L" : "M"}${x(held.at)} ${9.5 - (9 * held[side]) / most}H${end(i)}`).join("");
    const path = (name, d) => element("history").querySelector(`.${name}`).setAttribute("d", d);
    path("left", line("left"));
    path("right", line("right"));
    path("broken", list.map(({ at, broken }, i) => (broken ? `M${x(at)} 0H${end(i)}V10H${x(at)}Z` : "")).join(""));
  }
}

class Split {
  #view;
  #network = new Network();
  #status = new Status();
  #left;
  #right;
  #state; // of the right side, and the reason
  #changedAt = 0n; // when the right side's rows did last
  #bars = { left: new Bars(element("left-bars")), right: new Bars(element("right-bars")) };
  #history = new History();
  #wrong; // how many rows of each side, once they were compared
  #isRestarting = false;
  #due = false;

  constructor(view) {
    this.#view = element("view").textContent = view;
    const changed = () => this.#drawSoon();
    this.#left = new Follower2020(this.#network, view, changed);
    this.#right = subscribe(location.origin, view, {
      WebSocket: this.#network.Socket,
      fetch: this.#network.fetch,
      onState: (...state) => {
        this.#state = state;
        this.#showState();
      },
      onChange: (change) => {
        if (change.type !== "progress") this.#changedAt = BigInt(change.timestamp);
        changed();
      },
    });
    this.#offer();
    setInterval(() => this.#history.draw(), 1000);
  }

  // The buttons.
  #offer() {
    this.#toggle("cut", ["Cut the network", "Mend the network"], (cut) => {
      this.#network.change({ cut }, "the network is cut");
      return cut || this.#network.frozen ? "" : "The network is back.";
    });
    this.#toggle("freeze", ["Freeze the tab", "Wake the tab"], (frozen) => {
      this.#network.change({ frozen }, "the connection died while the tab was frozen");
      element("sides").classList.toggle("frozen", frozen);
      element("snapshot").disabled = frozen;
      return frozen ? "" : "Awake. The connections are found dead.";
    });
    element("restart").onclick = () => this.#restart();
    element("snapshot").onclick = () => {
      this.#left.giveSnapshot();
      this.#say("2020 begins anew, with the whole view this time.");
    };
  }

  #toggle(id, [off, on], act) {
    const button = element(id);
    button.onclick = () => {
      const isOn = button.classList.toggle("on");
      button.textContent = isOn ? on : off;
      this.#say(act(isOn));
      this.#showState();
      this.#drawSoon();
    };
  }

  // Says what has just happened, and what is still broken.
  #say(news) {
    const { cut, frozen } = this.#network;
    let still = "";
    if (cut) still = "Nothing gets through. Both sides try to come back.";
    if (frozen) still = `Asleep, like a laptop with its lid closed: nothing is heard, and nobody notices${cut ? ", not even that the network is cut" : ""}.`;
    element("said").textContent = `${news} ${still}`.trim();
    this.#note();
  }

  #note() {
    const { cut, frozen } = this.#network;
    if (this.#wrong) this.#history.note({ ...this.#wrong, broken: cut || frozen || this.#isRestarting });
  }

  #showState() {
    if (!this.#network.frozen) this.#status.show(...this.#state);
  }

  async #restart() {
    if (this.#isRestarting) return;
    const { cut, frozen } = this.#network;
    const button = element("restart");
    this.#isRestarting = true;
    button.setAttribute("aria-disabled", "true"); // and not disabled, which would take the focus away
    this.#say(cut || frozen ? "The database restarts." : "The database restarts. Nobody's connection to mzd breaks.");
    let news = "The database has restarted. mzd went on from where it was.";
    try {
      const response = await fetch("/demo/restart-database", { method: "POST", headers: { "Mzd-Demo": "1" } });
      if (!response.ok) throw new Error((await response.json()).message);
    } catch (error) {
      news = `The database could not be restarted: ${error.message}`;
    }
    this.#isRestarting = false;
    button.removeAttribute("aria-disabled");
    this.#say(news);
  }

  #drawSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    if (this.#network.frozen) return; // as everything else
    const right = this.#right.views[this.#view];
    if (!this.#right.timestamp) return;
    this.#status.reached(this.#right);
    // The left side is what it is from its last message to the next one, the
    // right side from its last change to its timestamp.
    const at = this.#left.timestamp;
    if (at < this.#changedAt || at > BigInt(this.#right.timestamp)) return;
    const list = differences(this.#left.rows, right);
    const wrong = list.filter((d) => d.verdict !== "right").length;
    const bars = { left: list.flatMap((d) => d.left).sort(byAmount), right: list.flatMap((d) => d.right).sort(byAmount) };
    const longest = Math.max(...[...bars.left, ...bars.right].map((b) => b.amount)); // one scale
    this.#bars.left.draw(bars.left, longest);
    this.#bars.right.draw(bars.right, longest);
    verdict("left", wrong > 0, wrong > 0 ? `${number(wrong)} of ${number(list.length)} rows wrong` : "right, for now");
    verdict("right", !this.#right.verified, this.#right.verified ? "every row right" : "not verified");
    element("compared").textContent = `compared at ${clock(String(at)).text}`;
    fill(list);
    this.#wrong = { left: wrong, right: this.#right.verified ? 0 : list.length };
    this.#note();
  }
}

function verdict(side, wrong, text) {
  write(element(`${side}-verdict`), text);
  element(`${side}-verdict`).classList.toggle("bad", wrong);
}

const byAmount = (a, b) => compare(b.amount, a.amount) || (a.name < b.name ? -1 : 1);

// What both sides have under each key, the largest first.
function differences(leftRows, view) {
  const { named, amount } = columnsOf(view);
  const column = (name) => view.columns.findIndex((c) => c.name === name);
  const [nameAt, amountAt] = [column(named), column(amount)];
  const keys = view.key.length > 0 ? view.key.map(column) : view.columns.map((_, i) => i);
  const found = new Map();
  const at = (key, name) => {
    if (!found.has(key)) found.set(key, { key, name, left: [], right: [] });
    return found.get(key);
  };
  const bar = (id, name, value) => ({ id, name, amount: Number(value ?? 1), text: value === undefined ? "" : number(value) });
  for (const row of view.rows.values()) {
    const name = String(row[named] ?? "(none)");
    const key = JSON.stringify(keys.map((i) => text(row[view.columns[i].name])));
    const d = at(key, name);
    d.right.push(bar(key, name, row[amount]));
  }
  for (const { row, copies } of leftRows.values()) {
    const name = String(row[nameAt] ?? "(none)");
    const d = at(JSON.stringify(keys.map((i) => row[i])), name);
    for (let i = 0; i < copies; i++) d.left.push(bar(d.key, name, row[amountAt]));
  }
  const list = [...found.values()];
  for (const d of list) {
    for (const side of [d.left, d.right]) side.sort(byAmount).forEach((b, i) => (b.id += ` ${i}`)); // the largest stays the same bar
    const right = d.right.map((b) => b.text);
    for (const b of d.left) {
      const i = right.indexOf(b.text);
      b.wrong = i < 0;
      if (!b.wrong) right.splice(i, 1);
    }
    d.verdict = judge(d.left.map((b) => b.text).join(), d.right.map((b) => b.text).join(), d);
  }
  const most = (d) => d.right[0]?.amount ?? -1;
  return list.sort((a, b) => most(b) - most(a) || byAmount(a.left[0] ?? a.right[0], b.left[0] ?? b.right[0]));
}

// A value as version 1 of the protocol has it.
function text(value) {
  if (value === null || typeof value === "string") return value;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function judge(left, right, d) {
  if (left === right) return "right";
  if (d.left.length === 0) return "missing it";
  if (d.right.length === 0) return "showing what is gone";
  return d.left.length > d.right.length ? "showing old ones, too" : "behind";
}

// The table of rows; those that are wrong first come to the eye by colour and word.
const mostRows = 50;
function fill(list) {
  const body = element("differences");
  const shown = list.slice(0, mostRows);
  while (body.rows.length > shown.length) body.deleteRow(-1);
  shown.forEach((d, i) => {
    const tr = body.rows[i] ?? newRow(body);
    tr.classList.toggle("wrong", d.verdict !== "right");
    const texts = [d.name, several(d.left), several(d.right), d.verdict];
    texts.forEach((t, j) => {
      write(tr.cells[j], t);
      tr.cells[j].title = t;
    });
  });
}

function several(bars) {
  const first = bars.slice(0, 3).map((b) => b.text);
  if (bars.length > first.length) first.push(`${bars.length - first.length} more`);
  return first.join(" and ") || "–";
}

function newRow(body) {
  const tr = part(body, "tr");
  for (const kind of ["", "numeric", "numeric", ""]) part(tr, "td", kind).dir = "auto";
  return tr;
}

async function start() {
  const { views, notice } = await (await fetch("/api/views")).json();
  element("notice").textContent = notice;
  element("notice").hidden = !notice;
  const asked = new URLSearchParams(location.search).get("view");
  const view = views.find((v) => v.name === asked) ?? views.find((v) => v.name === "top10") ?? views.find((v) => v.key.length > 0) ?? views[0];
  if (!view) return void (element("said").textContent = "No views are configured.");
  new Split(view.name);
  const actions = await (await fetch("/demo")).json();
  element("restart").hidden = !actions.includes("restart-database");
}

start();
