//! Finding a model.
