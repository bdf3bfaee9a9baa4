// How numbers are printed: as the report prints them, with a true minus and – for what is missing.

export const MISSING = "–";

const known = (value) => value !== null && value !== undefined;
const comma = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function decimals(scale, printed) {
  if (known(scale.decimals)) return scale.decimals;
  const size = Math.abs(printed);
  return size < 10 ? 3 : size < 100 ? 2 : 1;
}

/** Digits of a number that is not negative; a number half-way between two goes to the even one, as in Python. */
function rounded(value, digits) {
  const beyond = 40; // more digits than a double of this size has
  const exact = value.toFixed(digits + beyond);
  const kept = exact.slice(0, -beyond).replace(/\.$/, "");
  const toEven = /^50*$/.test(exact.slice(-beyond)) && Number(kept.at(-1)) % 2 === 0;
  return toEven ? kept : value.toFixed(digits);
}

/** A fixed number of digits after the point, a true minus, no signed zero. */
function fixed(value, digits, { sign = false, thousands = false } = {}) {
  if (Math.abs(value) >= 1e9) return value.toExponential(2).replace("-", "−"); // an overflowing perplexity
  const magnitude = rounded(Math.abs(value), digits);
  if (Number(magnitude) === 0) return magnitude;
  const [whole, fraction] = magnitude.split(".");
  const text = (thousands ? comma(whole) : whole) + (fraction ? `.${fraction}` : "");
  return (value < 0 ? "−" : sign ? "+" : "") + text;
}

/** A score, or with `sign` a difference, as its scale prints it. `like`: the value whose digits it takes. */
export function score(scale, value, { sign = false, like = value } = {}) {
  if (!known(value)) return MISSING;
  const digits = decimals(scale, like * scale.factor);
  return fixed(value * scale.factor, digits, { sign, thousands: scale.range === "number" });
}

/** "44.3 ± 0.7" */
export function meanSd(scale, mean, sd) {
  if (!known(mean)) return MISSING;
  return known(sd) ? `${score(scale, mean)} ± ${score(scale, sd, { like: mean })}` : score(scale, mean);
}

/** "−0.9 to +0.6" */
export function interval(scale, low, high, { sign = true } = {}) {
  if (!known(low) || !known(high)) return MISSING;
  const like = Math.abs(low) > Math.abs(high) ? low : high;
  return `${score(scale, low, { sign, like })} to ${score(scale, high, { sign, like })}`;
}

/** Three decimals, or "<0.001". */
export function pValue(p) {
  return !known(p) ? MISSING : p < 0.001 ? "<0.001" : p.toFixed(3);
}

/** A whole number with commas. */
export function count(value) {
  return known(value) ? comma(String(Math.round(value))).replace("-", "−") : MISSING;
}

/** A number of any size with about three digits: 0.00213, 12.5, 1,843,200. */
export function number(value, digits = 3) {
  if (!known(value)) return MISSING;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return count(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e15)) return value.toExponential(digits - 1).replaceAll("-", "−");
  const after = Math.max(0, digits - 1 - Math.floor(Math.log10(size || 1)));
  return fixed(value, Math.min(after, 6), { thousands: true });
}

/** A number for the tick of an axis: 1.84M, 135M, 60k. */
export function short(value) {
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return `${trimmed(value / unit)}${name}`;
  }
  return trimmed(value);
}

const trimmed = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

/** Three digits without zeros at the end: 0.002, as learning rates are written. */
export function rate(value) {
  return known(value) ? trimmed(value) : MISSING;
}

/** A cost with its unit. */
export function cost(kind, value) {
  if (!known(value)) return MISSING;
  const text = kind.counted ? count(value) : number(value);
  return kind.unit ? `${text} ${kind.unit}` : text;
}

/** "12 min", "3.4 h" */
export function duration(seconds) {
  if (!known(seconds)) return MISSING;
  if (seconds < 120) return `${number(seconds, 2)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** "a, b and c" */
export function listed(items) {
  return items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** A number and its noun: "1 seed", "3 seeds". */
export function counted(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** Bytes as "412 KB". */
export function bytes(size) {
  if (size >= 1e9) return `${(size / 1e9).toFixed(2)} GB`;
  return size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} KB` : `${(size / 1e6).toFixed(1)} MB`;
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
