// Every row minus a baseline, with its interval over the margin within which rows are equal.

import { axisY, dot, pointerY, rect, ruleX, ruleY, tip } from "@observablehq/plot";
import { chart, figure, labelRoom, tipStyle } from "../chart.js";
import { h } from "../dom.js";
import { MISSING, interval, pValue, score } from "../format.js";
import { arranged, dataTable } from "../table.js";
import { passes } from "./filters.js";

export function forest(model, state) {
  const chosen = model.chosen(state);
  const measures = model.shownMeasures(state.get("measure"));
  const shown = model.rows.map((_, row) => row).filter(passes(model, state));
  const found = measures.flatMap((measure) => shown.map((row) => compared(model, row, chosen, measure)).filter(Boolean));
  const section = (...children) =>
    h("section", { class: "forest", "aria-labelledby": "differences" }, h("h2", { id: "differences" }, title(model, chosen)), children);
  if (!found.length) return section(h("p", { class: "muted" }, "None of these rows is compared with it. A baseline is compared with the rows of its block, the untrained model, and its own recipe in the other setting."));
  const groups = grouped(model, found, chosen);
  return section(
    h("p", { class: "note" }, explained(model, found)),
    groups.map((group, i) => panels(model, measures, group, i === 0)),
    figure({ table: () => numbersTable(model, found) }),
  );
}

function title(model, chosen) {
  const reference = model.severalBlocks ? `${model.study.reference_title}, block by block` : model.study.reference_title;
  return `Differences to ${chosen === null ? reference : model.label(chosen)}`;
}

function compared(model, row, chosen, measure) {
  const baseline = model.baselineOf(row, chosen);
  return baseline === null || baseline === row ? null : model.comparison(row, baseline, measure);
}

/** One group a block where each has its own reference; all together for one chosen baseline. */
function grouped(model, found, chosen) {
  if (chosen !== null) return [{ heading: null, entries: found }];
  const blocks = [...new Set(found.map((entry) => model.rows[entry.row].block))];
  return blocks.map((block) => ({
    heading: blocks.length > 1 ? model.blocks[block].label : null,
    entries: found.filter((entry) => model.rows[entry.row].block === block),
  }));
}

function panels(model, measures, { heading, entries }, first) {
  const large = measures.filter((measure) => model.measures[measure].kind === "mean" || measures.length === 1);
  const small = measures.filter((measure) => !large.includes(measure));
  const grid = (members, kind) => {
    const present = members.filter((measure) => entries.some((entry) => entry.measure === measure));
    return present.length
      ? h("div", { class: `panels ${kind}` }, present.map((measure) => panel(model, measure, entries.filter((entry) => entry.measure === measure)))) : null;
  };
  return h("div", { class: "forest-group" }, heading && h("h3", {}, heading), grid(large, "large"), large.length ? byTask(grid(small, "small"), first) : grid(small, "small"));
}

/** Open, of the first block, where there is room. */
function byTask(panels, first) {
  return panels && h("details", { open: first && matchMedia("(min-width: 700px)").matches }, h("summary", { focus: "by task" }, "By task"), panels);
}

function panel(model, measure, entries) {
  const { title: name, scale, margin } = model.measures[measure];
  const factor = scale.factor;
  const drawn = entries.map((entry, i) => ({
    ...entry, place: i, colour: model.mark(entry.row).colour, shape: model.mark(entry.row).shape,
    x: entry.difference * factor, x1: (entry.low ?? entry.difference) * factor, x2: (entry.high ?? entry.difference) * factor,
    apart: ["better", "worse"].includes(entry.verdict.key), text: words(model, entry),
  })); // prettier-ignore
  const names = model.names([...new Set(drawn.flatMap((entry) => [entry.row, entry.other]))]);
  const labels = drawn.map((entry) => names.get(entry.row));
  const others = [...new Set(drawn.map((entry) => names.get(entry.other)))];
  const unit = scale.points.trim();
  const below = `minus ${others.join(", ")}${unit ? ` (${unit})` : ""}; ${scale.higher_is_better ? "right" : "left"} is better`;
  const alternative = `${name}, ${below}. ${drawn.map((entry) => entry.text.replaceAll("\n", ", ")).join(". ")}.`;
  const options = (width) => {
    const { marginLeft, lineWidth } = labelRoom(labels, width);
    const marks = [
      margin !== null && rect([0], { x1: -margin * factor, x2: margin * factor, y1: -0.5, y2: drawn.length - 0.5, fill: "var(--band)" }),
      ruleX([0], { stroke: "var(--line-strong)" }),
      axisY({ tickSize: 0, tickFormat: (i) => labels[i], ticks: drawn.map((_, i) => i), lineWidth, textOverflow: "ellipsis", label: null }),
      ruleY(drawn, { y: "place", x1: "x1", x2: "x2", stroke: "colour", strokeWidth: 1.8, filter: (entry) => entry.basis?.key !== "models" }),
      ruleY(drawn, { y: "place", x1: "x1", x2: "x2", stroke: "colour", strokeWidth: 1.8, strokeDasharray: "1.5 3", filter: (entry) => entry.basis?.key === "models" }),
      drawn.map((entry) => dot([entry], { x: "x", y: "place", symbol: entry.shape, r: 4.2, stroke: "colour", strokeWidth: 1.6, fill: entry.apart ? entry.colour : "var(--page)" })),
      tip(drawn, pointerY({ x: "x", y: "place", title: "text", ...tipStyle })),
    ].filter(Boolean);
    return {
      height: 24 * drawn.length + 46,
      marginLeft,
      marginBottom: 40,
      x: { label: below, labelAnchor: "center", labelArrow: "none", nice: true, grid: true, tickFormat: (value) => String(value).replace("-", "−"), ticks: Math.max(3, Math.floor(width / 90)) },
      y: { domain: [drawn.length - 0.5, -0.5], axis: null },
      marks,
    };
  };
  return h("div", { class: "panel" }, h("p", { class: "title" }, name), chart(options, alternative));
}

/** What is to be known of a difference, in lines. */
function words(model, entry) {
  const { scale } = model.measures[entry.measure];
  return [
    `${model.label(entry.row)} − ${model.label(entry.other)}`,
    `${score(scale, entry.difference, { sign: true })}${scale.points}, 95 % ${interval(scale, entry.low, entry.high)}`,
    entry.verdict.text,
    entry.p_holm === null ? null : `p ${pValue(entry.p_holm)} corrected, ${pValue(entry.p)} alone`,
    `${entry.seeds} ${entry.seeds === 1 ? "seed" : "seeds"}${entry.basis ? `; ${entry.basis.text}` : ""}`,
  ].filter(Boolean).join("\n"); // prettier-ignore
}

function explained(model, found) {
  const families = [...new Set(found.map((entry) => entry.family.text))];
  const margin = found.some((entry) => model.measures[entry.measure].margin !== null);
  const dotted = found.some((entry) => entry.basis?.key === "models");
  return [
    "Lines are 95 % intervals.",
    "Filled: told apart after correction; hollow: not.",
    margin && `The band is the margin of ±${model.study.margin_label}.`,
    dotted && "Dotted: over items alone, of these trained models.",
    families.length && `How p is corrected: ${families.join("; ")}.`,
  ].filter(Boolean).join(" "); // prettier-ignore
}

function numbersTable(model, found) {
  const scaleOf = (entry) => model.measures[entry.measure].scale;
  const columns = [
    { id: "row", title: "Row", text: (entry) => model.label(entry.row) },
    { id: "other", title: "Minus", text: (entry) => model.label(entry.other) },
    { id: "measure", title: "Score", text: (entry) => model.measures[entry.measure].title },
    { id: "difference", title: "Difference", numeric: true, value: (entry) => entry.difference, text: (entry) => score(scaleOf(entry), entry.difference, { sign: true }) },
    { id: "interval", title: "95 % interval", numeric: true, text: (entry) => interval(scaleOf(entry), entry.low, entry.high), csv: [{ title: "low", value: (entry) => entry.low }, { title: "high", value: (entry) => entry.high }] },
    { id: "p_holm", title: "p (corrected)", numeric: true, value: (entry) => entry.p_holm, text: (entry) => pValue(entry.p_holm) },
    { id: "p", title: "p (alone)", numeric: true, value: (entry) => entry.p, text: (entry) => pValue(entry.p) },
    { id: "p_equal", title: "p (equal)", numeric: true, value: (entry) => entry.p_equal, text: (entry) => pValue(entry.p_equal) },
    { id: "verdict", title: "Verdict", text: (entry) => entry.verdict.text },
    { id: "seeds", title: "n", numeric: true, value: (entry) => entry.seeds, text: (entry) => String(entry.seeds) },
    { id: "basis", title: "Interval rests on", text: (entry) => entry.basis?.text ?? MISSING },
  ]; // prettier-ignore
  return dataTable({ name: "differences", caption: "Differences, row minus baseline, in points where scores are in per cent", columns, sections: [{ rows: arranged(columns, found, "") }] });
}
