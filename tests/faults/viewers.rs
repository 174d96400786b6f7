//! Viewers that are many, that are killed while they read, and clocks that jump.
