// Learning rates: the loss that a search found for each recipe and rate.

import { dot, lineY, pointer, tip } from "@observablehq/plot";
import { chart, figure, tipStyle } from "../chart.js";
import { h, select } from "../dom.js";
import { MISSING, counted, listed, number, rate } from "../format.js";
import { dataTable } from "../table.js";
import { rowSwitches } from "./curves.js";

export function learningRates(model, state) {
  const found = model.learning_rates;
  const scored = found.recipes.some((recipe) => recipe.points.some((point) => point.score !== null));
  const key = scored && state.get("rates") === "score" ? "score" : "loss";
  const mark = (recipe) => model.marks[recipe.recipe] ?? { colour: "var(--muted)", shape: model.marks[0].shape, dash: null };
  const shown = found.recipes.filter((recipe) => !state.get("without").includes(recipe.name));
  return h(
    "section",
    { "aria-labelledby": "rates" },
    h("h2", { id: "rates" }, "Learning rates"),
    h("p", { class: "note" }, about(found)),
    scored &&
      h("div", { class: "controls" }, select("By", [["loss", "Validation loss"], ["score", "Score on validation items"]], key, (value) => state.set({ rates: value }))),
    rowSwitches(found.recipes.map((recipe) => ({ id: recipe.name, name: recipe.title, mark: mark(recipe) })), "without", state),
    drawing(shown, key, mark, found),
  );
}

function about(found) {
  const seeds = found.seeds.length ? ` over ${counted(found.seeds.length, "seed")} (${listed(found.seeds.map(String))})` : "";
  const noise = found.noise === null ? "" : ` The noise of a mean is ${number(found.noise)} nats.`;
  return `What each recipe came to at each rate${seeds}. A large mark is the chosen rate, a large hollow one the runner-up; runs that were stopped or diverged have no point.${noise}`;
}

function drawing(recipes, key, mark, found) {
  const what = key === "loss" ? "Validation loss (nats a token)" : "Score on validation items";
  const points = recipes.flatMap((recipe) =>
    recipe.points.filter((point) => point[key] !== null).map((point) => ({ ...point, recipe, value: point[key], colour: mark(recipe).colour, text: words(recipe, point) })),
  );
  if (!points.length) return h("p", { class: "muted" }, "No curve is switched on.");
  const large = points.filter(({ recipe, factor }) => factor === recipe.chosen || factor === recipe.runner_up);
  const options = (width) => ({
    height: Math.max(280, Math.min(420, width * 0.48)),
    marginLeft: 50,
    marginBottom: 40,
    x: { type: "log", label: "Learning rate", labelAnchor: "center", labelArrow: "none", tickFormat: rate, ticks: Math.max(3, Math.floor(width / 140)), inset: 14 },
    y: { label: what, labelArrow: "none", grid: true, nice: true },
    marks: [
      recipes.map((recipe) => lineY(points.filter((point) => point.recipe === recipe), { x: "rate", y: "value", stroke: mark(recipe).colour, strokeWidth: 1.6, strokeDasharray: mark(recipe).dash })),
      recipes.map((recipe) => dot(points.filter((point) => point.recipe === recipe), { x: "rate", y: "value", symbol: mark(recipe).shape, fill: mark(recipe).colour, r: 2.6 })),
      large.map((point) => dot([point], { x: "rate", y: "value", symbol: mark(point.recipe).shape, r: 6, stroke: point.colour, strokeWidth: 1.8, fill: point.factor === point.recipe.chosen ? point.colour : "var(--page)" })),
      tip(points, pointer({ x: "rate", y: "value", title: "text", ...tipStyle })),
    ].flat(),
  }); // prettier-ignore
  const told = recipes.map((recipe) => `${recipe.title}: chosen ${rateOf(recipe, recipe.chosen)}`);
  return figure({
    charts: chart(options, `${what} against learning rate. ${told.join("; ")}.`),
    table: () => numbersTable(recipes, found),
  });
}

function words(recipe, point) {
  const ended = recipe.runs.filter((run) => run.factor === point.factor).map((run) => `seed ${run.seed} ${run.ended}`);
  const chosen = point.factor === recipe.chosen ? "chosen" : point.factor === recipe.runner_up ? "runner-up" : null;
  return [
    `${recipe.title}, ${rate(point.rate)}`,
    point.loss === null ? null : `loss ${number(point.loss, 4)}`,
    point.score === null ? null : `score ${number(point.score)}`,
    chosen,
    ended.length ? ended.join(", ") : null,
  ].filter(Boolean).join("\n"); // prettier-ignore
}

const rateOf = (recipe, factor) => rate(recipe.points.find((point) => point.factor === factor)?.rate ?? null);

function numbersTable(recipes, found) {
  const rows = recipes.flatMap((recipe) => recipe.points.map((point) => ({ recipe, point })));
  const ended = ({ recipe, point }) => {
    const of = recipe.runs.filter((run) => run.factor === point.factor).map((run) => run.ended);
    return of.length ? [...new Set(of)].join(", ") : MISSING;
  };
  const standing = ({ recipe, point }) => {
    const words = [point.factor === recipe.chosen && "chosen", point.factor === recipe.runner_up && "runner-up", point.factor === recipe.by_score && "best score"];
    const edge = point.factor === recipe.chosen && recipe.at_edge ? "at the edge of the search" : null;
    return [...words, edge].filter(Boolean).join(", ") || MISSING;
  };
  const columns = [
    { id: "recipe", title: "Recipe", text: ({ recipe }) => recipe.title },
    { id: "factor", title: "Times the study's rate", numeric: true, value: ({ point }) => point.factor, text: ({ point }) => rate(point.factor) },
    { id: "rate", title: "Rate", numeric: true, value: ({ point }) => point.rate, text: ({ point }) => rate(point.rate) },
    { id: "loss", title: "Loss", numeric: true, value: ({ point }) => point.loss, text: ({ point }) => number(point.loss, 4) },
    { id: "score", title: "Score", numeric: true, value: ({ point }) => point.score, text: ({ point }) => number(point.score) },
    { id: "ended", title: "Runs", text: ended },
    { id: "standing", title: "Standing", text: standing },
  ]; // prettier-ignore
  return dataTable({ name: "learning rates", caption: `The study's rate is ${rate(found.base_rate)}`, columns, sections: [{ rows }] });
}
