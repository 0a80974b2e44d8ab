// One canary: where it stands, what moves it, what was measured, and what came before.

import { charts } from "./chart.js";
import { buttons } from "./commands.js";
import { h, renew, table, write } from "./dom.js";
import { duration, millis, percent, rate, short, state, success, time, whole } from "./words.js";

/** Rows of proxies at most, those first that are behind. */
const MAX_PROXIES = 50;

const GATES = {
  "confirm-rollout": "before the rollout begins",
  "confirm-traffic-increase": "before the canary's share rises",
  "confirm-promotion": "before the canary is promoted",
};

const RESULTS = { promoted: ["Promoted", "good"], "rolled-back": ["Rolled back", "bad"], "taken-back": ["Taken back", "rest"], replaced: ["Replaced", "rest"] };

const isJudged = (canary) => ["Progressing", "WaitingPromotion"].includes(canary.phase);

const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

const head = (canary) => {
  const [word, kind] = state(canary);
  const arms = canary.canary_revision === null
    ? `revision ${canary.primary_revision || "–"} serves`
    : `primary ${canary.primary_revision}, canary ${canary.canary_revision}${canary.attempt > 1 ? `, attempt ${canary.attempt}` : ""}`;
  return [
    h("span", { class: `badge ${kind}` }, word), " ",
    isJudged(canary) || canary.phase === "Promoting" ? h("strong", {}, `${percent(canary.weight)} to the canary`) : null,
    h("span", {}, ` ${arms}`), " ",
    h("span", { class: "muted" }, "since ", time(canary.last_transition_time, "exact")),
  ];
};

const VERDICTS = { advance: "Good enough to go on", continue: "Not decided yet", "no-data": "Nothing can be told", rollback: "Roll back" };

const verdict = ({ verdict: said }) => (said === null ? [] : [
  h("strong", {}, `${VERDICTS[said.kind] ?? said.kind}: `), said.reason, " ",
  h("span", { class: "muted" }, `(compared: ${said.comparison})`),
]);

const conditions = (canary) => canary.conditions.filter(({ type, status }) => type !== "Promoted" || status === "False").map(({ type, status, reason, message }) =>
  h("li", { class: status === "False" ? "bad" : "" }, type === "Promoted" ? null : h("strong", {}, `${type}: ${reason}. `), message));

const stepName = ({ share, weight, positions }) => {
  const times = positions > 1 ? ` × ${positions}` : "";
  return { weight: percent(weight), mirrored: `${percent(weight)} mirrored`, matched: "matching", everything: "100 %", nothing: "no traffic" }[share] + times;
};

/** Returns each step with how far it is: positions before it are over. */
const progress = (canary, { steps, position }) => {
  let before = 0;
  return steps.map((step) => {
    const first = before + 1;
    before += step.positions;
    const isNow = position >= first && position <= before && isJudged(canary);
    const isEnd = position >= first && position <= before && canary.phase === "Failed";
    const done = position > before ? "done" : isNow ? "now" : isEnd ? "failed" : "to come";
    return { name: stepName(step), done, iteration: isNow && step.positions > 1 ? position - first + 1 : null };
  });
};

const steps = (canary, rollouts) => {
  const all = progress(canary, rollouts);
  const place = all.findIndex(({ done }) => done === "now");
  const { clock } = rollouts;
  let words = `${all.filter(({ done }) => done === "done").length} of ${all.length} steps done.`;
  if (place >= 0 && clock) {
    const iteration = all[place].iteration === null ? "" : `, iteration ${all[place].iteration}`;
    words = `Step ${place + 1} of ${all.length}${iteration}: ${duration(clock.elapsed_ms)}, ${duration(clock.interval_ms)} at least${clock.state === "standing" ? "; its clock stands" : ""}.`;
  }
  return [
    h("p", { class: "muted" }, words),
    h("ol", { class: "steps" }, all.map(({ name, done }) =>
      h("li", { class: done.replace(" ", "-"), "aria-current": done === "now" ? "step" : null }, name, h("span", { class: "hidden" }, `, ${done}`)))),
  ];
};

/** A quantile, and below it what it surely lies between. */
const quantile = (arm, name) => {
  const range = arm[`${name}_between_ms`];
  return [millis(arm[`${name}_ms`]), range === null ? null : h("span", { class: "range" }, range.map(short).join(" to "))];
};

const arms = ({ arms: measured }) => table("Since the rollout began", ["Arm", "Requests", "Errors", "Hanging", "Success", "Per second", "p50", "p90", "p99"],
  [["canary", measured.canary], ["primary", measured.primary]].map(([name, arm]) => [
    name, whole(arm.requests), whole(arm.errors), whole(arm.overdue), rate(success(arm)), short(arm.rate),
    ...["p50", "p90", "p99"].map((name) => quantile(arm, name)),
  ]));

const evidence = ({ evidence: known }) => {
  const part = Math.min(Math.max(known.harm / known.decisive, 0), 1);
  const signals = ["errors", "latency", "outcomes", "attempts", "disconnects"].map((name) => `${name} ${short(known[name].harm)}`);
  const [low, high] = known.rate_ratio;
  const ratio = low === null && high === null ? "" : ` The canary's error rate is between ${low === null ? "0" : short(low)} and ${high === null ? "any" : short(high)} times the primary's.`;
  const eta = known.eta_requests ? ` A step can end after ${whole(known.eta_requests)} more canary requests.` : "";
  return [
    h("p", {}, h("meter", { min: "0", max: "1", low: "0.5", high: "0.8", optimum: "0", value: String(part), "aria-label": "Evidence of harm" }),
      known.harm > 0 ? ` ${short(known.harm)} of the ${short(known.decisive)} at which the canary is rolled back.` : ` None (${short(known.harm)}); the canary is rolled back at ${short(known.decisive)}.`,
      eta, ratio),
    h("p", { class: "muted" }, `By signal: ${signals.join(", ")}.`),
  ];
};

const proxies = (canary) => {
  const nodes = [...canary.nodes].sort((a, b) => a.rev - b.rev || b.last_report_ms - a.last_report_ms);
  const rows = nodes.slice(0, MAX_PROXIES).map(({ id, rev, last_report_ms: age }) => [id, rev < canary.rev ? `revision ${rev} of the routes, not yet ${canary.rev}` : "current", `${duration(age)} ago`]);
  return [
    table(`Proxies that report (${whole(nodes.length)})`, ["Proxy", "Routes", "Last report"], rows, "words"),
    nodes.length > MAX_PROXIES ? h("p", { class: "muted" }, `${whole(nodes.length - MAX_PROXIES)} more report.`) : null,
  ];
};

const history = (past) => h("ol", { class: "history" }, past.map((rollout) => {
  const [word, kind] = RESULTS[rollout.result] ?? [rollout.result, "rest"];
  const lasted = rollout.began === null ? "" : ` after ${duration(Date.parse(rollout.ended) - Date.parse(rollout.began))}`;
  const errors = ["canary", "primary"].map((arm) => `${arm} ${whole(rollout[arm].errors)} of ${whole(rollout[arm].requests)}`);
  return h("li", {},
    h("p", {}, h("span", { class: `badge ${kind}` }, word), " ",
      h("strong", {}, `${rollout.primary_revision ?? "–"} → ${rollout.canary_revision ?? "–"}${rollout.attempt > 1 ? `, attempt ${rollout.attempt}` : ""}`), " ",
      h("span", { class: "muted" }, time(rollout.ended), lasted)),
    h("p", {}, `Highest share ${percent(rollout.highest_weight)}. Failed or hung: ${errors.join(", ")}.`),
    rollout.reason ? h("p", {}, rollout.reason) : null);
}));

/** Returns what shows one canary. */
export const detail = (root, refresh) => {
  const title = h("h2", { tabindex: "-1" });
  const line = h("p", { class: "line-up" });
  const gate = h("p", { class: "gate", role: "status" });
  const word = h("p", { class: "verdict" });
  const list = h("ul", { class: "conditions" });
  const commands = buttons(refresh);
  const course = charts();
  const parts = Object.fromEntries(["steps", "arms", "evidence", "proxies", "history"].map((name) => [name, h("div", {})]));
  const sections = {
    steps: section("Steps", parts.steps), course: section("Course", ...course.elements), evidence: section("Evidence", parts.evidence),
    arms: section("Measured", parts.arms), proxies: section("Proxies", parts.proxies), history: section("History", parts.history),
  };
  root.append(h("p", { class: "back" }, h("a", { href: "#/" }, "All canaries")), title, line, gate, ...commands.elements, word, list, ...Object.values(sections));
  const put = (name, data, make) => {
    sections[name].hidden = data === null;
    if (data !== null) renew(parts[name], data, make);
  };
  return {
    title,
    /** Shows this canary, with its rollouts where the server knows of them. */
    update: (canary, rollouts) => {
      const waits = rollouts?.gate ?? null;
      const name = `${canary.namespace}/${canary.name}`;
      write(title, name);
      const [phase] = state(canary);
      document.title = `${name}: ${phase} – Wingbeat`;
      renew(line, [canary.phase, canary.weight, canary.paused, canary.primary_revision, canary.canary_revision, canary.attempt, canary.last_transition_time, waits], () => head({ ...canary, waits: waits !== null }));
      gate.hidden = waits === null;
      write(gate, waits === null ? "" : `Waits for approval ${GATES[waits] ?? waits}.`);
      commands.update({ canary, gate: waits });
      word.hidden = canary.verdict === null || !isJudged(canary);
      renew(word, canary.verdict, () => verdict(canary));
      renew(list, canary.conditions, () => conditions(canary));
      list.hidden = list.children.length === 0;
      const hasSteps = rollouts !== null && rollouts.rollout > 0 && rollouts.steps.length > 0;
      put("steps", hasSteps ? [rollouts.steps, rollouts.position, rollouts.clock, canary.phase] : null, () => steps(canary, rollouts));
      course.update(rollouts?.series ?? null, rollouts === null
        ? "The server does not tell the course of rollouts."
        : "No course is kept: one begins with a rollout, and anew when the server is restarted.");
      put("evidence", canary.evidence !== null && isJudged(canary) ? canary.evidence : null, () => evidence(canary));
      put("arms", canary.arms, () => arms(canary));
      put("proxies", canary.nodes.length > 0 && (isJudged(canary) || canary.phase === "Promoting") ? [canary.nodes, canary.rev] : null, () => proxies(canary));
      put("history", rollouts !== null && rollouts.past.length > 0 ? rollouts.past : null, () => history(rollouts.past));
    },
    /** Says that there is no such canary. */
    miss: (name) => {
      write(title, name);
      document.title = `${name} – Wingbeat`;
      renew(line, name, () => "There is no such canary, or it is no longer configured.");
      commands.update({ canary: { namespace: "", name, phase: "", conditions: [] }, gate: null });
      for (const element of [gate, word, list, ...Object.values(sections)]) element.hidden = true;
    },
  };
};
