//! decider
