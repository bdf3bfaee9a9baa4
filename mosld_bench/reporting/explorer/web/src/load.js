// The items of a task, in a script of their own that is read when they are looked at.

import { h } from "./dom.js";

const states = new Map();

/** The items of `file`: an object when they are there, "failed", or null while they come; `done` is called then. */
export function itemsOf(file, done) {
  const known = window.mosldBenchItems?.[file.key];
  if (known) return known;
  if (states.get(file.key) === "failed") return "failed";
  if (!states.has(file.key)) {
    const ended = (state) => () => {
      states.set(file.key, window.mosldBenchItems?.[file.key] ? "there" : state);
      done();
    };
    states.set(file.key, "coming");
    if (/^items\/[\w.-]+\.js$/.test(file.file)) {
      document.head.append(h("script", { src: file.file, on: { load: ended("failed"), error: ended("failed") } }));
    } else states.set(file.key, "failed");
  }
  return states.get(file.key) === "failed" ? "failed" : null;
}
