// Learning curves, and what a search found of learning rates; rows switch on and off.

import { areaY, dot, lineY, pointer, tip } from "@observablehq/plot";
import { chart, figure, tipStyle } from "../chart.js";
import { button, h, select, tick } from "../dom.js";
import { MISSING, number } from "../format.js";
import { glyph } from "../marks.js";
import { dataTable } from "../table.js";
import { filterBar, passes, settingTitle } from "./filters.js";
import { learningRates } from "./rates.js";

export function curves(model, state) {
  return [model.training.runs.length > 0 && learning(model, state), model.learning_rates && learningRates(model, state)];
}

function learning(model, state) {
  const { runs, means } = model.training;
  const validation = state.get("curve") === "validation";
  const single = state.get("runs") === "yes";
  const passing = passes(model, state);
  const all = [...new Set(runs.map((run) => run.row))];
  const settings = [...new Set(all.map((row) => model.rows[row].setting))];
  const setting = settings.includes(state.get("setting")) ? state.get("setting") : settings[0]; // losses of others are of other data
  const rows = all.filter((row) => model.rows[row].setting === setting && passing(row));
  const names = model.names(rows);
  const shown = rows.filter((row) => !state.get("off").includes(model.rows[row].id));
  const lines = (single ? runs : means).filter(({ row }) => shown.includes(row)).flatMap((entry) => line(model, entry, validation, names));
  return h(
    "section",
    { "aria-labelledby": "learning" },
    h("h2", { id: "learning" }, "Learning curves"),
    h(
      "div",
      { class: "controls" },
      select("Loss", [["loss", "Training, running mean"], ["validation", "Validation"]], state.get("curve"), (value) => state.set({ curve: value })),
      settings.length > 1 && select("Setting", settings.map((key) => [key, settingTitle(model, key)]), setting, (value) => state.set({ setting: value })),
      filterBar(model, state, { setting: false }),
      tick("Every run by itself", single, (on) => state.set({ runs: on ? "yes" : "" })),
    ),
    rowSwitches(rows.map((row) => ({ id: model.rows[row].id, name: names.get(row), mark: model.mark(row) })), "off", state),
    drawing(lines, validation, single || setting === "single" ? "" : BANDS, single),
  );
}

/** Tick boxes that switch curves on and off, which are their key, too. */
export function rowSwitches(entries, key, state) {
  const off = state.get(key);
  const all = off.filter((id) => entries.some((entry) => entry.id === id)).length === 0;
  return h(
    "fieldset",
    { class: "key" },
    h("legend", { class: "visually-hidden" }, "Curves that are shown"),
    entries.map(({ id, name, mark }) => tick(name, !off.includes(id), (on) => state.toggle(key, id, !on), { mark: glyph(mark), focus: `${key} ${id}` })),
    entries.length > 2 && button(all ? "None" : "All", () => state.set({ [key]: all ? entries.map(({ id }) => id) : [] }), { class: "quiet", focus: `all ${key}` }),
  );
}

function line(model, entry, validation, names) {
  const steps = validation ? entry.validation_steps : entry.steps;
  const of = (mean, run) => entry[mean] ?? entry[run];
  const values = validation ? of("validation_mean", "validation_loss") : of("mean", "smoothed");
  const low = validation ? entry.validation_low : entry.low;
  const high = validation ? entry.validation_high : entry.high;
  const of_run = entry.seed === undefined ? "" : `, seed ${entry.seed}${model.rows[entry.row].setting === "single" ? `, ${entry.trained_on.join(", ")}` : ""}`;
  const mark = model.mark(entry.row);
  const points = steps
    .map((step, i) => ({ step, value: values[i], low: low?.[i] ?? null, high: high?.[i] ?? null, colour: mark.colour, name: names.get(entry.row) + of_run }))
    .filter((point) => point.value !== null);
  return points.length ? [{ row: entry.row, name: names.get(entry.row) + of_run, mark, points }] : [];
}

const BANDS = "Bands run from the lowest to the highest run of a row."; // of single tasks they would span unlike tasks

function drawing(lines, validation, bands, single) {
  const what = validation ? "Validation loss" : "Training loss";
  if (!lines.length) return h("p", { class: "muted" }, "No curve is switched on.");
  const points = lines.flatMap((entry) => entry.points.map((point) => ({ ...point, text: `${point.name}\nstep ${point.step}: ${number(point.value, 4)}` })));
  const [low, high] = range(points, validation);
  const options = (width) => ({
    height: Math.max(280, Math.min(440, width * 0.5)),
    marginLeft: 44,
    marginBottom: 40,
    x: { label: "Step", labelAnchor: "center", labelArrow: "none" },
    y: { label: `${what} (nats a token)`, labelArrow: "none", grid: true, domain: [low, high] },
    marks: [
      bands && lines.map(({ mark, points: of }) => areaY(of.filter((point) => point.low !== null), { x: "step", y1: "low", y2: "high", fill: mark.colour, fillOpacity: 0.1, clip: true })),
      lines.map(({ mark, points: of }) => lineY(of, { x: "step", y: "value", stroke: mark.colour, strokeWidth: single ? 1 : 1.7, strokeDasharray: mark.dash, clip: true })),
      validation && lines.map(({ mark, points: of }) => dot(of, { x: "step", y: "value", symbol: mark.shape, fill: mark.colour, r: 3.2, clip: true })),
      tip(points, pointer({ x: "step", y: "value", title: "text", ...tipStyle })),
    ].flat().filter(Boolean),
  }); // prettier-ignore
  const ends = lines.map((entry) => `${entry.name} ends at ${number(entry.points.at(-1).value, 4)}`);
  return figure({
    charts: chart(options, `${what} over steps. ${ends.join("; ")}.`),
    note: single ? null : `Lines are means over the runs of a row. ${bands}`,
    table: () => numbersTable(lines, what),
  });
}

/** What is drawn: all values, but for the steep beginning of training loss. */
function range(points, validation) {
  const values = points.flatMap((point) => [point.value, point.low ?? point.value, point.high ?? point.value]).sort((a, b) => a - b);
  const top = validation ? values.at(-1) : values[Math.floor(0.99 * (values.length - 1))];
  const room = 0.03 * (top - values[0]) || 0.1;
  return [values[0] - room, top + room];
}

function numbersTable(lines, what) {
  const row = (entry) => {
    const least = entry.points.reduce((best, point) => (point.value < best.value ? point : best));
    return { name: entry.name, first: entry.points[0], last: entry.points.at(-1), least };
  };
  const at = (id, title) => ({ id, title, numeric: true, value: (entry) => entry[id].value, text: (entry) => `${number(entry[id].value, 4)} (step ${entry[id].step})` });
  return dataTable({
    name: "learning curves",
    caption: `${what}, nats a token`,
    columns: [{ id: "name", title: "Row", text: (entry) => entry.name ?? MISSING }, at("first", "First"), at("least", "Lowest"), at("last", "Last")],
    sections: [{ rows: lines.map(row) }],
  });
}
