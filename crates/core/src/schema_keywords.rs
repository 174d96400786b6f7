//! The keywords of JSON Schema, drafts 4 to 2020-12: what each does, in which drafts, and what its value is.

use serde_json::Value;

/// A version of the JSON Schema standard, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draft {
    D4,
    D6,
    D7,
    D2019,
    D2020,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeywordValue {
    Schema,
    SchemaOrList,
    Schemas,
    /// An object: its keys are names, its values schemas.
    NamedSchemas,
    /// An object: its keys are property names, its values schemas or lists of property names.
    Dependencies,
    PropertyNames,
    /// A type's name, or a list of them.
    Types,
    Format,
    Reference,
    DraftAddress,
    Boolean,
    Number,
    Text,
    Values,
    Value,
}

/// What a keyword's value has, for those who look for schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Data,
    /// A schema, or a list of them.
    Schemas,
    /// Schemas by name.
    Named,
}

type Members = serde_json::Map<String, Value>;

#[derive(Debug)]
pub struct Keyword {
    pub name: &'static str,
    pub since: Draft,
    /// The last draft that has it.
    pub until: Draft,
    /// Which values it concerns, in the plural; other types always pass. Empty if it concerns all.
    pub of: &'static str,
    pub holds: KeywordValue,
    pub meaning: &'static str,
}

impl Draft {
    const fn name(self) -> &'static str {
        match self {
            Self::D4 => "draft 4",
            Self::D6 => "draft 6",
            Self::D7 => "draft 7",
            Self::D2019 => "2019-09",
            Self::D2020 => "2020-12",
        }
    }

    /// The draft with the address that `$schema` names; `None` for an unknown one.
    pub fn from_address(address: &str) -> Option<Self> {
        let known = [
            ("draft-04", Self::D4),
            ("draft-06", Self::D6),
            ("draft-07", Self::D7),
            ("2019-09", Self::D2019),
            ("2020-12", Self::D2020),
        ];
        known
            .into_iter()
            .find(|(part, _)| address.contains(part))
            .map(|(_, draft)| draft)
    }
}

impl std::fmt::Display for Draft {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Keyword {
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYWORDS.iter().find(|keyword| keyword.name == name)
    }

    /// What a keyword's value is, unknown keywords included.
    pub fn content(name: &str) -> Content {
        match Self::named(name).map(|keyword| keyword.holds) {
            // Names of an OpenAPI document.
            None if ["schemas", "responses", "headers"].contains(&name) => Content::Named,
            Some(KeywordValue::NamedSchemas | KeywordValue::Dependencies) => Content::Named,
            None | Some(KeywordValue::Schema | SchemaOrList | KeywordValue::Schemas) => {
                Content::Schemas
            }
            Some(_) => Content::Data,
        }
    }

    /// Whether it can reject a value in a schema of that draft; names, places and notes cannot.
    pub fn constrains(&self, draft: Draft) -> bool {
        match self.name {
            "contentEncoding" | "contentMediaType" => draft == Draft::D7,
            name => !SILENT.contains(&name),
        }
    }

    /// Its drafts, such as `since 2019-09`.
    pub fn drafts(&self) -> String {
        match (self.since, self.until) {
            (Draft::D4, Draft::D2020) => "all drafts".to_owned(),
            (Draft::D4, until) => format!("until {until}"),
            (since, Draft::D2020) => format!("since {since}"),
            (since, until) if since == until => format!("{since} only"),
            (since, until) => format!("{since} to {until}"),
        }
    }
}

/// Visits a schema and all within it, and nothing else: `properties` and the like hold names, not
/// keywords, and `const`, `enum`, `default` and `examples` hold data. `each` gets the members of a
/// schema and what it returned for the one around it. Unknown keywords may hold schemas, since
/// `$ref` may lead there.
pub fn visit<'s, C>(schema: &'s Value, outer: &C, each: &mut impl FnMut(&'s Members, &C) -> C) {
    let members = match schema {
        Value::Array(items) => return items.iter().for_each(|item| visit(item, outer, each)),
        Value::Object(members) => members,
        _ => return,
    };
    let own = each(members, outer);
    for (keyword, value) in members {
        match (Keyword::content(keyword), value) {
            (Content::Data, _) => {}
            (Content::Named, Value::Object(named)) => {
                named.values().for_each(|value| visit(value, &own, each));
            }
            _ => visit(value, &own, each),
        }
    }
}

/// As [`visit`]; `each` may change the members.
pub fn visit_mut(schema: &mut Value, each: &mut impl FnMut(&mut Members)) {
    let members = match schema {
        Value::Array(items) => return items.iter_mut().for_each(|item| visit_mut(item, each)),
        Value::Object(members) => members,
        _ => return,
    };
    each(members);
    for (keyword, value) in members {
        match (Keyword::content(keyword), value) {
            (Content::Data, _) => {}
            (Content::Named, Value::Object(named)) => {
                named.values_mut().for_each(|value| visit_mut(value, each));
            }
            (_, value) => visit_mut(value, each),
        }
    }
}

/// Keywords that reject no value in any draft.
const SILENT: [&str; 18] = [
    "$schema",
    "$vocabulary",
    "$id",
    "id",
    "$defs",
    "definitions",
    "$comment",
    "$anchor",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentSchema",
];

/// The addresses of the drafts' meta-schemas, newest first.
pub const DRAFT_ADDRESSES: [&str; 5] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-04/schema#",
];

pub const TYPES: [(&str, &str); 7] = [
    ("string", "text"),
    ("number", "any number, 1e3 and -0.5 as well"),
    (
        "integer",
        "a number without a fraction; 1.0 counts since draft 6",
    ),
    ("boolean", "true or false"),
    ("object", "keys with values, in braces"),
    ("array", "a list, in brackets"),
    ("null", "null"),
];

/// The formats of the standard, the first draft with them, and what they accept.
pub const FORMATS: [(&str, Draft, &str); 19] = [
    ("date", Draft::D7, "RFC 3339 date: 2026-03-01"),
    (
        "date-time",
        Draft::D4,
        "RFC 3339 date and time: 2026-03-01T12:00:00Z",
    ),
    ("time", Draft::D7, "RFC 3339 time with offset: 12:00:00Z"),
    ("duration", Draft::D2019, "ISO 8601 duration: P3DT12H"),
    ("email", Draft::D4, "email address"),
    ("idn-email", Draft::D7, "email address in any script"),
    ("hostname", Draft::D4, "Internet host name"),
    ("idn-hostname", Draft::D7, "host name in any script"),
    ("ipv4", Draft::D4, "IPv4 address: 192.0.2.1"),
    ("ipv6", Draft::D4, "IPv6 address: 2001:db8::1"),
    ("uri", Draft::D4, "absolute URI, with a scheme"),
    ("uri-reference", Draft::D6, "URI, absolute or relative"),
    (
        "uri-template",
        Draft::D6,
        "RFC 6570 URI template: /user/{id}",
    ),
    ("iri", Draft::D7, "absolute URI in any script"),
    (
        "iri-reference",
        Draft::D7,
        "URI in any script, absolute or relative",
    ),
    ("uuid", Draft::D2019, "UUID, 8-4-4-4-12 hexadecimal digits"),
    ("json-pointer", Draft::D6, "JSON pointer: /items/0"),
    (
        "relative-json-pointer",
        Draft::D7,
        "relative JSON pointer: 1/name",
    ),
    ("regex", Draft::D7, "regular expression (ECMA 262)"),
];

use Draft::{D4, D6, D7, D2019, D2020};
use KeywordValue::{
    Boolean, Dependencies, DraftAddress, Format, NamedSchemas, Number, PropertyNames, Reference,
    Schema, SchemaOrList, Schemas, Text, Types, Values,
};

const fn keyword(
    name: &'static str,
    since: Draft,
    until: Draft,
    of: &'static str,
    holds: KeywordValue,
    meaning: &'static str,
) -> Keyword {
    Keyword {
        name,
        since,
        until,
        of,
        holds,
        meaning,
    }
}

const STRINGS: &str = "strings";
const NUMBERS: &str = "numbers";
const ARRAYS: &str = "arrays";
const OBJECTS: &str = "objects";

/// All keywords; validators let other names through, which hides misspellings.
#[rustfmt::skip]
pub const KEYWORDS: [Keyword; 63] = [
    keyword("type", D4, D2020, "", Types, "The type of the value; a list allows several."),
    keyword("enum", D4, D2020, "", Values, "The value must equal one of these."),
    keyword("const", D6, D2020, "", KeywordValue::Value, "The value must equal this one."),
    keyword("properties", D4, D2020, OBJECTS, NamedSchemas,
        "Schemas of properties by name. It requires none: see `required`. Other properties stay allowed: see \
         `additionalProperties`."),
    keyword("required", D4, D2020, OBJECTS, PropertyNames, "Properties that must be present."),
    keyword("additionalProperties", D4, D2020, OBJECTS, Schema,
        "Schema of properties that `properties` and `patternProperties` beside it do not name; false forbids them. \
         It does not include those of `allOf` or `$ref`: see `unevaluatedProperties`."),
    keyword("items", D4, D2020, ARRAYS, SchemaOrList,
        "Schema of every item, or of those after `prefixItems`. Until 2019-09 it may be a list: schemas by \
         position."),
    keyword("minLength", D4, D2020, STRINGS, Number, "Fewest characters (Unicode code points)."),
    keyword("maxLength", D4, D2020, STRINGS, Number, "Most characters (Unicode code points)."),
    keyword("pattern", D4, D2020, STRINGS, Text,
        "Regular expression that must match somewhere in the string; ^ and $ make it match the whole."),
    keyword("format", D4, D2020, STRINGS, Format,
        "A named form, such as date. Checked only with `assert_formats = true` under [score] in task.toml."),
    keyword("minimum", D4, D2020, NUMBERS, Number, "Smallest number that is allowed."),
    keyword("maximum", D4, D2020, NUMBERS, Number, "Largest number that is allowed."),
    keyword("exclusiveMinimum", D4, D2020, NUMBERS, Number,
        "The number must be greater than this. In draft 4 true or false: whether `minimum` itself is excluded."),
    keyword("exclusiveMaximum", D4, D2020, NUMBERS, Number,
        "The number must be less than this. In draft 4 true or false: whether `maximum` itself is excluded."),
    keyword("multipleOf", D4, D2020, NUMBERS, Number,
        "The number must be a multiple of this; 0.01 allows two decimals."),
    keyword("minItems", D4, D2020, ARRAYS, Number, "Fewest items."),
    keyword("maxItems", D4, D2020, ARRAYS, Number, "Most items."),
    keyword("uniqueItems", D4, D2020, ARRAYS, Boolean, "Whether no two items may be equal."),
    keyword("prefixItems", D2020, D2020, ARRAYS, Schemas,
        "Schemas of the first items by position. It requires none: see `minItems`."),
    keyword("contains", D6, D2020, ARRAYS, Schema,
        "At least one item must match; `minContains` and `maxContains` change how many."),
    keyword("minContains", D2019, D2020, ARRAYS, Number,
        "Fewest items that match `contains`, 1 by default; no effect without it."),
    keyword("maxContains", D2019, D2020, ARRAYS, Number, "Most items that match `contains`; no effect without it."),
    keyword("minProperties", D4, D2020, OBJECTS, Number, "Fewest properties."),
    keyword("maxProperties", D4, D2020, OBJECTS, Number, "Most properties."),
    keyword("patternProperties", D4, D2020, OBJECTS, NamedSchemas,
        "Schemas of properties whose name matches a regular expression."),
    keyword("propertyNames", D6, D2020, OBJECTS, Schema, "Schema of every property's name."),
    keyword("dependentRequired", D2019, D2020, OBJECTS, Dependencies,
        "If a property is present, those listed for it must be present too."),
    keyword("dependentSchemas", D2019, D2020, OBJECTS, NamedSchemas,
        "If a property is present, the whole object must match the schema given for it."),
    keyword("dependencies", D4, D7, OBJECTS, Dependencies,
        "If a property is present: the properties that must be too, or a schema for the whole object. Since \
         2019-09: `dependentRequired` and `dependentSchemas`."),
    keyword("allOf", D4, D2020, "", Schemas, "The value must match every one of these schemas."),
    keyword("anyOf", D4, D2020, "", Schemas, "The value must match at least one of these schemas."),
    keyword("oneOf", D4, D2020, "", Schemas,
        "The value must match exactly one of these schemas; matching two is a violation."),
    keyword("not", D4, D2020, "", Schema, "The value must not match this schema."),
    keyword("if", D7, D2020, "", Schema,
        "If the value matches this schema, `then` applies, otherwise `else`. It rejects nothing itself."),
    keyword("then", D7, D2020, "", Schema, "Applies if the value matches `if`; no effect without it."),
    keyword("else", D7, D2020, "", Schema, "Applies if the value does not match `if`; no effect without it."),
    keyword("$ref", D4, D2020, "", Reference,
        "The value must match the schema at this address: #/$defs/NAME, #ANCHOR, or a file. Until draft 7 the \
         keywords beside it have no effect."),
    keyword("$defs", D2019, D2020, "", NamedSchemas,
        "Schemas for `$ref` to name; they apply to nothing by themselves. Until draft 7: `definitions`."),
    keyword("definitions", D4, D7, "", NamedSchemas,
        "Schemas for `$ref` to name; they apply to nothing by themselves. Since 2019-09: `$defs`; `$ref` still \
         finds them here."),
    keyword("unevaluatedProperties", D2019, D2020, OBJECTS, Schema,
        "Schema of properties that nothing else here has looked at, `allOf`, `anyOf`, `if` and `$ref` included; \
         false forbids them."),
    keyword("unevaluatedItems", D2019, D2020, ARRAYS, Schema,
        "Schema of items that nothing else here has looked at, `allOf`, `anyOf`, `if` and `$ref` included; false \
         forbids them."),
    keyword("additionalItems", D4, D2019, ARRAYS, Schema,
        "Schema of the items after those that `items` lists; no effect unless `items` is a list. Since 2020-12: \
         `items` after `prefixItems`."),
    keyword("title", D4, D2020, "", Text, "A short name for readers; no effect on scores."),
    keyword("description", D4, D2020, "", Text, "An explanation for readers; no effect on scores."),
    keyword("default", D4, D2020, "", KeywordValue::Value,
        "A usual value, for readers; nothing is filled in, and no effect on scores."),
    keyword("examples", D6, D2020, "", Values, "Example values, for readers; no effect on scores."),
    keyword("deprecated", D2019, D2020, "", Boolean,
        "Whether it should no longer be used, for readers; no effect on scores."),
    keyword("readOnly", D7, D2020, "", Boolean,
        "Whether only the owner of the data sets it, for readers; no effect on scores."),
    keyword("writeOnly", D7, D2020, "", Boolean,
        "Whether it is never read back, such as a password, for readers; no effect on scores."),
    keyword("contentEncoding", D7, D2020, STRINGS, Text,
        "How the string encodes bytes, such as base64. Checked in draft 7, for readers only since 2019-09."),
    keyword("contentMediaType", D7, D2020, STRINGS, Text,
        "Media type of the string's content, such as application/json. Checked in draft 7, for readers only since \
         2019-09."),
    keyword("contentSchema", D2019, D2020, STRINGS, Schema,
        "Schema of the string's decoded content, for readers; no effect on scores."),
    keyword("$schema", D4, D2020, "", DraftAddress,
        "The draft in which the schema is written, by its address. Without it: 2020-12."),
    keyword("$id", D6, D2020, "", Text, "The schema's own address; a relative `$ref` starts from it."),
    keyword("id", D4, D4, "", Text, "The schema's own address; since draft 6 `$id`."),
    keyword("$anchor", D2019, D2020, "", Text, "A name for this schema: `$ref` to #NAME leads here."),
    keyword("$comment", D7, D2020, "", Text, "A note for those who edit the schema; no effect."),
    keyword("$dynamicRef", D2020, D2020, "", Reference,
        "As `$ref`, but resolved while validating: to the outermost schema with the same `$dynamicAnchor`."),
    keyword("$dynamicAnchor", D2020, D2020, "", Text,
        "A name for this schema that `$dynamicRef` can find, and schemas that refer to this one can override."),
    keyword("$recursiveRef", D2019, D2019, "", Reference,
        "Always \"#\": the schema itself, or the outermost one with `$recursiveAnchor`. Since 2020-12: \
         `$dynamicRef`."),
    keyword("$recursiveAnchor", D2019, D2019, "", Boolean,
        "Whether `$recursiveRef` may leave this schema for the one that refers to it. Since 2020-12: \
         `$dynamicAnchor`."),
    keyword("$vocabulary", D2019, D2020, "", KeywordValue::Value,
        "In a meta-schema: the sets of keywords that it uses. No effect in other schemas."),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::score::meta_problems;

    /// A value that no keyword of that kind may have; `None` where any value will do.
    fn wrong(holds: KeywordValue) -> Option<serde_json::Value> {
        Some(match holds {
            KeywordValue::Value => return None,
            KeywordValue::Text
            | KeywordValue::Format
            | KeywordValue::Reference
            | KeywordValue::DraftAddress
            | KeywordValue::Types => json!(3),
            KeywordValue::Schema
            | KeywordValue::NamedSchemas
            | KeywordValue::Dependencies
            | KeywordValue::SchemaOrList => json!("x"),
            KeywordValue::Boolean
            | KeywordValue::Number
            | KeywordValue::Values
            | KeywordValue::PropertyNames
            | KeywordValue::Schemas => json!("x"),
        })
    }

    /// The meta-schemas know which draft has which keyword: they refuse a wrong value of those that they have.
    #[test]
    fn the_drafts_of_each_keyword_are_those_of_the_meta_schemas() {
        for address in DRAFT_ADDRESSES {
            let draft = Draft::from_address(address).unwrap();
            for keyword in KEYWORDS.iter().filter(|keyword| keyword.name != "$schema") {
                let Some(value) = wrong(keyword.holds) else {
                    continue;
                };
                let mut schema = json!({"$schema": address});
                schema[keyword.name] = value;
                let is_known = !meta_problems(&schema).is_empty();
                // Later meta-schemas still describe them, as deprecated; that of draft 4 knows no `$ref`, which it uses.
                let is_apart = keyword.name == "$ref" && draft == Draft::D4;
                if is_apart
                    || [
                        "definitions",
                        "dependencies",
                        "$recursiveRef",
                        "$recursiveAnchor",
                    ]
                    .contains(&keyword.name)
                        && draft > keyword.until
                {
                    continue;
                }
                assert_eq!(
                    is_known,
                    (keyword.since..=keyword.until).contains(&draft),
                    "{} in {draft}",
                    keyword.name
                );
            }
        }
    }

    /// The lint reports a keyword that the draft does not have: it has no effect.
    #[test]
    fn a_keyword_of_a_later_draft_has_no_effect() {
        let check = |keyword: &str, value: serde_json::Value, rejected: serde_json::Value| {
            let known = Keyword::named(keyword).unwrap();
            for address in DRAFT_ADDRESSES {
                let schema = json!({"$schema": address, keyword: value});
                let accepts = jsonschema::options()
                    .build(&schema)
                    .unwrap()
                    .is_valid(&rejected);
                let has_it =
                    (known.since..=known.until).contains(&Draft::from_address(address).unwrap());
                assert_eq!(accepts, !has_it, "{keyword} in {address}");
            }
        };
        check("const", json!(1), json!(2));
        check("contains", json!({"const": 1, "type": "string"}), json!([]));
        check("propertyNames", json!({"maxLength": 1}), json!({"ab": 1}));
        check("dependentRequired", json!({"a": ["b"]}), json!({"a": 1}));
        check(
            "dependentSchemas",
            json!({"a": {"required": ["b"]}}),
            json!({"a": 1}),
        );
        check("unevaluatedProperties", json!(false), json!({"a": 1}));
        check("unevaluatedItems", json!(false), json!([1]));
        check("prefixItems", json!([{"type": "string"}]), json!([1]));
    }

    #[test]
    fn each_keyword_is_there_once_and_explained() {
        for (index, keyword) in KEYWORDS.iter().enumerate() {
            assert!(
                KEYWORDS[..index]
                    .iter()
                    .all(|other| other.name != keyword.name),
                "{}",
                keyword.name
            );
            let meaning = keyword.meaning;
            assert!(
                meaning.ends_with('.') && !meaning.contains("  ") && meaning.len() < 220,
                "{meaning}"
            );
        }
        assert_eq!(
            Keyword::named("prefixItems").unwrap().drafts(),
            "since 2020-12"
        );
        assert_eq!(Keyword::named("if").unwrap().drafts(), "since draft 7");
        assert_eq!(
            Keyword::named("definitions").unwrap().drafts(),
            "until draft 7"
        );
        assert_eq!(
            Keyword::named("$recursiveRef").unwrap().drafts(),
            "2019-09 only"
        );
    }
}
