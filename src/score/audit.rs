//! What lazy answers would earn: a schema that accepts `{}` teaches a model to write `{}`.
