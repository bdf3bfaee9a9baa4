// What was scored and not trained under the study: in a table of its own, that no test of the page takes in.

import { h } from "../dom.js";
import { MISSING, count, interval, score } from "../format.js";
import { arranged, dataTable } from "../table.js";

export function scored(model, state) {
  if (!model.scored) return null;
  const { rows, text } = model.scored;
  const measures = model.shownMeasures(state.get("measure"));
  const columns = [...headColumns(), ...measures.map((measure) => scoreColumn(model, measure))];
  const shown = rows.filter((row) => measures.some((measure) => row.scores[measure].mean !== null));
  const differing = rows.filter((row) => row.differences.length);
  return h(
    "section",
    { "aria-labelledby": "scored" },
    h("h2", { id: "scored" }, "Scored, not trained here"),
    h("p", { class: "note" }, text),
    shown.length > 0 &&
      dataTable({
        name: "scored elsewhere",
        caption: "Scored on the items of this study and not trained under it; of means the 95 % interval over items",
        columns,
        sections: [{ rows: arranged(columns, shown, state.get("scored")) }],
        sort: state.get("scored"),
        onSort: (column, first) => state.sort("scored", column, first),
      }),
    differing.map((row) => h("p", { class: "note" }, `${row.title}: ${row.differences.join("; ")}.`)),
    rows.some((row) => row.command) &&
      h(
        "details",
        {},
        h("summary", {}, "The commands that scored them"),
        rows.filter((row) => row.command).map((row) => h("pre", { tabindex: "0" }, row.command)),
      ),
  );
}

function headColumns() {
  const plain = (id, title) => ({ id, title, value: (row) => row[id], text: (row) => row[id] ?? MISSING });
  return [
    { ...plain("title", "Scored"), heading: true },
    plain("model", "Base model"),
    plain("peft_type", "PEFT type"),
    { id: "trainable", title: "Trainable", about: "Trainable parameters", value: (row) => row.trainable, text: (row) => count(row.trainable), numeric: true },
  ];
}

function scoreColumn(model, measure) {
  const { key, kind, title, domain, scale } = model.measures[measure];
  const of = (row) => row.scores[measure];
  const name = domain === "in_domain" ? "In-domain" : "Out-of-domain";
  const bounds = (row) => (of(row).low === null ? "" : interval(scale, of(row).low, of(row).high, { sign: false }));
  return {
    id: key,
    title: kind === "mean" ? "Mean" : title,
    group: kind === "mean" ? name : `${name} tasks`,
    numeric: true,
    first: scale.higher_is_better ? "-" : "",
    value: (row) => of(row).mean,
    text: (row) => [score(scale, of(row).mean), bounds(row) && `(${bounds(row)})`].filter(Boolean).join(" "),
    csv: [
      { title: key, value: (row) => of(row).mean },
      ...(kind === "mean" ? ["low", "high"].map((end) => ({ title: `${key}_${end}`, value: (row) => of(row)[end] })) : []),
    ],
  };
}
