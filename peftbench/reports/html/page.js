"use strict";
// Puts everything into its place.

const place = (id) => document.getElementById(id);

function put(id, ...children) {
  const there = children.flat().filter(Boolean);
  place(id).append(...there);
  if (!there.length) place(id).hidden = true;
}

function summarised(paragraph) {
  return element(
    "div",
    { class: "paragraph" },
    element("h3", {}, paragraph.heading),
    element("ul", {}, paragraph.sentences.map((line) => element("li", {}, line)))
  );
}

function controls() {
  const buttons = METHODS.map((method) => {
    const about = { title: DATA.names.methods[method].about || null, "data-method": method };
    const button = element("button", { type: "button", class: "method", ...about }, swatch(method), methodName(method));
    button.addEventListener("click", () =>
      change((state) => state.hidden.delete(method) || state.hidden.add(method))
    );
    return button;
  });
  const all = element("button", { type: "button", onclick: () => change((state) => state.hidden.clear()) }, "all");
  const none = element("button", { type: "button", onclick: () => change((state) => METHODS.forEach((method) => state.hidden.add(method))) }, "none");
  const select = element(
    "select",
    { id: "task", onchange: () => change((state) => (state.task = select.value)) },
    element("option", { value: "" }, "all tasks"),
    TASKS.map((task) => element("option", { value: task }, taskName(task)))
  );
  const count = element("span");
  watch(() => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(visible(button.dataset.method))));
    select.value = shown.task;
    count.textContent = `${METHODS.filter(visible).length} of ${METHODS.length}`;
  });
  const legend = element(
    "details",
    { id: "legend" },
    element("summary", {}, "Methods ", count),
    element("div", { class: "buttons" }, buttons, element("span", { class: "ends" }, all, none))
  );
  place("controls").append(element("label", { class: "choice" }, "Tasks ", select), legend);
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  const tell = () => (place("theme").textContent = now() === "dark" ? "Light" : "Dark");
  place("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
}

function contents() {
  const sections = [...document.querySelectorAll("main > details")].filter((one) => !one.hidden);
  const go = (id) => (event) => {
    event.preventDefault();
    note((state) => (state.open = id));
    unfold(id);
  };
  place("contents").append(
    ...sections.map((one) => element("a", { href: `#${one.id}`, onclick: go(one.id) }, one.querySelector("h2").textContent))
  );
}

function environmentTable() {
  const rows = DATA.environments.map((one) => [
    group(one.runs),
    group(one.evaluations),
    one.device,
    `${words(one.threads)} of ${words(one.cores)}`,
    one.cuda ?? "none",
    one.python,
    words(one.libraries),
    `${(one.commit ?? "unknown").slice(0, 12)}${one.dirty ? ", with uncommitted changes" : ""}`,
  ]);
  const columns = ["runs", "evaluations", "device", "threads of cores", "CUDA", "Python", "libraries", "commit"];
  return table({
    title: "Machines and versions",
    rows,
    columns: columns.map((name, at) => ({
      name,
      figure: at < 2,
      text: (row) => row[at],
      cell: name === "libraries" ? (row) => element("span", { class: "long" }, row[at]) : null,
    })),
  });
}

function settingsTables() {
  const { shared, rows } = DATA.settings;
  const alike = Object.entries(shared);
  return [
    alike.length
      ? [element("h3", {}, "The same in all runs"), factsOf(alike)]
      : element("p", {}, "No setting is the same in all runs."),
    table({
      title: "What each row has of its own",
      rows,
      keep: (row) => visible(row.method),
      columns: [
        { name: "method", text: (row) => row.label, cell: (row) => named(row.method, row.label) },
        { name: "settings", text: (row) => row.text, cell: (row) => element("span", { class: "long" }, row.text) },
      ],
    }),
  ].flat();
}

const tables = (about) =>
  DATA.tables.filter((one) => one.about === about).map((one) => plainTable(one, true));

const TUNED = DATA.cells.some((cell) => cell.trials);

const STEPS = "The stepped line joins what no other method beats in score and cost at once (the Pareto front), dashed where the 95 % intervals of neighbours overlap, over seeds alone; rows on it are named and have this interval.";

const COSTS = [
  ["seconds", {
    title: "Score and training time",
    label: TUNED ? "training and tuning seconds" : "training seconds",
    value: (cell) => (TUNED ? cell.total : cell.seconds),
    text: (cell) => `${seconds(cell.seconds)} s${cell.mixed ? " (mixed machines)" : ""}${cell.trials ? `, with ${cell.trials} trials ${known(cell.total) ? `${seconds(cell.total)} s` : "of another machine"}` : ""}`,
    note: (TUNED ? "With all trials that a learning rate was chosen from (of training alone where it was not chosen here); rows whose trials are of another machine are left out. " : "") + `Means over seeds. ${STEPS}`,
  }],
  ["trained", {
    title: "Score and trained weights",
    label: "trained weights, head left out",
    value: (cell) => Math.max(1, cell.trained),
    text: (cell) => `${group(cell.trained)} trained weights`,
    note: "The head is not counted; a method that trains nothing else stands at 1. " + STEPS,
  }],
];

/** The figure of a cost, or why there is none. */
function costs([name, more]) {
  const there = DATA.cells.some((cell) => known(more.value(cell)));
  return there ? costFigure(name, more) : element("p", { class: "small" }, `${more.title}: not drawn, since the trials of all learning rates were made on another machine.`);
}

paint();
document.title = `peftbench: ${DATA.folder}`;
place("title").textContent = `peftbench: ${DATA.folder}`;
place("version").textContent = `version ${DATA.version}`;
place("answer").textContent = DATA.answer;
place("tiles").append(...tiles());
put("leaderboard", leaderboard());
put("summary", DATA.summary.map(summarised));
put("notes", DATA.notes.length ? element("ul", {}, DATA.notes.map((note) => element("li", {}, marked(note)))) : null);
controls();
const [first, ...others] = DATA.tables.filter((one) => one.about === "scores");
put(
  "results",
  scoreFigure(),
  sizeFigure(),
  resultsTable(),
  plainTable(first, true),
  others.map((one) => plainTable(one, true))
);
put("texts", DATA.tables.filter((one) => one.about === "texts").map((one) => plainTable(one, false)));
put("differences", forestFigure(), tables("differences"));
put("costs", DATA.warning ? element("p", { class: "small" }, DATA.warning) : null, COSTS.map(costs), tables("costs"));
put("learning", learningFigure());
put("evaluations", DATA.curves.map(curveFigure), tables("suites"));
put("runs", runsTable());
put("settings", settingsTables());
put("environment", environmentTable());
contents();
theme();
watch(redraw);

let settled = null;
let broad = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === broad) return; // a phone's address bar comes and goes
  broad = innerWidth;
  clearTimeout(settled);
  settled = setTimeout(redraw, 150);
});

/** Paper shows what is folded too. */
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main details:not([open])")];
  for (const one of opened) one.open = true;
  drawAll();
});
addEventListener("afterprint", () => opened.forEach((one) => (one.open = false)));

function unfold(id) {
  const section = place(id);
  if (!section) return;
  if (section.matches("details")) section.open = true;
  section.scrollIntoView();
}

function follow() {
  if (shown.open) unfold(shown.open);
  if (shown.run) openRecord(shown.run);
}
addEventListener("hashchange", () => {
  readAddress();
  for (const draw of listeners) draw();
  follow();
});
follow();
