// How complete a run is: questions down, models across. A cell is a button; arrow keys go from one to the next.

const STATES = { d: ["done", "✓"], f: ["failed", "✕"], m: ["missing", "–"] };
const MOST_CELLS = 4000; // at once in the document
let rowsShown = 0;

function setUpRuns() {
  if (!DATA.runs.length) return;
  byId("runs").hidden = false;
  const chosen = byId("run");
  DATA.runs.forEach((run, at) => chosen.append(new Option(runTitle(run), at)));
  const unwell = DATA.runs.filter((run) => !isComplete(run)).length;
  const shown = DATA.runs.length < DATA.runs_in_all ? `the newest ${number(DATA.runs.length)} of ${number(DATA.runs_in_all)} runs` : `${number(DATA.runs.length)} runs`;
  byId("runs-about").textContent = DATA.runs_in_all === 1 ? "" : `${shown}, ${unwell ? number(unwell) + " not complete" : "all complete"}`;
  for (const id of ["run", "unwell"]) byId(id).addEventListener("change", () => showRun());
  byId("matrix").addEventListener("click", openCell);
  byId("matrix").addEventListener("keydown", moveInMatrix);
  showRun();
}

const isComplete = (run) => run.failed + run.missing === 0;

const runTitle = (run) =>
  `${isComplete(run) ? "✓" : "✕"} ${moment(run.first_s).slice(0, 16)}, ${number(run.done)}/${number(run.expected)}: ${plain(run.execution_id)}`;

/** Short names: the model's, with its platform only where that is not enough. */
function namesOf(columns) {
  const models = columns.map(([platform, model]) => model ?? platform ?? "?");
  const seen = new Map();
  models.forEach((model) => seen.set(model, (seen.get(model) ?? 0) + 1));
  return columns.map(([platform, model], at) => (seen.get(models[at]) > 1 ? nameOf(platform, model) : models[at]));
}

const currentRun = () => DATA.runs[byId("run").value];

const rowsOf = (run) =>
  run.rows.map((row, at) => [row, at]).filter(([row]) => !byId("unwell").checked || /[fm]/.test(row.cells));

function showRun() {
  const run = currentRun();
  const complete = isComplete(run);
  byId("run-about").replaceChildren(
    node("span", { class: complete ? "chip good" : "chip bad" }, complete ? "complete" : "not complete"),
    ` ${number(run.done)} of ${number(run.expected)} done, ${number(run.failed)} failed, ${number(run.missing)} missing`,
  );
  byId("matrix-more").replaceChildren();
  if (!run.rows) {
    return byId("matrix").replaceChildren(node("p", {}, "The page has no room for the cells of all runs: a report with --execution-id shows this one."));
  }
  const names = namesOf(run.columns);
  const isWide = names.length > 6;
  const head = names.map((name, at) =>
    node("th", { scope: "col", class: isWide && "tall", title: plain(nameOf(...run.columns[at]), 200) }, theirs(name)));
  const body = node("tbody");
  const shown = node("table", { class: isWide ? "matrix wide" : "matrix few", role: "grid" },
    node("caption", { class: "unheard" }, "Cells of the run; arrow keys move, Enter opens a cell"),
    node("thead", {}, node("tr", {}, node("th", { scope: "col", class: "corner" }, "question"), ...head)), body);
  byId("matrix").replaceChildren(shown);
  rowsShown = 0;
  showMoreRows(run, body, names);
}

function showMoreRows(run, body, names) {
  const rows = rowsOf(run);
  const most = Math.max(20, Math.floor(MOST_CELLS / Math.max(1, names.length)));
  for (const [row, at] of rows.slice(rowsShown, rowsShown + most)) body.append(rowOf(row, at, names));
  rowsShown = Math.min(rows.length, rowsShown + most);
  const first = body.querySelector("button");
  if (first) first.tabIndex = 0;
  const place = byId("matrix-more");
  place.replaceChildren();
  if (run.rows_in_all > run.rows.length) {
    place.append(`${number(run.rows.length)} of ${number(run.rows_in_all)} questions are in this page, those with a failed or missing cell first. `);
  }
  if (run.columns_in_all > names.length) {
    place.append(`The first ${number(names.length)} of ${number(run.columns_in_all)} models are shown. `);
  }
  if (rowsShown < rows.length) {
    const more = node("button", { type: "button" }, `Show more: ${number(rowsShown)} of ${number(rows.length)} questions`);
    more.addEventListener("click", () => showMoreRows(run, body, names));
    place.append(more);
  } else if (!rows.length) place.append("Every question has an answer of every model.");
}

function rowOf(row, at, names) {
  const title = node("th", { scope: "row", title: row.label ? plain(row.label, 200) : undefined },
    row.index === null ? null : node("span", { class: "index" }, row.index), theirs(row.label ?? (row.index === null ? "?" : "")));
  const cells = Array.from(row.cells, (letter, column) => {
    if (!STATES[letter]) return node("td");
    const [state, sign] = STATES[letter];
    const about = `${row.index === null ? "question" : "question " + row.index}, ${plain(names[column])}: ${state}`;
    const button = node("button", { type: "button", class: state, "aria-label": about, title: about, tabindex: -1,
      "data-row": at, "data-column": column }, sign);
    return node("td", {}, button);
  });
  return node("tr", {}, title, ...cells);
}

function openCell(event) {
  const button = event.target.closest("button");
  if (!button) return;
  const run = currentRun();
  const row = run.rows[button.dataset.row];
  const call = DATA.calls.calls[row.calls[button.dataset.column]];
  if (call) return openCall(call);
  const [platform, model] = run.columns[button.dataset.column];
  const state = STATES[row.cells[button.dataset.column]][0];
  const why = state === "missing"
    ? "The log has no answer for this cell."
    : "The texts of this call are not in this page, which has a sample. A report of fewer records has them: --execution-id, --model, --since.";
  openNote(nameOf(platform, model), [["state", state], ["question", row.label ?? row.index], ["run", run.execution_id]], why);
}

function moveInMatrix(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e6], End: [0, 1e6] };
  const step = steps[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const rows = cell.closest("tbody").rows;
  const row = rows[Math.min(rows.length - 1, Math.max(0, cell.parentElement.rowIndex - 1 + step[0]))];
  const column = Math.min(row.cells.length - 1, Math.max(1, cell.cellIndex + step[1]));
  const button = row.cells[column].querySelector("button");
  if (!button) return;
  event.target.tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}
