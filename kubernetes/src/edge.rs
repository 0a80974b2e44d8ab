//! The half that acts: it has clients, clocks and tasks, and decides nothing. What it carries out, the other modules decide.
//!
//! ```text
//!  API server ─► watch ─► Slots ─► driver ◄► Reconciler
//!  API server ◄► read ◄──────────────┤
//!                                    └► Queue ─► act ─────────────┐
//!                                                Election ◄► lease ┼─► client ─► API server
//!                                           canary_state ◄► state ┘
//! ```

pub mod act;
pub mod client;
pub mod driver;
pub mod lease;
mod read;
pub mod release;
pub mod state;
pub mod watch;
