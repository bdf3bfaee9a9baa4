// The map of items and rows: a canvas with a line a row and a column an item, read by pointer and by keyboard.

import { h } from "./dom.js";
import { mixed, resolved } from "./heat.js";
import { glyph } from "./marks.js";
import { onTheme } from "./theme.js";

const LINE = 22; // pixels of a row, as in the style sheet
const GAP = 2;
const WIDEST = 32000; // pixels that a canvas can have

/**
 * `lines`: list of {name, mark, values} with a share that is right (or null) for each item; `strip`: {name, values} with what
 * the first of two rows has more than the second, or null; `order`: places of the items from left to right; `at`: the place
 * in `order` that is chosen, or -1; `zoom`: pixels an item, 0 to fit, one at least; `describe(item)`: an item in words; `choose(place)`.
 */
export function itemMap({ lines, strip, order, at, zoom, describe, choose }) {
  const canvas = h("canvas", {
    tabindex: "0",
    role: "slider",
    focus: "item map",
    "aria-label": "Item",
    "aria-orientation": "horizontal",
    "aria-valuemin": 1,
    "aria-valuemax": order.length,
    "aria-valuenow": Math.max(at, 0) + 1,
    "aria-valuetext": at < 0 ? "none chosen" : `${at + 1} of ${order.length}: ${describe(order[at])}`,
    on: {
      keydown: (event) => {
        const to = moved(event.key, Math.max(at, 0), order.length);
        if (to === null) return;
        event.preventDefault();
        choose(to);
      },
      click: (event) => choose(placeOf(event)),
      pointermove: (event) => (canvas.title = describe(order[placeOf(event)])),
    },
  });
  const placeOf = (event) => {
    const { left, width } = canvas.getBoundingClientRect();
    return Math.max(0, Math.min(order.length - 1, Math.floor(((event.clientX - left) / width) * order.length)));
  };
  const rows = lines.length + (strip ? 1 : 0);
  const box = h("div", { class: "scroll", "aria-label": "Map of items" }, canvas);
  const draw = () => {
    const width = zoom ? zoom * order.length : Math.max(order.length, Math.floor(box.clientWidth));
    paint(canvas, width, rows * LINE, picture(lines, strip, order), at, order.length);
    if (at >= 0 && width > box.clientWidth) shown(box, ((at + 0.5) * width) / order.length);
  };
  new ResizeObserver(draw).observe(box);
  onTheme(canvas, draw);
  const label = ({ name, mark }) => h("li", {}, mark && glyph(mark), h("span", {}, name));
  return h("div", { class: "map" }, h("ul", { class: "labels" }, lines.map(label), strip && label(strip)), box);
}

function moved(key, at, n) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[key];
  if (step) return Math.max(0, Math.min(n - 1, at + step));
  return { Home: 0, End: n - 1 }[key] ?? null;
}

/** An image with a pixel an item and a line a row. */
function picture(lines, strip, order) {
  const colour = Object.fromEntries(["right", "wrong", "absent", "more", "less", "even"].map((name) => [name, resolved(`--${name}`)]));
  const rows = [
    ...lines.map(({ values }) => (item) => (values[item] === null ? colour.absent : mixed(colour.wrong, colour.right, values[item]))),
    ...(strip ? [(item) => difference(strip.values(item), colour)] : []),
  ];
  const image = new ImageData(Math.max(1, order.length), Math.max(1, rows.length));
  rows.forEach((of, y) => order.forEach((item, x) => image.data.set([...of(item), 255], 4 * (y * order.length + x))));
  return image;
}

function difference(value, colour) {
  return value === null ? colour.absent : mixed(colour.even, value > 0 ? colour.more : colour.less, Math.min(1, Math.abs(value)));
}

function paint(canvas, width, height, image, at, n) {
  const ratio = Math.min(window.devicePixelRatio || 1, WIDEST / width);
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  const source = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  source.getContext("2d").putImageData(image, 0, 0);
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  for (let row = 0; row < image.height; row += 1) {
    context.drawImage(source, 0, row, image.width, 1, 0, row * LINE + GAP / 2, width, LINE - GAP);
  }
  if (at < 0) return;
  const each = width / n;
  context.strokeStyle = `rgb(${resolved("--text").join(" ")})`;
  context.lineWidth = 1.5;
  context.strokeRect(at * each - 1.5, 0.75, each + 3, height - 1.5);
}

/** Scroll a box sideways so that what is at `x` can be seen. */
function shown(box, x) {
  if (x < box.scrollLeft || x > box.scrollLeft + box.clientWidth) box.scrollLeft = x - box.clientWidth / 2;
}
