// The explorer of a study's report: reads the data of the page, and draws what its address asks for.

import { button, fileLink, h } from "./dom.js";
import { counted } from "./format.js";
import { Model } from "./model.js";
import { State } from "./state.js";
import { themeSwitch } from "./theme.js";
import { costs } from "./views/costs.js";
import { curves } from "./views/curves.js";
import { items } from "./views/items.js";
import { results } from "./views/results.js";
import { routers } from "./views/routers.js";
import { trials } from "./views/trials.js";
import { copyText } from "./copy.js";

/** Key of the address -> title, what draws it, and whether there is anything to draw. */
const VIEWS = {
  results: { title: "Results", draw: results, there: () => true },
  costs: { title: "Costs", draw: costs, there: (model) => model.costs.length > 0 },
  curves: { title: "Curves", draw: curves, there: (model) => model.training.runs.length > 0 || model.learning_rates !== null },
  items: { title: "Items", draw: items, there: (model) => model.items !== null },
  routers: { title: "Routers", draw: routers, there: (model) => model.routers.length > 0 },
  trials: { title: "Trials", draw: trials, there: () => true },
};

function start() {
  const mount = document.getElementById("explorer");
  const model = new Model(JSON.parse(document.getElementById("explorer-data").textContent));
  const main = h("main", { id: "main", tabindex: "-1" });
  const nav = h("nav", { class: "views", "aria-label": "Views" });
  const state = new State(draw);
  mount.replaceChildren(
    h("a", { class: "skip", href: "#main", on: { click: (event) => (event.preventDefault(), main.focus()) } }, "To the contents"),
    header(model.study),
    nav,
    main,
    footer(model.study),
  );
  let drawn = null;
  draw();

  function draw() {
    const there = Object.entries(VIEWS).filter(([, view]) => view.there(model));
    const view = there.some(([key]) => key === state.get("view")) ? state.get("view") : "results";
    const focused = focusedField();
    nav.replaceChildren(...there.map(([key, { title }]) => viewLink(state, key, title, key === view)));
    const scrolled = scrolls(main);
    main.replaceChildren(...[VIEWS[view].draw(model, state)].flat(Infinity).filter(Boolean));
    if (view === drawn) restore(main, scrolled);
    drawn = view;
    refocus(focused);
  }
}

function header(study) {
  const facts = [study.span || study.date, counted(study.counts.finished, "trial"), study.counts.missing ? `${study.counts.missing} missing` : null];
  return h(
    "header",
    { class: "top" },
    h(
      "div",
      { class: "bar" },
      h("p", { class: "study" }, "Report of the study ", h("code", {}, study.name), h("span", { class: "muted" }, ` · ${facts.filter(Boolean).join(" · ")}`)),
      h("div", { class: "tools" }, button("Copy link", () => copyText(location.href, "the link to this view"), { class: "quiet" }), themeSwitch()),
    ),
    study.draft && h("p", { class: "draft" }, study.draft),
    h("h1", {}, study.question || study.name),
  );
}

function viewLink(state, view, title, current) {
  return h(
    "a",
    {
      href: state.link({ view }),
      "aria-current": current ? "page" : null,
      focus: `view ${view}`,
      on: {
        click: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          state.set({ view }, { step: true });
        },
      },
    },
    title,
  );
}

function footer(study) {
  const tables = study.tables.map((table) => fileLink(table.file, table.name)).filter(Boolean);
  return h(
    "footer",
    {},
    h(
      "p",
      {},
      [fileLink(study.pdf, "The report as PDF"), fileLink("../index.html", "All studies")].filter(Boolean).flatMap((link, i) => (i ? [" · ", link] : [link])),
    ),
    tables.length ? h("p", {}, "Its tables as CSV: ", tables.flatMap((link, i) => (i ? [", ", link] : [link]))) : null,
    study.about && h("p", { class: "muted" }, study.about),
  );
}

// What a reader was at stays as it is when the page is drawn anew: the focus, the text cursor, how far things are scrolled.

function focusedField() {
  const element = document.activeElement;
  const name = element?.dataset?.focus;
  return name ? { name, from: element.selectionStart ?? null, to: element.selectionEnd ?? null } : null;
}

function refocus(focused) {
  if (!focused) return;
  const element = [...document.querySelectorAll("[data-focus]")].find((candidate) => candidate.dataset.focus === focused.name);
  if (!element) return;
  element.focus({ preventScroll: true });
  if (focused.from !== null && element.setSelectionRange) element.setSelectionRange(focused.from, focused.to);
}

function scrolls(main) {
  const inner = [...main.querySelectorAll(".scroll")].map((element) => [element.getAttribute("aria-label"), element.scrollLeft, element.scrollTop]);
  const open = new Map(folded(main).map(([key, details]) => [key, details.open]));
  return { inner, open, top: scrollY };
}

/** What folds, with a name of each: its summary, and which one of that summary it is. */
function folded(main) {
  const seen = new Map();
  return [...main.querySelectorAll("details")].map((details) => {
    const name = details.firstElementChild.textContent;
    seen.set(name, (seen.get(name) ?? 0) + 1);
    return [`${name} ${seen.get(name)}`, details];
  });
}

function restore(main, { inner, open, top }) {
  for (const [key, details] of folded(main)) {
    if (open.has(key)) details.open = open.get(key);
  }
  for (const element of main.querySelectorAll(".scroll")) {
    const before = inner.find(([label]) => label === element.getAttribute("aria-label"));
    if (before) [, element.scrollLeft, element.scrollTop] = before;
  }
  scrollTo({ top, behavior: "instant" });
}

start();
