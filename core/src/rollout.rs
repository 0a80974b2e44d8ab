//! What to do with a rollout: a plan, a state, events, and the step between states.
//!
//! ```text
//!              revision seen        new revision            weight steps …        last step passed
//!  (nothing) ───────────► Initialized ───────────► Progressing ─────────► Promoting ─────► Succeeded
//!                                          ▲            │ ▲                                   │
//!                                          │   rollback │ │ new revision, retry               │
//!                                          │   or abort ▼ │                                   │
//!                                          │          Failed                                  │
//!                                          └──────────────────────────────────────────────────┘
//! ```
//!
//! [`step`](step::step) takes the state and an event to the next state and the effects that are due. The caller
//! writes the state down, then acts. Routes are no effects: [`project`](project::project) derives them from the
//! state, again and again, so that a crash anywhere loses nothing.

pub mod event;
pub mod plan;
pub mod project;
pub mod state;
pub mod step;

pub use event::{Command, Effect, Event, Severity};
pub use plan::{Plan, PlanError, PlanInput};
pub use project::{Projection, Routes, project};
pub use state::{Phase, Progress, State, StepClock};
pub use step::{Step, step};
