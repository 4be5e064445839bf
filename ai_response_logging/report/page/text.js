"use strict";
// How text gets into the page. What models and people wrote is untrusted: it becomes text nodes, and nothing else.

// Second line of defence: where the browser knows Trusted Types, no string at all is taken as HTML or as a script.
// ECharts empties its element with innerHTML = "", which may pass.
if (window.trustedTypes) {
  trustedTypes.createPolicy("default", { createHTML: (html) => (html === "" ? "" : null) });
}

const byId = (id) => document.getElementById(id);

// Characters that nobody sees, or that change how their neighbours are shown: control characters but for tab and
// newline, marks and overrides of direction, zero-width ones, tags, separators, half surrogate pairs. The joiners stay:
// emoji and several scripts need them.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Cs}/gu;

const codeOf = (char) => "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

/** Appends `text` to `parent` as text nodes; unseen characters as their code, what is searched for as marks. */
function addText(parent, text, needle = "") {
  let done = 0;
  for (const found of text.matchAll(UNSEEN)) {
    addMarked(parent, text.slice(done, found.index), needle);
    parent.append(node("span", { class: "unseen", title: "a character that is not seen" }, codeOf(found[0])));
    done = found.index + found[0].length;
  }
  addMarked(parent, text.slice(done), needle);
}

function addMarked(parent, text, needle) {
  const folded = needle ? text.toLowerCase() : "";
  // Some letters change their length in lower case; places would be wrong then.
  if (!needle || folded.length !== text.length) return void parent.append(text);
  let done = 0;
  for (let at = folded.indexOf(needle); at >= 0; at = folded.indexOf(needle, done)) {
    const mark = document.createElement("mark");
    mark.textContent = text.slice(at, at + needle.length);
    parent.append(text.slice(done, at), mark);
    done = at + needle.length;
  }
  parent.append(text.slice(done));
}

/** Makes an element; `attributes` are ours, children are elements or texts of anybody's. */
function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) {
    if (child instanceof Node) made.append(child);
    else if (child !== undefined && child !== null) addText(made, String(child));
  }
  return made;
}

/** A text of somebody else's within a line of ours: its direction ends where it ends. */
const theirs = (text) => node("bdi", {}, text);

/** The same for places that take a plain string: chart labels, options, aria-label. */
function plain(text, most = 60) {
  const seen = String(text).replace(UNSEEN, (char) => `<${codeOf(char)}>`);
  const chars = Array.from(seen);
  return chars.length > most ? chars.slice(0, most - 1).join("") + "…" : seen;
}

/** For charts also without braces, which mark up their labels; FSI and PDI keep its direction to itself. */
const label = (text, most = 34) => "\u2068" + plain(text, most).replaceAll("{", "｛").replaceAll("}", "｝") + "\u2069";

const number = (value, digits = 0) =>
  value === null || value === undefined
    ? "–"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const percent = (part) => (part === 1 ? "100" : part === 0 ? "0" : Math.min(99.9, Math.max(0.1, part * 100)).toFixed(1)) + " %";

function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return number(ms) + " ms";
  if (ms < 600000) return number(ms / 1000, ms < 10000 ? 2 : ms < 100000 ? 1 : 0) + " s";
  return number(ms / 60000, 1) + " min";
}

/** A moment in the zone that the page was made for. */
function moment(seconds, { date = true, time = true } = {}) {
  if (seconds === null || seconds === undefined) return "?";
  const local = new Date((seconds + DATA.offset_s) * 1000);
  if (Number.isNaN(local.getTime())) return "?";
  const [day, clock] = local.toISOString().split("T");
  return [date && day, time && clock.slice(0, 8)].filter(Boolean).join(" ");
}

function zoneName() {
  const minutes = Math.abs(DATA.offset_s) / 60;
  const digits = [Math.floor(minutes / 60), Math.floor(minutes % 60)].map((part) => String(part).padStart(2, "0"));
  return (DATA.offset_s < 0 ? "-" : "+") + digits.join(":");
}

const nameOf = (platform, model) => [platform, model].filter(Boolean).join(" · ") || "?";

/** A table of `rows`, each a list of texts or elements; `numeric` says which columns stand to the right. */
function table(caption, headings, rows, numeric = []) {
  const side = (at) => ({ class: numeric.includes(at) ? "number" : undefined });
  const head = node("tr", {}, ...headings.map((text, at) => node("th", { scope: "col", ...side(at) }, text)));
  const body = rows.map((cells) =>
    node("tr", {}, ...cells.map((cell, at) => node(at ? "td" : "th", { scope: at ? undefined : "row", ...side(at) }, cell))));
  return node("table", {}, node("caption", { class: "unheard" }, caption), node("thead", {}, head), node("tbody", {}, ...body));
}

/** A bar of `part` (0 to 1) behind a figure. */
function meter(part, text, kind) {
  const made = node("div", { class: "meter " + kind }, node("span", {}, text));
  made.style.setProperty("--part", String(Math.min(1, Math.max(0, part))));
  return made;
}
