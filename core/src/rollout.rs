//! What to do with a rollout: plan, state, events, and the step between states.
