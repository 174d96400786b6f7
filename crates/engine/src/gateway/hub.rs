//! All conversations of a gateway, by their keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::seat::Seat;

/// Keys are looked up by their hashes: comparing them leaks nothing by timing.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<HashMap<[u8; 32], Arc<Seat>>>);

impl Hub {
    pub(super) fn insert(&self, key: &str, seat: Arc<Seat>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hash(key), seat);
    }

    pub(super) fn seat(&self, key: &str) -> Option<Arc<Seat>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hash(key))
            .cloned()
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
