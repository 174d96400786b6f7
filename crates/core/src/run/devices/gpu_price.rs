//! The price of a GPU hour from the user's `config.toml`: for the cost of an eval and of a run.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::format::line_column;
use crate::run::error::RunError;
use crate::run::storage::durable::read_if_there;

/// In `config.toml`.
pub const GPU_PRICE_KEY: &str = "gpu_price_per_hour";
pub const GPU_PRICE_RULE: &str = "a number >= 0";
const MAX_BYTES: u64 = 1 << 20;

pub fn is_price(price: f64) -> bool {
    price.is_finite() && price >= 0.0
}

pub fn toml_price(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok()? as f64
        }
        DeValue::Float(number) => number.as_str().parse().ok()?,
        _ => return None,
    };
    Some(number).filter(|price| is_price(*price))
}

/// The price of an hour of one GPU by the user's `config.toml`; `None` where the file or the key is missing.
pub fn configured_gpu_price() -> Result<Option<f64>, RunError> {
    let folders = directories::ProjectDirs::from("", "", "grpo-tui");
    folders.map_or(Ok(None), |folders| {
        gpu_price_of(&folders.config_dir().join("config.toml"))
    })
}

fn gpu_price_of(path: &Path) -> Result<Option<f64>, RunError> {
    let Some(bytes) = read_if_there(path, MAX_BYTES)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let malformed = |byte: usize, message: String| RunError::Malformed {
        path: path.to_owned(),
        line: Some(line_column(&text, byte).0),
        message,
    };
    let table = DeTable::parse(&text).map_err(|error| {
        malformed(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
        )
    })?;
    let Some(value) = table.get_ref().get(GPU_PRICE_KEY) else {
        return Ok(None);
    };
    let price = toml_price(Spanned::get_ref(value));
    price.map(Some).ok_or_else(|| {
        let found = text.get(value.span()).unwrap_or_default();
        malformed(
            value.span().start,
            format!(
                "`{GPU_PRICE_KEY}` must be {GPU_PRICE_RULE}, not {found}: write the price of an hour, or remove it"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_price_is_a_number_from_0_and_anything_else_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(gpu_price_of(&path).unwrap(), None);
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            gpu_price_of(&path).map_err(|error| {
                error
                    .to_string()
                    .replace(&path.display().to_string(), "config.toml")
            })
        };
        assert_eq!(read("mouse = false\n"), Ok(None));
        for (value, price) in [
            ("2", 2.0),
            ("0", 0.0),
            ("1_000", 1000.0),
            ("3.5", 3.5),
            ("1e-2", 0.01),
            ("0x10", 16.0),
        ] {
            assert_eq!(
                read(&format!("mouse = false\ngpu_price_per_hour = {value}\n")),
                Ok(Some(price)),
                "{value}"
            );
        }
        for value in [
            "-1",
            "-0.5",
            "nan",
            "inf",
            "\"2.5\"",
            "true",
            "[2]",
            "99999999999999999999",
        ] {
            let expected = format!(
                "config.toml line 2: `gpu_price_per_hour` must be a number >= 0, not {value}: write the price of an hour, or remove it"
            );
            assert_eq!(
                read(&format!(
                    "mouse = false\ngpu_price_per_hour = {value} # x\n"
                )),
                Err(expected)
            );
        }
        let broken = read("theme = \"dark\"\ngpu_price_per_hour = \n").unwrap_err();
        assert!(broken.starts_with("config.toml line 2: "), "{broken}");
    }
}
