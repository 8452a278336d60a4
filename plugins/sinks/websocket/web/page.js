// The page: the count and the chart of the demo, and any views as tables. All
// of it comes from one stream, so that its parts always agree.

import { subscribe } from "./mzd.js";
import { Bars, Status, clock, columnsOf, compare, element, number, part } from "./live.js";
import { Table } from "./table.js";

const demoViews = ["counter", "top10"];
const mostTables = 30; // beside those, as a stream has 32 views
const status = new Status();

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
  new Page(names);
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
    status.show("reconnecting");
    await new Promise((resolve) => setTimeout(resolve, 1000 + 1000 * Math.random()));
  }
}

function showEmpty(text) {
  element("empty").textContent = text;
  element("empty").hidden = false;
}

class Page {
  #names;
  #demo; // whether there are the views of the demo, which have pictures of their own
  #picked; // names of views that are tables
  #tables = new Map(); // by name
  #bars = new Bars(element("bars"));
  #shown; // the subscription that is drawn
  #next; // the one that will be, once it has everything
  #change; // what is to be drawn
  #summary = -Infinity; // when the last one was

  constructor(names) {
    this.#names = names;
    this.#demo = demoViews.every((name) => names.includes(name));
    this.#offer();
    this.#pick();
    addEventListener("hashchange", () => this.#pick()); // a link, or the way back
  }

  // The view picker.
  #offer() {
    element("views-section").hidden = false;
    for (const name of this.#names) {
      const button = part(element("picker"), "button", "", name);
      button.type = "button";
      button.dir = "auto";
      button.value = name;
      button.onclick = () => {
        if (!this.#picked.delete(name) && this.#picked.size < mostTables) this.#picked.add(name);
        history.replaceState(null, "", `#${new URLSearchParams([...this.#picked].map((n) => ["view", n]))}`);
        this.#follow();
      };
    }
  }

  // Picks the views that the address of the page names, or the first ones.
  #pick() {
    const others = this.#demo ? this.#names.filter((name) => !demoViews.includes(name)) : this.#names;
    const asked = new URLSearchParams(location.hash.slice(1)).getAll("view").filter((name) => this.#names.includes(name));
    this.#picked = new Set((asked.length > 0 ? asked : others.slice(0, this.#demo ? 1 : 4)).slice(0, mostTables));
    this.#follow();
  }

  // Follows what is picked. What is on the page stays there until all of it has come.
  #follow() {
    for (const button of element("picker").children) button.setAttribute("aria-pressed", this.#picked.has(button.value));
    const names = [...new Set([...(this.#demo ? demoViews : []), ...this.#picked])];
    const abandoned = this.#next;
    this.#next = undefined;
    abandoned?.close();
    element("now").hidden = element("links").hidden = names.length === 0;
    if (names.length === 0) return this.#rest();
    element("curl").textContent = streamAddress(names);
    let mine;
    mine = this.#next = subscribe(location.origin, names, {
      interval: 100,
      onState: (state, reason) => {
        if (mine && mine !== this.#shown && mine !== this.#next) return; // it has had its time
        if (mine === this.#shown || !this.#shown || reason) status.show(state, reason);
        if (!this.#shown) showEmpty(`Waiting for the first complete picture of ${names.join(", ")}${reason ? `: ${reason}` : ""}.`);
      },
      onChange: (change) => {
        if (mine === this.#next) this.#show(mine);
        if (!this.#change) requestAnimationFrame(() => this.#draw());
        this.#change = change;
      },
    });
  }

  #show(subscription) {
    const before = this.#shown;
    this.#next = undefined;
    this.#shown = subscription;
    before?.close();
    for (const [name, table] of this.#tables) {
      if (this.#picked.has(name)) continue;
      table.section.remove();
      this.#tables.delete(name);
    }
    if (subscription) status.show("live");
    element("empty").hidden = true;
  }

  // There is nothing to follow.
  #rest() {
    this.#show(undefined);
    showEmpty("Pick a view to see it.");
  }

  #draw() {
    const change = this.#change;
    this.#change = undefined;
    if (!this.#shown) return; // what it was of is shown no more
    status.reached(change);
    const { views } = change;
    if (this.#demo) this.#drawDemo(change);
    element("tables").hidden = false;
    for (const name of this.#picked) {
      if (!views[name]) continue; // picked since
      if (!this.#tables.has(name)) this.#tables.set(name, new Table(name, element("tables")));
      this.#tables.get(name).draw(views[name]);
    }
  }

  #drawDemo({ views: { counter, top10 }, timestamp }) {
    const [count = {}] = counter.rows.values();
    element("count-section").hidden = element("top-section").hidden = false;
    element("count").textContent = number(count[columnsOf(counter).amount] ?? 0n);
    const bars = ranking(top10);
    this.#bars.draw(bars);
    // Says the essence to those who listen instead of looking, now and then.
    if (bars.length === 0 || performance.now() - this.#summary < 20_000) return;
    this.#summary = performance.now();
    const { time, text } = clock(timestamp);
    element("summary").textContent =
      `${element("count").textContent} edits${time ? `, complete through ${text}` : ""}. Most active: ${bars[0].name}, ${bars[0].text}.`;
  }
}

// The rows of a view of names and numbers as bars, the largest number first.
function ranking(view) {
  const { named, amount } = columnsOf(view);
  return [...view.rows]
    .map(([id, row]) => ({ id, name: String(row[named] ?? "(none)"), amount: row[amount] ?? 0, text: number(row[amount]) }))
    .sort((a, b) => compare(b.amount, a.amount) || (a.name < b.name ? -1 : 1));
}

// The address of the stream that the page shows, as a shell takes it.
function streamAddress(names) {
  const [first, ...more] = names.map((name) => encodeURIComponent(name).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`));
  const stream = `${location.origin}/api/stream`;
  return more.length === 0 ? `${stream}/${first}` : `'${stream}?view=${[first, ...more].join("&view=")}'`;
}
