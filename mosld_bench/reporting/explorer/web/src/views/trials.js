// Every trial: what failed and why, what is missing, and of each record its configuration and how to repeat it.

import { copyButton } from "../copy.js";
import { button, h } from "../dom.js";
import { MISSING, bytes, count, counted, duration, score } from "../format.js";
import { glyph } from "../marks.js";
import { arranged, dataTable } from "../table.js";
import { filterBar, passes, settingTitle } from "./filters.js";

export function trials(model, state) {
  const { counts } = model.study;
  return [
    h("h2", {}, "Trials"),
    h("p", {}, `${count(counts.finished)} of ${counted(counts.planned, "planned trial")} finished${counts.failed ? `, ${count(counts.failed)} failed` : ""}${counts.missing ? `, ${count(counts.missing)} without a record` : ""}.`),
    failures(model),
    missing(model),
    detail(model, state),
    records(model, state),
  ];
}

const taskTitle = (model, task) => model.measures.find(({ key, kind }) => kind === "task" && key === task)?.title ?? task;
const where = (model, entry) => [settingTitle(model, entry.setting), entry.budget_label, `seed ${entry.seed}`].join(", ");

function failures(model) {
  if (!model.failures.length) return null;
  return h(
    "section",
    { "aria-labelledby": "failed" },
    h("h3", { id: "failed" }, "Failed"),
    model.failures.map((failure) =>
      h(
        "article",
        { class: "failure" },
        h("p", {}, h("strong", {}, failure.title), ` · ${where(model, failure)} · `, h("code", {}, failure.trial)),
        h("p", { class: "error" }, failure.error),
        failure.traceback && h("details", {}, h("summary", {}, "Traceback"), h("pre", { tabindex: "0" }, failure.traceback)),
        command(failure.repeat, `the command that runs ${failure.trial} again`),
      ),
    ),
  );
}

function missing(model) {
  const failed = new Set(model.failures.map(({ trial }) => trial));
  const rest = model.missing.filter(({ trial }) => !failed.has(trial));
  if (!rest.length) return null;
  const columns = [
    { id: "title", title: "Method", text: (entry) => entry.title },
    { id: "setting", title: "Setting", text: (entry) => settingTitle(model, entry.setting) },
    { id: "budget", title: "Budget", text: (entry) => entry.budget_label },
    { id: "seed", title: "Seed", numeric: true, text: (entry) => String(entry.seed) },
    { id: "repeat", title: "Command", class: "prose", text: (entry) => entry.repeat.join("; "), cell: (entry) => h("code", {}, entry.repeat.join("\n")) },
  ];
  return h("section", {}, h("h3", {}, "Planned, without a record"), dataTable({ name: "missing trials", caption: "Trials that have not been run", columns, sections: [{ rows: rest }] }));
}

function command(lines, what) {
  const text = lines.join("\n");
  return h("div", { class: "copied" }, h("pre", { tabindex: "0" }, text), copyButton(text, what));
}

// The records

function records(model, state) {
  const all = model.records.map((_, record) => record);
  const passing = passes(model, state);
  const of = (name) => (record) => model.records[record][name];
  const row = (record) => model.rows[model.records[record].row];
  const scoreOf = (measure) => (record) => row(record).scores[measure].by_seed.find(([seed]) => seed === model.records[record].seed)?.[1] ?? null;
  const whole = (record) => model.records[record].trained_on.length !== 1 || row(record).setting !== "single"; // a row's seed is this one trial
  const open = (record) =>
    h("a", { href: state.link({ trial: of("trial")(record) }), focus: `trial ${record}`, on: { click: (event) => (event.preventDefault(), show(state, of("trial")(record))) } }, row(record).title);
  const columns = [
    { id: "method", title: "Method", value: (record) => row(record).title, text: (record) => row(record).title, cell: (record) => h("span", { class: "name" }, glyph(model.mark(model.records[record].row)), open(record)) },
    { id: "setting", title: "Setting", value: (record) => row(record).setting, text: (record) => settingTitle(model, row(record).setting) },
    { id: "budget", title: "Budget", value: (record) => row(record).budget_label, text: (record) => row(record).budget_label },
    { id: "trained", title: "Trained on", value: (record) => trainedOn(model, record), text: (record) => trainedOn(model, record) },
    { id: "seed", title: "Seed", numeric: true, value: of("seed"), text: (record) => String(of("seed")(record)) },
    ...model.means.map((measure) => ({
      id: model.measures[measure].key, title: model.measures[measure].title, numeric: true, first: model.measures[measure].scale.higher_is_better ? "-" : "",
      value: (record) => (whole(record) ? scoreOf(measure)(record) : null),
      text: (record) => (whole(record) ? score(model.measures[measure].scale, scoreOf(measure)(record)) : MISSING),
    })),
    { id: "seconds", title: "Took", numeric: true, value: of("seconds"), text: (record) => duration(of("seconds")(record)), csv: [{ title: "seconds", value: of("seconds") }] },
    { id: "started", title: "Started", value: of("started"), text: (record) => day(of("started")(record)) },
    { id: "trial", title: "Trial", value: of("trial"), text: of("trial"), cell: (record) => h("code", {}, of("trial")(record)) },
  ]; // prettier-ignore
  const rows = arranged(columns, all, state.get("trials"), [(record) => passing(model.records[record].row)]);
  return h(
    "section",
    { "aria-labelledby": "records" },
    h("h3", { id: "records" }, "Records"),
    filterBar(model, state, { search: true }),
    dataTable({
      name: "records",
      caption: "A record for each finished trial; its method opens its configuration",
      columns,
      sections: [{ rows }],
      sort: state.get("trials"),
      onSort: (column, first) => state.sort("trials", column, first),
      rowProps: (record) => ({ class: of("trial")(record) === state.get("trial") ? "baseline" : null }),
    }),
  );
}

function trainedOn(model, record) {
  const { trained_on: tasks } = model.records[record];
  return tasks.length === 0 ? MISSING : tasks.length === 1 ? taskTitle(model, tasks[0]) : counted(tasks.length, "task");
}

const day = (started) => (started ? started.slice(0, 16).replace("T", " ") : MISSING);

function show(state, trial) {
  state.set({ trial });
  const detail = document.getElementById("record");
  detail?.scrollIntoView({ block: "start" });
  detail?.querySelector("h3")?.focus({ preventScroll: true });
}

// One record

function detail(model, state) {
  const record = model.records.findIndex(({ trial }) => trial === state.get("trial"));
  if (record === -1) return null;
  const entry = model.records[record];
  const row = model.rows[entry.row];
  const recipe = model.recipes[row.recipe];
  const facts = [
    ["Trial", h("code", {}, entry.trial)],
    ["Row", `${row.title}, ${settingTitle(model, row.setting).toLowerCase()}, ${row.budget_label}, seed ${entry.seed}`],
    ["Method", recipe.about],
    ["Paper", recipe.paper],
    ["Differs", recipe.deviations.length ? h("ul", { class: "plain" }, recipe.deviations.map((text) => h("li", {}, text))) : ""],
    ["Trained on", entry.trained_on.map((task) => taskTitle(model, task)).join(", ")],
    ["Size", entry.size && size(entry.size, row)],
    ["Started", `${day(entry.started)}, took ${duration(entry.seconds)}`],
    ["Memory", entry.peak_memory_bytes === null ? "" : `${bytes(entry.peak_memory_bytes)} at most`],
    ["Commit", entry.commit && h("span", {}, h("code", {}, entry.commit.slice(0, 12)), entry.dirty ? " with uncommitted changes" : "")],
    ["Taken from", entry.taken_from && `the study ${entry.taken_from}`],
    ["Note", entry.outdated && "The code of its method has changed since; repeating it may give other numbers."],
    ["Was run by", entry.command && h("code", {}, entry.command)],
  ];
  return h(
    "section",
    { class: "item", id: "record", "aria-labelledby": "record-title" },
    h(
      "div",
      { class: "item-head" },
      h("h3", { id: "record-title", tabindex: "-1" }, `${row.title}, seed ${entry.seed}`),
      button("Close", () => state.set({ trial: "" }), { class: "quiet", focus: "close record" }),
    ),
    h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    siblings(model, state, entry),
    h("h4", {}, "To repeat it"),
    command(entry.repeat, "the commands"),
    metrics(model, entry),
    whole("Configuration", entry.config, true),
    whole("Size as fitted", entry.size),
    whole("Training", entry.train),
    whole("Evaluation", entry.evaluation),
    whole("Versions, hardware and weights", entry.meta),
  );
}

/** Links to the other records of the row. */
function siblings(model, state, entry) {
  const { records: all } = model.rows[entry.row];
  if (all.length < 2) return null;
  const name = (other) => [`seed ${other.seed}`, other.trained_on.length === 1 && taskTitle(model, other.trained_on[0])].filter(Boolean).join(", ");
  const link = (other) =>
    h("a", { href: state.link({ trial: other.trial }), "aria-current": other === entry ? "true" : null, focus: `sibling ${other.trial}`, on: { click: (event) => (event.preventDefault(), state.set({ trial: other.trial })) } }, name(other));
  return h("p", { class: "siblings" }, h("span", { class: "muted" }, "Records of this row: "), all.flatMap((record, i) => [i ? " · " : null, link(model.records[record])]));
}

function size({ trainable, target }, row) {
  const fitted = row.fitted ? ` (${row.fitted})` : "";
  return `${count(trainable)} trainable parameters${target ? ` of ${count(target)}` : ""}${fitted}`;
}

function metrics(model, entry) {
  const columns = [
    { id: "task", title: "Task", text: (metric) => taskTitle(model, metric.task), value: (metric) => metric.task },
    { id: "metric", title: "Metric", text: (metric) => metric.metric },
    { id: "value", title: "Value", numeric: true, value: (metric) => metric.value, text: (metric) => (metric.value === null ? MISSING : metric.value.toFixed(3)) },
    { id: "stderr", title: "Standard error", numeric: true, value: (metric) => metric.stderr, text: (metric) => (metric.stderr === null ? MISSING : metric.stderr.toFixed(3)) },
    { id: "chance", title: "Chance", numeric: true, value: (metric) => metric.chance, text: (metric) => (metric.chance === null ? MISSING : metric.chance.toFixed(3)) },
    { id: "items", title: "Items", numeric: true, value: (metric) => metric.items, text: (metric) => count(metric.items) },
    { id: "primary", title: "Primary", text: (metric) => (metric.primary ? "yes" : "no") },
  ]; // prettier-ignore
  return h("details", {}, h("summary", {}, "Scores"), dataTable({ name: "scores of the record", caption: "As lm-eval counts them", columns, sections: [{ rows: entry.metrics }] }));
}

function whole(title, value, open = false) {
  if (!value || Object.keys(value).length === 0) return null;
  const text = outline(value);
  return h("details", { open }, h("summary", {}, title), h("div", { class: "copied" }, h("pre", { tabindex: "0" }, text), copyButton(JSON.stringify(value, null, 2), `${title.toLowerCase()} as JSON`)));
}

/** JSON with short lists and objects on one line. */
function outline(value, indent = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const inner = `${indent}  `;
  const part = (key, entry, within) => (list ? outline(entry, within) : `${JSON.stringify(key)}: ${outline(entry, within)}`);
  const flat = Object.entries(value).map(([key, entry]) => part(key, entry, inner)).join(", ");
  const [open, close] = list ? ["[", "]"] : ["{", "}"];
  if (flat.length + indent.length < 88 && !flat.includes("\n")) return open + flat + close;
  return `${open}\n${Object.entries(value).map(([key, entry]) => inner + part(key, entry, inner)).join(",\n")}\n${indent}${close}`;
}
