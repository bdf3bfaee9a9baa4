// Elements without markup: every text of the data enters the page as a text node, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props`: `class`, `on` (listeners by event), `focus` (a name by which the focus is found again after the
 * page is drawn anew), properties of form fields, and attributes; null, undefined and false leave an attribute out.
 */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** An element of a drawing. */
export function svg(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

const PROPERTIES = new Set(["checked", "disabled", "selected", "value", "open"]);

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "focus") element.dataset.focus = value;
    else if (PROPERTIES.has(name)) element[name] = value;
    else if (name.startsWith("on")) throw new Error(`${name} is no attribute, but an event`);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A link to a file beside the page; null where the data name something else, such as a script or another host. */
export function fileLink(file, ...children) {
  return /^(\.\.\/)?[\w.-]+(\/[\w.-]+)*$/.test(file ?? "") ? h("a", { href: file }, ...children) : null;
}

/** A text for screen readers alone. */
export function hidden(text) {
  return h("span", { class: "visually-hidden" }, text);
}

/** A button. `props` as for `h`. */
export function button(label, click, props = {}) {
  return h("button", { type: "button", ...props, on: { click } }, label);
}

/** A drop-down with its label. `options`: [value, text], or {label, options} for a group. */
export function select(label, options, value, change, props = {}) {
  const option = ([key, text]) => h("option", { value: key, selected: key === value }, text);
  const field = h(
    "select",
    { focus: `select ${label}`, ...props, on: { change: () => change(field.value) } },
    options.map((entry) => (Array.isArray(entry) ? option(entry) : h("optgroup", { label: entry.label }, entry.options.map(option)))),
  );
  return h("label", { class: "field" }, h("span", {}, label), field);
}

/** A tick box with its label. */
export function tick(label, checked, change, props = {}) {
  const box = h("input", { type: "checkbox", checked, focus: `tick ${props.focus ?? label}`, on: { change: () => change(box.checked) } });
  return h("label", { class: "tick" }, box, props.mark, h("span", {}, label));
}

let announcer = null;

/** Says something to screen readers, and shows it for a moment. */
export function announce(text) {
  if (!announcer?.isConnected) {
    announcer = h("div", { class: "announcer", role: "status", "aria-live": "polite" });
    document.body.append(announcer);
  }
  announcer.textContent = text;
  announcer.classList.add("shown");
  clearTimeout(announcer.timer);
  announcer.timer = setTimeout(() => announcer.classList.remove("shown"), 2500);
}
