// The list of canaries: what failed first, whatever their number, without holding the browser up.

import { byId, h, renew, write } from "./dom.js";
import { percent, state, time, whole } from "./words.js";

/** Rows at most: of more, those are shown that come first, and the filter finds the others. */
const MAX_ROWS = 1000;
/** The browser does something else after so many milliseconds of work on rows. */
const SLICE = 12;

/** The states that can be filtered by, in the order of the list. */
const KINDS = [["bad", "Failed"], ["gate", "Waiting"], ["wait", "In progress"], ["trouble", "In trouble"], ["rest", "At rest"]];

/** Returns to which of them a canary belongs. */
const kindOf = (canary) => {
  const [, kind] = state(canary);
  if (kind === "rest" || kind === "good") return canary.trouble ? "trouble" : "rest";
  return kind;
};

const keyOf = (canary) => `${canary.namespace}/${canary.name}`;

/** The address of a canary on this page. */
export const address = (canary) => `#/${encodeURIComponent(canary.namespace)}/${encodeURIComponent(canary.name)}`;

/** Elements of rows by canary, with what they were made of. */
const rows = new Map();
let canaries = [];
let chosen = null;
let kind = null;
let turn = 0;

const fillRow = (row, canary) => {
  const [word, of] = state(canary);
  const isShared = canary.weight > 0 && !["Succeeded", "Failed"].includes(canary.phase);
  row.link.replaceChildren(
    h("span", { class: "name" }, keyOf(canary)), " ",
    h("span", { class: `badge ${of}` }, word), " ",
    h("span", { class: "muted row" },
      isShared ? `${percent(canary.weight)} to ${canary.canary_revision ?? "–"}, ` : `${canary.primary_revision || "no revision"}, `,
      time(canary.last_transition_time, "relative")),
    ...(canary.trouble ? [h("span", { class: "trouble" }, canary.trouble)] : []),
  );
};

const rowOf = (canary) => {
  const key = keyOf(canary);
  const made = JSON.stringify(canary);
  let row = rows.get(key);
  if (!row) {
    const link = h("a", { href: address(canary), tabindex: "-1" });
    row = { item: h("li", {}, link), link, made: "" };
    rows.set(key, row);
  }
  if (row.made !== made) {
    row.made = made;
    fillRow(row, canary);
  }
  return row;
};

/** Lets the browser do what else there is. */
const breathe = () => new Promise((resolve) => setTimeout(resolve));

const byTrouble = (order) => (a, b) => order.get(kindOf(a)) - order.get(kindOf(b)) || (keyOf(a) < keyOf(b) ? -1 : 1);

const render = async () => {
  turn += 1;
  const mine = turn;
  const wanted = byId("filter").value.trim().toLowerCase();
  const matching = canaries.filter((canary) => (!kind || kindOf(canary) === kind) && keyOf(canary).toLowerCase().includes(wanted));
  matching.sort(byTrouble(new Map(KINDS.map(([name], place) => [name, place]))));
  const shown = matching.slice(0, MAX_ROWS);
  const isAll = matching.length === canaries.length;
  write(byId("count"), isAll ? `${whole(canaries.length)} ${canaries.length === 1 ? "canary" : "canaries"}` : `${whole(matching.length)} of ${whole(canaries.length)} canaries`);
  write(byId("more"), matching.length > shown.length ? `${whole(matching.length - shown.length)} more: filter by name to see them.` : "");
  const list = byId("rows");
  let began = performance.now();
  for (const [place, canary] of shown.entries()) {
    const { item } = rowOf(canary);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    if (performance.now() - began > SLICE) {
      await breathe();
      if (mine !== turn) return;
      began = performance.now();
    }
  }
  while (list.children.length > shown.length) {
    list.lastChild.remove();
    if (performance.now() - began > SLICE) {
      await breathe();
      if (mine !== turn) return;
      began = performance.now();
    }
  }
  const known = new Set(canaries.map(keyOf));
  for (const key of rows.keys()) if (!known.has(key)) rows.delete(key);
  mark();
};

/** Marks the chosen row. One row can be reached by Tab, the others from there by the arrow keys. */
const mark = () => {
  const list = byId("rows");
  for (const link of list.querySelectorAll("a[aria-current]")) link.removeAttribute("aria-current");
  const current = chosen === null ? null : rows.get(chosen)?.link;
  current?.setAttribute("aria-current", "page");
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const reachable = focused ?? (current?.isConnected ? current : list.querySelector("a"));
  for (const link of list.querySelectorAll('a[tabindex="0"]')) if (link !== reachable) link.tabIndex = -1;
  if (reachable) reachable.tabIndex = 0;
};

const showKinds = () => {
  const counts = KINDS.map(([name, word]) => [name, word, canaries.filter((canary) => kindOf(canary) === name).length]);
  renew(byId("phases"), [counts, kind], () => counts.filter(([name, , count]) => count > 0 || name === kind).map(([name, word, count]) => {
    const button = h("button", { type: "button", class: `chip ${name}`, "data-kind": name, "aria-pressed": String(kind === name) }, `${word} ${whole(count)}`);
    button.addEventListener("click", () => {
      kind = kind === name ? null : name;
      showKinds();
      byId("phases").querySelector(`[data-kind="${name}"]`)?.focus();
      render();
    });
    return button;
  }));
};

/** Shows these canaries. */
export const showList = async (next) => {
  canaries = next;
  showKinds();
  await render();
};

/** Marks this canary as the one that is looked at. */
export const choose = (key) => {
  chosen = key;
  mark();
};

byId("filter").addEventListener("input", render);
byId("rows").addEventListener("keydown", (event) => {
  const item = event.target.closest("li");
  const list = byId("rows");
  const next = {
    ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling, Home: list.firstElementChild, End: list.lastElementChild,
  }[event.key];
  if (!next) return;
  event.preventDefault();
  const link = next.querySelector("a");
  event.target.tabIndex = -1;
  link.tabIndex = 0;
  link.focus();
});
