// A drawing of Observable Plot: drawn at the width that it has, with a text alternative and, for all who would rather read
// or copy numbers, a table below.

import { plot } from "@observablehq/plot";
import { h } from "./dom.js";

const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const width = Math.floor(contentRect.width);
    if (width && width !== target.drawnAt) {
      target.drawnAt = width;
      target.redraw(width);
    }
  }
});

/** A place that is drawn by `options(width)`, which gives the options of a plot, whenever its width changes. */
export function chart(options, text) {
  const place = h("div", { class: "chart" });
  place.redraw = (width) => {
    const drawn = plot({ width, style: { background: "none", fontFamily: "inherit", fontSize: "12px", overflow: "visible" }, ...options(width) });
    for (const group of drawn.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label"); // names of marks
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", text);
    place.replaceChildren(drawn);
  };
  observer.observe(place);
  return place;
}

/** A figure: title, charts, notes below, and a table of the numbers that opens on demand. */
export function figure({ title, charts, note, table, id, key }) {
  return h(
    "figure",
    { id },
    title && h("figcaption", {}, title),
    key,
    charts,
    note && h("p", { class: "note" }, note),
    table && numbers(table),
  );
}

/** Contents that are made when they are opened. */
export function numbers(make, summary = "The numbers as a table") {
  const details = h("details", { class: "numbers" }, h("summary", { focus: `numbers ${summary}` }, summary));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(make());
  });
  return details;
}

/** Room on the left for labels of rows, in pixels, and how long they may be in ems before they are cut. */
export function labelRoom(labels, width) {
  const wanted = 6.9 * Math.max(0, ...labels.map((label) => label.length)) + 16;
  const most = Math.max(90, width * 0.4);
  return wanted <= most ? { marginLeft: Math.ceil(wanted), lineWidth: Infinity } : { marginLeft: Math.ceil(most), lineWidth: (most - 16) / 12 };
}

/** The text that a pointer shows. */
export const tipStyle = { fontSize: 12, lineHeight: 1.35, lineWidth: 26, fill: "var(--raised)", stroke: "var(--line-strong)", pathFilter: "none", className: "tip" };
