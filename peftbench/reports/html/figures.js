"use strict";
// Which figures there are: each says what its panels hold.

const ofSection = (place) => DATA.cells.filter((cell) => cell.section === place && cellShown(cell));
const byMean = (cells) => d3.sort(cells, (cell) => -(cell.mean ?? -Infinity)).slice(0, ROWS);
const spread = (cell) =>
  known(cell.mean)
    ? `${cell.texts[0].replace("-", "−")}${cell.texts[1] ? ` ± ${cell.texts[1]}` : ""}`
    : "undefined";
const counted = (cell) => (cell.defined < cell.n ? `${cell.defined} of ${cell.n}` : `${cell.n}`);

function panelsOfSections(draw) {
  return DATA.sections.map((section, place) => ({
    title: section.title,
    task: section.task,
    draw: (width) => draw(width, section, ofSection(place)),
  }));
}

/** Every run a dot, the mean a stroke; rows by their mean. */
function scoreFigure() {
  return figure({
    title: "Scores, every run a dot",
    note:
      "On the validation split at the end of the budget. Strokes are means; the dotted line is the constant prediction. A click on a dot opens its record.",
    panels: () => panelsOfSections(drawScores),
  });
}

function drawScores(width, section, cells) {
  const ordered = byMean(cells);
  if (!ordered.length) return null;
  const runs = ordered.flatMap((cell) =>
    cell.runs.map((key) => {
      const run = RUN.get(key);
      const row = rowOf(cell);
      const told = `${row.label}, seed ${run.seed}\n${metricOf(section)} ${percent(run.score, 2)} %${run.collapsed ? "\ncollapsed" : ""}\n${key}`;
      return { ...row, key, y: row.label, x: known(run.score) ? 100 * run.score : null, title: told };
    })
  ).filter((run) => known(run.x));
  const means = ordered.filter((cell) => known(cell.mean));
  const longest = d3.max(ordered, (cell) => rowOf(cell).label.length);
  return plot(width, {
    height: 60 + 19 * ordered.length,
    marginLeft: Math.min(0.45 * width, 22 + 6.6 * longest),
    x: { label: `${metricOf(section)} (%)`, grid: true, nice: true, inset: 8 },
    y: { label: null, domain: ordered.map((cell) => rowOf(cell).label), tickSize: 0 },
    marks: [
      known(section.trivial)
        ? Plot.ruleX([100 * section.trivial], { stroke: "var(--quiet)", strokeDasharray: "2 3" })
        : null,
      Plot.tickX(means, {
        x: (cell) => 100 * cell.mean,
        y: (cell) => rowOf(cell).label,
        stroke: (cell) => colour(rowOf(cell).method),
        strokeWidth: 2.5,
        insetTop: 2,
        insetBottom: 2,
      }),
      dots(runs, { x: "x", y: "y", fillOpacity: 0.8 }),
      tip(runs, { x: "x", y: "y" }),
    ],
  });
}

/** Means over the training examples, where rows were run at several sizes. */
function sizeFigure() {
  const panels = TASKS.map((task) => {
    const places = DATA.sections.flatMap((one, place) => (one.task === task ? [place] : []));
    return {
      title: taskName(task),
      task,
      sizes: places.map((place) => DATA.sections[place].size),
      draw: (width) => {
        const found = d3.groups(places.flatMap(ofSection).filter((cell) => known(cell.mean)), (cell) => cell.row);
        const several = found.filter(([, cells]) => cells.length > 1);
        return lines(width, several.slice(0, ROWS).map(([row, cells]) => ({
          ...DATA.rows[row],
          points: cells.map((cell) => [sectionOf(cell).size, 100 * cell.mean]),
          bars: cells.filter((cell) => known(cell.sd)).map((cell) => [sectionOf(cell).size, 100 * (cell.mean - cell.sd), 100 * (cell.mean + cell.sd)]),
          cells: new Map(cells.map((cell) => [sectionOf(cell).size, cell])),
        })), {
          x: "training examples",
          y: `${metricOf(DATA.sections[places[0]])} (%)`,
          xType: "log",
          ticks: [...new Set(places.map((place) => DATA.sections[place].size))],
          title: (line, size) =>
            `${line.label}\n${group(size)} examples\n${spread(line.cells.get(size))} (n = ${counted(line.cells.get(size))})`,
        });
      },
    };
  }).filter((panel) => new Set(panel.sizes).size > 1);
  if (!panels.length) return null;
  return figure({
    title: "Scores over data size",
    note: "Means of rows that were run at more than one size; bars are one standard deviation over seeds.",
    panels: () => panels,
  });
}

/** Whether the intervals over seeds of two neighbours on a front are apart. */
const apart = ([one, two]) => known(one.high) && known(two.low) && one.high < two.low;

/** Score against a cost, with the front of what nothing beats in both. */
function costFigure(name, { title, label, value, text, note }) {
  return figure({
    title,
    note,
    panels: () =>
      panelsOfSections((width, section, cells) => {
        const found = cells.filter((cell) => known(cell.mean) && value(cell) > 0);
        if (!found.length) return null;
        const drawn = found.map((cell) => ({
          ...rowOf(cell),
          x: value(cell),
          y: 100 * cell.mean,
          low: cell.interval && 100 * cell.interval[0],
          high: cell.interval && 100 * cell.interval[1],
          all: cell.defined === cell.n,
          front: cell.front.includes(name),
          conditions: name === "seconds" || cell.conditions, // a longer budget counts in seconds alone
          title: `${rowOf(cell).label}\n${metricOf(section)} ${spread(cell)} % (n = ${counted(cell)})\n${text(cell)}${cell.front.includes(name) ? "\non the front: nothing scores as high for less" : ""}`,
        }));
        const front = d3.sort(drawn.filter((one) => one.front), (one) => one.x);
        const middle = Math.sqrt(d3.min(drawn, (one) => one.x) * d3.max(drawn, (one) => one.x));
        const [least, most] = d3.extent(cells.flatMap((cell) => cell.runs.map((key) => RUN.get(key).score)).filter(known), (score) => 100 * score);
        return plot(width, {
          x: { type: "log", label, ticks: logTicks(drawn.map((one) => one.x)), tickFormat: tickText, nice: false, inset: 10 },
          y: { label: `${metricOf(section)} (%)`, grid: true, nice: true },
          marks: [
            Plot.ruleX(front.filter((one) => known(one.low)), {
              x: "x",
              y1: (one) => Math.max(least, one.low),
              y2: (one) => Math.min(most, one.high),
              stroke: (one) => colour(one.method),
              strokeOpacity: 0.5,
            }),
            ...d3.groups(front, (one) => one.conditions).flatMap(([, part]) => d3.pairs(part)).map((pair) =>
              Plot.line(pair, { x: "x", y: "y", curve: "step-after", stroke: "var(--quiet)", strokeWidth: 1.4, strokeDasharray: apart(pair) ? null : "3 3" })
            ),
            ...["start", "end"].map((side) =>
              // names on the right half stand to the left of their points, or they would leave the panel
              Plot.text(front.filter((one) => (one.x > middle) === (side === "end")), { x: "x", y: "y", text: "label", textAnchor: side, dy: -11, fontSize: 10, stroke: "var(--page)", fill: "currentColor", strokeWidth: 3 })
            ),
            dots(drawn, { x: "x", y: "y", r: 5.5, fillOpacity: (one) => (one.all ? 1 : 0.45) }),
            tip(drawn, { x: "x", y: "y" }),
          ],
        });
      }),
  });
}

/** Evaluations of a run from which a line says more than its end. */
const EVALUATIONS = 4;

/** Scores on the way, one line a run. */
function learningFigure() {
  const long = RUNS.filter((run) => (run.curve.step ?? []).length >= EVALUATIONS);
  if (!long.length) return null;
  const places = d3.sort(new Set(long.map((run) => run.cell.section)));
  return figure({
    title: "Score on the way, one line a run",
    note: "Evaluations during training, on the selection split where a run has one, else on the validation split or a part of it. Only runs that were evaluated at least four times.",
    panels: () =>
      places.map((place) => {
        const section = DATA.sections[place];
        return {
          title: section.title,
          task: section.task,
          draw: (width) => {
            const here = long.filter((run) => run.cell.section === place && cellShown(run.cell));
            return drawLearning(width, section, here.slice(0, 4 * ROWS));
          },
        };
      }),
  });
}

function drawLearning(width, section, runs) {
  const flat = runs.flatMap((run) => {
    const row = rowOf(run.cell);
    return run.curve.step.map((step, at) => ({
      ...row,
      key: run.key,
      x: run.curve.examples[at],
      y: known(run.curve[section.metric]?.[at]) ? 100 * run.curve[section.metric][at] : null,
      title: `${row.label}, seed ${run.seed}\nstep ${group(step)}, ${group(run.curve.examples[at])} examples, ${seconds(run.curve.seconds[at])} s\n${metricOf(section)} ${percent(run.curve[section.metric]?.[at], 2)} %\ntraining loss ${known(run.curve.loss[at]) ? run.curve.loss[at].toFixed(3) : "–"}`,
    }));
  });
  const defined = flat.filter((one) => known(one.y));
  if (!defined.length) return null;
  return plot(width, {
    x: { label: "training examples seen", tickFormat: tickText, ticks: 5, zero: true },
    y: { label: `${metricOf(section)} (%)`, grid: true, nice: true },
    marks: [
      Plot.line(flat, { x: "x", y: "y", z: "key", stroke: (one) => colour(one.method), strokeWidth: 1.2, strokeOpacity: 0.8 }),
      dots(defined, { x: "x", y: "y", r: 3.5 }),
      tip(defined, { x: "x", y: "y" }),
    ],
  });
}

/** Effects with intervals; filled where the comparison is decided. */
function forestFigure() {
  const tasks = [...new Set(DATA.pairs.map((pair) => pair.task))];
  const known_ = DATA.pairs.filter((pair) => known(pair.value));
  if (!known_.length) return null;
  return figure({
    title: `Difference from ${[...new Set(known_.map((pair) => pair.against))].join(", ")}`,
    note:
      "Points of the task’s metric with 95 % intervals over seeds and examples that hold together within a panel. Filled: better or worse, the interval is without 0. The band is the margin of “not worse”. What lies far outside of the other intervals is cut, with an arrow.",
    panels: () => tasks.map((task) => ({
      title: task,
      task: DATA.sections.find((section) => section.title === task)?.task ?? task,
      draw: (width) => drawForest(width, DATA.pairs.filter((pair) => pair.task === task && visible(DATA.rows[pair.row].method))),
    })),
  });
}

function drawForest(width, pairs) {
  const found = pairs.filter((pair) => known(pair.value)).slice(0, ROWS);
  if (!found.length) return null;
  // the reach of most intervals: one method without a clue must not squeeze the others
  const reach = Math.max(5, 250 * d3.median(found, (pair) => Math.max(Math.abs(pair.low), Math.abs(pair.high))));
  const cut = (value) => Math.max(-reach, Math.min(reach, 100 * value));
  const data = found.map((pair) => {
    const row = DATA.rows[pair.row];
    return {
      ...row,
      y: row.label,
      low: cut(pair.low),
      value: cut(pair.value),
      high: cut(pair.high),
      left: 100 * pair.low < -reach,
      right: 100 * pair.high > reach,
      off: Math.abs(100 * pair.value) > reach,
      said: points(pair.value),
      decided: /^(better|worse)$/.test(pair.kind),
      title: `${row.label} less ${pair.against}\n${points(pair.value)} points, 95 % interval ${points(pair.low)} to ${points(pair.high)}\n${pair.verdict}, corrected p ${probability(pair.p)}\na run of it is the better one with probability ${pair.superior.toFixed(2)}\n${pair.seeds} seeds, ${group(pair.examples)} examples`,
    };
  });
  const longest = d3.max(data, (one) => one.y.length);
  const arrow = (text, place) => ({ x: place, y: "y", text: () => text, fill: (one) => colour(one.method), fontSize: 14 });
  return plot(width, {
    height: 64 + 19 * data.length,
    marginLeft: Math.min(0.45 * width, 22 + 6.6 * longest),
    x: { label: "points", grid: true, nice: true, inset: 8 },
    y: { label: null, domain: data.map((one) => one.y), tickSize: 0 },
    marks: [
      Plot.rectX([0], { x1: -100 * DATA.margin, x2: 100 * DATA.margin, fill: "var(--band)" }),
      Plot.ruleX([0], { stroke: "var(--quiet)" }),
      Plot.ruleY(data, { x1: "low", x2: "high", y: "y", stroke: (one) => colour(one.method), strokeWidth: 1.8 }),
      Plot.text(data.filter((one) => one.left), arrow("◂", "low")),
      Plot.text(data.filter((one) => one.right), arrow("▸", "high")),
      ...[1, -1].map((side) =>
        // an effect beyond an edge: its figure stands inside, beside the mark
        Plot.text(data.filter((one) => one.off && side * one.value < 0), {
          x: "value",
          y: "y",
          text: "said",
          dx: 10 * side,
          textAnchor: side > 0 ? "start" : "end",
          fill: "currentColor",
          stroke: "var(--page)",
          strokeWidth: 4,
        })
      ),
      Plot.dot(data, {
        x: "value",
        y: "y",
        r: 4.5,
        symbol: (one) => mark(one.method),
        fill: (one) => (one.decided ? colour(one.method) : "var(--panel)"),
        stroke: (one) => colour(one.method),
        strokeWidth: 1.8,
      }),
      tip(data, { x: "value", y: "y" }),
    ],
  });
}

// evaluations

const SAID = {
  reliability: {
    title: "Reliability",
    note: "How often answers of a confidence are right, by tenths, all seeds together; on the dotted line a model is as sure as it is right.",
    x: "confidence (%)",
    y: () => "accuracy (%)",
    scale: 100,
    diagonal: true,
  },
  risk: {
    title: "Risk and coverage",
    note: "The error among the answers that the model is surest of; lower is better.",
    x: "coverage, surest first (%)",
    y: () => "error (%)",
    scale: 100,
  },
  noise: { title: "Noise", note: "The score as noise in the texts grows.", x: "intensity of noise", y: (panel) => `${metricOf(panel)} (%)`, scale: 1 },
  demonstrations: { title: "Demonstrations", note: "Solved examples in front of every text at test time.", x: "demonstrations", y: (panel) => `${metricOf(panel)} (%)`, scale: 1 },
  rounds: { title: "Rounds", note: "The score after each round of training.", x: (panel) => panel.x, y: (panel) => `${metricOf(panel)} (%)`, scale: 1 },
  forgetting: { title: "Forgetting", note: "What the parts of earlier rounds have lost since their best, on average; below 0 they have gained.", x: (panel) => panel.x, y: () => "points lost", scale: 1 },
  curve: { note: "What a suite found, by what it varies.", x: (panel) => panel.x, y: (panel) => `${metricOf(panel)} (%)`, scale: 1 },
};

function curveFigure(curve) {
  if (curve.kind === "shift") return heatFigure(curve);
  const said = SAID[curve.kind];
  const choices = [...new Set(curve.panels.map((panel) => panel.choice).filter(Boolean))];
  return figure({
    title: said.title ?? curve.suite.replaceAll("_", " "),
    note: said.note,
    choices: choices.length ? choices : null,
    panels: (choice) =>
      curve.panels.filter((panel) => !choice || panel.choice === choice).map((panel) => ({
        title: titleOf(panel.title),
        task: panel.task,
        draw: (width) => {
          const x = typeof said.x === "function" ? said.x(panel) : said.x;
          const found = panel.lines.filter((line) => visible(line.method)).slice(0, ROWS);
          return lines(width, found.map((line) => ({ ...line, label: labelOf(line.label), points: line.points.map(([px, py]) => [said.scale * px, 100 * py]) })), {
            x,
            y: said.y(panel),
            marks: said.diagonal
              ? [Plot.line([[45, 45], [100, 100]], { stroke: "var(--quiet)", strokeDasharray: "2 3" })]
              : [],
            title: (line, px, py) => `${line.label} (${line.seeds} seed${line.seeds > 1 ? "s" : ""})\n${x.replace(" (%)", "")} ${Number(px.toFixed(2))}${x.endsWith("(%)") ? " %" : ""}\n${said.y(panel).replace(" (%)", "")} ${py.toFixed(1)}${said.y(panel).endsWith("(%)") ? " %" : ""}`,
          });
        },
      })),
  });
}

/** Rows by targets as a table of shades: exact figures, and it can be read aloud. */
function heatFigure(curve) {
  return figure({
    title: "Other data",
    note: "Trained on one task, scored on others; means over seeds, in percent. The brighter, the higher among the figures of one column.",
    wide: true,
    panels: () =>
      curve.panels.map((panel) => ({
        title: `trained on ${titleOf(panel.title)}`,
        task: panel.task,
        draw: () => {
          const found = panel.lines.filter((line) => !line.method || visible(line.method)).slice(0, ROWS);
          if (!found.length) return null;
          const spans = panel.heads.map((_, at) => d3.extent(panel.lines.map((line) => line.cells[at]).filter(known)));
          const head = ["method", ...panel.heads].map((name, at) => element("th", { scope: "col", class: at ? "figure" : null }, name));
          const rows = found.map((line) => element("tr", {}, element("th", { scope: "row" }, named(line.method, labelOf(line.label))), line.cells.map((value, at) => shade(value, line.texts[at], spans[at]))));
          const inner = element("table", { class: "heat", "aria-label": panel.title }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows));
          return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": panel.title }, inner);
        },
      })),
  });
}

function shade(value, text, [low, high]) {
  const cell = element("td", { class: "figure" }, text.replace("-", "−"));
  if (known(value) && high > low) {
    const part = (value - low) / (high - low);
    const shade = d3.interpolateCividis(part);
    cell.style.backgroundColor = `light-dark(${shade}, color-mix(in srgb, ${shade} 50%, black))`;
    cell.style.color = part < 0.5 ? "#fff" : "light-dark(#000, #fff)";
  }
  return cell;
}
