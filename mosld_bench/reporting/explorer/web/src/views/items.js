// Items: which ones every row gets right, and of one of them what two rows make of its options.

import { h, select, tick } from "../dom.js";
import { bytes, count, score } from "../format.js";
import { itemMap } from "../itemmap.js";
import { itemsOf } from "../load.js";
import { filterBar, passes, searchField } from "./filters.js";
import { itemPanel } from "./item.js";

export function items(model, state) {
  const { files } = model.items;
  const file = files.find(({ task }) => task === state.get("task")) ?? files[0];
  const data = itemsOf(file, () => state.redraw());
  const heading = h("h2", {}, "Items");
  const task = select("Task", files.map(({ task: key, title }) => [key, title]), file.task, (value) => state.set({ task: value, item: "" }));
  if (data === null) return [heading, h("div", { class: "controls" }, task), h("p", { class: "muted", role: "status" }, `Reading ${count(file.items)} items (${bytes(file.bytes)}) …`)];
  if (data === "failed") {
    return [heading, h("div", { class: "controls" }, task), h("p", { class: "muted", role: "status" }, `${file.file} cannot be read. It belongs into the folder of this page.`)];
  }
  return [heading, ...loaded(model, state, file, data, task)];
}

function loaded(model, state, file, data, task) {
  const passing = passes(model, state);
  const shown = data.rows.map((row, i) => ({ row, i })).filter(({ row }) => passing(row));
  const names = model.names(data.rows);
  const [a, b] = pair(model, state, data);
  const graded = state.get("order") === "probability" && data.probability !== null;
  const values = graded ? data.probability : data.score;
  const gap = (item) => (data.score[a][item] === null || data.score[b][item] === null ? null : data.score[a][item] - data.score[b][item]);
  const order = arranged(state, data, gap);
  const at = order.findIndex((item) => String(data.doc[item]) === state.get("item"));
  const choose = (place) => state.set({ item: String(data.doc[order[place]]) });
  const rowChoice = (label, key, chosen) =>
    select(label, data.rows.map((row) => [model.rows[row].id, names.get(row)]), model.rows[data.rows[chosen]].id, (value) => state.set({ [key]: value }));
  return [
    h(
      "div",
      { class: "controls" },
      task,
      select("Order", orders(data), state.get("order"), (value) => state.set({ order: value })),
      select("Width of an item", [["", "as it fits"], ["4", "4 pixels"], ["10", "10 pixels"]], state.get("zoom"), (value) => state.set({ zoom: value })),
      rowChoice("First row", "a", a),
      rowChoice("Second row", "b", b),
      data.prompt !== null && searchField("Find in prompts", "find", state),
      tick("Only where the two differ", state.get("only") === "differ", (only) => state.set({ only: only ? "differ" : "" })),
    ),
    filterBar(model, state),
    h("p", { class: "note" }, about(model, file, data, order, graded)),
    order.length && shown.length
      ? itemMap({
          lines: shown.map(({ row, i }) => ({ name: names.get(row), mark: model.mark(row), values: values[i] })),
          strip: { name: "first − second", values: gap },
          order,
          at,
          zoom: Number(state.get("zoom")) || 0,
          describe: (item) => describe(model, data, item, shown),
          choose,
        })
      : h("p", { class: "muted" }, "No item passes."),
    key(graded),
    at >= 0 ? itemPanel({ model, data, item: order[at], place: at, n: order.length, a, b, names, choose, close: () => state.set({ item: "" }) }) : h("p", { class: "muted" }, "Choose an item on the map, by a click or with the arrow keys."),
  ];
}

/** Places in `data.rows` of the two rows that are set side by side. */
function pair(model, state, data) {
  const place = (key) => data.rows.findIndex((row) => model.rows[row].id === state.get(key));
  const reference = data.rows.findIndex((row) => model.blocks[model.rows[row].block]?.reference === row);
  const block = reference >= 0 ? model.rows[data.rows[reference]].block : null;
  const others = data.rows.map((_, i) => i).filter((i) => i !== reference);
  const beside = others.find((i) => block !== null && model.rows[data.rows[i]].block === block && model.rows[data.rows[i]].ranked) ?? others[0] ?? 0;
  const a = place("a") >= 0 ? place("a") : Math.max(reference, 0);
  return [a, place("b") >= 0 ? place("b") : beside];
}

function orders(data) {
  return [
    ["difficulty", "Hardest first"],
    ["data", "As in the data"],
    ["differ", "Where the two differ most"],
    ...(data.probability ? [["probability", "Hardest first, by probability"]] : []),
  ];
}

/** The items that pass, from left to right. */
function arranged(state, data, gap) {
  const text = data.prompt === null ? "" : state.get("find").trim().toLowerCase();
  const passing = (item) =>
    (state.get("only") !== "differ" || (gap(item) !== null && gap(item) !== 0)) &&
    (!text || [data.prompt[item], ...(data.options?.[item] ?? [])].some((part) => (part ?? "").toLowerCase().includes(text)));
  const order = state.get("order");
  const places = order === "data" ? data.doc.map((_, item) => item) : [...data.order];
  const kept = places.filter(passing);
  return order === "differ" ? kept.sort((x, y) => (gap(y) ?? 0) - (gap(x) ?? 0)) : kept;
}

function about(model, file, data, order, graded) {
  const n = order.length === data.doc.length ? `${count(order.length)} items` : `${count(order.length)} of ${count(data.doc.length)} items`;
  const shade = graded ? "the probability of the right option" : data.metric === "acc" ? "the share of seeds that are right" : `the mean of ${data.metric} over seeds`;
  return `${file.title}: ${n}. Shade: ${shade}. Last line: what the first row scores more or less than the second.`;
}

function describe(model, data, item, shown) {
  const right = shown.filter(({ i }) => data.score[i][item] !== null && data.score[i][item] >= 0.5).length;
  const { scale } = model.measures[data.measure];
  const mean = data.mean[item] === null ? "" : `, mean ${score(scale, data.mean[item])}${scale.sign}`;
  return `${data.item[item] || `item ${data.doc[item]}`}: at least half right in ${right} of ${shown.length} rows${mean}`;
}

function key(graded) {
  const ramp = (...colours) => h("span", { class: "swatch", style: `background: linear-gradient(to right in oklab, ${colours.join(", ")})` });
  return h(
    "p",
    { class: "ramp" },
    graded ? "0" : "wrong", ramp("var(--wrong)", "var(--right)"), graded ? "1" : "right",
    h("span", { class: "apart" }), "second better", ramp("var(--less)", "var(--even)", "var(--more)"), "first better",
  ); // prettier-ignore
}
