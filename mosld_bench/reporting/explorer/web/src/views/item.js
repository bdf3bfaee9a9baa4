// One item: its prompt, its options with what two rows make of them, and every row's answers.

import { button, h } from "../dom.js";
import { MISSING, count, score } from "../format.js";
import { glyph } from "../marks.js";
import { dataTable } from "../table.js";

/** `a` and `b`: places in `data.rows`; `place`: of `n` on the map; `choose(place)` and `close()`: what buttons do. */
export function itemPanel(context) {
  const { data, item, place, n, choose, close } = context;
  const id = data.item[item] || String(data.doc[item]);
  const group = data.group?.[item] ?? null;
  return h(
    "section",
    { class: "item", id: "item", "aria-labelledby": "item-title" },
    h(
      "div",
      { class: "item-head" },
      h("h3", { id: "item-title" }, "Item ", h("code", {}, id), group ? h("span", { class: "muted" }, ` · group ${group}`) : null, h("span", { class: "muted" }, ` · ${count(place + 1)} of ${count(n)}`)),
      h(
        "div",
        { class: "tools" },
        button("Previous", () => choose(place - 1), { disabled: place === 0, focus: "previous item" }),
        button("Next", () => choose(place + 1), { disabled: place === n - 1, focus: "next item" }),
        button("Close", close, { class: "quiet", focus: "close item" }),
      ),
    ),
    h("p", {}, verdict(context)),
    prompt(data, item),
    data.logliks === null ? generated(context) : options(context),
    everyRow(context),
  );
}

/** Whether the two rows differ on the item, in words. */
function verdict({ model, data, item, a, b, names }) {
  const { scale } = model.measures[data.measure];
  const of = (i) => `${names.get(data.rows[i])} ${score(scale, data.score[i][item])}${scale.sign}`;
  if (a === b) return of(a);
  const [x, y] = [data.score[a][item], data.score[b][item]];
  const differ = x === null || y === null ? "One of the two has no score" : x === y ? "The two score alike" : "The two differ";
  return `${differ}: ${of(a)}, ${of(b)}. Mean of the trained rows: ${score(scale, data.mean[item])}${data.mean[item] === null ? "" : scale.sign}.`;
}

function prompt(data, item) {
  const text = data.prompt?.[item] ?? null;
  if (text === null) return h("p", { class: "note" }, "The text of this item is not noted: newer runs keep the prompts and options beside their records.");
  return h("div", { class: "prompt", tabindex: "0", role: "region", "aria-label": "Prompt" }, text);
}

/** Indices of the right options, as texts. */
function targets(data, item) {
  const text = data.target[item];
  return /^\[.*\]$/.test(text) ? (text.match(/\d+/g) ?? []) : [text];
}

function options(context) {
  const { model, data, item, a, b, names } = context;
  const right = targets(data, item);
  const n = Math.max(data.logliks[a][item]?.length ?? 0, data.logliks[b][item]?.length ?? 0, data.options?.[item]?.length ?? 0);
  const text = (option) => data.options?.[item]?.[option]?.trim() || `Option ${option + 1}`;
  const picks = (i, option) => (data.predictions?.[i][item] ?? []).filter((picked) => picked === String(option)).length;
  const runs = (i) => data.runs[i].length;
  const most = (i) => Math.max(...(data.logliks[i][item] ?? []).filter((value) => value !== null));
  const columnsOf = (i, which) => [
    {
      id: `${which} loglik`, title: "Log-likelihood", group: `${which}: ${names.get(data.rows[i])}`, about: "nats, mean over seeds", numeric: true,
      value: (option) => data.logliks[i][item]?.[option] ?? null,
      text: (option) => nats(data.logliks[i][item]?.[option]),
      cell: (option) => (data.logliks[i][item]?.[option] === most(i) ? h("strong", {}, nats(data.logliks[i][item][option])) : nats(data.logliks[i][item]?.[option])),
    },
    {
      id: `${which} picks`, title: "Picked", group: `${which}: ${names.get(data.rows[i])}`, about: "by how many seeds", numeric: true,
      value: (option) => (data.predictions === null ? null : picks(i, option)),
      text: (option) => (data.predictions === null ? MISSING : picks(i, option) ? `${picks(i, option)} of ${runs(i)}` : MISSING),
    },
  ]; // prettier-ignore
  const columns = [
    { id: "option", title: "Option", class: "option", text, cell: (option) => [text(option), right.includes(String(option)) ? [" ", h("span", { class: "badge right" }, "right")] : null] },
    ...(data.lengths ? [{ id: "length", title: "Characters", numeric: true, text: (option) => count(data.lengths[item]?.[option] ?? null) }] : []),
    ...columnsOf(a, "First"),
    ...(a === b ? [] : columnsOf(b, "Second")),
  ]; // prettier-ignore
  return dataTable({
    name: "options",
    caption: "Options, with log-likelihoods in nats (mean over seeds; the highest is bold) and how many seeds pick them",
    columns,
    sections: [{ rows: Array.from({ length: n }, (_, option) => option) }],
    rowProps: (option) => ({ class: right.includes(String(option)) ? "correct" : null }),
  });
}

const nats = (value) => (value === null || value === undefined ? MISSING : value.toFixed(2).replace("-", "−"));

function generated({ data, item, a, b, names }) {
  const answers = (i) => [h("h4", {}, names.get(data.rows[i])), ...(data.predictions?.[i][item] ?? [MISSING]).map((answer) => h("p", { class: "answer" }, answer))];
  return h(
    "div",
    {},
    h("h4", {}, "Right answer"),
    h("p", { class: "answer" }, data.target[item]),
    h("div", { class: "panels large" }, h("div", {}, answers(a)), a === b ? null : h("div", {}, answers(b))),
  );
}

function everyRow({ model, data, item, names }) {
  const { scale } = model.measures[data.measure];
  const answer = (picked) => (data.logliks === null ? picked : /^\d+$/.test(picked) ? (data.options?.[item]?.[Number(picked)]?.trim() || `option ${Number(picked) + 1}`) : picked);
  const columns = [
    { id: "row", title: "Row", text: (i) => names.get(data.rows[i]), cell: (i) => h("span", { class: "name" }, glyph(model.mark(data.rows[i])), h("span", {}, names.get(data.rows[i]))) },
    { id: "score", title: "Score", numeric: true, value: (i) => data.score[i][item], text: (i) => score(scale, data.score[i][item]) },
    ...(data.probability ? [{ id: "probability", title: "Probability of the right option", numeric: true, value: (i) => data.probability[i][item], text: (i) => (data.probability[i][item] === null ? MISSING : data.probability[i][item].toFixed(3)) }] : []),
    ...(data.predictions ? [{ id: "answers", title: "Answers, seed by seed", class: "prose", text: (i) => (data.predictions[i][item] ?? []).map(answer).join("; ") || MISSING }] : []),
  ]; // prettier-ignore
  const table = () => dataTable({ name: "answers of every row", caption: `Item ${data.item[item] || data.doc[item]}`, columns, sections: [{ rows: data.rows.map((_, i) => i) }] });
  return h("details", { class: "numbers" }, h("summary", { focus: "every row" }, "Every row on this item"), table());
}
