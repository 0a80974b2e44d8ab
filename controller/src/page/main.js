// What is looked at, and how often it is asked for.

import { detail } from "./detail.js";
import { byId } from "./dom.js";
import { choose, showList } from "./list.js";
import { Refused, checkReady, get, getIfKnown, repeat } from "./server.js";
import { follow, showEventsOf, showProxies, showRefused } from "./site.js";
import { tick } from "./words.js";

/** How often what is looked at is asked for, in milliseconds. */
const EVERY = 1000;
/** How often that is asked for which changes seldom. */
const SELDOM = 3000;

/** The canary that is looked at, as [namespace, name]; none is all of them. */
let wanted = null;
/** The only canary there is: it is looked at where no other is asked for. */
let only = null;

/** The phase of that canary when it was asked for last. */
let phase = null;

const view = detail(byId("canary"), () => refresh());

/** Returns the canary that the address names. */
const named = () => {
  const parts = location.hash.replace(/^#\//, "").split("/");
  try {
    return parts.length === 2 && parts.every(Boolean) ? parts.map(decodeURIComponent) : null;
  } catch {
    return null;
  }
};

const route = (isByHand) => {
  const next = named() ?? only;
  const isOther = String(next) !== String(wanted);
  wanted = next;
  document.body.classList.toggle("one", named() !== null);
  byId("canary").hidden = wanted === null;
  choose(wanted?.join("/") ?? null);
  showEventsOf(wanted?.join("/") ?? null);
  if (wanted === null) document.title = "Wingbeat";
  if (!isOther) return;
  refresh();
  if (isByHand && wanted !== null) {
    view.title.textContent = wanted.join("/");
    view.title.focus();
  }
};

const refreshList = async () => {
  const canaries = await get("/api/v1/canaries?summary=true");
  if (canaries.length === 0) await checkReady();
  only = canaries.length === 1 ? [canaries[0].namespace, canaries[0].name] : null;
  await showList(canaries);
  route(false);
};

const refreshCanary = async () => {
  if (wanted === null) return;
  const [mine, path] = [wanted, `/api/v1/canaries/${wanted.map(encodeURIComponent).join("/")}`];
  try {
    const [canary, rollouts] = await Promise.all([get(path), getIfKnown(`${path}/rollouts`, "the course of rollouts")]);
    if (mine !== wanted) return;
    view.update(canary, rollouts);
    // The list is not behind what stands beside it.
    if (phase !== canary.phase) refreshAll();
    phase = canary.phase;
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error;
    if (mine === wanted) view.miss(mine.join("/"));
  }
};

addEventListener("hashchange", () => route(true));
byId("skip").addEventListener("click", (event) => {
  // The address says which canary is looked at, and stays.
  event.preventDefault();
  byId("content").focus();
});
const refresh = repeat(EVERY, refreshCanary);
const refreshAll = repeat(EVERY, refreshList);
repeat(SELDOM, showRefused);
repeat(SELDOM, showProxies);
setInterval(tick, 1000);
follow();
