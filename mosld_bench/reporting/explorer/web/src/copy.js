// A table as text: CSV with the numbers as they are, Markdown and LaTeX with what is printed.

import { announce, button, h } from "./dom.js";

const one = (text) => String(text).replace(/\s+/g, " ").trim();

const csvCell = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const markdownCell = (text) => one(text).replace(/[\\`*_{}[\]<>|#~&]/g, "\\$&");

const TEX = {
  "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "{": "\\{", "}": "\\}",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
  "−": "$-$", "±": "$\\pm$", "†": "\\dag{}", "‡": "\\ddag{}", "§": "\\S{}", "¶": "\\P{}", "–": "--", "—": "---",
  "≥": "$\\ge$", "≤": "$\\le$", "≈": "$\\approx$", "→": "$\\to$", "↑": "$\\uparrow$", "↓": "$\\downarrow$",
  "√": "$\\surd$", "←": "$\\leftarrow$", "∞": "$\\infty$", "…": "\\dots{}", "“": "``", "”": "''", "‘": "`", "’": "'",
}; // prettier-ignore
const GREEK =
  "α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho σ sigma " +
  "τ tau υ upsilon φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi Χ Chi Ψ Psi Ω Omega";
for (const [, letter, name] of GREEK.matchAll(/(\S) (\w+)/gu)) TEX[letter] = `$\\${name}$`;

/** Any text in one line, safe in a table of LaTeX, as the tables of the report have it. */
export const texText = (text) => Array.from(one(text), (character) => TEX[character] ?? character).join("");

/**
 * `table`: {caption, columns: [{title, numeric}], csv: [title], rows: [{heading} | {raw, printed}]}, where a heading stands
 * over the rows after it, `raw` has a value for each title of `csv`, and `printed` one for each of `columns`.
 */
export function asCsv({ csv, rows }) {
  const grouped = rows.some((row) => row.heading !== undefined);
  let heading = "";
  const lines = [[...(grouped ? ["block"] : []), ...csv]];
  for (const row of rows) {
    if (row.heading !== undefined) heading = row.heading;
    else lines.push([...(grouped ? [heading] : []), ...row.raw]);
  }
  return lines.map((line) => `${line.map(csvCell).join(",")}\n`).join("");
}

export function asMarkdown({ columns, rows }) {
  const line = (cells) => `| ${cells.join(" | ")} |\n`;
  const body = rows.map((row) =>
    row.heading === undefined ? line(row.printed.map(markdownCell)) : line([`**${markdownCell(row.heading)}**`, ...columns.slice(1).map(() => "")]),
  );
  const rule = columns.map((column) => (column.numeric ? "---:" : "---"));
  return line(columns.map((column) => markdownCell(column.title))) + line(rule) + body.join("");
}

export function asLatex({ caption, columns, rows }) {
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  const body = rows.map((row) =>
    row.heading === undefined
      ? line(row.printed.map(texText))
      : `\\multicolumn{${columns.length}}{l}{\\textit{${texText(row.heading)}}} \\\\`,
  );
  return [
    `% ${one(caption)}. Needs the package booktabs.`,
    `\\begin{tabular}{${columns.map((column) => (column.numeric ? "r" : "l")).join("")}}`,
    "\\toprule",
    line(columns.map((column) => texText(column.title))),
    "\\midrule",
    ...body,
    "\\bottomrule",
    "\\end{tabular}\n",
  ].join("\n");
}

/** Put a text on the clipboard, and say so. */
export async function copyText(text, what) {
  const done = (await written(text)) || selected(text);
  announce(done ? `Copied ${what}` : "This browser does not let a page copy");
}

async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not allowed, or no clipboard for pages from disk
  }
}

function selected(text) {
  const area = h("textarea", { class: "visually-hidden", "aria-hidden": "true", tabindex: "-1" });
  const before = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

/** Buttons that copy a table; `make` gives it as `asCsv` takes it. */
export function copyButtons(make, name) {
  const formats = [["CSV", asCsv], ["Markdown", asMarkdown], ["LaTeX", asLatex]];
  return h(
    "div",
    { class: "copies", role: "group", "aria-label": `Copy ${name}` },
    h("span", { class: "muted" }, "Copy as"),
    formats.map(([title, write]) =>
      button(title, () => copyText(write(make()), `${name} as ${title}`), { class: "quiet", focus: `copy ${name} ${title}` }),
    ),
  );
}

/** A button that copies one text. */
export function copyButton(text, what) {
  return button("Copy", () => copyText(text, what), { class: "quiet", "aria-label": `Copy ${what}`, focus: `copy ${what}` });
}
