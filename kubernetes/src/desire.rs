//! What should be in a cluster for a Canary whose target is a Deployment: plain functions of objects.
//!
//! ```text
//!  Deployment backend ─┬─► Deployment backend-primary ◄─ Service backend, Service backend-primary
//!                      └────────────────────────────── ◄─ Service backend-canary
//! ```
//!
//! What is returned holds the fields that we own and no others: it is applied by the server, under a field manager of ours,
//! and what others wrote beside them stays. So node ports, annotations of other controllers and defaults of the API server
//! are nothing that we need to know.

mod affinity;
mod copy;
mod metadata;
mod observed;
mod owner;
mod ports;
mod primary;
mod problem;
mod scaler;
mod service;
mod target;

pub use copy::{ConfigCopy, kept_before};
pub(crate) use metadata::FLUX_ANNOTATIONS;
pub use metadata::{ARM_LABEL, CANARY_LABEL};
pub use observed::{Observed, Settings};
pub(crate) use owner::PROMOTION_KEYS;
pub use owner::label_value;
pub use primary::Primary;
pub use problem::Problem;
pub use scaler::{Scaling, Source, first_size, is_raised, primary_scaler_name, scaler_name};
pub use service::Services;
pub use target::SelectorLabel;

use owner::Canary;
use problem::Problems;
use target::Target;

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The label that tells Pods apart.
    pub label: SelectorLabel,
    /// The primary.
    pub primary: Primary,
    /// The Services.
    pub services: Services,
}

impl Desired {
    /// Returns what should be, or everything that is in its way.
    pub fn of(observed: &Observed<'_>, settings: &Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let canary = Canary::read(observed.canary, &mut problems);
        let target = Target::read(observed.target, settings, &mut problems);
        let (Some(canary), Some(target)) = (canary, target) else { return Err(problems.into_list()) };
        let primary = primary::desire(observed, &canary, &target, settings, &mut problems);
        let services = service::desire(observed, &canary, &target, &mut problems);
        let problems = problems.into_list();
        match (primary, services) {
            (Some(primary), Some(services)) if problems.is_empty() => {
                Ok(Self { label: target.label, primary, services })
            }
            _ => Err(problems),
        }
    }
}
