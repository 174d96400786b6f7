//! Response format of a request: OpenAI's `response_format` or vLLM's fields.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{AnswerSchema, Fields, ResponseFormat};
use crate::openai::ApiError;
use crate::openai::fields::{known, unsupported, wrong};

/// vLLM's newer field, then its older one.
const STRUCTURED: &str = "structured_outputs";
const GUIDED: &str = "guided_json";

impl Fields<'_> {
    pub(super) fn response_format(&self) -> Result<(ResponseFormat, &'static str), ApiError> {
        const NAME: &str = "response_format";
        let guided = match self.get(GUIDED) {
            None => ResponseFormat::Text,
            Some(value) => ResponseFormat::JsonSchema(schema(GUIDED, value)?),
        };
        let structured = match self.object(STRUCTURED)? {
            None => ResponseFormat::Text,
            Some(fields) => structured(fields)?,
        };
        let named = [
            (self.own_format()?, NAME),
            (guided, GUIDED),
            (structured, STRUCTURED),
        ];
        let mut formats = named
            .into_iter()
            .filter(|(format, _)| *format != ResponseFormat::Text);
        match (formats.next(), formats.next()) {
            (None, _) => Ok((ResponseFormat::Text, NAME)),
            (Some(only), None) => Ok(only),
            (Some((_, first)), Some((_, second))) => Err(ApiError::invalid(
                second,
                format!("`{second}` and `{first}`: give one of them"),
            )),
        }
    }

    /// Whether values get their confidence, and under which schema.
    pub(super) fn confidence(&self) -> Result<(bool, Option<Box<AnswerSchema>>), ApiError> {
        const NAME: &str = "x_confidence";
        let Some(fields @ Json::Object(_)) = self.get(NAME) else {
            return Ok((self.flag(NAME)?, None));
        };
        let described = AnswerSchema::deserialize(fields)
            .map_err(|error| ApiError::invalid(NAME, format!("`{NAME}`: {error}")))?;
        match described.schema {
            Json::Object(_) => Ok((true, Some(Box::new(described)))),
            _ => Err(wrong(&format!("{NAME}.schema"), "a JSON Schema")),
        }
    }

    fn own_format(&self) -> Result<ResponseFormat, ApiError> {
        const NAME: &str = "response_format";
        let Some(format) = self.object(NAME)? else {
            return Ok(ResponseFormat::Text);
        };
        known(format, NAME, &["type", "json_schema"])?;
        match format.get("type").and_then(Json::as_str) {
            Some("text") => Ok(ResponseFormat::Text),
            Some("json_object") => Ok(ResponseFormat::JsonObject),
            Some("json_schema") => {
                let Some(Json::Object(named)) = format.get("json_schema") else {
                    return Err(wrong(
                        "response_format.json_schema",
                        "an object with `name` and `schema`",
                    ));
                };
                known(
                    named,
                    "response_format.json_schema",
                    &["name", "schema", "strict", "description"],
                )?;
                match named.get("schema") {
                    Some(schema @ Json::Object(_)) => {
                        Ok(ResponseFormat::JsonSchema(schema.clone()))
                    }
                    _ => Err(wrong("response_format.json_schema.schema", "a JSON Schema")),
                }
            }
            _ => Err(wrong(
                "response_format.type",
                "\"text\", \"json_object\" or \"json_schema\"",
            )),
        }
    }
}

fn schema(name: &str, value: &Json) -> Result<Json, ApiError> {
    let parsed = match value {
        Json::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    };
    match parsed {
        schema @ Json::Object(_) => Ok(schema),
        _ => Err(wrong(name, "a JSON Schema")),
    }
}

fn structured(fields: &Map<String, Json>) -> Result<ResponseFormat, ApiError> {
    const FORMS: [&str; 4] = ["regex", "choice", "grammar", "structural_tag"];
    const OPTIONS: [&str; 4] = [
        "disable_any_whitespace",
        "disable_fallback",
        "disable_additional_properties",
        "whitespace_pattern",
    ];
    let given = |name: &str| {
        let value = fields.get(name)?;
        (!value.is_null() && *value != Json::Bool(false)).then_some(value)
    };
    if let Some(name) = FORMS
        .iter()
        .chain(&OPTIONS)
        .find(|name| given(name).is_some())
    {
        return Err(unsupported(&format!("{STRUCTURED}.{name}")));
    }
    let names = [&["json", "json_object"][..], &FORMS, &OPTIONS].concat();
    known(fields, STRUCTURED, &names)?;
    match (given("json"), given("json_object")) {
        (Some(value), None) => {
            schema(&format!("{STRUCTURED}.json"), value).map(ResponseFormat::JsonSchema)
        }
        (None, Some(Json::Bool(true))) => Ok(ResponseFormat::JsonObject),
        _ => Err(wrong(STRUCTURED, "an object with `json` or `json_object`")),
    }
}
