//! The table of configuration keys and the layers that fill it.

mod choices;

pub use choices::{Advantage, KlEstimator, Method, PolicyLoss, Preset, Recompute};
