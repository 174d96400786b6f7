//! Formats of strings as patterns: those that a pattern can say exactly.

macro_rules! date {
    () => {
        concat!(
            r"[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))",
            r"|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"
        )
    };
}

macro_rules! time {
    () => {
        r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
    };
}

/// A pattern of the strings that the validator takes for a format; `None` where no pattern says so. Leap seconds are
/// left out.
pub(super) fn pattern_of_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "date" => concat!("^(", date!(), ")$"),
        "time" => concat!("^(", time!(), ")$"),
        "date-time" => concat!("^(", date!(), ")T(", time!(), ")$"),
        "ipv4" => {
            r"^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$"
        }
        "uuid" => "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        _ => return None,
    })
}

/// Whether a pattern is that of a format.
pub(super) fn is_of_format(pattern: &str) -> bool {
    ["date", "time", "date-time", "ipv4", "uuid"]
        .into_iter()
        .any(|name| pattern_of_format(name) == Some(pattern))
}
