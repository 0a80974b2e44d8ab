// Commands, each asked about where it cannot be taken back.

import { byId, h, write } from "./dom.js";
import { Refused, post } from "./server.js";

/** Where the token is while this tab is open: it is sent with commands and with nothing else. */
const TOKEN = "wingbeat-token";

/** Shows the dialog. Resolves with the text of its field, or nothing if it was left. */
const ask = ({ title, text, yes, field, danger }) => new Promise((resolve) => {
  const dialog = byId("ask");
  write(byId("ask-title"), title);
  write(byId("ask-text"), text);
  write(byId("ask-yes"), yes);
  byId("ask-yes").className = danger ? "danger" : "first";
  byId("ask-field").hidden = !field;
  const input = byId("ask-input");
  input.value = "";
  let answer = null;
  byId("ask-form").onsubmit = (event) => {
    event.preventDefault();
    answer = input.value;
    dialog.close();
  };
  byId("ask-no").onclick = () => dialog.close();
  dialog.onclose = () => {
    input.value = "";
    resolve(answer);
  };
  dialog.showModal();
});

const askToken = async (why) => {
  const text = `${why} It is kept until this tab is closed, and sent with commands only. An empty one is forgotten.`;
  const token = await ask({ title: "Token for commands", text, yes: "Keep", field: true });
  if (token === null) return null;
  if (token === "") sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, token);
  return token;
};

/** Repeating a command with the same id is harmless. Not all browsers have UUIDs without TLS. */
const newId = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
};

/** The verbs: how they are called, when they make sense, and what is asked first. */
const VERBS = [
  { verb: "approve", word: "Approve", fits: ({ canary, gate }) => gate !== null || has(canary, "Adopted"), kind: "first" },
  { verb: "pause", word: "Pause", fits: ({ canary }) => isOn(canary) && !canary.paused },
  { verb: "resume", word: "Resume", fits: ({ canary }) => canary.paused, kind: "first" },
  {
    verb: "promote", word: "Promote now", fits: ({ canary }) => isOn(canary),
    sure: (canary) => `The remaining steps of ${canary.namespace}/${canary.name} are skipped: all requests go to revision ${canary.canary_revision}.`,
  },
  {
    verb: "abort", word: "Abort", fits: ({ canary }) => isOn(canary) || canary.phase === "Waiting" || canary.phase === "Promoting", kind: "danger",
    sure: (canary) => `The rollout of ${canary.namespace}/${canary.name} ends: all requests go to revision ${canary.primary_revision} again.`,
  },
  { verb: "retry", word: "Retry", fits: ({ canary }) => canary.phase === "Failed", kind: "first" },
];

const isOn = (canary) => ["Progressing", "WaitingPromotion"].includes(canary.phase);
const has = (canary, type) => canary.conditions.some((condition) => condition.type === type && condition.status === "False");

/** What came of a command is shown for so many milliseconds. */
const TOLD = 15_000;

const send = async (canary, { verb, word }, told) => {
  const path = `/api/v1/canaries/${encodeURIComponent(canary.namespace)}/${encodeURIComponent(canary.name)}/${verb}`;
  const id = newId();
  let token = sessionStorage.getItem(TOKEN);
  for (;;) {
    try {
      write(told, `${word}: sent …`);
      await post(path, token, id);
      write(told, `${word}: done.`);
      return;
    } catch (error) {
      if (error instanceof Refused && error.status === 403) {
        token = await askToken(`The server says: ${error.message}.`);
        if (token) continue;
      }
      write(told, error instanceof Refused
        ? `${word} was refused: ${error.message}.`
        : `${word}: the server did not answer. Whether it was carried out shows once it does; to send it again does no harm.`);
      return;
    }
  }
};

/** Returns the buttons of a canary, and what shows those that make sense. */
export const buttons = (refresh) => {
  const told = h("p", { class: "told", role: "status", tabindex: "-1" });
  const group = h("div", { class: "buttons", role: "group", "aria-label": "Commands" });
  let shown = null;
  let forgets;
  const made = VERBS.map((verb) => {
    const button = h("button", { type: "button", class: verb.kind, hidden: true }, verb.word);
    button.addEventListener("click", async () => {
      const { canary } = shown;
      if (verb.sure && await ask({ title: `${verb.word}?`, text: verb.sure(canary), yes: verb.word, danger: verb.kind === "danger" }) === null) return;
      clearTimeout(forgets);
      await send(canary, verb, told);
      forgets = setTimeout(() => write(told, ""), TOLD);
      refresh();
    });
    group.append(button);
    return button;
  });
  const update = (next) => {
    const isOther = shown?.canary.name !== next.canary.name || shown?.canary.namespace !== next.canary.namespace;
    if (isOther) write(told, "");
    shown = next;
    VERBS.forEach((verb, place) => {
      const button = made[place];
      const fits = Boolean(verb.fits(next));
      if (!fits && document.activeElement === button) told.focus();
      button.hidden = !fits;
    });
    group.hidden = made.every((button) => button.hidden);
  };
  return { elements: [group, told], update };
};

byId("token").addEventListener("click", () => askToken("The server takes commands with its token, or from its own machine if it has none."));
