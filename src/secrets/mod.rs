//! A deterministic scan for secrets.
