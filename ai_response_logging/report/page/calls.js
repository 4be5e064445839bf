// The calls whose texts are in the page: a list to search, and a dialog with one call whole.

const PAGE = 25;
const LONG_TEXTS = ["question", "response", "system", "error_message", "tool_calls"];
let found = [];
let listed = 0;
let opened = null;

/** One call's long text; in the data each text stands once, and calls name its place. */
const textOf = (call, name) => (call[name] === undefined ? "" : DATA.calls.texts[call[name]]);

const searchedIn = new Map();

/** Everything of a call that a search looks at, in lower case; made at the first search. */
function haystack(call) {
  let text = searchedIn.get(call);
  if (text === undefined) {
    const parts = Object.entries(call).map(([name, value]) => (LONG_TEXTS.includes(name) ? textOf(call, name) : typeof value === "string" ? value : ""));
    text = parts.join("\n").toLowerCase();
    searchedIn.set(call, text);
  }
  return text;
}

const needle = () => byId("search").value.trim().toLowerCase();

const ORDERS = {
  newest: (one, other) => (other.unix_timestamp ?? -Infinity) - (one.unix_timestamp ?? -Infinity),
  oldest: (one, other) => (one.unix_timestamp ?? Infinity) - (other.unix_timestamp ?? Infinity),
  slowest: (one, other) => (other.latency_ms ?? -1) - (one.latency_ms ?? -1),
};

function setUpCalls() {
  const { calls, records, failed, failed_shown: failedShown } = DATA.calls;
  byId("calls-about").textContent = calls.length === records
    ? `All ${number(records)} calls are here with their texts.`
    : `The texts of ${number(calls.length)} of ${number(records)} calls are in this page: ${number(failedShown)} of ${number(failed)} that failed, the slowest, and a sample of the rest. All figures above are of all calls.`;
  byId("kind").value = failedShown ? "failed" : "all";
  for (const id of ["kind", "order"]) byId(id).addEventListener("change", search);
  byId("search").addEventListener("input", search);
  byId("search").addEventListener("keydown", (event) => event.key === "Enter" && byId("list").querySelector("button")?.focus());
  byId("more").addEventListener("click", listMore);
  byId("close").addEventListener("click", () => byId("call").close());
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("call").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  byId("call").addEventListener("click", (event) => event.target === byId("call") && byId("call").close());
  search();
}

function search() {
  const wanted = needle();
  const kind = byId("kind").value;
  found = DATA.calls.calls
    .filter((call) => kind === "all" || call.success === (kind === "succeeded"))
    .filter((call) => !wanted || haystack(call).includes(wanted))
    .toSorted(ORDERS[byId("order").value]);
  const what = (kind === "all" ? "" : kind + " ") + (found.length === 1 ? "call" : "calls");
  const isSample = DATA.calls.calls.length < DATA.calls.records;
  byId("found").textContent =
    `${number(found.length)} ${what}${wanted ? " found" : ""}${isSample ? " among those with their texts in this page" : ""}`;
  byId("list").replaceChildren();
  listed = 0;
  listMore();
}

/** Searches for what failed in one way: from the table of errors. */
function searchFor(text) {
  byId("search").value = text;
  byId("kind").value = "failed";
  search();
  byId("calls").scrollIntoView();
  byId("search").focus();
}

function listMore() {
  for (const call of found.slice(listed, listed + PAGE)) byId("list").append(itemOf(call));
  listed = Math.min(found.length, listed + PAGE);
  byId("more").hidden = listed === found.length;
  byId("more").textContent = `Show more: ${number(listed)} of ${number(found.length)}`;
}

function itemOf(call) {
  const wanted = needle();
  const button = node("button", { type: "button", class: "item" },
    node("span", { class: "line" }, stateOf(call), node("b", {}, theirs(nameOf(call.platform, call.model))),
      node("span", { class: "quiet" }, duration(call.latency_ms)), node("span", { class: "quiet" }, moment(call.unix_timestamp))),
    excerpt("question", textOf(call, "question"), wanted),
    excerpt(call.success ? "answer" : "answer bad-text", answerOf(call, wanted), wanted));
  button.addEventListener("click", () => openCall(call));
  return node("li", {}, button);
}

const stateOf = (call) =>
  call.success ? node("span", { class: "chip good" }, "succeeded") : node("span", { class: "chip bad" }, theirs(plain(call.error_type ?? "failed")));

/** What a call came to; where the search found something else, that. */
function answerOf(call, wanted) {
  const names = call.success ? ["response", "error_message"] : ["error_message", "response"];
  const texts = [...names, "system", "tool_calls"].map((name) => textOf(call, name)).filter(Boolean);
  const isFound = (text) => text.toLowerCase().includes(wanted);
  return (wanted && !isFound(textOf(call, "question")) && texts.find(isFound)) || texts[0] || "";
}

/** The first characters of a text, or those around what was searched for. */
function excerpt(kind, text, wanted) {
  const at = wanted ? Math.max(0, text.toLowerCase().indexOf(wanted) - 60) : 0;
  const part = Array.from(text.slice(at, at + 600)).slice(0, 260).join("");
  const made = node("bdi", { class: "excerpt " + kind });
  addText(made, (at ? "…" : "") + part, wanted);
  return made;
}

const FIELDS = [
  ["time", (call) => call.unix_timestamp === undefined ? undefined : `${moment(call.unix_timestamp)} ${zoneName()}`],
  ["latency", (call) => call.latency_ms === undefined ? undefined : duration(call.latency_ms)],
  ["first token", (call) => call.ttft_ms === undefined ? undefined : duration(call.ttft_ms)],
  ["tokens", tokensOf],
  ["error", (call) => [call.error_type, call.error_class, call.http_status_code].filter(Boolean).join(" · ") || undefined],
  ["retries", (call) => call.retry_count || undefined],
  ["stream", (call) => call.stream_end],
  ["answered by", (call) => (call.response_model === call.model ? undefined : call.response_model)],
  ["brand", (call) => call.brand],
  ["run", (call) => call.execution_id && call.execution_id + (call.question_index ? `, question ${call.question_index}` : "")],
  ["record", (call) => call.record_id],
];

function tokensOf(call) {
  const parts = [["prompt_tokens", "in"], ["completion_tokens", "out"], ["tokens_used", "in all"]];
  const told = parts.filter(([name]) => call[name] !== undefined).map(([name, what]) => `${number(call[name])} ${what}`);
  return told.length ? told.join(", ") : undefined;
}

function openCall(call) {
  opened = found.indexOf(call);
  byId("call-title").replaceChildren(stateOf(call), " ", theirs(nameOf(call.platform, call.model)));
  const facts = FIELDS.map(([name, of]) => [name, of(call)]).filter(([, value]) => value !== undefined);
  const texts = [["System", "system"], ["Question", "question"], ["Answer", "response"], ["Error", "error_message"], ["Tool calls", "tool_calls"]];
  byId("call-body").replaceChildren(factsOf(facts), ...texts.filter(([, name]) => textOf(call, name)).flatMap(([title, name]) => {
    const whole = node("div", { class: "text", dir: "auto" });
    addText(whole, textOf(call, name), needle());
    return [node("h3", {}, title), whole];
  }));
  show();
}

function openNote(title, facts, why) {
  opened = -1;
  byId("call-title").replaceChildren(theirs(title));
  byId("call-body").replaceChildren(factsOf(facts), node("p", {}, why));
  show();
}

const factsOf = (facts) => node("dl", {}, ...facts.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, theirs(value))]));

function show() {
  byId("before").hidden = byId("after").hidden = opened < 0;
  byId("before").disabled = opened <= 0;
  byId("after").disabled = opened >= found.length - 1;
  if (!byId("call").open) byId("call").showModal();
  byId("call-body").scrollTop = 0;
  byId("call-body").focus(); // keys scroll the text at once
}

function step(by) {
  const next = opened < 0 ? undefined : found[opened + by];
  if (next) openCall(next);
}
