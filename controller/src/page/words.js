// Numbers and times as people write them.

import { h, write } from "./dom.js";

/** How much later the server's clock is than this one, in milliseconds: times are told by the server's. */
let skew = 0;

export const followClock = (date) => {
  const server = Date.parse(date ?? "");
  // It is told in whole seconds.
  if (Number.isFinite(server) && Math.abs(server - Date.now() - skew) > 2000) skew = server - Date.now();
};

export const now = () => Date.now() + skew;

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** 850 ms, 12.3 s, 4 min 5 s, 3 h 20 min, 2 days. */
export const duration = (millis) => {
  const seconds = millis / 1000;
  if (seconds < 1) return `${Math.round(millis)} ms`;
  if (seconds < 120) return `${seconds < 10 ? Math.floor(seconds * 10) / 10 : Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return plural(Math.floor(hours / 24), "day");
};

/** The same to the second: what is older than a second is not told to the tenth. */
export const ago = (millis) => (millis < 1500 ? "just now" : `${duration(Math.floor(millis / 1000) * 1000)} ago`);

const pad = (number) => String(number).padStart(2, "0");

/** The time of day, with the day if it is another one. */
export const exact = (millis) => {
  const time = new Date(millis);
  const clock = `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  return new Date(now()).toDateString() === time.toDateString() ? clock : `${day} ${clock}`;
};

/** A time that tells how long ago it was, and when; the other way round as "exact", and as "relative" the first alone. */
export const time = (text, form = "both") => {
  const millis = Date.parse(text);
  if (!Number.isFinite(millis)) return h("span", {}, "–");
  const made = h("time", { datetime: text, title: new Date(millis).toString(), "data-form": form });
  tell(made);
  return made;
};

const tell = (element) => {
  const millis = Date.parse(element.dateTime);
  const relative = ago(now() - millis);
  const forms = { both: `${relative} (${exact(millis)})`, exact: `${exact(millis)} (${relative})`, relative };
  write(element, forms[element.dataset.form]);
};

/** Tells all times anew. */
export const tick = () => document.querySelectorAll("time").forEach(tell);

export const whole = (number) => new Intl.NumberFormat("en").format(number);

/** Three digits at most, and none that say nothing. */
export const short = (number) => (number < 0 ? "−" : "") + shortOf(Math.abs(number));

const shortOf = (number) => (number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(number >= 1 ? 3 : 2))));

export const percent = (number) => `${Number(number.toFixed(2))} %`;

export const millis = (number) => {
  if (number === null || number === undefined) return "–";
  return number >= 1000 ? `${short(number / 1000)} s` : `${short(number)} ms`;
};

/** The share of requests that went well, in percent; nothing where there was none. */
export const success = ({ requests, errors }) => (requests > 0 ? (100 * (requests - errors)) / requests : null);

/** 99.95 %: as many digits as tell it from all. */
export const rate = (number) => {
  if (number === null || number === undefined) return "–";
  return `${number === 100 || number < 99 ? Number(number.toFixed(1)) : Number(number.toFixed(3))} %`;
};

const PHASES = {
  Initializing: ["Initializing", "wait"],
  Initialized: ["Initialized", "rest"],
  Waiting: ["Waiting", "gate"],
  Progressing: ["Progressing", "wait"],
  WaitingPromotion: ["Waiting for promotion", "gate"],
  Promoting: ["Promoting", "wait"],
  Finalising: ["Finalising", "wait"],
  Succeeded: ["Succeeded", "good"],
  Failed: ["Failed", "bad"],
};

/** Returns how the state of a canary is called, and of which kind it is. */
export const state = (canary) => {
  const [word, kind] = PHASES[canary.phase] ?? [canary.phase, "rest"];
  if (kind === "wait" && canary.waits) return [`${word}, waits for approval`, "gate"];
  return [canary.paused ? `${word}, paused` : word, kind];
};
