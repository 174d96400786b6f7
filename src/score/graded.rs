//! Graded credit: which share of a schema's constraints an invalid value meets.

use serde_json::{Map, Value as SchemaValue};

use super::json::{Kind, Value};
use super::schema::Violation;

/// The schema, read as a list of constraints.
#[derive(Debug)]
pub(super) struct Constraints {
    schema: SchemaValue,
}

/// References are followed this deep; a recursive schema has no end of constraints.
const MAX_DEPTH: usize = 32;

/// Constraints met, of all.
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
        Self { met: f64::from(u8::from(met)), all: 1.0 }
    }
}

impl Constraints {
    pub(super) fn new(schema: &SchemaValue) -> Self {
        Self { schema: schema.clone() }
    }

    /// The share of constraints met, in [0, 1) for a value with violations.
    ///
    /// A keyword is one constraint; what stands under an absent key or a value of the wrong type is not met.
    /// Repairing a fault while all else stays never lowers the share.
    pub(super) fn share_met(&self, root: &Value<'_>, violations: &[Violation]) -> f64 {
        let walk = Walk { root_schema: &self.schema, violations };
        let tally = walk.schema(&self.schema, Some(root), "", 0);
        let share = if tally.all == 0.0 { 0.0 } else { tally.met / tally.all };
        if violations.is_empty() { 1.0 } else { share.min(1.0 - 1.0 / (tally.all + 2.0)) }
    }
}

struct Walk<'s> {
    root_schema: &'s SchemaValue,
    violations: &'s [Violation],
}

impl Walk<'_> {
    /// Tally of a schema at an instance path; `None` where the value is absent or of the wrong type.
    fn schema(&self, schema: &SchemaValue, value: Option<&Value<'_>>, path: &str, depth: usize) -> Tally {
        let Some(keywords) = schema.as_object().filter(|_| depth < MAX_DEPTH) else { return Tally::default() };
        let mut tally = Tally::default();
        if let Some(target) =
            keywords.get("$ref").and_then(SchemaValue::as_str).and_then(|target| self.root_schema.pointer(target.strip_prefix('#')?))
        {
            tally.add(self.schema(target, value, path, depth + 1));
        }
        let typed = !keywords.contains_key("type") || self.holds("type", value, path);
        let inside = value.filter(|_| typed);
        for (keyword, argument) in keywords {
            tally.add(self.keyword(keyword, argument, keywords, if keyword == "type" { value } else { inside }, path, depth));
        }
        tally
    }

    fn keyword(
        &self,
        keyword: &str,
        argument: &SchemaValue,
        keywords: &Map<String, SchemaValue>,
        value: Option<&Value<'_>>,
        path: &str,
        depth: usize,
    ) -> Tally {
        match (keyword, argument) {
            (
                "$ref" | "$schema" | "$id" | "id" | "$defs" | "definitions" | "title" | "description" | "default" | "examples" | "$comment"
                | "format",
                _,
            ) => Tally::default(),
            ("required", SchemaValue::Array(keys)) => {
                let present = |key: &SchemaValue| value.and_then(Value::as_object).and_then(|object| object.get(key.as_str()?)).is_some();
                keys.iter().fold(Tally::default(), |mut tally, key| {
                    tally.add(Tally::one(present(key)));
                    tally
                })
            }
            ("properties", SchemaValue::Object(properties)) => self.properties(properties, keywords, value, path, depth),
            ("items", SchemaValue::Object(_)) => self.items(argument, value, path, depth),
            ("allOf", SchemaValue::Array(parts)) => parts.iter().fold(Tally::default(), |mut tally, part| {
                tally.add(self.schema(part, value, path, depth + 1));
                tally
            }),
            _ => Tally::one(self.holds(keyword, value, path)),
        }
    }

    /// An absent optional key asks for nothing.
    fn properties(
        &self,
        properties: &Map<String, SchemaValue>,
        keywords: &Map<String, SchemaValue>,
        value: Option<&Value<'_>>,
        path: &str,
        depth: usize,
    ) -> Tally {
        let object = value.and_then(Value::as_object);
        let required =
            |key: &String| keywords.get("required").and_then(SchemaValue::as_array).is_some_and(|keys| keys.iter().any(|name| name == key));
        let mut tally = Tally::default();
        for (key, schema) in properties {
            let member = object.and_then(|object| object.get(key)).map(|member| &member.value);
            if member.is_some() || required(key) {
                let inner = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                tally.add(self.schema(schema, member, &inner, depth + 1));
            }
        }
        tally
    }

    /// All items together weigh as much as one.
    fn items(&self, schema: &SchemaValue, value: Option<&Value<'_>>, path: &str, depth: usize) -> Tally {
        match value.map(|value| &value.kind) {
            None => self.schema(schema, None, path, depth + 1),
            Some(Kind::Array(items)) if !items.is_empty() => {
                let mut sum = Tally::default();
                for (index, item) in items.iter().enumerate() {
                    sum.add(self.schema(schema, Some(item), &format!("{path}/{index}"), depth + 1));
                }
                Tally { met: sum.met / items.len() as f64, all: sum.all / items.len() as f64 }
            }
            Some(_) => Tally::default(),
        }
    }

    /// Whether no violation names this keyword for the value, which must be there.
    fn holds(&self, keyword: &str, value: Option<&Value<'_>>, path: &str) -> bool {
        let names = |violation: &Violation| violation.instance_path == path && violation.schema_path.rsplit('/').next() == Some(keyword);
        let inside =
            |violation: &Violation| violation.instance_path.starts_with(path) && violation.schema_path.contains(&format!("/{keyword}/"));
        value.is_some() && !self.violations.iter().any(|violation| names(violation) || inside(violation))
    }
}

#[cfg(test)]
mod tests {
    use crate::score::Scorer;
    use crate::task::Task;

    fn reward(completion: &str) -> f64 {
        let mut task = Task::embedded("invoice").unwrap();
        task.score.graded = true;
        Scorer::new(&task).unwrap().score(completion, None).reward
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
            assert!(reward(pair[0]) < reward(pair[1]), "{} earns {}, {} earns {}", pair[0], reward(pair[0]), pair[1], reward(pair[1]));
        }
        assert_eq!(reward(steps[0]), 0.0);
        assert!(reward("3") >= 0.5);
        assert_eq!(reward(steps[10]), 1.0);
    }
}
