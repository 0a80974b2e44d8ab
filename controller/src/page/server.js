// What the server says, and whether it says anything.

import { byId, h, renew, write } from "./dom.js";
import { ago, duration, exact, followClock, now } from "./words.js";

/** A request that is not answered in so many milliseconds makes the server a slow one, … */
const SLOW = 2000;
/** … and in so many, it is given up. */
const GIVEN_UP = 10_000;
/** A server that is away is asked again after so many milliseconds, and twice as many each time, up to the last. */
const AGAIN = [1000, 8000];
/** How often it is asked whether this page is still its own, in milliseconds. */
const SAME_PAGE = 30_000;

const server = {
  /** "connecting", "here", "slow", "rebuilding" or "away". */
  state: "connecting",
  /** When it answered last, by this clock; what is shown is as old. */
  answered: null,
  why: "",
  page: null,
  /** What the server lacks that this page knows of. */
  lacks: new Set(),
  replaced: false,
};

const enter = (state, why = "") => {
  if (state === "here" && server.state === "away") checkPage();
  server.state = state;
  server.why = why;
  tellServer();
};

/** Writes how the server does. The words change with its state; how long it lasts stands beside them, unspoken. */
const tellServer = () => {
  const last = server.answered === null ? null : server.answered + (now() - Date.now());
  const words = {
    connecting: "Connecting …",
    here: "Live",
    slow: "The server answers slowly.",
    rebuilding: "The server is rebuilding its state and will answer soon.",
    away: last === null
      ? `The server does not answer${server.why}. It is asked again by itself.`
      : `The server does not answer${server.why}. Shown is what it said at ${exact(last)}. It is asked again by itself.`,
  };
  const element = byId("server");
  write(element, words[server.state]);
  element.className = server.state;
  const isCurrent = server.state === "here" || server.answered === null;
  write(byId("age"), isCurrent ? "" : `Last answer ${ago(Date.now() - server.answered)}.`);
  document.body.classList.toggle("stale", server.state === "away");
  const notices = [];
  if (server.replaced) notices.push("The server is of another version than this page now.");
  if (server.lacks.size > 0) notices.push(`The server is older than this page and does not tell ${[...server.lacks].join(", ")}.`);
  renew(byId("notices"), notices, (texts) => texts.map((text) => {
    const reload = h("button", { type: "button" }, "Reload the page");
    reload.addEventListener("click", () => location.reload());
    return h("p", { class: "notice" }, text, " ", reload);
  }));
};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const ask = async (path, options = {}) => {
  const began = performance.now();
  const late = setTimeout(() => enter("slow"), SLOW);
  try {
    let response;
    try {
      response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(GIVEN_UP), ...options });
    } catch (error) {
      const why = error.name === "TimeoutError" ? ` within ${duration(GIVEN_UP)}` : "";
      enter("away", why);
      throw error;
    }
    let body;
    try {
      body = await response.json();
    } catch (error) {
      // Something in between answers for a server that is away.
      enter("away", `: status ${response.status} came instead`);
      throw error;
    }
    followClock(response.headers.get("date"));
    server.answered = Date.now();
    if (performance.now() - began < SLOW) enter("here");
    if (!response.ok) throw new Refused(response.status, body.error ?? `status ${response.status}`);
    return body;
  } finally {
    clearTimeout(late);
  }
};

/** Returns what is at a path of the API. */
export const get = (path) => ask(path);

/** Returns the same, or nothing where the server does not know such a thing; it is then said what is missing. */
export const getIfKnown = async (path, what) => {
  try {
    const body = await ask(path);
    server.lacks.delete(what);
    return body;
  } catch (error) {
    if (!(error instanceof Refused) || (error.status !== 405 && error.status !== 404)) throw error;
    if (error.status === 405) server.lacks.add(what);
    tellServer();
    return null;
  }
};

/** Sends a command. */
export const post = (path, token, id) => ask(path, {
  method: "POST",
  headers: { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) },
  body: JSON.stringify({ id }),
});

/** Notes that the server is there and knows nothing yet. */
export const checkReady = async () => {
  const response = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(GIVEN_UP) });
  if (!response.ok) enter("rebuilding");
};

/** Asks whether the page is still the one that the server has. */
const checkPage = async () => {
  try {
    const response = await fetch("/", { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(GIVEN_UP) });
    const version = response.headers.get("etag");
    if (version === null) return;
    server.page ??= version;
    server.replaced = server.page !== version;
    tellServer();
  } catch {
    // Whoever asks for data tells it.
  }
};

/** Does something again and again, at most so often; less often where it takes long, nobody looks, or nobody answers. */
export const repeat = (every, task) => {
  let timer;
  let failures = 0;
  let isRunning = false;
  const run = async () => {
    clearTimeout(timer);
    if (isRunning) return;
    isRunning = true;
    const began = performance.now();
    try {
      await task();
      failures = 0;
    } catch (error) {
      failures += 1;
      if (!(error instanceof Refused) && server.state !== "away") console.error(error);
    }
    isRunning = false;
    const took = performance.now() - began;
    const pause = failures > 0 ? Math.min(AGAIN[0] * 2 ** (failures - 1), AGAIN[1]) : Math.max(every, 5 * took);
    timer = setTimeout(run, document.hidden ? Math.max(pause, 10_000) : pause);
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) run();
  });
  run();
  return run;
};

checkPage();
setInterval(checkPage, SAME_PAGE);
setInterval(tellServer, 1000);
