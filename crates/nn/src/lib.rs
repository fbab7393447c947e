//! Layers, losses, optimisers and schedules as pure functions.
#![forbid(unsafe_code)]
