// What is not of one canary: files that were refused, proxies, events.

import { byId, h, renew, table, write } from "./dom.js";
import { get } from "./server.js";
import { ago, time, whole } from "./words.js";

/** Events that are shown; older ones are forgotten. */
const MAX_EVENTS = 200;
/** Rows of proxies at most. */
const MAX_PROXIES = 100;
/** A connection for events that was refused is tried again after so many milliseconds. */
const AGAIN = 5000;

const root = byId("site");
const refused = h("section", { class: "refused", hidden: true });
const proxies = h("section", {});
const events = h("section", {});
const list = h("ol", { class: "events" });
const live = h("p", { class: "muted" });
events.append(h("h2", {}, "Events"), live, list);
root.append(refused, events, proxies);

/** Shows the files whose present text is wrong. */
export const showRefused = async () => {
  const files = await get("/api/v1/refused-files");
  const problems = files.flatMap((file) => file.errors);
  refused.hidden = problems.length === 0;
  renew(refused, problems, () => [
    h("h2", {}, "Files that are refused"),
    h("p", {}, "What they said before goes on."),
    h("ul", { class: "conditions" }, problems.map(({ file, line, column, field, message }) => h("li", { class: "bad" }, h("strong", {}, `${file}:${line}:${column}: `), `${field}: ${message}`))),
  ]);
};

/** Shows who takes configuration or reports. */
export const showProxies = async () => {
  const all = await get("/api/v1/proxies");
  all.sort((a, b) => Number(Boolean(b.last_refusal)) - Number(Boolean(a.last_refusal)) || (a.node < b.node ? -1 : 1));
  const rows = all.slice(0, MAX_PROXIES).map((proxy) => [
    proxy.node,
    proxy.streams > 0 ? ["since ", time(proxy.connected_since)] : "only reports",
    proxy.last_report_ms === null ? "none" : ago(proxy.last_report_ms),
    proxy.last_refusal ? `${proxy.last_refusal.resources}: ${proxy.last_refusal.message}` : "nothing",
  ]);
  // How long ago it reported is told to the second, and would be another text each time.
  renew(proxies, [all.length, rows.map((row) => [row[0], typeof row[1], row[2], row[3]])], () => [
    h("h2", {}, "Proxies"),
    all.length === 0
      ? h("p", {}, "No Envoy takes configuration or reports: start one with what ", h("code", {}, "wingbeat bootstrap"), " prints.")
      : table(`Proxies (${whole(all.length)})`, ["Proxy", "Takes configuration", "Last report", "Refused last"], rows.map((row) => row.map((cell) => (Array.isArray(cell) ? h("span", {}, ...cell) : cell))), "words"),
    all.length > MAX_PROXIES ? h("p", { class: "muted" }, `${whole(all.length - MAX_PROXIES)} more.`) : null,
  ]);
};

let only = null;

/** Shows the events of this canary alone, or of all. */
export const showEventsOf = (key) => {
  only = key;
  for (const item of list.children) item.hidden = only !== null && item.dataset.of !== only;
  proxies.hidden = key !== null;
};

const show = (event) => {
  const of = `${event.namespace}/${event.name}`;
  const item = h("li", { class: event.type === "Warning" ? "bad" : "", "data-of": of, hidden: only !== null && of !== only }, time(event.t), " ", event.message);
  list.prepend(item);
  while (list.children.length > MAX_EVENTS) list.lastChild.remove();
};

/** Follows events from the one on that was had last. */
export const follow = (had = "") => {
  const source = new EventSource(`/api/v1/events?follow=true&after=${encodeURIComponent(had)}`);
  let last = had;
  source.onopen = () => write(live, "");
  source.onmessage = (message) => {
    last = message.lastEventId;
    show(JSON.parse(message.data));
  };
  source.onerror = () => {
    write(live, "New events do not come in now; those that are missing follow by themselves.");
    // A browser comes back by itself, but not where it was refused, or something in between answers.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(last), AGAIN);
  };
};
