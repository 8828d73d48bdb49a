"use strict";
// Results with the runs below each row, all runs, and the record of one.

const link = (key) =>
  element("button", { type: "button", class: "key", onclick: () => openRecord(key) }, key);

function resultsTable() {
  const pairs = new Map(DATA.pairs.map((pair) => [`${pair.row} ${pair.task}`, pair]));
  const pair = (cell) => pairs.get(`${cell.row} ${sectionOf(cell).title}`);
  const against = [...new Set(DATA.pairs.map((one) => one.against))].join(", ");
  const figures = (name, text, value) => ({ name, text, value, figure: true });
  const columns = [
    { name: "method", text: (cell) => rowOf(cell).label, cell: (cell) => named(rowOf(cell).method, rowOf(cell).label) },
    { name: "task", text: (cell) => taskName(sectionOf(cell).task) },
    figures("examples", (cell) => group(sectionOf(cell).size), (cell) => sectionOf(cell).size),
    { name: "metric", text: (cell) => metricOf(sectionOf(cell)) },
    figures("mean %", (cell) => cell.texts[0] + (cell.mark ?? ""), (cell) => cell.mean),
    figures("sd", (cell) => cell.texts[1] || "–", (cell) => cell.sd),
    figures("runs", counted, (cell) => cell.n),
    figures("collapsed", (cell) => (cell.collapsed ? String(cell.collapsed) : ""), (cell) => cell.collapsed),
    figures("trained", (cell) => group(cell.trained), (cell) => cell.trained),
    figures("train s", (cell) => (cell.mixed ? `${seconds(cell.seconds)} (mixed machines)` : seconds(cell.seconds)), (cell) => cell.seconds),
    ...(DATA.cells.some((cell) => cell.trials)
      ? [figures("tuning s", (cell) => (cell.trials ? seconds(cell.tuning) : "–"), (cell) => cell.tuning)]
      : []),
    figures("peak MiB", (cell) => mebibytes(cell.peak), (cell) => cell.peak),
  ];
  if (DATA.pairs.length)
    columns.push(
      figures(`difference from ${against}`, (cell) => points(pair(cell)?.value), (cell) => pair(cell)?.value),
      { name: "verdict", text: (cell) => pair(cell)?.verdict ?? "" }
    );
  return table({
    title: "Each method, task and size",
    columns,
    rows: DATA.cells,
    keep: cellShown,
    more: runsBelow,
    notes: [
      "The arrow before a name unfolds its runs. Mean and standard deviation are over all runs; examples are those of training; trained counts weights, the head left out; seconds are those of training alone.",
      ...DATA.tuned,
    ],
  });
}

function runsBelow(cell) {
  const left = cell.n - cell.runs.length;
  return element(
    "div",
    { class: "below" },
    runsOf(cell.runs.map((key) => RUN.get(key)), sectionOf(cell).metric),
    left ? element("p", { class: "small" }, `${group(left)} more runs are not carried in this file.`) : null
  );
}

function runsOf(runs, metric) {
  const heads = ["key", "seed", `${metric} %`, "collapsed", "steps", "train s", "evaluations"];
  const row = (run) => [
    link(run.key),
    String(run.seed),
    percent(run.score, 2),
    run.collapsed ? "yes" : "",
    group(run.work.steps),
    seconds(run.seconds.train),
    run.evaluations.map((one) => one.suite).join(", "),
  ];
  return pairsTable(heads, runs.map(row), [1, 2, 4, 5]);
}

/** A small table that neither sorts nor filters. */
function pairsTable(heads, rows, figures = []) {
  const which = (at) => ({ class: figures.includes(at) ? "figure" : null });
  const head = heads.map((name, at) => element("th", { scope: "col", ...which(at) }, name));
  const body = rows.map((cells) =>
    element("tr", {}, cells.map((cell, at) => element("td", which(at), cell)))
  );
  return element(
    "table",
    {},
    heads.length ? element("thead", {}, element("tr", {}, head)) : null,
    element("tbody", {}, body)
  );
}

function runsTable() {
  const figures = (name, text, value) => ({ name, text, value, figure: true });
  return table({
    title: "Runs",
    rows: RUNS,
    keep: (run) => cellShown(run.cell),
    columns: [
      { name: "key", text: (run) => run.key, cell: (run) => link(run.key) },
      { name: "method", text: (run) => rowOf(run.cell).label, cell: (run) => named(rowOf(run.cell).method, rowOf(run.cell).label) },
      { name: "task", text: (run) => taskName(sectionOf(run.cell).task) },
      figures("examples", (run) => group(run.size), (run) => run.size),
      figures("seed", (run) => String(run.seed), (run) => run.seed),
      { name: "metric", text: (run) => metricOf(sectionOf(run.cell)) },
      figures("score %", (run) => percent(run.score, 2), (run) => run.score),
      { name: "collapsed", text: (run) => (run.collapsed ? "yes" : "") },
      figures("train s", (run) => seconds(run.seconds.train), (run) => run.seconds.train),
      figures("examples/s", (run) => run.speed.examples_per_second?.toFixed(0) ?? "–", (run) => run.speed.examples_per_second),
      { name: "evaluations", text: (run) => run.evaluations.map((one) => one.suite).join(", ") },
    ],
  });
}

// the record of one run

const dialog = document.getElementById("record");
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => note((state) => (state.run = "")));

function openRecord(key) {
  const run = RUN.get(key);
  if (!run) return;
  const row = rowOf(run.cell);
  const section = sectionOf(run.cell);
  const close = element("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const title = `${row.label} on ${taskName(section.task)}, ${group(run.size)} examples, seed ${run.seed}`;
  const parts = [
    element("header", {}, element("h2", { id: "record-title" }, named(row.method, title)), close),
    run.collapsed
      ? element("p", { class: "note" }, "Collapsed: it predicts one class or value throughout.")
      : null,
    part("Scores", scoresOf(run)),
    part("Learning curve", curveOf(run, section.metric)),
    part("Cost", factsOf(costsOf(run))),
    part("Training", factsOf(workOf(run))),
    part("Settings", settingsOf(run)),
    run.evaluations.length ? part("Evaluations", evaluationsOf(run)) : null,
    part("Environment", factsOf(environmentOf(run))),
    part("Provenance", factsOf(provenanceOf(run))),
  ];
  dialog.replaceChildren(...parts.filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  note((state) => (state.run = key));
}

const part = (title, body) => element("section", {}, element("h3", {}, title), body);

function factsOf(facts) {
  return element(
    "dl",
    { class: "facts" },
    facts.filter(([, value]) => known(value)).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])
  );
}

/** A metric of a run as text: a share in percent, an error in the unit of the labels. */
const inItsUnit = (run, name, value) =>
  run.errors.includes(name) ? (known(value) ? value.toFixed(4) : "–") : percent(value, 2);

function scoresOf(run) {
  const row = (name) => [
    run.errors.includes(name) ? `${name} (not in percent)` : name,
    inItsUnit(run, name, run.metrics[name]),
    inItsUnit(run, name, run.trivial[name]),
    ...(run.selection ? [inItsUnit(run, name, run.selection[name])] : []),
  ];
  const heads = ["metric", "%", "constant prediction %", ...(run.selection ? ["selection split %"] : [])];
  return pairsTable(heads, Object.keys(run.metrics).map(row), [1, 2, 3]);
}

function curveOf(run, metric) {
  const curve = run.curve;
  const steps = curve.step ?? [];
  const names = Object.keys(curve).filter((name) => name in run.metrics);
  const rows = steps.map((step, at) => [
    group(step),
    group(curve.examples[at]),
    seconds(curve.seconds[at]),
    known(curve.loss[at]) ? curve.loss[at].toFixed(4) : "–",
    ...names.map((name) => inItsUnit(run, name, curve[name][at])),
  ]);
  const heads = ["step", "examples", "train s", "training loss", ...names.map((name) => (run.errors.includes(name) ? name : `${name} %`))];
  const told = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "learning curve" }, pairsTable(heads, rows, d3.range(heads.length)));
  const drawing = steps.length > 2 ? drawLearning(520, { metric }, [run]) : null;
  return element("div", {}, drawing, told);
}

function costsOf(run) {
  const phases = Object.entries(run.seconds).map(([name, value]) => `${name} ${seconds(value)}`);
  const memory = Object.entries(run.memory).map(([kind, peaks]) => [
    `peak ${kind.startsWith("cuda") ? "GPU" : "CPU"} memory, MiB${kind.includes("reserved") ? " (reserved)" : ""}`,
    Object.entries(peaks).map(([name, value]) => `${name} ${mebibytes(value)}`).join(", "),
  ]);
  return [
    ["seconds", phases.join(", ")],
    ...memory,
    ["energy", known(run.energy) ? `${group(Math.round(run.energy))} J` : "not measured"],
    ["operations", known(run.flops) ? `${(run.flops / 1e12).toFixed(1)} TFLOP (model, forward and backward)` : "not counted"],
    ["trained weights", `${group(run.parameters.trained)} and ${group(run.parameters.head)} of the head, of ${group(run.parameters.total)}`],
  ];
}

function workOf(run) {
  const work = run.work;
  return [
    ["steps", group(work.steps)],
    ["examples seen", `${group(work.examples)} (${work.epochs} epochs of ${group(work.train_size)})`],
    ["tokens", `${group(work.tokens)} (${group(work.padded_tokens)} with padding)`],
    ["micro-batch", words(work.micro_batch)],
    ["held out for selection", words(work.held_out)],
    ["overshoot, s", known(work.overshoot_seconds) ? seconds(work.overshoot_seconds) : null],
    ["texts cut", words(work.truncated)],
    ["speed", `${(run.speed.examples_per_second ?? 0).toFixed(1)} examples/s`],
  ];
}

function settingsOf(run) {
  const node = (name) => DATA.nodes[run.nodes[name]];
  const facts = [];
  for (const name of ["model", "method", "task", "budget", "train", "select", "form", "augment"]) {
    if (!known(run.nodes[name])) continue;
    const empty = (value) => typeof value === "object" && value !== null && !Object.keys(value).length;
    const flat = Object.entries(node(name)).filter(([inner, value]) => inner !== "_target_" && !empty(value));
    if (flat.length) facts.push([name, flat.map(([inner, value]) => `${inner} ${words(value)}`).join("; ")]);
  }
  return factsOf([...facts, ["size asked for", words(run.asked)], ["seed", String(run.seed)]]);
}

function evaluationsOf(run) {
  const row = (one) => [
    one.suite,
    Object.entries(one.headline).map(([name, value]) => `${name} ${known(value) ? Number(value.toPrecision(4)) : "undefined"}`).join(", "),
    seconds(one.seconds),
    one.key,
  ];
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "evaluations" }, pairsTable(["suite", "findings", "s", "key"], run.evaluations.map(row), [2]));
}

function environmentOf(run) {
  const place = DATA.nodes[run.nodes.environment];
  return Object.entries(place).filter(([, value]) => known(value)).map(([name, value]) => [name, words(value)]);
}

function provenanceOf(run) {
  return [
    ["key", element("code", {}, run.key)],
    ["protocol", String(run.protocol)],
    ["predictions, SHA-256", run.predictions],
    ["kept weights, SHA-256", run.weights ?? "not kept"],
    ["in a terminal", element("code", {}, `peftbench show ${run.key}`)],
  ];
}
