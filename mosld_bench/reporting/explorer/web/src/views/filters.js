// What rows are shown: the filters above the leaderboard, which curves and costs obey too.

import { button, h, select } from "../dom.js";
import { sentence } from "../format.js";

/** The fields: those with something to choose. */
export function filterBar(model, state, { setting = true, measures = false, search = false, children = [] } = {}) {
  const { study } = model;
  const choice = (label, key, all, options) => {
    const present = options.filter(([value]) => model.rows.some((row) => row[key] === value));
    return present.length > 1 ? select(label, [["", all], ...present], state.get(key), (value) => state.set({ [key]: value })) : null;
  };
  const active = ["setting", "budget", "group", "model", "measure", "search"].some((key) => state.get(key));
  return h(
    "form",
    { class: "filters", role: "search", "aria-label": "What is shown", on: { submit: (event) => event.preventDefault() } },
    setting && choice("Setting", "setting", "All settings", study.settings.filter(({ key }) => key !== "frozen").map(({ key }) => [key, settingTitle(model, key)])),
    choice("Budget", "budget", "All budgets", study.budgets.map((budget) => [budget.key, budget.label])),
    choice("Group", "group", "All groups", study.groups.map((group) => [group.key, group.title])),
    choice("Model", "model", "All models", study.models.map((entry) => [entry.name, entry.name])),
    measures && measureChoice(model, state),
    children,
    search && searchField("Find a method", "search", state),
    active &&
      button("Clear", () => state.set({ setting: "", budget: "", group: "", model: "", measure: "", search: "" }), { class: "quiet", focus: "clear" }),
  );
}

/** A setting in words. */
export function settingTitle(model, key) {
  return sentence(model.study.settings.find((setting) => setting.key === key)?.title ?? key);
}

function measureChoice(model, state) {
  const { measures } = model;
  const domains = [...new Set(measures.filter((entry) => entry.kind === "task").map((entry) => entry.domain))];
  const options = [
    ["", "Means and tasks"],
    ...(model.means.length ? [["means", "Means"]] : []),
    ...(domains.length > 1 ? domains.map((domain) => [`domain:${domain}`, `All of ${domain === "in_domain" ? "in-domain" : "out-of-domain"}`]) : []),
    { label: "One alone", options: measures.map((entry) => [entry.key, entry.title]) },
  ];
  return measures.length > 1 ? select("Scores", options, state.get("measure"), (value) => state.set({ measure: value })) : null;
}

/** A field for text that filters while it is typed. */
export function searchField(label, key, state) {
  const field = h("input", {
    type: "search",
    value: state.get(key),
    focus: `search ${key}`,
    autocomplete: "off",
    on: { input: () => state.set({ [key]: field.value }) },
  });
  return h("label", { class: "field" }, h("span", {}, label), field);
}

/** Whether a row passes the filters of the address. */
export function passes(model, state) {
  const wanted = ["setting", "budget", "group", "model"].filter((key) => state.get(key));
  const text = state.get("search").trim().toLowerCase();
  return (row) => {
    const entry = model.rows[row];
    const found = !text || `${entry.title} ${model.recipes[entry.recipe].name}`.toLowerCase().includes(text);
    return found && wanted.every((key) => entry[key] === state.get(key) || (entry.frozen && key !== "model"));
  };
}
