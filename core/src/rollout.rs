//! What to do with a rollout: a plan, a state, events, and the step between states.
//!
//! ```text
//!  first revision ─► Initialized ──┐                     ┌─► Waiting (hooks confirm) ─┐
//!                                  ├─ new revision ──────┤                            │
//!  Succeeded ◄─ Finalising ◄─┐     │                     └────────────────────────────┴─► Progressing
//!      │                     │     │                                                       │      │
//!      └─────────────────────┼─────┘   retry, another revision ─► Failed ◄── rollback, abort      │
//!                            │                                                                    │
//!                            └──────────────── Promoting ◄── the last position passed ────────────┘
//!
//! A rollout whose change is taken back is Failed too: it ended without promotion ([`Cause`] says how).
//! ```
//!
//! [`step()`] takes the state and an event to the next state and what people are to be told. The caller writes the
//! state down, then acts. Routes and calls of hooks are no effects: [`project()`] and [`question()`] derive them from
//! the state, again and again, so that a crash anywhere loses nothing.

pub mod event;
pub mod invariant;
mod messages;
pub mod plan;
pub mod project;
pub mod question;
pub mod readiness;
pub mod recovery;
pub mod round;
pub mod state;
pub mod step;
pub mod timeout;
pub mod workloads;

pub use event::{Alert, AlertLevel, Command, Effect, Event, Facts, Severity};
pub use plan::{
    Amendment, Handover, Hook, HookInput, HookKind, MetricInput, MetricSource, NoData, Pace, Plan, PlanError,
    PlanInput, PlanTerms, PlannedMetric, Share, Strategy,
};
pub use project::{Projection, Revisions, Routes, project};
pub use question::{Question, QuestionSubject, question};
pub use readiness::Readiness;
pub use round::{Answer, Round, Stage, Ticket};
pub use state::{Cause, Ended, Gate, Phase, Progress, Promotion, State, StepClock, Unready, Waiting};
pub use step::{Transition, step};
pub use timeout::next_timeout;
pub use workloads::{Apex, DRAIN, PrimaryTemplate, TargetScale, Workloads, workloads};
