// The first view: the answers of the report, the leaderboard, and every row against a baseline.

import { h, select } from "../dom.js";
import { leaderboard } from "./leaderboard.js";
import { filterBar } from "./filters.js";
import { forest } from "./forest.js";
import { scored as scoredElsewhere } from "./scored.js";

export function results(model, state) {
  const { study } = model;
  const scored = study.trains && model.measures.length > 0;
  return [
    answers(study),
    h("h2", {}, study.trains ? "Leaderboard" : "Parameters"),
    filterBar(model, state, { measures: scored, search: true, children: scored ? [baselineChoice(model, state)] : [] }),
    leaderboard(model, state),
    scored ? forest(model, state) : null,
    scored ? scoredElsewhere(model, state) : null,
  ];
}

function answers(study) {
  const told = study.answers.map(({ question, text }) =>
    h("li", {}, question && h("strong", {}, `${question.replace(/[.:]$/, "")}. `), text),
  );
  return h(
    "section",
    { class: "answers", "aria-labelledby": "answers" },
    h("h2", { id: "answers" }, "What was found"),
    h("ul", {}, told),
    study.summary.map((text) => h("p", {}, text)),
  );
}

function baselineChoice(model, state) {
  const options = model.baselines.map((row) => [model.rows[row].id, model.label(row)]);
  const references = model.blocks.some((block) => block.reference !== null);
  const standard = references ? [["", model.severalBlocks ? `${model.study.reference_title} of each block` : model.study.reference_title]] : [["", "none"]];
  const chosen = model.chosen(state);
  return options.length
    ? select("Compare with", [...standard, ...options], chosen === null ? "" : model.rows[chosen].id, (baseline) => state.set({ baseline }))
    : null;
}
