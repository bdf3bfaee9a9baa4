// Colours of heat maps, mixed by the browser from those of the style sheet, so that they follow light and dark.

import { h } from "./dom.js";

/** Of a load over even load: more in one colour, less in the other, by its logarithm; at four times and at a quarter full. */
export function loadColour(load) {
  if (load === null) return "transparent";
  const far = Math.max(-1, Math.min(1, Math.log2(Math.max(load, 1e-3)) / 2));
  return `color-mix(in oklab, var(${far < 0 ? "--less" : "--more"}) ${Math.round(Math.abs(far) * 100)}%, var(--even))`;
}

/** Whether a text on that colour is to be the light one. */
export const strong = (load) => load !== null && Math.abs(Math.log2(Math.max(load, 1e-3))) > 1.2;

/** The key of `loadColour`. */
export function loadKey() {
  const bar = `linear-gradient(to right in oklab, var(--less), var(--even), var(--more))`;
  return h("p", { class: "ramp" }, "¼ of even load", h("span", { class: "swatch", style: `background: ${bar}` }), "4 times and more");
}

/** Share that is right, from 0 to 1, mixed of two colours as [r, g, b]. */
export function mixed(from, to, share) {
  return from.map((value, i) => Math.round(value + (to[i] - value) * share));
}

/** A colour of the style sheet as [r, g, b], as it is now. */
export function resolved(name) {
  const probe = h("span", { style: `color: var(${name})` });
  document.body.append(probe);
  const numbers = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return numbers.slice(0, 3);
}
