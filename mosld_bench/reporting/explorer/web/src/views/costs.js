// Scores against what they cost, with the front: the best score that is to be had for so much.

import { dot, line, pointer, ruleX, ruleY, tip } from "@observablehq/plot";
import { chart, figure, tipStyle } from "../chart.js";
import { h, select } from "../dom.js";
import { MISSING, cost as costText, count, interval, number, score, short } from "../format.js";
import { glyph } from "../marks.js";
import { arranged, dataTable } from "../table.js";
import { filterBar, passes, settingTitle } from "./filters.js";

const LOGARITHMIC = 5; // times that the largest cost is the smallest one, from which the axis is logarithmic
const APART = 11; // pixels that points of like cost are drawn apart
const STANDINGS = { on: "on the front", open: "not on the front, and not shown to be off it", off: "shown to be off the front" };

export function costs(model, state) {
  return [model.fronts.length > 0 && front(model, state), costTable(model, state)];
}

function front(model, state) {
  const { fronts, measures } = model;
  const label = (entry) => [measures[entry.measure].title, settingTitle(model, entry.setting).toLowerCase(), entry.model].filter(Boolean).join(", ");
  const panel = fronts.find((_, i) => String(i) === state.get("panel")) ?? fronts[0];
  const kinds = model.costs.filter((kind) => panel.members.some(({ row }) => known(model.rows[row].costs[kind.key])));
  const kind = kinds.find(({ key }) => key === state.get("cost")) ?? kinds[0];
  const place = String(fronts.indexOf(panel));
  return h(
    "section",
    { "aria-labelledby": "front" },
    h("h2", { id: "front" }, `${measures[panel.measure].title} against ${lower(kind.label)}`),
    h(
      "div",
      { class: "controls" },
      select("Cost", kinds.map(({ key, label: text }) => [key, text]), kind.key, (value) => state.set({ cost: value })),
      fronts.length > 1 && select("Score", fronts.map((entry, i) => [String(i), label(entry)]), place, (value) => state.set({ panel: value })),
    ),
    scatter(model, panel, kind),
  );
}

const lower = (text) => text.charAt(0).toLowerCase() + text.slice(1);
const known = (entry) => entry !== null && entry !== undefined && entry.value !== null;

function scatter(model, panel, kind) {
  const measure = model.measures[panel.measure];
  const { scale } = measure;
  const ranks = panel.costs[kind.key];
  const names = model.names(panel.members.map(({ row }) => row));
  const members = panel.members.flatMap(({ row, mean, low, high }, i) => {
    const spent = model.rows[row].costs[kind.key];
    if (!known(spent)) return [];
    const standing = ranks?.standing[i] ?? null;
    const mark = model.mark(row);
    const text = [
      names.get(row),
      `${measure.title} ${score(scale, mean)}${scale.sign}${low === null ? "" : `, 95 % ${interval(scale, low, high, { sign: false })}`}`,
      `${kind.label}: ${costText(kind, spent.value)}${kind.counted || spent.low === null ? "" : ` (${number(spent.low)} to ${number(spent.high)})`}`,
      STANDINGS[standing],
    ];
    return [{ row, standing, filled: standing === "on" && !mark.open, name: names.get(row), colour: mark.colour, shape: mark.shape, x: spent.value, x1: spent.low, x2: spent.high, y: mean * scale.factor,
      y1: low === null ? null : low * scale.factor, y2: high === null ? null : high * scale.factor, text: text.filter(Boolean).join("\n") }]; // prettier-ignore
  });
  const positive = members.filter((member) => member.x > 0);
  const largest = Math.max(...positive.map((member) => member.x));
  const smallest = Math.min(...positive.map((member) => member.x));
  const type = positive.length > 1 && largest / smallest >= LOGARITHMIC ? "log" : "linear";
  const free = type === "log" ? members.filter((member) => member.x <= 0) : []; // drawn as a line of what is to be had for nothing
  const drawn = members.filter((member) => !free.includes(member));
  const steps = stepped(ranks?.line ?? [], scale).filter(([x]) => type === "linear" || x > 0);
  const domain = around(drawn.map((member) => member.x), type);
  const options = (width) => {
    const placed = spread(drawn, domain, type, width);
    const ending = steps.length ? [...steps, [domain[1], steps.at(-1)[1]]] : [];
    return {
      height: Math.max(280, Math.min(420, width * 0.55)),
      marginLeft: 46,
      marginRight: 16,
      marginBottom: 42,
      x: { type, domain, label: kind.label, labelArrow: "none", labelAnchor: "center", tickFormat: kind.counted ? short : number, ticks: Math.max(3, Math.floor(width / 130)) },
      y: { label: `${measure.title}${scale.heading}`, nice: true, grid: true, labelArrow: "none" },
      marks: [
        ...free.map((member) => ruleY([member], { y: "y", stroke: "var(--muted)", strokeDasharray: "4 3", title: "text" })),
        line(ending, { stroke: "var(--line-strong)", strokeWidth: 1.5 }),
        ruleX(placed, { x: "at", y1: "y1", y2: "y2", stroke: "colour", strokeOpacity: 0.55, strokeWidth: 1.5, filter: (member) => member.y1 !== null }),
        !kind.counted && ruleY(placed, { y: "y", x1: "x1", x2: "x2", stroke: "colour", strokeOpacity: 0.55, strokeWidth: 1.5, filter: (member) => member.x1 !== null && (type === "linear" || member.x1 > 0) }),
        ...placed.map((member) => dot([member], { x: "at", y: "y", symbol: member.shape, r: 5.2, stroke: "colour", strokeWidth: 1.6, fill: member.filled ? member.colour : "var(--page)" })),
        tip(placed, pointer({ x: "at", y: "y", title: "text", ...tipStyle })),
      ].filter(Boolean),
    };
  };
  const text = `${measure.title} against ${kind.label}. ${members.map((member) => member.text.replaceAll("\n", ", ")).join(". ")}.`;
  return figure({
    charts: chart(options, text),
    key: h("ul", { class: "key" }, members.map((member) => h("li", {}, glyph(model.mark(member.row), { open: !member.filled }), member.name))),
    note: noteOf(kind, free.length > 0, type),
    table: () => frontTable(members, measure, kind),
  });
}

function noteOf(kind, free, type) {
  return [
    "Filled: on the front, the best mean that is to be had for so much (the line). Hollow: not on it.",
    "Vertical bars are 95 % intervals.",
    !kind.counted && "Horizontal bars: the interval of what was measured.",
    free && "Dashed: what costs nothing.",
    type === "log" && "The axis of costs is logarithmic.",
    "Points of like cost are spread sideways.",
  ].filter(Boolean).join(" "); // prettier-ignore
}

/** The corners of the front as a step line. */
function stepped(corners, scale) {
  return corners.flatMap(([x, y], i) => (i ? [[x, corners[i - 1][1] * scale.factor], [x, y * scale.factor]] : [[x, y * scale.factor]]));
}

/** A range with room on both sides; of like costs at least a tenth of them. */
function around(values, type) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (type === "log") return [low / 1.35, high * 1.35];
  const room = Math.max((high - low) * 0.08, Math.abs(high) * 0.1) || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/** Where points are drawn (`at`, a cost) so that those of like cost stand side by side. */
function spread(members, [low, high], type, width) {
  const inner = width - 62;
  const scaled = type === "log" ? Math.log : (value) => value;
  const back = type === "log" ? Math.exp : (value) => value;
  const pixels = (value) => (inner * (scaled(value) - scaled(low))) / (scaled(high) - scaled(low));
  const value = (pixel) => back(scaled(low) + (pixel / inner) * (scaled(high) - scaled(low)));
  const ordered = members.map((member) => ({ member, pixel: pixels(member.x) })).sort((a, b) => a.pixel - b.pixel);
  const clusters = [];
  for (const entry of ordered) {
    const last = clusters.at(-1);
    if (last && entry.pixel - last.at(-1).pixel < APART) last.push(entry);
    else clusters.push([entry]);
  }
  return clusters.flatMap((cluster) => {
    const middle = cluster.reduce((sum, entry) => sum + entry.pixel, 0) / cluster.length;
    const step = Math.min(APART, (inner * 0.6) / cluster.length);
    return cluster.map(({ member, pixel }, i) => ({
      ...member,
      at: cluster.length > 1 ? value(middle + (i - (cluster.length - 1) / 2) * step) : value(pixel),
    }));
  });
}

function frontTable(members, measure, kind) {
  const columns = [
    { id: "row", title: "Row", text: (member) => member.name },
    { id: "score", title: measure.title, numeric: true, value: (member) => member.y / measure.scale.factor, text: (member) => score(measure.scale, member.y / measure.scale.factor) },
    { id: "cost", title: kind.label, numeric: true, value: (member) => member.x, text: (member) => costText(kind, member.x) },
    { id: "standing", title: "Standing", text: (member) => STANDINGS[member.standing] ?? MISSING },
  ]; // prettier-ignore
  return dataTable({ name: "front", caption: `${measure.title} against ${lower(kind.label)}`, columns, sections: [{ rows: members }] });
}

/** What each row took. */
function costTable(model, state) {
  const passing = passes(model, state);
  const all = model.rows.map((_, row) => row);
  const names = model.names(all);
  const plain = (key, title, about) => ({
    id: key, title, about, numeric: true,
    value: (row) => model.rows[row].trial_costs[key],
    text: (row) => number(model.rows[row].trial_costs[key]),
  }); // prettier-ignore
  const spent = (kind) => {
    const of = (row) => model.rows[row].costs[kind.key]?.value ?? null;
    return {
      id: kind.key, title: kind.label, numeric: true, value: of,
      text: (row) => (kind.counted ? count(of(row)) : number(of(row))),
    }; // prettier-ignore
  };
  const shownKinds = model.costs.filter((kind) => all.some((row) => known(model.rows[row].costs[kind.key])));
  const also = [
    plain("tokens_per_second", "Tokens a second", "of training"),
    plain("padding_percent", "Padding (%)", "of the tokens that were trained on"),
    plain("eval_seconds", "Scoring (s)", "of all test items"),
  ].filter(({ id }) => all.some((row) => model.rows[row].trial_costs[id] !== null));
  const columns = [
    { id: "row", title: "Method", value: (row) => names.get(row), text: (row) => names.get(row), cell: (row) => h("span", { class: "name" }, glyph(model.mark(row)), h("span", {}, names.get(row))) },
    ...shownKinds.map(spent),
    ...also,
  ]; // prettier-ignore
  return h(
    "section",
    { "aria-labelledby": "costs" },
    h("h2", { id: "costs" }, "What each row takes"),
    filterBar(model, state, { search: true }),
    dataTable({
      name: "costs",
      caption: "Counted parameters, and what was measured: means over the trials of a row",
      columns,
      sections: [{ rows: arranged(columns, all, state.get("costs"), [passing]) }],
      sort: state.get("costs"),
      onSort: (column, first) => state.sort("costs", column, first),
    }),
  );
}
