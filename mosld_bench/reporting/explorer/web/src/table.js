// A table: sorted and filtered by TanStack Table, drawn as plain <table> with a caption, scopes and sort buttons.

import {
  columnFilteringFeature,
  constructTable,
  createFilteredRowModel,
  createSortedRowModel,
  rowSortingFeature,
  tableFeatures,
} from "@tanstack/table-core";
import { storeReactivityBindings } from "@tanstack/table-core/store-reactivity-bindings";
import { copyButtons } from "./copy.js";
import { button, h } from "./dom.js";
import { MISSING } from "./format.js";

const features = tableFeatures({
  coreReactivityFeature: storeReactivityBindings(),
  rowSortingFeature,
  sortedRowModel: createSortedRowModel(),
  columnFilteringFeature,
  filteredRowModel: createFilteredRowModel(),
});

const rising = (a, b, id) => {
  const [x, y] = [a.getValue(id), b.getValue(id)];
  return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
};

/**
 * Those of `rows` that pass, in their order. `columns`: see `dataTable`. `sort`: as in the address. `filters`: column or
 * other name -> a test of a row.
 */
export function arranged(columns, rows, sort, filters = []) {
  const definitions = columns.map((column) => ({
    id: column.id,
    accessorFn: (row) => column.value(row) ?? undefined,
    sortFn: rising,
    sortUndefined: "last",
    filterFn: (row, id, test) => test(row.original),
  }));
  const passing = { id: "passing", accessorFn: () => true, filterFn: (row, id, tests) => tests.every((test) => test(row.original)) };
  const id = sort.replace(/^-/, "");
  const table = constructTable({
    features,
    columns: [...definitions, passing],
    data: rows,
    initialState: {
      sorting: columns.some((column) => column.id === id) ? [{ id, desc: sort.startsWith("-") }] : [],
      columnFilters: filters.length ? [{ id: "passing", value: filters }] : [],
    },
  });
  return table.getRowModel().rows.map((row) => row.original);
}

/**
 * A table with its copy buttons. `columns`: list of {`id`, `title`, `value(row)` (a number or a text, by which it sorts
 * and which CSV has), `text(row)` (what is printed), `cell(row)` (nodes in place of that), `numeric`, `first` ("-": sorts
 * falling first), `head` (nodes in place of the title), `about` (told on hover), `group` (title over columns side by side),
 * `copied` (false: not in copies), `csv` (list of {title, value(row)} in place of the column)}; the first one is the
 * heading of each row. `sections`: list of {`heading`, `rows`}, one without a heading for a plain table. `sort`, `onSort`:
 * the address's sort and what changes it; without `onSort` columns do not sort. `rowProps(row)`: attributes of a row.
 */
export function dataTable({ name, caption, columns, sections, sort = "", onSort, rowProps, notes, wide = false }) {
  const first = columns.findIndex((column) => column.heading) === -1 ? 0 : columns.findIndex((column) => column.heading);
  const head = h("thead", {}, groupRow(columns), h("tr", {}, columns.map((column) => header(column, sort, onSort, name))));
  const bodies = sections.filter((section) => section.rows.length).map(({ heading, rows }) =>
    h(
      "tbody",
      {},
      heading && h("tr", { class: "heading" }, h("th", { scope: "rowgroup", colspan: columns.length }, h("span", {}, heading))),
      rows.map((row) => h("tr", rowProps?.(row), columns.map((column, i) => cell(column, row, i === first)))),
    ),
  );
  const empty = bodies.length ? null : h("p", { class: "muted" }, "No row passes the filters.");
  const made = h("table", { class: wide ? "wide" : null }, h("caption", {}, h("span", {}, caption)), head, bodies);
  return h(
    "div",
    { class: "table" },
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${name}` }, made),
    empty,
    notes,
    copyButtons(() => asText({ caption, columns, sections }), name),
  );
}

function groupRow(columns) {
  if (!columns.some((column) => column.group)) return null;
  const groups = [];
  for (const column of columns) {
    if (groups.length && groups.at(-1).group === column.group) groups.at(-1).span += 1;
    else groups.push({ group: column.group, span: 1 });
  }
  return h(
    "tr",
    { class: "groups" },
    groups.map(({ group, span }) => (group ? h("th", { scope: "colgroup", colspan: span }, h("span", {}, group)) : h("td", { colspan: span }))),
  );
}

function header(column, sort, onSort, name) {
  const sorted = sort === column.id ? "ascending" : sort === `-${column.id}` ? "descending" : null;
  const title = column.head ?? column.title;
  const sortable = onSort && column.value && column.sortable !== false;
  return h(
    "th",
    { scope: "col", class: column.numeric ? "number" : null, "aria-sort": sortable ? (sorted ?? "none") : null, title: column.about },
    sortable
      ? button([h("span", {}, title), h("span", { class: "arrow", "aria-hidden": "true" }, { ascending: "▲", descending: "▼" }[sorted] ?? "")], () => onSort(column.id, column.first ?? ""), {
          class: "sort",
          focus: `sort ${name} ${column.id}`,
        })
      : h("span", {}, title),
  );
}

function cell(column, row, heading) {
  const content = column.cell ? column.cell(row) : column.text(row);
  const kind = [column.numeric && "number", content === MISSING && "missing", column.class].filter(Boolean).join(" ") || null;
  return heading ? h("th", { scope: "row", class: kind }, content) : h("td", { class: kind }, content);
}

/** The table as `copy.js` takes it. */
function asText({ caption, columns, sections }) {
  const copied = columns.filter((column) => column.copied !== false);
  const numbers = copied.flatMap((column) => column.csv ?? [{ title: column.title, value: column.value ?? column.text }]);
  const rows = sections.flatMap(({ heading, rows: members }) => [
    ...(heading && members.length ? [{ heading }] : []),
    ...members.map((row) => ({
      raw: numbers.map((column) => column.value(row)),
      printed: copied.map((column) => column.text(row)),
    })),
  ]);
  return {
    caption,
    columns: copied.map((column) => ({ title: [column.group, column.title].filter(Boolean).join(": "), numeric: column.numeric })),
    csv: numbers.map((column) => column.title),
    rows,
  };
}
