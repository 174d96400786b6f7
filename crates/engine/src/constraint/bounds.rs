//! Narrows numeric bounds that the grammar compiler widens.

use serde_json::{Map, Value, json};

use crate::schema_keywords::visit_mut;

/// Distance from an excluded integer that the compiler would otherwise allow.
const BESIDE: f64 = 1e-6;

const KEYWORDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// Numeric bounds, above 0 and (negated) below. The compiler allows an excluded integer if another
/// bound lies between it and the next one.
#[derive(Debug, Default)]
struct Bounds {
    excluded: [Vec<f64>; 2],
    other: [Vec<f64>; 2],
}

/// Replaces excluded bounds that the compiler would allow by adjacent ones, assuming that all
/// bounds apply to one value.
pub(super) fn narrow_bounds<'a>(schemas: impl Iterator<Item = &'a mut Value>) {
    let mut schemas: Vec<&mut Value> = schemas.collect();
    let mut bounds = Bounds::default();
    for schema in &mut schemas {
        visit_mut(schema, &mut |members| bounds.note(members));
    }
    for schema in schemas {
        visit_mut(schema, &mut |members| bounds.narrow(members));
    }
}

impl Bounds {
    fn note(&mut self, members: &Map<String, Value>) {
        for (keyword, bound) in bounds_of(members) {
            let (side, is_excluded) = side_of(keyword, bound);
            if is_excluded {
                self.excluded[side].push(bound.abs());
            } else if is_lower(keyword) == (side == 1) {
                self.other[side].push(bound.abs());
            }
        }
    }

    fn narrow(&self, members: &mut Map<String, Value>) {
        for (keyword, bound) in bounds_of(members) {
            let (side, is_excluded) = side_of(keyword, bound);
            let size = bound.abs();
            let is_near = |other: &f64| size < *other && *other < size + 1.0;
            if !is_excluded || !self.other[side].iter().any(is_near) {
                continue;
            }
            members.remove(keyword);
            let own = members
                .get(if is_lower(keyword) {
                    "minimum"
                } else {
                    "maximum"
                })
                .and_then(Value::as_f64);
            if is_lower(keyword) {
                let least = own.map_or(bound + BESIDE, |own| own.max(bound + BESIDE));
                members.insert("minimum".to_owned(), json!(least));
            } else {
                let most = own.map_or(bound - BESIDE, |own| own.min(bound - BESIDE));
                members.insert("maximum".to_owned(), json!(most));
            }
        }
    }
}

/// Bounds of a schema not limited to integers.
fn bounds_of(members: &Map<String, Value>) -> Vec<(&'static str, f64)> {
    if members.get("type").is_some_and(|kind| kind == "integer") {
        return Vec::new();
    }
    KEYWORDS
        .into_iter()
        .filter_map(|keyword| Some((keyword, members.get(keyword)?.as_f64()?)))
        .collect()
}

fn is_lower(keyword: &str) -> bool {
    keyword.ends_with("inimum")
}

/// Whether a bound is below 0, and whether it excludes an integer with allowed values beyond it.
fn side_of(keyword: &str, bound: f64) -> (usize, bool) {
    let side = usize::from(if is_lower(keyword) {
        bound < 0.0
    } else {
        bound <= 0.0
    });
    (
        side,
        keyword.starts_with("exclusive")
            && bound.fract() == 0.0
            && is_lower(keyword) == (side == 0),
    )
}
