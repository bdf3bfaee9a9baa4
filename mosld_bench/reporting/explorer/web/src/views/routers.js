// What routers do: load of experts by layer and by task, how much they tell of the task, and how that came about.

import { areaY, lineY, pointerX, tip } from "@observablehq/plot";
import { chart, figure, tipStyle } from "../chart.js";
import { h, select } from "../dom.js";
import { MISSING, counted, number } from "../format.js";
import { loadColour, loadKey, strong } from "../heat.js";
import { glyph } from "../marks.js";
import { dataTable } from "../table.js";

/** Statistics as the table has them, in the words of the report: key, title, group, what it is. */
const STATISTICS = [
  ["experts", "N", "", "experts of a module"],
  ["picked", "K", "", "experts that a token picks"],
  ["entropy_before", "before", "Entropy", "of the router's probabilities, as a share of log N"],
  ["entropy_after", "after", "Entropy", "of the gates after the top-K, as a share of log K"],
  ["largest_of_picks", "of picks", "Largest share", "what one expert takes of the picks"],
  ["largest_of_mass", "of mass", "Largest share", "what one expert takes of the gate mass"],
  ["dead", "Dead", "", "experts of a module with next to no load, mean over modules and runs"],
  ["information", "mean", "MI with task, bits", "mutual information of expert and task"],
  ["most_information", "most", "MI with task, bits", "what it can be at most"],
  ["shift", "Shift", "", "distance between the mean loads in-domain and out of domain"],
];
const NOTE =
  "N, K: experts of a module, and how many of them a token picks. Entropy: as a share of the most there is; 1 is even. " +
  "Largest share: what one expert takes. MI: mutual information of expert and task.";

export function routers(model, state) {
  const entry = model.routers.find(({ row }) => model.rows[row].id === state.get("router")) ?? model.routers[0];
  const rows = model.routers.map(({ row }) => row);
  const names = model.names(rows);
  const run = entry.runs.find(({ record }) => model.records[record].trial === state.get("run")) ?? entry.runs[0];
  return [
    h("h2", {}, "What routers do"),
    summary(model, names, entry, state),
    h(
      "div",
      { class: "controls" },
      select("Row", rows.map((row) => [model.rows[row].id, names.get(row)]), model.rows[entry.row].id, (value) => state.set({ router: value, run: "", module: "" })),
    ),
    h("p", {}, told(names.get(entry.row), entry)),
    byLayer(entry, names.get(entry.row)),
    run && byTask(model, state, entry, run),
    course(entry, names.get(entry.row)),
  ];
}

function told(name, { routers: n, collapsed, follows, agreement, agreement_by_chance: chance }) {
  const parts = [
    `${name} has ${counted(n, "router")} over its runs, of which ${collapsed ? `${collapsed} collapsed` : "none collapsed"}.`,
    follows && `Its routing ${follows}.`,
    agreement && `Two seeds have ${percent(agreement)} % of their picks in common${chance ? `, by chance ${percent(chance)} %` : ""}.`,
  ];
  return parts.filter(Boolean).join(" ");
}

function summary(model, names, shown, state) {
  const present = STATISTICS.filter(([key]) => model.routers.some(({ statistics }) => statistics[key]));
  const link = (row) =>
    h("a", { href: state.link({ router: model.rows[row].id, run: "", module: "" }), focus: `router ${row}`, "aria-current": row === shown.row ? "true" : null }, names.get(row));
  const columns = [
    { id: "row", title: "Method", text: ({ row }) => names.get(row), cell: ({ row }) => h("span", { class: "name" }, glyph(model.mark(row)), link(row)) },
    { id: "follows", title: "Routing", text: ({ follows }) => follows ?? MISSING },
    ...present.map(([key, title, group, about]) => ({
      id: key, title, group, about, numeric: true,
      value: ({ statistics }) => statistics[key]?.mean ?? null,
      text: ({ statistics }) => plain(statistics[key]?.mean ?? null, key),
    })),
    { id: "agreement", title: "agree", group: "Two seeds, %", about: "picks in common", numeric: true, value: ({ agreement }) => agreement?.mean ?? null, text: ({ agreement }) => percent(agreement) },
    { id: "chance", title: "chance", group: "Two seeds, %", about: "the same with the tokens of one permuted", numeric: true, value: ({ agreement_by_chance: by }) => by?.mean ?? null, text: ({ agreement_by_chance: by }) => percent(by) },
    { id: "collapsed", title: "Collapsed", numeric: true, value: ({ collapsed }) => collapsed, text: ({ collapsed, routers: n }) => `${collapsed} of ${n}` },
  ]; // prettier-ignore
  return dataTable({
    name: "routers",
    caption: "Means over the routers of a row; a click shows it below",
    columns,
    sections: [{ rows: model.routers }],
    notes: h("p", { class: "note" }, NOTE),
    rowProps: (entry) => ({ class: entry === shown ? "baseline" : null }),
  });
}

const plain = (value, key) => (value === null ? MISSING : ["experts", "picked"].includes(key) ? number(value) : value.toFixed(2));
const percent = (share) => (share ? (100 * share.mean).toFixed(1) : MISSING);

/** A heat map as a table: `columns` and `rows` are headings, `values` rows of loads. */
function heatTable({ name, caption, corner, columns, rows, values }) {
  const table = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `Heat map: ${name}` },
    h(
      "table",
      { class: "heat" },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, corner), columns.map((title) => h("th", { scope: "col", class: "number" }, title)))),
      h(
        "tbody",
        {},
        rows.map((title, i) =>
          h("tr", {}, h("th", { scope: "row" }, title), values[i].map((load) => h("td", { style: `background: ${loadColour(load)}`, class: strong(load) ? "strong" : null }, load === null ? "" : load.toFixed(2)))),
        ),
      ),
    ),
  );
  return [h("p", { class: "note" }, caption), table];
}

function byLayer({ layers }, name) {
  const titles = layers.layers.map((layer) => (layer === -1 ? "other" : String(layer)));
  return figure({
    title: `Load by layer: ${name}`,
    charts: heatTable({
      name: "load by layer",
      caption: "Tokens over even load, experts of a layer in the order of their load, mean over modules and runs",
      corner: "Expert",
      columns: titles.map((title) => `L${title}`),
      rows: layers.values.map((_, i) => (i === 0 ? "most loaded" : i === layers.values.length - 1 ? "least loaded" : `${i + 1}`)),
      values: layers.values,
    }),
    key: loadKey(),
  });
}

function byTask(model, state, entry, run) {
  const at = run.modules.findIndex(({ name }) => name === state.get("module"));
  const place = at >= 0 ? at : (run.informed ?? 0);
  const module = run.modules[place];
  if (!module) return null;
  const title = (task) => model.measures.find(({ key, kind }) => kind === "task" && key === task)?.title ?? task;
  const runTitle = ({ record, seed }) => `seed ${seed}${model.records[record].trained_on.length === 1 ? `, ${title(model.records[record].trained_on[0])}` : ""}`;
  const most = run.informed === null ? "" : `; of all, ${run.modules[run.informed].short} tells most of the task`;
  return figure({
    title: "Load by task",
    key: h(
      "div",
      { class: "controls" },
      select("Run", entry.runs.map((one) => [model.records[one.record].trial, runTitle(one)]), model.records[run.record].trial, (value) => state.set({ run: value, module: "" })),
      select("Module", run.modules.map(({ name, short }) => [name, short]), module.name, (value) => state.set({ module: value })),
    ),
    charts: heatTable({
      name: "load by task",
      caption: `${module.short}: tokens of a task over even load${module.information === null ? "" : `; it tells ${number(module.information)} of at most ${number(module.most_information)} bits of the task`}${most}`,
      corner: "Task",
      columns: module.order.map((expert) => `Expert ${expert}`),
      rows: run.tasks.map(title),
      values: module.load,
    }),
    note: module.collapsed ? "This router has collapsed." : null,
  });
}

function course({ course: over }, name) {
  const panel = (points, title, unit) => {
    if (points.length < 2) return null;
    const drawn = points.map(([step, mean, low, high]) => ({ step, mean, low, high, text: `step ${step}: ${number(mean)}` }));
    const options = (width) => ({
      height: 200,
      marginLeft: 46,
      marginBottom: 38,
      x: { label: "Step", labelAnchor: "center", labelArrow: "none", ticks: Math.floor(width / 80) },
      y: { label: unit, labelArrow: "none", grid: true, nice: true, ticks: 4 },
      marks: [
        areaY(drawn, { x: "step", y1: "low", y2: "high", fill: "var(--accent)", fillOpacity: 0.14 }),
        lineY(drawn, { x: "step", y: "mean", stroke: "var(--accent)", strokeWidth: 1.8 }),
        tip(drawn, pointerX({ x: "step", y: "mean", title: "text", ...tipStyle })),
      ],
    });
    const text = `${title} of ${name} over steps: ${drawn.map((point) => point.text).join(", ")}.`;
    return h("div", { class: "panel" }, h("p", { class: "title" }, title), chart(options, text));
  };
  const panels = [panel(over.entropy, "Entropy of the router", "share of the most"), panel(over.information, "Told of the task", "bits")].filter(Boolean);
  if (!panels.length) return null;
  return figure({ title: `Over training: ${name}`, charts: h("div", { class: "panels large" }, panels), note: "Means over routers, with the lowest and the highest run." });
}
