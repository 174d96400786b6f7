//! The differentiable decoder.
