"use strict";
// The first screen: one sentence, four figures, and methods by tasks.

function tiles() {
  return DATA.tiles.map((tile) =>
    element(
      "div",
      { class: "tile", title: DATA.names.terms[tile.name] },
      element("strong", {}, tile.value),
      element("span", {}, tile.name),
      element("small", {}, tile.more)
    )
  );
}

function leaderboard() {
  const cells = new Map(DATA.cells.map((cell) => [`${cell.row} ${cell.section}`, cell]));
  const of = (row, place) => cells.get(`${row.place} ${place}`);
  const rows = DATA.rows.map((row, place) => ({ ...row, place }));
  const mine = (row) => DATA.cells.filter((cell) => cell.row === row.place);
  const trained = (row) => d3.max(mine(row), (cell) => cell.trained);
  const terms = DATA.names.terms;
  const columns = DATA.sections.map((section, place) => {
    const reach = reachOf(place);
    return {
      name: section.title,
      head: taskName(section.task),
      below: section.title === taskName(section.task) ? metricOf(section) : `${group(section.size)}, ${DATA.names.metrics[section.metric]?.short ?? section.metric}`,
      hint: [`${section.title}; the constant prediction has ${percent(section.trivial)} %.`, DATA.names.tasks[section.task].about, DATA.names.metrics[section.metric]?.about].filter(Boolean).join("\n"),
      task: section.task,
      figure: true,
      value: (row) => of(row, place)?.mean,
      text: (row) => (of(row, place) ? spread(of(row, place)) + (of(row, place).collapsed ? ` (collapsed ${of(row, place).collapsed}/${of(row, place).n})` : "") + (of(row, place).diverged ? ` (diverged ${of(row, place).diverged})` : "") : ""),
      cell: (row) => of(row, place) && scoreCell(of(row, place), section, reach),
    };
  });
  const ranked = rows.some((row) => known(row.rank));
  const mean = (row) => d3.mean(mine(row), (cell) => cell.mean) ?? -Infinity;
  return table({
    title: "Leaderboard",
    saved: true,
    rows: d3.sort(rows, (a, b) => d3.ascending(a.rank ?? Infinity, b.rank ?? Infinity) || d3.descending(mean(a), mean(b))),
    keep: (row) => mine(row).some(cellShown),
    columns: [
      { name: "method", text: (row) => row.label, cell: (row) => [named(row.method, row.label), paper("methods", row.method)].filter(Boolean) },
      ...(ranked ? [{ name: "mean rank", hint: terms["mean rank"], figure: true, text: (row) => row.rank?.toFixed(2) ?? "–", value: (row) => row.rank }] : []),
      ...columns,
      { name: "trained", hint: terms.trained, figure: true, text: (row) => tickText(trained(row)), value: trained },
    ],
    notes: [
      "Percent, mean ± standard deviation over seeds; each dot is a seed, the line the 95 % interval of the mean, dotted the constant prediction. Bold: significantly better than every other row of its column. Open dots and chips: the run collapsed; ×: so many more seeds diverged.",
      ...DATA.tuned,
    ],
  });
}

/** The scores that a column's strips span; what lies far below the others is drawn at the edge. */
function reachOf(place) {
  const scores = RUNS.filter((run) => run.cell.section === place && known(run.score)).map((run) => run.score);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => d3.quantile(scores, part) ?? 0);
  const least = middle - 4 * Math.max(0.01, high - low);
  return [Math.max(least, d3.min(scores) ?? 0) - 0.01, (d3.max(scores) ?? 1) + 0.01];
}

function scoreCell(cell, section, reach) {
  const all = cell.collapsed === cell.n;
  const text = element(section.best === cell.row ? "strong" : "span", {}, all ? null : spread(cell) + (cell.mark ?? ""));
  const chip = cell.collapsed
    ? element("span", { class: "chip", title: `${cell.collapsed} of ${cell.n} runs. ${DATA.names.terms.collapsed}` }, all ? `collapsed ${cell.collapsed}/${cell.n}` : `${cell.collapsed}/${cell.n}`, all ? null : element("span", { class: "unseen" }, " collapsed"))
    : null;
  const gone = cell.diverged
    ? element("span", { class: "chip", title: `${cell.diverged} more seeds diverged and have no score: the mean is that of the others.` }, `×${cell.diverged}`, element("span", { class: "unseen" }, " diverged"))
    : null;
  return [text, chip, gone, strip(cell, section, reach)].filter(Boolean);
}

/** Dots of a cell's runs and the interval of their mean, along the column's scores. */
function strip(cell, section, reach) {
  const x = d3.scaleLinear(reach, [3, 97]).clamp(true);
  const runs = cell.runs.map((key) => RUN.get(key)).filter((run) => known(run.score));
  const scores = runs.map((run) => percent(run.score)).join(", ");
  const told = cell.interval ? `; 95 % interval of the mean ${cell.interval.map((end) => percent(end)).join(" to ")}` : "";
  const svg = drawn("svg", { class: "strip", viewBox: "0 0 100 10", width: 100, height: 10, role: "img", "aria-label": `scores ${scores}${told}` });
  const line = (name, from, to, y1, y2) => svg.append(drawn("line", { class: name, x1: x(from), x2: x(to), y1, y2 }));
  svg.append(drawn("title", {}, `scores ${scores}${told}`));
  if (known(section.trivial)) line("base", section.trivial, section.trivial, 0, 10);
  if (cell.interval) line("interval", ...cell.interval, 5, 5);
  for (const run of runs) {
    const dot = drawn("circle", { cx: x(run.score), cy: 5, r: 2.4 });
    dot.style.fill = run.collapsed ? "none" : colour(rowOf(cell).method);
    dot.style.stroke = colour(rowOf(cell).method);
    svg.append(dot);
  }
  return svg;
}
