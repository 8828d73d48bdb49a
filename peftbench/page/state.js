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

const shown = { hidden: new Set(), task: "" };
const listeners = [];

/** Call `draw` now, and whenever what is shown changes. */
function watch(draw) {
  listeners.push(draw);
  draw();
}

function change(edit) {
  edit(shown);
  for (const draw of listeners) draw();
}

const visible = (method) => !shown.hidden.has(method);
const within = (task) => !shown.task || shown.task === task;
const rowOf = (cell) => DATA.rows[cell.row];
const sectionOf = (cell) => DATA.sections[cell.section];
const cellShown = (cell) => visible(rowOf(cell).method) && within(sectionOf(cell).task);

// One colour and one mark for a method everywhere; both run out of step, so that 56 differ.
const MARKS = ["circle", "square", "diamond", "triangle", "below", "cross", "star", "hexagon"];
const below = {
  draw(context, size) {
    const side = Math.sqrt(size / (3 * Math.sqrt(3)));
    context.moveTo(0, side * 2);
    context.lineTo(-Math.sqrt(3) * side, -side);
    context.lineTo(Math.sqrt(3) * side, -side);
    context.closePath();
  },
};

const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

const number = new Map(DATA.looks.map((name, place) => [name, place]));
const colour = (method) =>
  number.has(method) ? `var(--method-${number.get(method)})` : "var(--quiet)";

function mark(method) {
  if (!number.has(method)) return "circle";
  const place = number.get(method);
  const name = MARKS[(place + Math.floor(place / DATA.colours.length)) % MARKS.length];
  return name === "below" ? below : name;
}

/** Lines of one method differ in the dash: by its place among those of the same panel. */
function dash(line, among) {
  const alike = among.filter((other) => other.method === line.method);
  return DASHES[alike.findIndex((other) => other.label === line.label) % DASHES.length];
}

/** The palette as variables, so that dark and light differ in style alone. */
function paint() {
  for (const [method, place] of number) {
    const which = place % DATA.colours.length;
    const root = document.documentElement.style;
    root.setProperty(`--method-${place}`, `var(--palette-${which}, ${DATA.colours[which]})`);
  }
}

/** A method's mark as a small drawing. */
function swatch(method) {
  const shape = mark(method);
  const kinds = {
    circle: d3.symbolCircle,
    square: d3.symbolSquare,
    diamond: d3.symbolDiamond,
    triangle: d3.symbolTriangle,
    cross: d3.symbolCross,
    star: d3.symbolStar,
    hexagon: HEXAGON,
  };
  const path = d3.symbol(typeof shape === "string" ? kinds[shape] : shape, 60)();
  const inner = drawn("path", { d: path, class: "mark" });
  inner.style.fill = colour(method);
  const box = { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" };
  return drawn("svg", { class: "swatch", ...box }, inner);
}

const HEXAGON = {
  draw(context, size) {
    const side = Math.sqrt(size / (1.5 * Math.sqrt(3)));
    for (let corner = 0; corner < 6; corner++) {
      const angle = (Math.PI / 3) * corner + Math.PI / 6;
      context[corner ? "lineTo" : "moveTo"](side * Math.cos(angle), side * Math.sin(angle));
    }
    context.closePath();
  },
};
