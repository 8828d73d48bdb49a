"use strict";
// Tables that sort by a column and filter by text, with the keyboard too.

/** Rows that a table shows before it is asked for all. */
const FIRST = 200;

let made = 0;

/**
 * A table in a box that scrolls by itself.
 *
 * columns: [{name, text(row), value(row)?, figure?, prose?, cell(row)?, task?}]; `value` is what is sorted
 * by, `figure` aligns to the right, `prose` wraps, `cell` gives an element instead of text, a column of a `task` is
 * shown with it; `head` stands for the name, `below` it a second line, `hint` explains it.
 * keep(row): whether what is shown holds it. more(row): what unfolds below it, or null.
 * saved: whether the address holds what it is sorted and filtered by.
 */
function table({ title, columns, rows, keep = () => true, more = null, notes = [], folded = false, saved = false }) {
  const id = `table-${made++}`;
  let sorted = null; // {column, down}
  let limit = FIRST;
  let current = [];
  const open = new Set();
  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row))
      texts.set(row, columns.map((column) => column.text(row)).join(" ").toLowerCase());
    return texts.get(row);
  };
  const filter = element("input", {
    type: "search",
    placeholder: "filter rows",
    "aria-label": `filter ${title}`,
    oninput: () => {
      if (saved) note((state) => (state.find = filter.value));
      draw();
    },
  });
  const count = element("output", { class: "count", "aria-live": "polite" });
  const rest = element("button", { type: "button", onclick: () => ((limit = Infinity), draw()) });
  const head = element("tr");
  const body = element("tbody");
  for (const column of columns) {
    const order = element("span", { class: "order", "aria-hidden": "true" });
    const below = column.below ? element("small", {}, column.below) : null;
    const button = element("button", { type: "button", title: column.hint }, column.head ?? column.name, order, below);
    const cell = element("th", { scope: "col", class: column.figure ? "figure" : null }, button);
    button.addEventListener("click", () => {
      const down = sorted?.column === column ? !sorted.down : Boolean(column.figure);
      sorted = { column, down };
      if (saved) note((state) => (state.sort = `${down ? "-" : ""}${column.name}`));
      draw();
    });
    head.append(cell);
  }

  function ordered(found) {
    if (!sorted) return found;
    const { column, down } = sorted;
    const value = column.value ?? ((row) => reading(column.text(row)));
    const empty = (one) => !known(one) || one === "";
    return found
      .map((row) => [value(row), row])
      .sort(([a], [b]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        // words come after figures, whichever way
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
        const way = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
        return down ? -way : way;
      })
      .map(([, row]) => row);
  }

  const away = (column) => Boolean(column.task) && !within(column.task);

  function line(row) {
    const cells = columns.map((column, place) => {
      const inner = column.cell ? column.cell(row) : column.text(row);
      const tag = place === 0 ? "th" : "td";
      const made = element(tag, { class: column.figure ? "figure" : column.prose ? "prose" : null }, inner);
      if (place === 0) made.scope = "row";
      made.hidden = away(column);
      return made;
    });
    const made = element("tr", {}, cells);
    if (!more) return [made];
    const unfold = element("button", {
      type: "button",
      class: "unfold",
      "aria-expanded": String(open.has(row)),
      "aria-label": `runs of ${cells[0].textContent}`,
      onclick: () => {
        if (!open.delete(row)) open.add(row);
        draw();
        body.querySelector(`[data-row="${rows.indexOf(row)}"]`)?.focus();
      },
      "data-row": rows.indexOf(row),
    });
    cells[0].prepend(unfold);
    if (!open.has(row)) return [made];
    const inner = element("td", { colspan: columns.length }, more(row));
    return [made, element("tr", { class: "unfolded" }, inner)];
  }

  /** What the address says, which another page or the reader may have changed. */
  function restore() {
    const name = shown.sort.replace(/^-/, "");
    const column = columns.find((one) => one.name === name);
    sorted = column ? { column, down: shown.sort.startsWith("-") } : null;
    if (document.activeElement !== filter) filter.value = shown.find;
  }

  function draw() {
    if (saved) restore();
    const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const here = rows.filter(keep);
    const found = here.filter((row) => asked.every((word) => textOf(row).includes(word)));
    current = ordered(found);
    const now = current.slice(0, limit);
    body.replaceChildren(...now.flatMap(line));
    columns.forEach((column, place) => {
      const cell = head.children[place];
      cell.hidden = away(column);
      const way = sorted?.column === column ? (sorted.down ? "descending" : "ascending") : null;
      if (way) cell.setAttribute("aria-sort", way);
      else cell.removeAttribute("aria-sort");
    });
    count.textContent = `${group(found.length)} of ${group(rows.length)} rows`;
    rest.hidden = found.length <= limit;
    rest.textContent = `show all ${group(found.length)} rows`;
    box.hidden = here.length === 0;
  }

  function lines() {
    const there = columns.filter((column) => !away(column));
    return [there.map((column) => column.name), ...current.map((row) => there.map((column) => column.text(row)))];
  }

  const inner = element(
    "table",
    { id, "aria-label": title },
    element("thead", {}, head),
    body
  );
  const scroll = { class: "scroll", tabindex: 0, role: "region", "aria-label": title };
  const box = element(
    folded ? "details" : "div",
    { class: "tabled" },
    folded ? element("summary", {}, title) : element("h3", {}, title),
    element("div", { class: "tools" }, filter, count, tableButtons(title, lines)),
    element("div", scroll, inner),
    element("p", { class: "rest" }, rest),
    notes.map((note) => element("p", { class: "small" }, marked(note)))
  );
  watch(draw);
  return box;
}

/** Text in which backticks mark code. */
const marked = (text) =>
  text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));

/** What a cell of text is sorted by: the figure it starts with, or the text. */
function reading(text) {
  const plain = text.replace(/,(?=\d{3})/g, "").replace("−", "-").replace(/^< /, "");
  const found = /^[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i.exec(plain);
  if (found) return Number(found[0]);
  return /^[–-]?$/.test(text) || text.startsWith("– ") ? null : text;
}

/** What the text at the head of a row says of a task: the task, and a size where there are several. */
const titled = new Map(DATA.sections.map((section) => [section.id, section.task]));

/** The method of what a table's first column says of a row: a method, or one and what else splits rows. */
const methodOf = new Map(DATA.rows.map((row) => [row.id, row.method]));

/**
 * A table that Python made: cells of text, the first `labels` columns name the row.
 *
 * only: its task, if it is of one. tasks: that of each column of scores.
 */
function plainTable({ title, columns, rows, labels, prose, notes, task: only, tasks }, folded) {
  const method = columns.findIndex((name) => name === "method" || name === "row");
  const of = (row) => methodOf.get(row[method]) ?? row[method];
  const task = columns.indexOf("task");
  return table({
    title,
    notes,
    folded,
    rows,
    columns: columns.map((name, place) => ({
      name,
      figure: place >= labels && place < columns.length - prose,
      prose: place >= columns.length - prose,
      task: tasks[place],
      text: (row) => (place === method ? labelOf(row[place]) : place === task ? titleOf(row[place]) : row[place]),
      cell: place === method ? (row) => named(of(row), labelOf(row[place])) : null,
    })),
    keep: (row) =>
      (!only || within(only)) &&
      (method < 0 || visible(of(row))) &&
      (task < 0 || within(titled.get(row[task]) ?? row[task])),
  });
}

/** A method's name with its mark. */
function named(method, label = methodName(method)) {
  const inside = number.has(method) ? [swatch(method), label] : [label];
  return element("span", { class: "named", title: DATA.names.methods[method]?.about || null }, inside);
}

/** A link to the paper of a method or task, if the glossary has one. */
function paper(kind, id) {
  const { name, paper: address } = DATA.names[kind][id] ?? {};
  if (!address) return null;
  const about = { href: address, class: "paper", rel: "noopener noreferrer", target: "_blank" };
  return element("a", { ...about, "aria-label": `paper of ${name}`, title: address }, "↗");
}
