// A view as a table: as many rows as people can look at, with what changes lit.

import { compare, numeric, part, times, written } from "./live.js";

export class Table {
  static most = 100;
  #rows = new Map(); // by id: the element of a row, its cells, the row
  #columns = "";
  #body;
  #head;
  #rest;

  constructor(name, parent) {
    this.section = part(parent, "section");
    const head = part(this.section, "div", "head");
    const title = part(head, "h3");
    part(title, "span", "", name).dir = "auto";
    this.#rest = part(title, "span", "rest");
    const forms = part(head, "p", "rest forms", "As it is now: ");
    for (const form of ["json", "csv"]) {
      const link = part(forms, "a", "", form.toUpperCase());
      link.href = `/api/views/${encodeURIComponent(name)}?format=${form}`;
      link.setAttribute("aria-label", `${name} as ${form.toUpperCase()}`);
    }
    const scroll = part(this.section, "div", "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", name);
    const table = part(scroll, "table");
    this.#head = part(part(table, "thead"), "tr");
    this.#body = part(table, "tbody");
  }

  draw(view) {
    const columns = JSON.stringify(view.columns);
    const started = columns !== this.#columns;
    if (started) this.#start(view, columns);
    const { order, words } = orderOf(view.columns);
    const amount = view.columns.findLast((c) => numeric.has(c.type))?.name;
    const shown = firstOf(view.rows, Table.most, order);
    const most = Math.max(1, ...shown.map(([, row]) => Number(row[amount] ?? 0)));
    const kept = new Map();
    let next = this.#body.firstChild;
    for (const [id, row] of shown) {
      const held = this.#rows.get(id) ?? this.#add(view, amount, started);
      kept.set(id, held);
      if (held.row !== row) this.#write(view, held, row);
      held.tr.style.setProperty("--share", Math.max(0, Number(row[amount] ?? 0)) / most);
      if (held.tr === next) next = next.nextSibling;
      else this.#body.insertBefore(held.tr, next);
    }
    for (const [id, { tr }] of this.#rows) {
      if (!kept.has(id)) tr.remove();
    }
    this.#rows = kept;
    const count = view.rows.size;
    const more = count > shown.length ? `, ${words(shown.length)} are shown` : "";
    this.#rest.textContent = ` ${count.toLocaleString("en")} ${count === 1 ? "row" : "rows"}${more}`;
  }

  #start(view, columns) {
    this.#columns = columns;
    this.#rows = new Map();
    this.#head.replaceChildren();
    this.#body.replaceChildren();
    for (const column of view.columns) {
      const th = part(this.#head, "th", numeric.has(column.type) ? "numeric" : "", column.name);
      th.scope = "col";
      th.dir = "auto";
    }
  }

  #add(view, amount, quiet) {
    const tr = document.createElement("tr");
    const cells = view.columns.map(({ name, type }) => {
      const td = part(tr, "td", numeric.has(type) ? `numeric${name === amount ? " amount" : ""}` : "");
      td.dir = "auto";
      return td;
    });
    return { tr, cells, quiet };
  }

  // Writes a row's cells; those that change are lit.
  #write(view, held, row) {
    view.columns.forEach(({ name, type }, i) => {
      const cell = held.cells[i];
      const isNull = row[name] === null; // which is another thing than an empty text
      const names = numeric.has(type) && view.key.includes(name); // a row, and is no amount
      const text = isNull ? "null" : names ? String(row[name]) : written(row[name], type);
      if (held.row && cell.textContent === text && cell.classList.contains("null") === isNull) return;
      cell.classList.toggle("null", isNull);
      cell.textContent = cell.title = text;
      // Of two animations that are the same, the other one begins anew.
      if (!held.quiet) cell.dataset.lit = cell.dataset.lit === "a" ? "b" : "a";
    });
    held.row = row;
    held.quiet = false;
  }
}

// The first entries of a map in an order, without sorting all of it.
function firstOf(map, most, order) {
  const first = [];
  for (const entry of map) {
    if (first.length === most && order(entry[1], first[most - 1][1]) >= 0) continue;
    let low = 0;
    for (let high = first.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (order(entry[1], first[middle][1]) < 0) high = middle;
      else low = middle + 1;
    }
    first.splice(low, 0, entry);
    if (first.length > most) first.pop();
  }
  return first;
}

// The order of a table's rows, and what the first of them are: the latest where
// there are times, else the largest.
function orderOf(columns) {
  const time = columns.find((c) => times.has(c.type))?.name;
  const amount = columns.findLast((c) => numeric.has(c.type))?.name;
  const rest = columns.map((c) => c.name);
  const order = (a, b) => {
    if (time !== undefined && a[time] !== b[time]) return String(a[time]) < String(b[time]) ? 1 : -1;
    const more = amount === undefined ? 0 : compare(b[amount], a[amount]);
    if (more !== 0) return more;
    const name = rest.find((n) => String(a[n]) !== String(b[n]));
    if (name === undefined) return 0;
    return String(a[name]) < String(b[name]) ? -1 : 1;
  };
  const which = time !== undefined ? "latest" : amount !== undefined ? "largest" : "first";
  return { order, words: (n) => `the ${n} ${which}` };
}
