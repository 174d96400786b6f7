//! An endpoint's definition as recorded in a run, so that a resumed run uses the same server: `NAME
//! { base_url = .. }`.

use std::ffi::OsString;

use serde_json::Value;

use super::{ApiError, Endpoint};

/// Label in messages, in place of a file.
const LABEL: &str = "the run's teacher";

/// Contains the name of the key's variable, not the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenEndpoint(String);

impl FrozenEndpoint {
    /// Reads endpoint `name` from the file's `text`.
    pub fn find(name: &str, label: &str, text: &str) -> Result<Self, ApiError> {
        let (endpoint, key_variable) = Endpoint::defined(name, label, text)?;
        let Endpoint {
            base_url,
            model,
            concurrency,
            timeout,
            retries,
            extra_body,
            ..
        } = &endpoint;
        let mut keys = vec![
            ("base_url", Value::from(base_url.as_str())),
            ("model", model.as_str().into()),
            ("concurrency", (*concurrency).into()),
            ("timeout_seconds", timeout.as_secs_f64().into()),
            ("retries", (*retries).into()),
            // The file allowed it, if the address uses http.
            ("insecure_http", true.into()),
        ];
        keys.extend(key_variable.map(|name| ("api_key_env", name.into())));
        keys.extend((!extra_body.is_empty()).then(|| ("extra_body", extra_body.clone().into())));
        let keys: Vec<String> = keys
            .iter()
            .map(|(key, value)| format!("{key} = {}", toml(value)))
            .collect();
        Ok(Self(format!("{name} {{ {} }}", keys.join(", "))))
    }

    /// `None` for a bare name.
    pub fn parse(text: &str) -> Option<Self> {
        text.contains(' ').then(|| Self(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn name(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Adds the key.
    ///
    /// # Errors
    /// [`ApiError`] if the key is not in the environment.
    pub fn endpoint(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Endpoint, ApiError> {
        let name = self.name();
        Endpoint::find(
            name,
            LABEL,
            &format!("{:?} ={}", name, &self.0[name.len()..]),
            variable,
        )
    }
}

/// JSON as single-line TOML; nulls, which TOML lacks, are left out.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members: Vec<String> = members
                .map(|(key, value)| format!("{} = {}", Value::from(key.as_str()), toml(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(toml).collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_the_same_after_it_was_recorded_and_holds_no_key() {
        let text = "[large]\nbase_url = \"http://10.0.0.1:8000/v1\"\nmodel = \"Qwen/Qwen3-8B\"\napi_key_env = \"LARGE_KEY\"\ninsecure_http = true\nretries = 2\ntimeout_seconds = 7.5\nextra_body = { a = { b = [1, \"x \\\"y\"] } }\n";
        let frozen = FrozenEndpoint::find("large", "endpoints.toml", text).unwrap();
        let key = "sk-0123456789abcdef";
        let with_key = |name: &str| (name == "LARGE_KEY").then(|| key.into());
        let own = Endpoint::find("large", "endpoints.toml", text, with_key).unwrap();
        let read = FrozenEndpoint::parse(frozen.text())
            .unwrap()
            .endpoint(with_key)
            .unwrap();
        let all = |endpoint: &Endpoint| {
            let Endpoint {
                name,
                base_url,
                model,
                concurrency,
                timeout,
                retries,
                extra_body,
                key,
                ..
            } = endpoint.clone();
            (
                name,
                base_url,
                model,
                concurrency,
                timeout,
                retries,
                extra_body,
                key,
            )
        };
        assert_eq!(all(&read), all(&own));
        assert!(
            !frozen.text().contains(key) && !frozen.text().contains('\n'),
            "{}",
            frozen.text()
        );
        assert_eq!(
            (frozen.name(), FrozenEndpoint::parse("large")),
            ("large", None)
        );
        let without = frozen.endpoint(|_| None).unwrap_err().to_string();
        assert!(without.contains("LARGE_KEY is not set"), "{without}");
    }
}
