//! A GGUF header's keys, with a message for what is missing or of a wrong type.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

pub(super) struct Metadata<'a>(pub(super) &'a HashMap<String, Value>);

impl Metadata<'_> {
    fn required(&self, key: &str) -> Result<&Value, String> {
        self.0
            .get(key)
            .ok_or_else(|| format!("`{key}` is missing from its metadata"))
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, String> {
        let text = self
            .required(key)?
            .to_string()
            .map_err(|_| format!("`{key}` is not text"))?;
        Ok(text)
    }

    pub(super) fn list(&self, key: &str) -> Result<&[Value], String> {
        let list = self
            .required(key)?
            .to_vec()
            .map_err(|_| format!("`{key}` is not a list"))?;
        Ok(list)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.0
            .get(key)
            .and_then(|value| value.to_bool().ok())
            .unwrap_or(default)
    }

    /// A token's id.
    pub(super) fn id(&self, key: &str) -> Option<u32> {
        self.0
            .get(key)
            .and_then(|value| value.to_u64().ok())
            .and_then(|id| u32::try_from(id).ok())
    }

    /// An integer; a per-layer list must be constant.
    pub(super) fn count(&self, key: &str) -> Result<usize, String> {
        let whole = |value: &Value| match value {
            Value::I32(number) => u64::try_from(*number).ok(),
            other => other.to_u64().ok(),
        };
        let value = self.required(key)?;
        let number = match value {
            Value::Array(layers) => match layers.split_first() {
                Some((first, rest)) if rest.iter().all(|layer| whole(layer) == whole(first)) => {
                    whole(first)
                }
                _ => {
                    return Err(format!(
                        "`{key}` differs between layers, which is not supported"
                    ));
                }
            },
            one => whole(one),
        };
        number
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| format!("`{key}` is not a whole number"))
    }

    pub(super) fn number(&self, key: &str, default: Option<f64>) -> Result<f64, String> {
        match (self.0.get(key), default) {
            // The shortest decimal of an f32: 1e-5, not 9.999999747378752e-6.
            (Some(Value::F32(number)), _) => number
                .to_string()
                .parse()
                .map_err(|_| format!("`{key}` = {number}")),
            (Some(Value::F64(number)), _) => Ok(*number),
            (Some(_), _) => Err(format!("`{key}` is not a number")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("`{key}` is missing from its metadata")),
        }
    }
}
