//! The time of what is recorded.

/// Milliseconds since 1970; 0 before that.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    crate::files::test_clock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// In this host's time zone; clamped to the year 9999.
pub(super) fn local_now() -> jiff::Zoned {
    let now = i64::try_from(now_ms())
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    now.unwrap_or(jiff::Timestamp::MAX)
        .to_zoned(jiff::tz::TimeZone::system())
}
