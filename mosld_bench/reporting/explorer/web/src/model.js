// The data of the page with what is looked up often. It computes no statistic: differences, intervals and verdicts are
// those that the report was made of.

import { makeMarks } from "./marks.js";

export class Model {
  constructor(data) {
    Object.assign(this, data);
    this.marks = makeMarks(data.recipes);
    const { row, other, measure } = data.comparisons;
    this.places = new Map(row.map((_, i) => [`${row[i]} ${other[i]} ${measure[i]}`, i]));
    this.baselines = [...new Set(other)].sort((a, b) => a - b);
    this.byId = new Map(data.rows.map((entry, i) => [entry.id, i]));
    this.severalBlocks = data.blocks.length > 1;
    this.means = data.measures.flatMap((entry, i) => (entry.kind === "mean" ? [i] : []));
    this.labels = data.rows.map((entry) => labelled(entry, data));
  }

  /** Row `row` minus row `other` on a measure; null where it was not compared. */
  comparison(row, other, measure) {
    const i = this.places.get(`${row} ${other} ${measure}`);
    if (i === undefined) return null;
    const columns = this.comparisons;
    const at = (name) => columns[name][i];
    return {
      row, other, measure,
      ...Object.fromEntries(["difference", "low", "high", "p", "p_holm", "p_equal", "within", "seeds", "of_items"].map((name) => [name, at(name)])),
      verdict: columns.verdicts[at("verdict")],
      basis: at("basis") === null ? null : columns.bases[at("basis")],
      family: columns.families[at("family")],
    }; // prettier-ignore
  }

  /** The row that `row` is compared with: the chosen one, or the study's reference in its block; null without one. */
  baselineOf(row, chosen) {
    if (chosen !== null) return chosen;
    const { block } = this.rows[row];
    return block === null ? null : this.blocks[block].reference;
  }

  /** The chosen baseline of the address as a row index, or null for the references. */
  chosen(state) {
    const row = this.byId.get(state.get("baseline"));
    return row !== undefined && this.baselines.includes(row) ? row : null;
  }

  mark(row) {
    return this.marks[this.rows[row].recipe];
  }

  title(row) {
    return this.rows[row].title;
  }

  /** The title, and where other rows have it too, what tells this one from them. */
  label(row) {
    return this.labels[row];
  }

  /** Row -> what it is called among `rows`: its title alone where no other of them has it. */
  names(rows) {
    const titles = rows.map((row) => this.title(row));
    const names = rows.map((row, i) => [row, titles.filter((title) => title === titles[i]).length > 1 ? this.label(row) : titles[i]]);
    return new Map(names);
  }

  /** The measures that the filter `measure` of the address lets through. */
  shownMeasures(chosen) {
    const all = this.measures.map((_, i) => i);
    if (chosen === "") return all;
    if (chosen === "means") return this.means;
    const places = all.filter((i) => this.measures[i].key === chosen || `domain:${this.measures[i].domain}` === chosen);
    return places.length ? places : all;
  }
}

/** A row's title, with its setting, budget or model where rows of the same title differ in it. */
function labelled(entry, { rows, blocks, study }) {
  const alike = rows.filter(({ title }) => title === entry.title);
  if (alike.length === 1 || entry.block === null) return entry.title;
  const words = {
    setting: study.settings.find(({ key }) => key === entry.setting)?.title ?? entry.setting,
    budget: entry.budget_label,
    model: entry.model,
  };
  const unlike = Object.keys(words).filter((key) => alike.some((other) => other[key] !== entry[key]));
  const same = alike.filter((other) => unlike.every((key) => other[key] === entry[key]));
  return `${entry.title} (${same.length === 1 ? unlike.map((key) => words[key]).join(", ") : blocks[entry.block].short})`;
}
