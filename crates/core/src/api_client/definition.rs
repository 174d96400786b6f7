//! A server as a TOML table defines it (`endpoints.toml` or a task): address, model, prices,
//! limits.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::ApiError;
use crate::format::did_you_mean;
use crate::http::Origin;
use crate::secrets::redact;
use crate::task::{Read, Section, Source};

pub const ENDPOINT_KEYS: [&str; 14] = [
    "base_url",
    "model",
    "api_key_env",
    "price_per_million_input",
    "price_per_million_output",
    "concurrency",
    "timeout_seconds",
    "retries",
    "kind",
    "json_mode",
    "strict_schema",
    "logprobs",
    "extra_body",
    "insecure_http",
];
/// Prefix of a base_url that is a Unix socket's path.
const UNIX_SOCKET: &str = "unix:";
/// Host in requests to a Unix socket.
const SOCKET_URL: &str = "http://127.0.0.1/v1";
/// Fields that the program sets itself, or whose answers it cannot read.
const OWN_FIELDS: [&str; 6] = ["model", "messages", "prompt", "tools", "stream", "n"];

#[derive(Clone)]
pub struct Endpoint {
    pub name: String,
    /// URL without trailing slash; `unix:PATH` for a Unix socket.
    pub base_url: String,
    pub model: String,
    pub api: Api,
    pub prices: Prices,
    /// Parallel requests.
    pub concurrency: usize,
    /// Limit of a request including its answer.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Pause before the second attempt; doubled for each further one.
    pub pause: Duration,
    pub format: ResponseFormat,
    /// Whether to request log-probs of the answer's tokens.
    pub logprobs: bool,
    /// Whether answers have these tokens, not only their sum; no key of the file.
    pub keeps_tokens: bool,
    /// Override the program's own request fields.
    pub extra_body: Map<String, Value>,
    /// PEM file that replaces the built-in CAs (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
    pub(crate) key: Option<String>,
}

/// Request forms of OpenAI's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    Free,
    /// `json_object`.
    Json,
    /// `json_schema` with the task's schema, `strict`.
    Schema,
}

/// Prices per million tokens, in any currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    pub input: Option<f64>,
    pub output: Option<f64>,
}

impl Prices {
    /// Whether a cost limit can be kept.
    pub fn are_known(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    pub fn cost(&self, prompt_tokens: Option<usize>, tokens: Option<usize>) -> Option<f64> {
        Some((prompt_tokens? as f64 * self.input? + tokens? as f64 * self.output?) / 1e6)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_ref().map(|_| "set");
        let Self {
            name,
            base_url,
            model,
            ..
        } = self;
        formatter
            .debug_struct("Endpoint")
            .field("name", name)
            .field("base_url", base_url)
            .field("model", model)
            .field("key", &key)
            .finish()
    }
}

impl Endpoint {
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.base_url.strip_prefix(UNIX_SOCKET).map(PathBuf::from)
    }

    /// A local server on a Unix socket, without a key.
    pub(crate) fn at_socket(
        socket: &Path,
        model: &str,
        concurrency: usize,
        timeout: Duration,
    ) -> Self {
        Self {
            name: "endpoint".to_owned(),
            base_url: format!("{UNIX_SOCKET}{}", socket.display()),
            model: model.to_owned(),
            api: Api::Chat,
            prices: Prices {
                input: None,
                output: None,
            },
            concurrency,
            timeout,
            retries: 1,
            pause: Duration::from_millis(500),
            format: ResponseFormat::Free,
            logprobs: false,
            keeps_tokens: false,
            extra_body: Map::new(),
            certificates: None,
            key: None,
        }
    }

    pub(super) fn request_url(&self) -> &str {
        if self.base_url.starts_with(UNIX_SOCKET) {
            SOCKET_URL
        } else {
            &self.base_url
        }
    }

    /// Reads endpoint `name` from the file's `text`, with its key from the environment. Checks
    /// every endpoint of the file.
    pub fn find(
        name: &str,
        label: &str,
        text: &str,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ApiError> {
        let (mut endpoint, key_variable) = Self::defined(name, label, text)?;
        endpoint.read_environment(label, key_variable.as_deref(), variable)?;
        Ok(endpoint)
    }

    /// All endpoints of the file's `text`, without their keys.
    pub fn all(label: &str, text: &str) -> Result<Vec<Self>, ApiError> {
        let defined = Self::all_defined(label, text)?.into_iter();
        Ok(defined.map(|(endpoint, _)| endpoint).collect())
    }

    pub(super) fn defined(
        name: &str,
        label: &str,
        text: &str,
    ) -> Result<(Self, Option<String>), ApiError> {
        let mut defined = Self::all_defined(label, text)?;
        let position = defined.iter().position(|(found, _)| found.name == name);
        if let Some(position) = position {
            return Ok(defined.swap_remove(position));
        }
        let names: Vec<&str> = defined.iter().map(|(found, _)| &*found.name).collect();
        let known = if names.is_empty() {
            "the file has none".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        };
        let advice = format!("{known}{}", did_you_mean(name, names.iter().copied()));
        Err(ApiError::Other(format!(
            "no endpoint `{name}` in {label}: {advice}"
        )))
    }

    fn all_defined(label: &str, text: &str) -> Result<Vec<(Self, Option<String>)>, ApiError> {
        let source = Source { label, text };
        let at = |offset, message: String| ApiError::File(source.error(offset, message));
        let broken = |error: toml::de::Error| {
            at(
                error.span().map_or(0, |span| span.start),
                error.message().to_owned(),
            )
        };
        let document = DeTable::parse(text).map_err(broken)?;
        let defined = document.get_ref().iter().map(|(key, value)| {
            let own = key.get_ref().as_ref();
            let DeValue::Table(table) = value.get_ref() else {
                return Err(at(
                    key.span().start,
                    format!("`{own}` is outside of a table: write `[NAME]` above it"),
                ));
            };
            let section = Section::new(source, &format!("{own}."), table, &ENDPOINT_KEYS)?;
            Ok(Self::read(own, &section, key.span().start)?)
        });
        defined.collect()
    }

    /// Reads the key from `key_variable`, and the certificate authorities.
    ///
    /// # Errors
    /// [`ApiError::Key`]; `label` is the file that names the variable.
    pub(crate) fn read_environment(
        &mut self,
        label: &str,
        key_variable: Option<&str>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), ApiError> {
        if let Some(named) = key_variable {
            let failed = |problem| ApiError::Key {
                label: label.to_owned(),
                name: self.name.clone(),
                variable: redact(named).0.into_owned(),
                problem,
            };
            let key = variable(named).ok_or_else(|| failed("is not set"))?;
            let key = key
                .into_string()
                .map_err(|_| failed("is no text"))?
                .trim()
                .to_owned();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(failed(if key.is_empty() {
                    "is empty"
                } else {
                    "contains a character that no key has, such as a space"
                }));
            }
            self.key = Some(key);
        }
        self.certificates = variable("SSL_CERT_FILE")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        Ok(())
    }

    /// Returns the endpoint and the variable of its key.
    pub(crate) fn read(
        name: &str,
        section: &Section<'_>,
        start: usize,
    ) -> Read<(Self, Option<String>)> {
        let place = |key: &str| section.get(key).map_or(start, |(_, offset)| offset);
        let wrong = |key: &str, message: &str| section.error(key, place(key), message);
        let required = |key: &'static str, example: &str| -> Read<String> {
            let text = section.string(key)?.filter(|text| !text.trim().is_empty());
            text.ok_or_else(|| {
                section.error_at(
                    start,
                    format!("`[{name}]` needs {key}: add for example `{example}`"),
                )
            })
        };
        let base_url = required("base_url", "base_url = \"https://api.openai.com/v1\"")?;
        let insecure = section.boolean("insecure_http")?.unwrap_or(false);
        if base_url
            .strip_prefix(UNIX_SOCKET)
            .is_some_and(|path| !path.starts_with('/'))
        {
            return Err(wrong(
                "base_url",
                "names a Unix socket by its absolute path: write `unix:/run/server.sock`",
            ));
        }
        let origin = match base_url.starts_with(UNIX_SOCKET) {
            true => Origin::from_url(SOCKET_URL),
            false => Origin::from_url(&base_url).filter(|_| !base_url.contains(['?', '#'])),
        };
        let Some(origin) = origin else {
            return Err(wrong(
                "base_url",
                "must be an address such as `https://api.openai.com/v1`, without user, password and query, or `unix:` and the path of a socket",
            ));
        };
        if !origin.is_encrypted() && !origin.is_loopback() && !insecure {
            return Err(wrong(
                "base_url",
                "would send prompts and key unencrypted to another machine: use https://, or add `insecure_http = true` where the network is your own",
            ));
        }
        let number = |key: &str, default: f64, least: f64, most: f64| -> Read<f64> {
            match section.number(key)? {
                Some(value) if !(least..=most).contains(&value) => Err(wrong(
                    key,
                    &format!("must be between {least} and {most}, not {value}"),
                )),
                value => Ok(value.unwrap_or(default)),
            }
        };
        let whole = |key: &str, default: f64, least: f64, most: f64| match number(
            key, default, least, most,
        )? {
            value if value.fract() != 0.0 => {
                Err(wrong(key, &format!("must be a whole number, not {value}")))
            }
            value => Ok(value as usize),
        };
        let price = |key: &str| {
            section
                .get(key)
                .map(|_| number(key, 0.0, 0.0, 1e6))
                .transpose()
        };
        let api = match section.string("kind")?.as_deref() {
            None | Some("chat") => Api::Chat,
            Some("completions") => Api::Completions,
            Some(other) => {
                return Err(wrong(
                    "kind",
                    &format!("must be \"chat\" or \"completions\", not {other:?}"),
                ));
            }
        };
        let format = match (
            section.boolean("json_mode")?,
            section.boolean("strict_schema")?,
        ) {
            (Some(true), Some(true)) => {
                return Err(wrong(
                    "json_mode",
                    "is part of `strict_schema`, which is set too: remove one",
                ));
            }
            (Some(true), _) => ResponseFormat::Json,
            (_, Some(true)) => ResponseFormat::Schema,
            _ => ResponseFormat::Free,
        };
        let extra_body = section.json_object("extra_body")?;
        if let Some(own) = OWN_FIELDS
            .into_iter()
            .find(|own| extra_body.contains_key(*own))
        {
            return Err(wrong(
                "extra_body",
                &format!("must not hold `{own}`, which grpo-tui sets itself: remove it"),
            ));
        }
        let key_variable = section.string("api_key_env")?;
        let is_name = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !text.starts_with(|c: char| c.is_ascii_digit())
        };
        if key_variable
            .as_deref()
            .is_some_and(|text| text.is_empty() || !is_name(text))
        {
            // The text may be a key: do not repeat it.
            return Err(wrong(
                "api_key_env",
                "must be the name of an environment variable, such as OPENAI_API_KEY, not the key itself",
            ));
        }
        let endpoint = Self {
            name: name.to_owned(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            model: required("model", "model = \"gpt-4o-mini\"")?,
            api,
            prices: Prices {
                input: price("price_per_million_input")?,
                output: price("price_per_million_output")?,
            },
            concurrency: whole("concurrency", 8.0, 1.0, 512.0)?,
            timeout: Duration::from_secs_f64(number("timeout_seconds", 120.0, 0.1, 3600.0)?),
            retries: whole("retries", 5.0, 0.0, 20.0)? as u32,
            pause: Duration::from_millis(500),
            format,
            logprobs: section.boolean("logprobs")?.unwrap_or(false),
            keeps_tokens: false,
            extra_body,
            certificates: None,
            key: None,
        };
        Ok((endpoint, key_variable))
    }
}
