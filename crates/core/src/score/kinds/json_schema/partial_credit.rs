//! Graded credit: share of a schema's constraints met by an invalid value.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as SchemaValue};

use super::schema::Violation;
use crate::score::answer::json::{Kind, Value};
use crate::task::{decode_path, escaped};

#[derive(Debug)]
pub(super) struct Constraints {
    schema: SchemaValue,
}

/// Nested references; recursive schemas have endless constraints.
const MAX_DEPTH: usize = 32;

/// Constraints met, and their total.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    met: f64,
    all: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.met += other.met;
        self.all += other.all;
    }

    fn one(met: bool) -> Self {
        Self {
            met: f64::from(u8::from(met)),
            all: 1.0,
        }
    }
}

impl Constraints {
    pub(super) fn new(schema: &SchemaValue) -> Self {
        Self {
            schema: schema.clone(),
        }
    }

    /// Share of constraints met, in [0, 1) for a value with violations.
    ///
    /// A keyword is one constraint; those under an absent key or a value of the wrong type are not
    /// met. Repairing a fault without other changes never lowers the share.
    pub(super) fn share_met(&self, root: &Value<'_>, violations: &[Violation]) -> f64 {
        let mut violations: Vec<&Violation> = violations.iter().collect();
        violations.sort_by(|left, right| left.instance_path.cmp(&right.instance_path));
        let walk = Walk {
            root_schema: &self.schema,
            violations,
            known: RefCell::default(),
        };
        let tally = walk.schema(
            &self.schema,
            Some(root),
            Place {
                path: "",
                location: "",
                depth: 0,
            },
        );
        let share = if tally.all == 0.0 {
            0.0
        } else {
            tally.met / tally.all
        };
        if walk.violations.is_empty() {
            1.0
        } else {
            share.min(1.0 - 1.0 / (tally.all + 2.0))
        }
    }
}

struct Walk<'s> {
    root_schema: &'s SchemaValue,
    /// Sorted by instance path.
    violations: Vec<&'s Violation>,
    /// Tallies of references by addresses of target and value and depth: otherwise the work would
    /// double with each level.
    known: RefCell<HashMap<(usize, usize, usize), Tally>>,
}

#[derive(Clone, Copy)]
struct Place<'p> {
    /// JSON pointer to the value.
    path: &'p str,
    /// JSON pointer to the schema.
    location: &'p str,
    depth: usize,
}

impl Walk<'_> {
    /// Tallies a schema at a place; `value` is `None` if absent or of the wrong type.
    fn schema(&self, schema: &SchemaValue, value: Option<&Value<'_>>, place: Place<'_>) -> Tally {
        let Some(keywords) = schema.as_object().filter(|_| place.depth < MAX_DEPTH) else {
            return Tally::default();
        };
        let mut tally = Tally::default();
        let reference = keywords
            .get("$ref")
            .and_then(SchemaValue::as_str)
            .and_then(|target| target.strip_prefix('#'));
        if let Some(location) = reference.map(decode_path)
            && let Some(target) = self.root_schema.pointer(&location)
        {
            let location = location.as_str();
            tally.add(self.reference(
                target,
                value,
                Place {
                    location,
                    depth: place.depth + 1,
                    ..place
                },
            ));
        }
        let typed = !keywords.contains_key("type") || self.holds("type", value, place);
        let inside = value.filter(|_| typed);
        for (keyword, argument) in keywords {
            tally.add(self.keyword(
                keyword,
                argument,
                keywords,
                if keyword == "type" { value } else { inside },
                place,
            ));
        }
        tally
    }

    fn reference(
        &self,
        target: &SchemaValue,
        value: Option<&Value<'_>>,
        place: Place<'_>,
    ) -> Tally {
        let key = (
            std::ptr::from_ref(target) as usize,
            value.map_or(0, |value| std::ptr::from_ref(value) as usize),
            place.depth,
        );
        let known = self.known.borrow().get(&key).copied();
        known.unwrap_or_else(|| {
            let tally = self.schema(target, value, place);
            self.known.borrow_mut().insert(key, tally);
            tally
        })
    }

    fn keyword(
        &self,
        keyword: &str,
        argument: &SchemaValue,
        keywords: &Map<String, SchemaValue>,
        value: Option<&Value<'_>>,
        place: Place<'_>,
    ) -> Tally {
        match (keyword, argument) {
            (
                "$ref" | "$schema" | "$id" | "id" | "$defs" | "definitions" | "title"
                | "description" | "default" | "examples" | "$comment" | "format",
                _,
            ) => Tally::default(),
            ("required", SchemaValue::Array(keys)) => {
                let present = |key: &SchemaValue| {
                    value
                        .and_then(Value::as_object)
                        .and_then(|object| object.get(key.as_str()?))
                        .is_some()
                };
                keys.iter().fold(Tally::default(), |mut tally, key| {
                    tally.add(Tally::one(present(key)));
                    tally
                })
            }
            ("properties", SchemaValue::Object(properties)) => {
                self.properties(properties, keywords, value, place)
            }
            ("items", SchemaValue::Object(_)) => self.items(argument, value, place),
            ("allOf", SchemaValue::Array(parts)) => {
                parts
                    .iter()
                    .enumerate()
                    .fold(Tally::default(), |mut tally, (index, part)| {
                        let location = format!("{}/allOf/{index}", place.location);
                        tally.add(self.schema(
                            part,
                            value,
                            Place {
                                location: &location,
                                depth: place.depth + 1,
                                ..place
                            },
                        ));
                        tally
                    })
            }
            _ => Tally::one(self.holds(keyword, value, place)),
        }
    }

    /// An absent optional key requires nothing.
    fn properties(
        &self,
        properties: &Map<String, SchemaValue>,
        keywords: &Map<String, SchemaValue>,
        value: Option<&Value<'_>>,
        place: Place<'_>,
    ) -> Tally {
        let object = value.and_then(Value::as_object);
        let required: HashSet<&str> = keywords
            .get("required")
            .and_then(SchemaValue::as_array)
            .into_iter()
            .flatten()
            .filter_map(SchemaValue::as_str)
            .collect();
        let mut tally = Tally::default();
        for (key, schema) in properties {
            let member = object
                .and_then(|object| object.get(key))
                .map(|member| &member.value);
            if member.is_some() || required.contains(key.as_str()) {
                let key = escaped(key);
                let (path, location) = (
                    format!("{}/{key}", place.path),
                    format!("{}/properties/{key}", place.location),
                );
                tally.add(self.schema(
                    schema,
                    member,
                    Place {
                        path: &path,
                        location: &location,
                        depth: place.depth + 1,
                    },
                ));
            }
        }
        tally
    }

    fn items(&self, schema: &SchemaValue, value: Option<&Value<'_>>, place: Place<'_>) -> Tally {
        let location = format!("{}/items", place.location);
        let place = Place {
            location: &location,
            depth: place.depth + 1,
            ..place
        };
        match value.map(|value| &value.kind) {
            None => self.schema(schema, None, place),
            Some(Kind::Array(items)) if !items.is_empty() => {
                let mut sum = Tally::default();
                for (index, item) in items.iter().enumerate() {
                    sum.add(self.schema(
                        schema,
                        Some(item),
                        Place {
                            path: &format!("{}/{index}", place.path),
                            ..place
                        },
                    ));
                }
                Tally {
                    met: sum.met / items.len() as f64,
                    all: sum.all / items.len() as f64,
                }
            }
            Some(_) => Tally::default(),
        }
    }

    /// Whether neither the (present) value nor its contents violate this keyword.
    fn holds(&self, keyword: &str, value: Option<&Value<'_>>, place: Place<'_>) -> bool {
        let location = format!("{}/{keyword}", place.location);
        value.is_some()
            && !self
                .violations_inside(place.path)
                .any(|violation| is_inside(&violation.schema_path, &location))
    }

    fn violations_inside<'w>(&'w self, path: &str) -> impl Iterator<Item = &'w Violation> {
        // In byte order `/a-b` is between `/a` and `/a/b`, and `0` follows `/`.
        let before = |limit: &str| {
            self.violations
                .partition_point(|violation| violation.instance_path.as_str() < limit)
        };
        let own = before(path)
            ..self
                .violations
                .partition_point(|violation| violation.instance_path.as_str() <= path);
        let below = before(&format!("{path}/"))..before(&format!("{path}0"));
        [own, below]
            .into_iter()
            .flat_map(|range| self.violations.get(range).unwrap_or_default())
            .copied()
    }
}

/// Whether a JSON pointer equals or extends another.
fn is_inside(pointer: &str, outer: &str) -> bool {
    pointer
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::score::scorer::Scorer;
    use crate::score::task::Task;

    fn reward(completion: &str) -> f64 {
        reward_with(None, completion)
    }

    fn reward_with(schema: Option<serde_json::Value>, completion: &str) -> f64 {
        let mut task = Task::embedded("invoice").unwrap();
        if let Some(schema) = schema {
            task = task.with_definition_text(&schema.to_string()).unwrap();
        }
        task.score.graded = true;
        Scorer::new(&task).unwrap().score(completion, None).reward
    }

    #[test]
    fn a_fault_counts_against_its_own_key_alone() {
        let schema = |key: &str| {
            Some(json!({"properties": {"a": {"not": {"const": 1}}, key: {"not": {"const": 2}}}}))
        };
        let apart = reward_with(schema("b"), r#"{"a":0,"b":2}"#);
        assert_eq!(
            reward_with(schema("ab"), r#"{"a":0,"ab":2}"#),
            apart,
            "`/ab` begins with `/a` and is another key"
        );
        assert_eq!(reward_with(schema("a-b"), r#"{"a":0,"a-b":2}"#), apart);
        // A property named like a keyword is not a violation of it.
        let named = |key: &str| {
            Some(json!({"properties": {key: {"type": "string"}}, "not": {"required": ["z"]}}))
        };
        assert_eq!(
            reward_with(named("not"), r#"{"not":1}"#),
            reward_with(named("b"), r#"{"b":1}"#)
        );
        // A fault in an item counts for list and item, also through references.
        let list = json!({"items": {"$ref": "#/$defs/line"}, "$defs": {"line": {"properties": {"n": {"minimum": 1, "maximum": 5}}}}});
        assert_eq!(
            reward_with(Some(list.clone()), r#"[{"n":0},{"n":9}]"#),
            reward_with(Some(list), r#"[{"n":9},{"n":0}]"#)
        );
    }

    #[test]
    fn credit_is_found_without_following_references_again_and_again() {
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let properties: serde_json::Map<_, _> = keys
            .iter()
            .map(|key| ((*key).to_owned(), json!({"$ref": "#"})))
            .collect();
        // Unshared, these are 8^16 references.
        assert!(
            reward_with(
                Some(json!({"type": "object", "required": keys, "properties": properties})),
                "1"
            ) >= 0.5
        );
    }

    #[test]
    fn credit_rises_with_what_is_met() {
        let steps = [
            "not JSON",
            "3",
            "{\"x\":1}",
            "{}",
            "{\"vendor\":1}",
            "{\"vendor\":\"a\"}",
            "{\"vendor\":\"a\",\"date\":\"b\"}",
            "{\"vendor\":\"a\",\"date\":\"b\",\"amount\":\"1\"}",
            "{\"vendor\":\"a\",\"date\":\"b\",\"amount\":1}",
            "{\"vendor\":\"a\",\"date\":\"b\",\"amount\":1,\"currency\":2}",
            "{\"vendor\":\"a\",\"date\":\"b\",\"amount\":1,\"currency\":\"c\"}",
        ];
        for pair in steps.windows(2) {
            assert!(
                reward(pair[0]) < reward(pair[1]),
                "{} earns {}, {} earns {}",
                pair[0],
                reward(pair[0]),
                pair[1],
                reward(pair[1])
            );
        }
        assert_eq!(reward(steps[0]), 0.0);
        assert!(reward("3") >= 0.5);
        assert_eq!(reward(steps[10]), 1.0);
    }
}
