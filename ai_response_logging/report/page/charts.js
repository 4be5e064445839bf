// The two charts: how long models take, and what happened when. Drawn as SVG, so that they print sharp.

const SHOWN_MODELS = 25;
const BAR_HEIGHT = 26;
const PAPER_WIDTH = 680; // A4 and Letter less their margins
const drawn = [];
let isPrinting = false;

/** The page's own colours, as they are now. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "quiet", "line", "paper", "good", "bad", "accent", "accent-soft"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
}

function draw(id, optionsOf) {
  const place = byId(id);
  const chart = echarts.init(place, null, { renderer: "svg" });
  const redraw = () => chart.setOption(optionsOf(colours()), true);
  redraw();
  drawn.push({ chart, redraw });
  new ResizeObserver(() => isPrinting || chart.resize()).observe(place);
}

const redrawAll = () => drawn.forEach(({ redraw }) => redraw());

/** Makes charts as wide as the paper, or as the window again. */
function fitCharts(forPaper) {
  isPrinting = forPaper;
  drawn.forEach(({ chart }) => chart.resize({ width: forPaper ? PAPER_WIDTH : "auto" }));
}

const base = (colour) => ({
  animation: false,
  textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colour.ink },
  legend: { top: 0, left: 0, itemWidth: 14, itemHeight: 10, textStyle: { color: colour.ink } },
  tooltip: {
    trigger: "axis",
    renderMode: "richText", // never HTML: names of models are in it
    confine: true,
    backgroundColor: colour.paper,
    borderColor: colour.line,
    textStyle: { color: colour.ink, fontSize: 12 },
    axisPointer: { type: "shadow", shadowStyle: { color: colour.line, opacity: 0.35 } },
  },
});

const valueAxis = (colour, more) => ({
  type: "value",
  axisLabel: { color: colour.quiet },
  nameTextStyle: { color: colour.quiet },
  splitLine: { lineStyle: { color: colour.line } },
  ...more,
});

const categoryAxis = (colour, data, more) => ({
  type: "category",
  data,
  axisTick: { show: false },
  axisLine: { lineStyle: { color: colour.line } },
  axisLabel: { color: colour.ink },
  ...more,
});

function drawLatency() {
  const timed = DATA.groups.filter((group) => group.latency_ms.p50 !== null).slice(0, SHOWN_MODELS);
  const place = byId("latency-chart");
  if (!timed.length) return void (place.hidden = true);
  const ordered = timed.toSorted((one, other) => other.latency_ms.p50 - one.latency_ms.p50);
  const names = ordered.map((group) => label(nameOf(group.platform, group.model)));
  const of = (name) => ordered.map((group) => group.latency_ms[name]);
  if (timed.length < DATA.groups_in_all) {
    place.before(node("p", { class: "quiet" }, `The chart has the ${number(timed.length)} with the most calls, of ${number(DATA.groups_in_all)}.`));
  }
  place.style.height = 84 + BAR_HEIGHT * ordered.length + "px";
  place.setAttribute("aria-label", `Latency of ${ordered.length} models: p50, p95 and p99; the table below has the figures.`);
  const points = (name, symbol, color) => ({
    name, type: "scatter", symbol, symbolSize: 11, data: of(name), itemStyle: { color }, z: 3,
  });
  draw("latency-chart", (colour) => ({
    ...base(colour),
    legend: { ...base(colour).legend, data: ["p50", "p95", "p99"] },
    tooltip: { ...base(colour).tooltip, formatter: (series) => latencyTold(ordered[series[0].dataIndex]) },
    grid: { left: 8, right: 32, top: 34, bottom: 8, containLabel: true },
    xAxis: valueAxis(colour, { min: 0, axisLabel: { color: colour.quiet, formatter: duration, hideOverlap: true } }),
    yAxis: categoryAxis(colour, names),
    series: [
      // A thin line from p50 to p99: an unseen bar, and one on top of it.
      { type: "bar", stack: "span", silent: true, data: of("p50"), itemStyle: { color: "transparent" }, barWidth: 3 },
      {
        type: "bar", stack: "span", silent: true, barWidth: 3, itemStyle: { color: colour["accent-soft"] },
        data: ordered.map((group) => group.latency_ms.p99 - group.latency_ms.p50),
      },
      points("p50", "circle", colour.accent),
      points("p95", "diamond", colour.quiet),
      points("p99", "triangle", colour.ink),
    ],
  }));
}

function latencyTold(group) {
  const lines = ["p50", "p95", "p99"].map((name) => `${name}  ${duration(group.latency_ms[name])}`);
  return [label(nameOf(group.platform, group.model), 60), `${number(group.records)} calls`, ...lines].join("\n");
}

function bucketName(at) {
  const { bucket_s: size, first_s: first } = DATA.timeline;
  const start = first + at * size;
  return size >= 86400 ? moment(start, { time: false }) : moment(start).slice(5, size >= 60 ? 16 : 19);
}

function spanName(seconds) {
  for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
    if (seconds >= size) return seconds === size ? name : `${number(seconds / size)} ${name}s`;
  }
}

function drawTimeline() {
  const { succeeded, failed, tokens, bucket_s: size, without_time: without } = DATA.timeline;
  if (!succeeded.length) return;
  byId("time").hidden = false;
  const missing = without ? ` ${number(without)} calls have no time and are not in it.` : "";
  byId("time-about").textContent = `One bar for each ${spanName(size)}, times at UTC${zoneName()}.${missing}`;
  const names = succeeded.map((_, at) => bucketName(at));
  const hasTokens = tokens.some(Boolean);
  byId("time-chart").style.height = hasTokens ? "380px" : "240px";
  byId("time-chart").setAttribute("aria-label", "Calls that succeeded and failed, and tokens, over time; the table below has the figures.");
  const bars = (name, data, color, axis, stack) => ({
    name, type: "bar", stack, data, itemStyle: { color }, xAxisIndex: axis, yAxisIndex: axis, barMaxWidth: 28, barCategoryGap: "20%",
  });
  draw("time-chart", (colour) => ({
    ...base(colour),
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    grid: [
      { left: 64, right: 24, top: 58, height: 146 },
      ...(hasTokens ? [{ left: 64, right: 24, top: 242, height: 100 }] : []),
    ],
    xAxis: (hasTokens ? [0, 1] : [0]).map((gridIndex) =>
      categoryAxis(colour, names, { gridIndex, axisLabel: { color: colour.quiet, hideOverlap: true, show: !hasTokens || gridIndex === 1 } })),
    yAxis: (hasTokens ? ["calls", "tokens"] : ["calls"]).map((name, gridIndex) =>
      valueAxis(colour, { name, gridIndex, minInterval: 1, splitNumber: 3, nameTextStyle: { color: colour.quiet, align: "right" }, axisLabel: { color: colour.quiet, formatter: short } })),
    series: [
      bars("succeeded", succeeded, colour.good, 0, "calls"),
      bars("failed", failed, colour.bad, 0, "calls"),
      ...(hasTokens ? [bars("tokens", tokens, colour.accent, 1)] : []),
    ],
  }));
  const rows = names.map((name, at) => [name, number(succeeded[at]), number(failed[at]), number(tokens[at])]);
  byId("time-table").append(table("Calls and tokens over time", ["from", "succeeded", "failed", "tokens"], rows, [1, 2, 3]));
}

const short = (value) => value.toLocaleString("en", { notation: "compact" });
