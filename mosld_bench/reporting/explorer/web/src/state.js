// What is shown, kept in the address behind #, so that a link restores it.

/** Key -> what it is where the address does not say. A list may be given several times. */
const DEFAULTS = {
  view: "results",
  setting: "",
  budget: "",
  group: "",
  model: "",
  measure: "", // "": means and tasks; "means"; or the key of one
  search: "",
  sort: "", // "column" rising, "-column" falling; "": the order of the report
  apart: "", // "no": one list in place of blocks
  baseline: "", // id of a row; "": the study's reference in each block
  costs: "", // sort of the table of costs
  cost: "",
  panel: "", // setting, model and measure of a front
  curve: "loss",
  runs: "", // "yes": every run, not the means of rows
  off: [], // rows that are switched off in curves
  rates: "loss",
  without: [], // recipes that are switched off in curves of learning rates
  task: "",
  order: "difficulty",
  only: "",
  find: "", // text in the items
  zoom: "",
  a: "",
  b: "",
  item: "",
  router: "",
  run: "",
  module: "",
  trial: "",
  trials: "", // sort of the table of trials
  scored: "", // sort of what was scored and not trained here
};

export class State {
  #values;
  #changed;

  /** `changed` is called after every change. */
  constructor(changed) {
    this.#changed = changed;
    this.#values = read(location.hash);
    const reread = () => {
      if (written(this.#values) === location.hash.slice(1)) return;
      this.#values = read(location.hash);
      changed();
    };
    addEventListener("hashchange", reread);
    addEventListener("popstate", reread);
  }

  get(key) {
    return this.#values[key];
  }

  /** Change some keys and draw anew. `step`: a new entry of the history, for another view. */
  set(patch, { step = false } = {}) {
    const address = this.link(patch);
    if (address === this.link({})) return;
    this.#values = { ...this.#values, ...patch };
    if (step) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    this.#changed();
  }

  /** Draw again what has not changed in the address, as when data have come. */
  redraw() {
    this.#changed();
  }

  /** The address, behind #, with some keys changed. */
  link(patch) {
    return `#${written({ ...this.#values, ...patch })}`;
  }

  /** Sort by a column: first `first` ("" rising, "-" falling), then the other way, then not. */
  sort(key, column, first) {
    const other = first === "-" ? "" : "-";
    const cycle = { [first + column]: other + column, [other + column]: "" };
    this.set({ [key]: cycle[this.get(key)] ?? first + column });
  }

  /** Put a value into a list, or take it out. */
  toggle(key, value, inside) {
    const others = this.get(key).filter((entry) => entry !== value);
    this.set({ [key]: inside ? [...others, value] : others });
  }
}

function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return Object.fromEntries(
    Object.entries(DEFAULTS).map(([key, value]) => [key, Array.isArray(value) ? given.getAll(key) : (given.get(key) ?? value)]),
  );
}

function written(values) {
  const address = new URLSearchParams();
  for (const [key, value] of Object.entries(DEFAULTS)) {
    if (Array.isArray(value)) for (const entry of values[key]) address.append(key, entry);
    else if (values[key] !== value) address.append(key, values[key]);
  }
  return address.toString();
}
