// The leaderboard: rows by block with their means, spread over seeds, intervals and what tests say of them.

import { h, hidden, svg, tick } from "../dom.js";
import { MISSING, count, counted, interval, meanSd, score, sentence } from "../format.js";
import { glyph } from "../marks.js";
import { arranged, dataTable } from "../table.js";
import { passes } from "./filters.js";

export const SIGNS = { better: "↑", worse: "↓", equal: "≈" };
const TIED = "†";

export function leaderboard(model, state) {
  const chosen = model.chosen(state);
  const all = model.rows.map((_, row) => row);
  const shown = all.filter(passes(model, state));
  const measures = model.study.trains ? model.shownMeasures(state.get("measure")) : [];
  const apart = state.get("apart") === "no" || !model.severalBlocks;
  const columns = [...headColumns(model, state, chosen, apart), ...measures.flatMap((measure) => scoreColumns(model, measure, shown, chosen, measures.length))];
  const rows = arranged(columns, all, state.get("sort"), [passes(model, state)]);
  const sections = apart && state.get("sort") ? [{ rows }] : byBlock(model, rows);
  const { study } = model;
  return dataTable({
    name: "leaderboard",
    caption: caption(study),
    columns,
    sections,
    sort: state.get("sort"),
    onSort: (column, first) => state.sort("sort", column, first),
    rowProps: (row) => ({ class: row === chosen ? "baseline" : null }),
    notes: [
      model.severalBlocks && tick("Keep blocks together when sorting", !apart, (kept) => state.set({ apart: kept ? "" : "no" })),
      legend(model, shown, measures, chosen),
      chanceNote(model, measures),
      study.notes.filter((text) => !/^(†|Beside)/.test(text)).map((text) => h("p", { class: "note" }, text)), // the legend
    ],
  });
}

function caption(study) {
  if (!study.trains) return "Parameters, counted";
  return `${sentence(study.measure)}: mean over seeds ± standard deviation, with the 95 % interval of the mean`;
}

/** Rows under the headings of their blocks, untrained models first; blocks in the order of their first row. */
function byBlock(model, rows) {
  const sections = new Map();
  for (const row of rows) {
    const { block } = model.rows[row];
    if (!sections.has(block)) sections.set(block, { heading: block === null ? "Untrained" : model.blocks[block].label, rows: [] });
    sections.get(block).rows.push(row);
  }
  return [...sections.entries()].sort(([a], [b]) => (a ?? -1) - (b ?? -1)).map(([, section]) => section);
}

function headColumns(model, state, chosen, apart) {
  const of = (name) => (row) => model.rows[row][name];
  const columns = [
    { id: "method", title: "Method", value: of("title"), text: of("title"), heading: true, cell: (row) => h("span", { class: "name" }, glyph(model.mark(row)), named(model, state, row)) },
    model.study.trains && { id: "seeds", title: "n", about: "Seeds", value: of("n"), text: (row) => count(model.rows[row].n), numeric: true, first: "-" },
    { id: "trainable", title: "Trainable", about: "Trainable parameters", value: of("trainable"), text: (row) => count(model.rows[row].trainable), numeric: true },
  ].filter(Boolean); // prettier-ignore
  const place = (row) => (model.rows[row].block === null ? "untrained" : model.blocks[model.rows[row].block].short);
  if (apart && model.severalBlocks && state.get("sort")) columns.splice(1, 0, { id: "block", title: "Block", value: place, text: place });
  if (model.baselines.length) columns.unshift(baselineColumn(model, state, chosen));
  return columns;
}

/** The title of a row, which leads to its first record where there is one. */
function named(model, state, row) {
  const [record] = model.rows[row].records;
  if (record === undefined) return h("span", {}, model.title(row));
  const patch = { view: "trials", trial: model.records[record].trial };
  const go = (event) => (event.preventDefault(), state.set(patch, { step: true }), scrollTo({ top: 0 }));
  return h("a", { href: state.link(patch), title: "Its configuration and the command that repeats it", focus: `row ${row}`, on: { click: go } }, model.title(row));
}

/** A button a row that makes it what others are compared with. */
function baselineColumn(model, state, chosen) {
  const radio = (row) => {
    const box = h("input", {
      type: "radio",
      name: "baseline",
      checked: row === chosen,
      "aria-label": `Baseline: ${model.label(row)}`,
      title: "Compare with this row",
      focus: `baseline ${row}`,
      on: { change: () => state.set({ baseline: model.rows[row].id }) },
    });
    return model.baselines.includes(row) ? box : hidden("not compared");
  };
  return { id: "baseline", title: "Baseline", head: hidden("Baseline"), copied: false, class: "radio", cell: radio, text: () => "" };
}

function scoreColumns(model, measure, shown, chosen, n) {
  const entry = model.measures[measure];
  const { scale } = entry;
  const of = (row) => model.rows[row].scores[measure];
  const bars = entry.kind === "mean" || n === 1;
  const marked = bars || n < model.measures.length; // as in the report, tasks beside means have no marks
  const sign = (row) => (marked ? marks(model, row, measure, chosen) : { text: "", words: "" });
  const first = scale.higher_is_better ? "-" : "";
  const domain = entry.domain === "in_domain" ? "In-domain" : "Out-of-domain";
  const group = entry.kind === "mean" ? domain : `${domain} tasks`;
  const title = entry.kind === "mean" ? "Mean" : entry.title;
  const numbers = {
    id: entry.key, title, group, first, numeric: true,
    about: [entry.metric, entry.items && `${count(entry.items)} items`].filter(Boolean).join(", "),
    value: (row) => of(row).mean,
    text: (row) => meanSd(scale, of(row).mean, of(row).sd) + sign(row).text,
    cell: (row) => (of(row).mean === null ? MISSING : marked ? number(scale, of(row), sign(row), bars) : score(scale, of(row).mean)),
    csv: [
      { title: entry.key, value: (row) => of(row).mean },
      { title: `${entry.key}_sd`, value: (row) => of(row).sd },
      { title: `${entry.key}_low`, value: (row) => of(row).low },
      { title: `${entry.key}_high`, value: (row) => of(row).high },
    ],
  }; // prettier-ignore
  if (!bars) return [numbers];
  const trained = shown.filter((row) => !model.rows[row].frozen); // the untrained model may be far away
  const ends = (trained.length ? trained : shown).flatMap((row) => [of(row).low, of(row).high, of(row).mean]).filter((value) => value !== null);
  const axis = [Math.min(...ends), Math.max(...ends)];
  const drawing = {
    id: `${entry.key} interval`, title: "95 % interval", group, copied: false, class: "bars",
    cell: (row) => bar(scale, of(row), axis, model.mark(row)), text: () => "",
  }; // prettier-ignore
  return [numbers, drawing];
}

function number(scale, { mean, sd }, sign, spread) {
  return h(
    "span",
    { class: "score" },
    score(scale, mean),
    spread && h("small", { class: "sd" }, sd === null ? "" : `± ${score(scale, sd, { like: mean })}`),
    h("span", { class: "sign" }, h("span", { "aria-hidden": "true", title: sign.words }, sign.text), hidden(sign.words && `, ${sign.words}`)),
  );
}

/** An interval on the axis of its column, with the mean. */
function bar(scale, { mean, low, high }, [least, most], mark) {
  if (mean === null) return MISSING;
  const x = (value) => (most > least ? Math.min(98, Math.max(2, 5 + (90 * (value - least)) / (most - least))) : 50);
  const beyond = mean < least || mean > most;
  const text = low === null ? "no interval" : `95 % ${interval(scale, low, high, { sign: false })}`;
  return [
    svg(
      "svg",
      { class: "interval", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
      svg("title", {}, text),
      svg("line", { x1: 0, x2: 100, y1: 7, y2: 7, class: "track" }),
      low !== null && svg("line", { x1: x(low), x2: x(high), y1: 7, y2: 7, stroke: mark.colour, class: "range" }),
      beyond
        ? svg("path", { d: mean < least ? "M7,3L2,7L7,11" : "M93,3L98,7L93,11", stroke: mark.colour, class: "beyond" })
        : svg("line", { x1: x(mean), x2: x(mean), y1: 2, y2: 12, stroke: mark.colour, class: "middle" }),
    ),
    hidden(text),
  ];
}

/** What tests say of a row: † tied with the best of its block, and its verdict beside the baseline. */
function marks(model, row, measure, chosen) {
  const { tied } = model.rows[row].scores[measure];
  const baseline = model.baselineOf(row, chosen);
  const compared = baseline === null ? null : model.comparison(row, baseline, measure);
  const sign = compared ? (SIGNS[compared.verdict.key] ?? "") : "";
  const words = [tied && "not told apart from the best", sign && `${compared.verdict.text} beside ${model.title(baseline)}`];
  return { text: (tied ? TIED : "") + sign, words: words.filter(Boolean).join("; ") };
}

/** The marks that occur, in words. */
function legend(model, shown, measures, chosen) {
  const present = new Set(shown.flatMap((row) => measures.flatMap((measure) => [...marks(model, row, measure, chosen).text])));
  const { study } = model;
  const other = chosen === null ? study.reference_title : model.label(chosen);
  const words = { "↑": "better", "↓": "worse", "≈": `equal within ${study.margin_label}` };
  const told = Object.entries(words).filter(([mark]) => present.has(mark)).map(([mark, text]) => `${mark} ${text}`);
  const parts = [
    present.has(TIED) && "† not told apart from the best row of its block.",
    told.length > 0 && `Beside ${other}: ${told.join(", ")}; without a mark neither told apart nor shown equal.`,
  ];
  const text = parts.filter(Boolean).join(" ");
  return text ? h("p", { class: "note", id: "legend" }, text) : null;
}

function chanceNote(model, measures) {
  const told = measures
    .filter((measure) => model.measures[measure].chance !== null && model.measures[measure].kind === "mean")
    .map((measure) => `${score(model.measures[measure].scale, model.measures[measure].chance)} ${model.measures[measure].title.toLowerCase()}`);
  const missing = model.study.counts.missing;
  const texts = [told.length && `A guess scores ${told.join(", ")}.`, missing && `${counted(missing, "planned trial")} without a record.`];
  const text = texts.filter(Boolean).join(" ");
  return text ? h("p", { class: "note" }, text) : null;
}
