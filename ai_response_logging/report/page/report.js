// Reads the data block and fills the page.

const DATA = JSON.parse(byId("data").textContent);

function fillHead() {
  byId("title").replaceChildren(theirs(DATA.title));
  const asked = Object.entries(DATA.filters).map(([name, value]) => `${name} ${name === "since" || name === "until" ? moment(value) : value}`);
  byId("about").replaceChildren(
    theirs(DATA.log), ` · made ${moment(DATA.made_s)} ${zoneName()}`,
    ...(asked.length ? [" · only ", theirs(asked.join(", "))] : []));
  byId("footer").textContent = `ai-responses ${DATA.version}. Charts: Apache ECharts ${echarts.version}, Apache License 2.0. This page is one file and fetches nothing.`;
}

function fillSummary() {
  const tiles = [
    ["calls", number(DATA.records)],
    ["succeeded", DATA.records ? percent(DATA.succeeded / DATA.records) : "–", DATA.failed ? "" : "good"],
    ["failed", number(DATA.failed), DATA.failed ? "bad" : ""],
    ["latency p50", duration(DATA.latency_ms.p50)],
    ["p95", duration(DATA.latency_ms.p95)],
    ["p99", duration(DATA.latency_ms.p99)],
    ["tokens", DATA.tokens < 1e6 ? number(DATA.tokens) : short(DATA.tokens)],
  ];
  if (DATA.bad_lines) tiles.push(["bad lines", number(DATA.bad_lines), "bad"]);
  const made = tiles.map(([name, value, kind]) => node("div", { class: "tile " + (kind ?? "") }, node("dt", {}, name), node("dd", {}, value)));
  const span = DATA.first_s === null ? "" : `From ${moment(DATA.first_s)} to ${moment(DATA.last_s)}, times at UTC${zoneName()}.`;
  byId("summary").append(node("dl", { class: "tiles" }, ...made), node("p", { class: "quiet" }, span));
}

function fillModels() {
  drawLatency();
  const rows = DATA.groups.map((group) => [
    theirs(group.platform ?? "–"), theirs(group.model ?? "–"), number(group.records), number(group.failed),
    meter(group.success_rate, percent(group.success_rate), group.failed ? "bad" : "good"),
    ...["p50", "p95", "p99"].map((name) => duration(group.latency_ms[name])), number(group.tokens),
  ]);
  byId("models-table").append(table("Success and latency by platform and model",
    ["platform", "model", "calls", "failed", "success", "p50", "p95", "p99", "tokens"], rows, [2, 3, 5, 6, 7, 8]));
  if (DATA.groups_in_all > rows.length) {
    byId("models-table").after(node("p", {}, `The ${number(rows.length)} with the most calls, of ${number(DATA.groups_in_all)}.`));
  }
}

function fillErrors() {
  if (!DATA.errors.length) return;
  byId("errors").hidden = false;
  const rows = DATA.errors.map(({ error_type: kind, calls, models }) => {
    const name = node("button", { type: "button", class: "link" }, theirs(kind ?? "not said"));
    name.addEventListener("click", () => searchFor(kind ?? ""));
    const most = models.flatMap(([model, count], at) => [at ? ", " : "", theirs(model ?? "?"), ` ${number(count)}`]);
    return [name, number(calls), meter(calls / DATA.failed, percent(calls / DATA.failed), "bad"), node("span", {}, ...most)];
  });
  byId("errors-table").append(table("Errors by kind", ["kind", "calls", "of all failed", "most in"], rows, [1]));
  if (DATA.errors_in_all > rows.length) {
    byId("errors-table").after(node("p", {}, `The ${number(rows.length)} most frequent of ${number(DATA.errors_in_all)} kinds.`));
  }
}

function setUpTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const told = () => {
    byId("theme").textContent = isDark() ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", isDark() ? "Change to light colours" : "Change to dark colours");
    redrawAll();
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    told();
  });
  dark.addEventListener("change", told);
  // Paper is white, whatever the screen is.
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    fitCharts(true);
    redrawAll();
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    fitCharts(false);
    told();
  });
  told();
}

fillHead();
fillSummary();
setUpRuns();
fillModels();
drawTimeline();
fillErrors();
setUpCalls();
setUpTheme();
