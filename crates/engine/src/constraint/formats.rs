//! String formats as equivalent patterns.

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

/// Pattern of the strings that the validator accepts for a format; `None` if it cannot be
/// expressed. Excludes leap seconds.
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

macro_rules! host {
    ($more:literal) => {
        concat!(
            r"[A-Za-z][A-Za-z0-9]{0,19}(-[A-Za-z0-9]{1,20})?",
            r"(\.[A-Za-z][A-Za-z0-9]{0,19}(-[A-Za-z0-9]{1,20})?)",
            $more
        )
    };
}

const URI: &str = concat!(
    r"^(https?|ftp)://",
    host!("{0,4}"),
    r"(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~-]{0,60}){0,8}(\?[A-Za-z0-9._~=&-]{0,120})?(#[A-Za-z0-9._~-]{0,60})?$"
);

/// Pattern of a format's usual strings, all accepted by the validator.
pub(super) fn pattern_within_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "duration" => {
            r"^P([0-9]{1,4}W|([0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}D)(T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))?|T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))$"
        }
        "email" | "idn-email" => concat!(
            r"^[A-Za-z0-9_+-]{1,30}(\.[A-Za-z0-9_+-]{1,30})?@",
            host!("{1,3}"),
            "$"
        ),
        "hostname" | "idn-hostname" => concat!("^", host!("{0,4}"), "$"),
        "ipv6" => {
            r"^(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,7}:|([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,5}(:[0-9a-f]{1,4}){1,2}|([0-9a-f]{1,4}:){1,4}(:[0-9a-f]{1,4}){1,3}|([0-9a-f]{1,4}:){1,3}(:[0-9a-f]{1,4}){1,4}|([0-9a-f]{1,4}:){1,2}(:[0-9a-f]{1,4}){1,5}|[0-9a-f]{1,4}:(:[0-9a-f]{1,4}){1,6}|:((:[0-9a-f]{1,4}){1,7}|:))$"
        }
        "uri" | "uri-reference" | "uri-template" | "iri" | "iri-reference" => URI,
        "json-pointer" => r"^(/([A-Za-z0-9 ._-]|~[01]){0,60}){0,16}$",
        "relative-json-pointer" => {
            r"^(0|[1-9][0-9]{0,2})(#|(/([A-Za-z0-9 ._-]|~[01]){0,60}){0,16})$"
        }
        _ => return None,
    })
}

/// Whether a pattern is a format's.
pub(super) fn is_of_format(pattern: &str) -> bool {
    crate::schema_keywords::FORMATS.iter().any(|(name, ..)| {
        pattern_of_format(name).or_else(|| pattern_within_format(name)) == Some(pattern)
    })
}
