// The events: sorting, copies; and the downloads.

// Events

const table = $("event-table"), order = { column: 2, down: false }, body = table?.tBodies[0];
let limit = data.listed;
const cells = (event) => [event[0], labels[event[1]], event[2], event[3], event[3] - event[2], event[4]];
const sorted = () => {
  const rows = events.map((event) => [cells(event), event]);
  const { column, down } = order;
  rows.sort(([a], [b]) => (a[column] < b[column] ? -1 : a[column] > b[column] ? 1 : a[2] - b[2] || a[0] - b[0]));
  if (down) rows.reverse();
  return rows;
};
const listEvents = () => {
  const rows = sorted(), shown = rows.slice(0, limit);
  body.replaceChildren(...shown.map(([values, event]) => {
    const go = element("button", { type: "button", title: "Go to this moment" }, values[2].toFixed(2));
    go.addEventListener("click", () => choose(event[2], true));
    return element("tr", {}, element("td", {}, String(values[0])), element("td", {}, key(event[1]), values[1]),
      element("td", {}, go), ...[values[3], values[4]].map((v) => element("td", {}, v.toFixed(2))),
      element("td", {}, `${(100 * values[5]).toFixed(1)}%`));
  }));
  const count = $("event-count");
  count.replaceChildren(`${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} events `);
  if (shown.length < rows.length) {
    const more = element("button", { type: "button" }, "Show all");
    more.addEventListener("click", () => { limit = Infinity; listEvents(); });
    count.append(more);
  }
};
if (table) {
  for (const head of table.querySelectorAll("th")) {
    const column = Number(head.dataset.column), button = element("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      order.down = order.column === column && !order.down;
      order.column = column;
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      listEvents();
    });
  }
  table.querySelectorAll("th")[2].setAttribute("aria-sort", "ascending");
  listEvents();
}

// Copies and downloads

const eventRows = () => [["person", "expression", "start_s", "end_s", "dwell_s", "peak", "start_at"],
  ...sorted().map(([v, event]) => [v[0], v[1], v[2], v[3], Number(v[4].toFixed(6)), v[5], event[5] ?? ""])];
const numberRows = () => {
  const fields = ["shown_s", "shares", "mean_share"];
  const head = ["person", "first_s", "last_s", "seconds", "changes", "longest_emotion", "longest_start_s", "longest_s",
    ...fields.flatMap((field) => (field === "mean_share" ? labels.slice(0, -1) : labels).map((label) => `${field}_${label}`))];
  return [head, ...numbers.people.map((p) => [p.person_id, p.first, p.last, p.seconds, p.changes, p.longest?.emotion ?? "",
    p.longest?.start_s ?? "", p.longest?.dwell_s ?? "",
    ...fields.flatMap((field) => (field === "mean_share" ? labels.slice(0, -1) : labels)
      .map((label) => p[field][label] ?? (field === "mean_share" ? "" : 0)))])];
};
const csv = (rows) => rows.map((row) => row.map((value) => {
  const text = typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value); // no formulas
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}).join(",")).join("\r\n") + "\r\n";
const save = (text, type, suffix) => {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const stem = numbers.source.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-") || "report";
  element("a", { href: url, download: `${stem}-${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
};
$("get-csv")?.addEventListener("click", () => save(csv(numberRows()), "text/csv", "numbers.csv"));
$("get-json")?.addEventListener("click", () => save(JSON.stringify(numbers, null, 2) + "\n", "application/json", "numbers.json"));
$("get-events")?.addEventListener("click", () => save(csv(eventRows()), "text/csv", "events.csv"));
$("print")?.addEventListener("click", () => print());
$("copy-events")?.addEventListener("click", async (e) => {
  const text = eventRows().map((row) => row.join("\t")).join("\n");
  const button = e.currentTarget;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy"); // where the page has no access to the clipboard
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy table"; }, 1500);
});
