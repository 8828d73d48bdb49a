"use strict";
// What the page holds, what of it is shown, and who must draw again when that changes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const METHODS = DATA.methods;
const TASKS = [...new Set(DATA.sections.map((section) => section.task))];

/** Runs with their cell, in the order of the cells. */
const RUNS = DATA.cells.flatMap((cell) =>
  cell.runs.map((key) => ({ key, cell, ...DATA.runs[key] }))
);
const RUN = new Map(RUNS.map((run) => [run.key, run]));

const shown = { hidden: new Set(), task: "", sort: "", find: "", open: "", run: "" };
const listeners = [];

/** Call `draw` now, and whenever what is shown changes. */
function watch(draw) {
  listeners.push(draw);
  draw();
}

function change(edit) {
  note(edit);
  for (const draw of listeners) draw();
}

/** Change what is shown where nothing else must be drawn again. */
function note(edit) {
  edit(shown);
  writeAddress();
}

// The address holds what is shown, such as #task=cola&hide=lora,blob: a copied link shows the same.

function readAddress() {
  const hash = location.hash.slice(1);
  const plain = hash.includes("=") ? "" : decodeURIComponent(hash);
  const told = new URLSearchParams(plain ? "" : hash);
  const task = told.get("task");
  shown.task = TASKS.includes(task) ? task : "";
  shown.hidden = new Set((told.get("hide") ?? "").split(",").filter((method) => number.has(method)));
  shown.sort = told.get("sort") ?? "";
  shown.find = told.get("find") ?? "";
  shown.run = told.get("run") ?? /^run-([0-9a-f]{12})$/.exec(plain)?.[1] ?? "";
  shown.open = told.get("open") ?? (shown.run ? "" : plain);
}

function writeAddress() {
  const told = { ...shown, hide: [...shown.hidden].join(",") };
  delete told.hidden;
  const there = new URLSearchParams(Object.entries(told).filter(([, value]) => value));
  history.replaceState(null, "", `#${there}`);
}

const visible = (method) => !shown.hidden.has(method);
const within = (task) => !shown.task || shown.task === task;
const rowOf = (cell) => DATA.rows[cell.row];
const sectionOf = (cell) => DATA.sections[cell.section];
const cellShown = (cell) => visible(rowOf(cell).method) && within(sectionOf(cell).task);

// Names from the glossary; what it does not know is called by its identifier.

const metricOf = (section) => DATA.names.metrics[section.metric]?.name ?? section.metric;
const taskName = (task) => DATA.names.tasks[task]?.name ?? task;
const methodName = (method) => DATA.names.methods[method]?.name ?? method;
const labels = new Map(DATA.rows.map((row) => [row.id, row.label]));
const labelOf = (id) => labels.get(id) ?? methodName(id);
const titles = new Map(DATA.sections.map((section) => [section.id, section.title]));
const titleOf = (id) => titles.get(id) ?? taskName(id);

// One colour, mark and dash for a method everywhere, those of the report's pictures. Marks and
// dashes go by matplotlib's letters.

const number = new Map(METHODS.map((name, place) => [name, place]));
const look = (method) => DATA.looks[number.get(method)];
const colour = (method) =>
  number.has(method) ? `var(--method-${number.get(method)})` : "var(--quiet)";
const mark = (method) => (number.has(method) ? MARKS[look(method).marker] : d3.symbolCircle);

/** A regular polygon as a mark; turned by degrees from pointing right. */
function polygon(corners, turned, flat = 1) {
  const angles = d3.range(corners).map((corner) => (2 * Math.PI * corner) / corners + (turned * Math.PI) / 180);
  return {
    draw(context, size) {
      const area = (corners / 2) * Math.sin((2 * Math.PI) / corners) * flat;
      const radius = Math.sqrt(size / area);
      angles.forEach((angle, corner) =>
        context[corner ? "lineTo" : "moveTo"](flat * radius * Math.cos(angle), radius * Math.sin(angle))
      );
      context.closePath();
    },
  };
}

/** A cross on its side. */
const saltire = {
  draw(context, size) {
    const r = Math.sqrt(size / 5) / 2;
    const plus = [[-3, -1], [-1, -1], [-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1]];
    plus.forEach(([x, y], corner) =>
      context[corner ? "lineTo" : "moveTo"]((r * (x - y)) / Math.SQRT2, (r * (x + y)) / Math.SQRT2)
    );
    context.closePath();
  },
};

const MARKS = {
  o: d3.symbolCircle,
  s: polygon(4, 45),
  D: polygon(4, 0),
  d: polygon(4, 0, 0.6),
  "^": polygon(3, -90),
  v: polygon(3, 90),
  "<": polygon(3, 180),
  ">": polygon(3, 0),
  p: polygon(5, -90),
  h: polygon(6, 90),
  8: polygon(8, 22.5),
  P: d3.symbolCross,
  X: saltire,
  "*": d3.symbolStar,
};

const DASHES = { "-": "", "--": "6 3", "-.": "7 3 2 3", ":": "2 3" };

/** The first line of a method in a panel has the method's dash, others have the other ones. */
function dash(line, among) {
  const alike = among.filter((other) => other.method === line.method);
  const own = number.has(line.method) ? look(line.method).linestyle : "-";
  const order = [own, ...Object.keys(DASHES).filter((name) => name !== own)];
  return DASHES[order[alike.findIndex((other) => other.label === line.label) % order.length]];
}

/** Colours as variables: on light ground the pale ones darker, on dark ground the dark ones lighter. */
function paint() {
  for (const [method, place] of number) {
    const light = d3.lab(look(method).color);
    const dark = d3.lab(light);
    if (light.l > 78) light.l = 72;
    if (dark.l < 62) dark.l = Math.max(62, 100 - 1.2 * dark.l);
    const both = `light-dark(${light.formatHex()}, ${dark.formatHex()})`;
    document.documentElement.style.setProperty(`--method-${place}`, both);
  }
}

readAddress();

/** A method's mark as a small drawing. */
function swatch(method) {
  const path = d3.symbol(mark(method), 60)();
  const inner = drawn("path", { d: path, class: "mark" });
  inner.style.fill = colour(method);
  const box = { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" };
  return drawn("svg", { class: "swatch", ...box }, inner);
}
