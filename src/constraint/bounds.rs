//! Bounds of numbers that the grammar's compiler takes for wider than they are.

use std::collections::HashSet;

/// How far from an excluded whole number numbers begin, where the compiler would take the number itself for allowed.
pub(super) const BESIDE: f64 = 1e-6;

/// Bounds of numbers, above 0 and (with their signs changed) below. The compiler takes a whole number that is excluded
/// for allowed where another bound lies between it and the next one.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    excluded: [Vec<(f64, (usize, String))>; 2],
    other: [Vec<f64>; 2],
}

impl Bounds {
    pub(super) fn note(&mut self, key: &str, bound: f64, place: &(usize, String)) {
        let is_lower = key.ends_with("inimum");
        let side = usize::from(if is_lower { bound < 0.0 } else { bound <= 0.0 });
        if key.starts_with("exclusive") && bound.fract() == 0.0 && is_lower == (side == 0) {
            self.excluded[side].push((bound.abs(), place.clone()));
        } else if is_lower == (side == 1) {
            self.other[side].push(bound.abs());
        }
    }

    /// The places of bounds that would be allowed, if both bounds are of one value.
    pub(super) fn faults(&self) -> HashSet<(usize, String)> {
        let sides = self.excluded.iter().zip(&self.other);
        let is_near = |bound: &f64, other: &Vec<f64>| other.iter().any(|other| bound < other && *other < bound + 1.0);
        let faults = sides.flat_map(|(excluded, other)| excluded.iter().filter(|(bound, _)| is_near(bound, other)));
        faults.map(|(_, place)| place.clone()).collect()
    }
}
