// What tells a recipe apart everywhere: a colour that colour-blind readers can tell from the others and a shape, by the
// recipe's place among those that train, as in the figures of the report.

import { symbol, symbolCircle, symbolCross, symbolDiamond, symbolSquare, symbolStar, symbolTriangle } from "d3-shape";
import { svg } from "./dom.js";

/** A shape of d3 through points; a circle around the origin of radius 1.25 has about its area. */
const polygon = (points) => ({
  draw(context, size) {
    const r = Math.sqrt(size / 2.2);
    points.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x * r, y * r));
    context.closePath();
  },
});
const turned = (angle) => [0, 1, 2].map((i) => [1.25 * Math.cos(angle + (i * 2 * Math.PI) / 3), 1.25 * Math.sin(angle + (i * 2 * Math.PI) / 3)]);
const saltire = [[0, -0.35], [0.65, -1], [1, -0.65], [0.35, 0], [1, 0.65], [0.65, 1], [0, 0.35], [-0.65, 1], [-1, 0.65], [-0.35, 0], [-1, -0.65], [-0.65, -1]]; // prettier-ignore
const pentagon = [0, 1, 2, 3, 4].map((i) => [1.15 * Math.sin((i * 2 * Math.PI) / 5), -1.15 * Math.cos((i * 2 * Math.PI) / 5)]);

const SHAPES = [
  symbolCircle, symbolSquare, symbolTriangle, symbolDiamond, polygon(turned(Math.PI / 2)), symbolCross, polygon(saltire),
  polygon(turned(Math.PI)), polygon(turned(0)), polygon(pentagon), symbolStar,
]; // prettier-ignore
const COLOURS = 10; // --mark-0 … of the style sheet
const DASHES = [null, "6 2", "1.5 1.5", "6 2 1.5 2", "4 2 1.5 2 1.5 2"];
const FROZEN = { colour: "var(--muted)", shape: symbolCircle, dash: "3 3", open: true };

/** Recipe index -> {colour, shape, dash, open}. */
export function makeMarks(recipes) {
  let i = 0;
  return recipes.map((recipe) => {
    if (recipe.method === "base") return FROZEN;
    const style = { colour: `var(--mark-${i % COLOURS})`, shape: SHAPES[i % SHAPES.length], dash: DASHES[i % DASHES.length] };
    i += 1;
    return style;
  });
}

/** The mark as a small drawing, for tables and keys. */
export function glyph(mark, { open = mark.open } = {}) {
  return svg(
    "svg",
    { class: "glyph", viewBox: "-7 -7 14 14", "aria-hidden": "true", focusable: "false" },
    svg("path", {
      d: symbol(mark.shape, 52)(),
      fill: open ? "none" : mark.colour,
      stroke: mark.colour,
      "stroke-width": 1.4,
    }),
  );
}
