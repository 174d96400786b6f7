//! The table of configuration keys and the layers that fill it.
