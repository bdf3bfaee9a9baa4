// Light or dark: as the system has it, until a reader chooses.

import { button } from "./dom.js";

const KEY = "mosld-bench-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a browser that keeps nothing for pages from disk
  }
}

function keep(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // the choice holds until the page is closed
  }
}

/** "light" or "dark", whichever is shown. */
export function theme() {
  return document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
}

/** Calls `listener` whenever colours change, as long as `element` is in the page. */
export function onTheme(element, listener) {
  listeners.add({ element, listener });
}

function changed() {
  for (const entry of listeners) {
    if (entry.element.isConnected) entry.listener();
    else listeners.delete(entry);
  }
}

/** The button that changes it. */
export function themeSwitch() {
  const chosen = stored();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  const label = () => (theme() === "dark" ? "Light" : "Dark");
  const toggle = button(label(), () => {
    const next = theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    keep(next);
    toggle.textContent = label();
    changed();
  }, { class: "quiet" }); // prettier-ignore
  system.addEventListener("change", () => {
    toggle.textContent = label();
    changed();
  });
  return toggle;
}
