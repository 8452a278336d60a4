// The split screen: a view as the page of 2020 followed it, and as mzd does,
// over one network that can be cut, and what of the left side is wrong.

import { subscribe } from "./mzd.js";
import { Bars, Status, clock, columnsOf, compare, element, number, part } from "./live.js";

// The network of both sides. It can be cut, which both notice, and frozen: then
// nothing arrives and nobody notices, until it is woken and finds its
// connections dead, as a computer does that was asleep.
class Network {
  #sockets = new Set();
  #stop = new AbortController();
  cut = false;
  frozen = false;

  // What both sides use as WebSocket.
  Socket = ((network) =>
    class {
      readyState = 0;
      #real;
      constructor(url) {
        network.#sockets.add(this);
        if (network.cut) {
          setTimeout(() => this.lose("the network is cut"));
          return;
        }
        this.#real = new WebSocket(url);
        this.#real.onopen = () => (this.readyState = 1);
        this.#real.onmessage = (event) => network.frozen || this.onmessage?.(event);
        this.#real.onclose = (event) => network.frozen || this.#end(event);
      }
      close() {
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
  fetch = (url, { signal, ...options }) =>
    this.cut ? Promise.reject(new Error("the network is cut")) : fetch(url, { ...options, signal: AbortSignal.any([signal, this.#stop.signal]) });

  lose(reason) {
    this.#stop.abort(new Error(reason));
    this.#stop = new AbortController();
    for (const socket of [...this.#sockets]) socket.lose(reason);
  }
}

// A view as the page of 2020 followed it: every message is applied that comes
// after it has connected. The first one, the whole view, did not exist then.
class Follower2020 {
  rows = new Map(); // by its text: a row as a list, and how often it is there
  timestamp = 0n;
  state = "connecting";
  #network;
  #url;
  #changed;

  constructor(network, view, changed) {
    this.#network = network;
    this.#url = `${location.origin.replace("http", "ws")}/api/v1/stream/${encodeURIComponent(view)}`;
    this.#changed = changed;
    this.#connect();
  }

  #connect() {
    const socket = new this.#network.Socket(this.#url);
    let first = true;
    socket.onmessage = ({ data }) => {
      const { inserted, deleted, timestamp } = JSON.parse(data);
      this.state = "live";
      this.timestamp = BigInt(timestamp);
      if (!first) {
        for (const row of deleted) this.#add(row, -1);
        for (const row of inserted) this.#add(row, 1);
      }
      first = false;
      this.#changed();
    };
    socket.onclose = () => {
      this.state = "reconnecting";
      setTimeout(() => this.#connect(), 1000);
      this.#changed();
    };
  }

  #add(row, copies) {
    const text = JSON.stringify(row);
    const sum = (this.rows.get(text)?.copies ?? 0) + copies;
    if (sum > 0) this.rows.set(text, { row, copies: sum });
    else this.rows.delete(text);
  }
}

class Split {
  #network = new Network();
  #status = new Status();
  #left;
  #right;
  #changedAt = 0n; // when the right side's rows did last
  #bars = { left: new Bars(element("left-bars")), right: new Bars(element("right-bars")) };
  #due = false;

  constructor(view) {
    element("view").textContent = view;
    const changed = () => this.#drawSoon();
    this.#left = new Follower2020(this.#network, view, changed);
    this.#right = subscribe(location.origin, view, {
      WebSocket: this.#network.Socket,
      fetch: this.#network.fetch,
      onState: (state, reason) => {
        this.#status.show(state, reason);
        changed();
      },
      onChange: (change) => {
        if (change.type !== "progress") this.#changedAt = BigInt(change.timestamp);
        changed();
      },
    });
    this.#offer();
  }

  // The buttons.
  #offer() {
    this.#toggle("cut", ["Cut the network", "Mend the network"], (cut) => {
      this.#network.cut = cut;
      if (cut) this.#network.lose("the network is cut");
      return cut ? "Nothing gets through. Both sides try to come back." : "The network is back.";
    });
    this.#toggle("freeze", ["Freeze the tab", "Wake the tab"], (frozen) => {
      this.#network.frozen = frozen;
      element("sides").classList.toggle("frozen", frozen);
      if (!frozen) this.#network.lose("the connection died while the tab was frozen");
      return frozen ? "Asleep, like a laptop with its lid closed: nothing is heard, and nobody notices." : "Awake. The connections are found dead.";
    });
    element("restart").onclick = () => this.#restart();
  }

  #toggle(id, [off, on], act) {
    const button = element(id);
    button.onclick = () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", pressed);
      button.textContent = pressed ? on : off;
      element("said").textContent = act(pressed);
    };
  }

  async #restart() {
    const button = element("restart");
    button.disabled = true;
    element("said").textContent = "The database restarts. Nobody's connection to mzd breaks.";
    try {
      const response = await fetch("/demo/restart-database", { method: "POST", headers: { "Mzd-Demo": "1" } });
      if (!response.ok) throw new Error((await response.json()).message);
      element("said").textContent = "The database has restarted. mzd went on from where it was.";
    } catch (error) {
      element("said").textContent = `The database could not be restarted: ${error.message}`;
    }
    button.disabled = false;
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
    const right = this.#right.views[element("view").textContent];
    if (!this.#right.timestamp) return;
    this.#status.reached(this.#right);
    // The left side is what it is from its last message to the next one, the
    // right side from its last change to its timestamp.
    const at = this.#left.timestamp;
    if (at < this.#changedAt || at > BigInt(this.#right.timestamp)) return;
    const list = differences(this.#left.rows, right);
    const wrong = list.filter((d) => d.verdict !== "right");
    this.#bars.left.draw(list.flatMap((d) => d.left.map((b) => ({ ...b, wrong: d.verdict !== "right" }))).sort(byAmount));
    this.#bars.right.draw(list.flatMap((d) => d.right).sort(byAmount));
    verdict("left", wrong.length > 0, wrong.length > 0 ? `${number(wrong.length)} of ${number(list.length)} rows wrong` : "right, for now");
    verdict("right", !this.#right.verified, this.#right.verified ? "every row right" : "not verified");
    element("compared").textContent = `compared at ${clock(String(at)).text}`;
    fill(list);
  }
}

function verdict(side, wrong, text) {
  element(`${side}-verdict`).textContent = text;
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
      if (tr.cells[j].textContent !== t) tr.cells[j].textContent = tr.cells[j].title = t;
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
