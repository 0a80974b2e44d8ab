//! Rules between fields, in CEL, which the API server checks.
//!
//! Those of `wingbeat.dev` are rules of the decoder. Those of `flagger.app` are Flagger's own, or looser. Rules between
//! documents are not among them. Those about entries of lists have to be short: where an entry may be an empty mapping, the
//! API server estimates a million of them, and refuses a definition whose rules could take so long.

use serde_json::{Value, json};
use wingbeat_api::Api;

/// What must hold of a mapping.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    expression: &'static str,
    /// What is wrong where it does not hold, and what would be right.
    message: &'static str,
}

impl Rule {
    const fn of(expression: &'static str, message: &'static str) -> Self {
        Self { expression, message }
    }

    /// Returns it as a definition has it.
    pub(super) fn render(&self) -> Value {
        json!({"rule": self.expression, "message": self.message})
    }
}

/// Of `spec` of a Canary.
const HAS_ANALYSIS: Rule = Rule::of(
    "has(self.analysis) || has(self.canaryAnalysis) || (has(self.skipAnalysis) && self.skipAnalysis)",
    "analysis is missing, say how rollouts go",
);
/// The same, of ours.
const CANARY: [Rule; 4] = [
    HAS_ANALYSIS,
    Rule::of(
        "!(has(self.analysis) && has(self.canaryAnalysis))",
        "canaryAnalysis is the old name of analysis, which is there too: keep that one",
    ),
    Rule::of(
        "(has(self.skipAnalysis) && self.skipAnalysis) || !has(self.analysis) || has(self.analysis.iterations) || \
         has(self.analysis.stepWeight) || has(self.analysis.stepWeights)",
        "analysis has no steps, set stepWeight, stepWeights or iterations",
    ),
    Rule::of(
        "!(has(self.service) && has(self.service.match) && size(self.service.match) > 0 && has(self.analysis) && \
         (has(self.analysis.affinity) || (has(self.analysis.mirror) && self.analysis.mirror)))",
        "service.match does not go with analysis.affinity or analysis.mirror, leave out one of them",
    ),
];
/// Of `analysis`.
const ANALYSIS: [Rule; 6] = [
    Rule::of("!(has(self.stepWeight) && has(self.stepWeights) && size(self.stepWeights) > 0)", ONE_OF_STEPS),
    Rule::of(
        "!(has(self.iterations) && (has(self.stepWeight) || (has(self.stepWeights) && size(self.stepWeights) > 0)))",
        ONE_OF_STEPS,
    ),
    Rule::of(
        "!has(self.match) || (has(self.iterations) && self.iterations > 0)",
        "iterations is missing, say how many intervals the A/B test lasts",
    ),
    Rule::of(
        "!has(self.match) || !has(self.mirror) || !self.mirror",
        "mirror does not go with match: mirror, or let requests match",
    ),
    Rule::of(
        "!has(self.holdback) || has(self.match) || self.holdback.startsWith('0')",
        "holdback is for A/B tests, add match or leave it out",
    ),
    Rule::of(
        "!has(self.affinity) || !(has(self.match) || has(self.iterations))",
        "affinity is for rollouts by weight, leave out match and iterations, or this",
    ),
];
/// What is said of several ways to go.
const ONE_OF_STEPS: &str = "use one of stepWeight, stepWeights and iterations";
/// Of `analysis`, as Flagger has it.
const FLAGGERS_ANALYSIS: [Rule; 1] = [Rule::of(
    "[has(self.iterations), has(self.stepWeight), has(self.stepWeights)].filter(is_set, is_set).size() == 1",
    ONE_OF_STEPS,
)];
/// Of `affinity`.
const IDENTITY: [Rule; 1] =
    [Rule::of("has(self.cookie) != has(self.header)", "name one cookie or one header, like {cookie: uid}")];
/// Of `thresholdRange`.
const RANGE: [Rule; 2] = [
    Rule::of("has(self.min) || has(self.max)", "has neither min nor max, everything would pass; add one of them"),
    Rule::of(
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        "has min above max, nothing would pass; swap them",
    ),
];
/// Of `corsPolicy`.
const CORS_POLICY: [Rule; 1] = [Rule::of(
    "(has(self.allowOrigins) && size(self.allowOrigins) > 0) || (has(self.allowOrigin) && size(self.allowOrigin) > 0)",
    "allows no origin, list some in allowOrigins",
)];
/// Of an entry of `allowOrigins`.
const ORIGIN: [Rule; 1] = [Rule::of(
    "has(self.exact) ? !has(self.prefix) && !has(self.regex) : has(self.prefix) != has(self.regex)",
    "has to be one of exact, prefix and regex",
)];
/// Of `rewrite`.
const REWRITE: [Rule; 1] =
    [Rule::of("!(has(self.uri) && has(self.uriRegexRewrite))", "has both uri and uriRegexRewrite, keep one of them")];
/// Of `provider`.
const PROVIDER: [Rule; 1] = [Rule::of(
    "self.type != 'prometheus' || has(self.address)",
    "address is missing, say where it is, like http://prometheus:9090",
)];
/// Of an `AlertProvider`. Flagger wants exactly one; with both, the Secret's is taken.
const ALERT_PROVIDER: [Rule; 1] =
    [Rule::of("has(self.address) || has(self.secretRef)", "say where messages go: address or secretRef")];

/// Returns the rules of a mapping, by its name in schemas.
pub(super) fn of_object(name: &str, api: Api) -> &'static [Rule] {
    let is_ours = api == Api::Wingbeat;
    match name {
        "Canary" if is_ours => &CANARY,
        "Canary" => const { &[HAS_ANALYSIS] },
        "Analysis" if is_ours => &ANALYSIS,
        "Analysis" => &FLAGGERS_ANALYSIS,
        "AlertProvider" => &ALERT_PROVIDER,
        "Identity" if is_ours => &IDENTITY,
        "Range" if is_ours => &RANGE,
        "CorsPolicy" if is_ours => &CORS_POLICY,
        "Origin" if is_ours => &ORIGIN,
        "Rewrite" if is_ours => &REWRITE,
        "Provider" if is_ours => &PROVIDER,
        _ => &[],
    }
}
