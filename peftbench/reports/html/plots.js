"use strict";
// A figure is a grid of panels, drawn when it comes into view and again when what is shown changes.

/** Panels of a figure; of more than these the first, and a sentence says so. */
const PANELS = 12;

/** Lines or rows in one panel. */
const ROWS = 60;

const arriving = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      entry.target.near = entry.isIntersecting;
      if (entry.isIntersecting) entry.target.refresh();
    }
  },
  { rootMargin: "400px" }
);
const FIGURES = [];

/**
 * title, note: text. panels(choice): [{title, task, draw(width)}]. choices: what a select offers.
 * A panel whose `draw` gives null is left out.
 */
function figure({ title, note = "", panels, choices = null, wide = false }) {
  const grid = element("div", { class: wide ? "panels wide" : "panels" });
  const rest = element("p", { class: "small" });
  const select = choices && element(
    "select",
    { onchange: () => ((box.stale = true), box.refresh()) },
    choices.map((choice) => element("option", { value: choice }, choice))
  );
  const box = element(
    "figure",
    {},
    element("figcaption", {}, element("h3", {}, title), note ? element("p", {}, note) : null),
    select && choices.length > 1 ? element("label", { class: "choice" }, "Show ", select) : null,
    grid,
    rest
  );
  box.stale = true;
  box.near = false;
  box.refresh = () => {
    if (!box.stale) return;
    box.stale = false;
    const found = panels(select ? select.value : null).filter((panel) => within(panel.task));
    const columns = Math.max(1, Math.floor((grid.clientWidth + 24) / (wide ? 560 : 344)));
    const width = Math.floor((grid.clientWidth + 24) / Math.min(columns, Math.max(1, found.length))) - 24;
    grid.replaceChildren(
      ...found.slice(0, PANELS).map((panel) => drawPanel(panel, Math.max(260, Math.min(width, 760)), title))
    );
    const left = found.length - PANELS;
    rest.textContent = left > 0 ? `${left} more of these: choose a task above.` : "";
    rest.hidden = left <= 0;
  };
  arriving.observe(box);
  FIGURES.push(box);
  return box;
}

function drawPanel(panel, width, about) {
  const drawing = panel.draw(width);
  const svg = drawing?.matches("svg") ? drawing : drawing?.querySelector("svg.plot");
  if (svg) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${about}: ${panel.title}`);
  }
  const empty = element("p", { class: "small" }, "Nothing of what is shown has values here.");
  return element(
    "div",
    { class: "panel", "data-title": panel.title },
    element("h4", {}, panel.title),
    svg ? pictureButtons(`${about}: ${panel.title}`, svg) : null,
    drawing ?? empty
  );
}

function redraw() {
  for (const box of FIGURES) {
    box.stale = true;
    if (box.near) box.refresh();
  }
}

/** All at once, for paper. */
function drawAll() {
  for (const box of FIGURES) box.refresh();
}

/** A drawing by Observable Plot in the page's own look; a click on a run's dot opens its record. */
function plot(width, options) {
  const drawing = Plot.plot({
    className: "plot",
    width,
    height: 280,
    marginLeft: 46,
    marginRight: 14,
    marginBottom: 40,
    style: { fontSize: "12px", overflow: "visible" },
    color: { type: "identity" },
    symbol: { type: "identity" },
    ...options,
  });
  drawing.addEventListener("click", () => drawing.value?.key && openRecord(drawing.value.key));
  return drawing;
}

/** Dots with a method's colour and mark. */
function dots(data, options) {
  return Plot.dot(data, {
    stroke: "var(--panel)",
    strokeWidth: 0.6,
    fill: (one) => colour(one.method),
    symbol: (one) => mark(one.method),
    r: 4.5,
    ...options,
  });
}

/** What stands beside the pointer. */
const tip = (data, options) =>
  Plot.tip(
    data,
    Plot.pointer({
      fill: "var(--panel)",
      stroke: "var(--line)",
      fontSize: 12,
      lineWidth: 26,
      textPadding: 8,
      maxRadius: 30,
      title: "title",
      ...options,
    })
  );

/** Lines with dots of rows over x: [{label, method, points: [[x, y]]}]. */
function lines(width, found, { x, y, xType = "linear", ticks = null, title, marks = [], ...options }) {
  const flat = found.flatMap((line) =>
    line.points.map(([px, py]) => ({ ...line, px, py, title: title(line, px, py) }))
  );
  if (!flat.length) return null;
  const drawing = plot(width, {
    x: { label: x, type: xType, ...(ticks ? { ticks, tickFormat: tickText } : {}) },
    y: { label: y, grid: true, nice: true },
    marks: [
      ...marks,
      Plot.ruleX(found.flatMap((line) => (line.bars ?? []).map(([px, low, high]) => ({ ...line, px, low, high }))), {
        x: "px",
        y1: "low",
        y2: "high",
        stroke: (one) => colour(one.method),
        strokeOpacity: 0.5,
      }),
      Plot.line(flat, {
        x: "px",
        y: "py",
        z: "label",
        stroke: (one) => colour(one.method),
        strokeDasharray: (one) => dash(one, found),
        strokeWidth: 1.6,
      }),
      dots(flat, { x: "px", y: "py", r: 3.5 }),
      tip(flat, { x: "px", y: "py" }),
    ],
    ...options,
  });
  return withKey(drawing, found);
}

/** Below a drawing: which dash is which, where a method has several lines. */
function withKey(drawing, found) {
  const several = found.filter((line) => found.filter((other) => other.method === line.method).length > 1);
  if (!several.length) return drawing;
  const sample = (line) => {
    const stroke = drawn("path", { d: "M0 5H28", fill: "none", "stroke-width": 1.8 });
    stroke.style.stroke = colour(line.method);
    stroke.style.strokeDasharray = dash(line, found) || "none";
    return drawn("svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" }, stroke);
  };
  const items = several.map((line) => element("li", {}, sample(line), " ", line.label));
  return element("div", {}, drawing, element("ul", { class: "key-list" }, items));
}

/** Numbers on a logarithmic axis: 300, 1k, 2.5M. */
function tickText(value) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  return String(Number(value.toPrecision(3)));
}

/** Ticks of a logarithmic axis that have room: 1, 2 and 5 of each power, or powers alone. */
function logTicks(values) {
  const [low, high] = d3.extent(values.filter((value) => value > 0));
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const inside = (value) => value >= low * 0.99 && value <= high * 1.01;
  const steps = [[1], [1, 3], [1, 2, 5]].map((digits) =>
    powers.flatMap((power) => digits.map((digit) => digit * 10 ** power)).filter(inside)
  );
  return steps.find((ticks) => ticks.length >= 3) ?? d3.ticks(low, high, 4);
}
