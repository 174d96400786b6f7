//! Tokens that name their provider: a fixed beginning, an alphabet and a length, from the providers' documented formats.

use std::ops::Range;

use super::is_placeholder;

/// What may follow the beginning.
#[derive(Clone, Copy)]
enum Alphabet {
    /// `A-Z0-9`
    Upper,
    /// `0-9a-f`
    Hex,
    /// `A-Za-z0-9`
    Letters,
    /// `A-Za-z0-9_-`
    Url,
    /// `A-Za-z0-9_-` and full stops
    Dotted,
    /// `A-Za-z0-9/`
    Path,
    /// `A-Za-z0-9+/=`
    Base64,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Path => byte.is_ascii_alphanumeric() || byte == b'/',
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
        }
    }
}

/// Name, beginnings, alphabet of the rest, its least and greatest length.
type Rule = (&'static str, &'static [&'static str], Alphabet, usize, usize);

const RULES: &[Rule] = &[
    ("AWS access key id", &["AKIA", "ASIA"], Alphabet::Upper, 16, 16),
    ("Azure storage key", &["AccountKey="], Alphabet::Base64, 88, 88),
    ("Anthropic key", &["sk-ant-"], Alphabet::Url, 40, 200),
    ("crates.io token", &["cio"], Alphabet::Letters, 32, 32),
    ("DigitalOcean token", &["dop_v1_", "doo_v1_", "dor_v1_"], Alphabet::Hex, 64, 64),
    ("Docker Hub token", &["dckr_pat_"], Alphabet::Url, 27, 40),
    ("GitHub token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], Alphabet::Letters, 36, 251),
    ("GitHub fine-grained token", &["github_pat_"], Alphabet::Url, 60, 244),
    ("GitLab token", &["glpat-", "gldt-", "glrt-"], Alphabet::Dotted, 20, 80),
    ("Google API key", &["AIza"], Alphabet::Url, 35, 35),
    ("Google OAuth secret", &["GOCSPX-"], Alphabet::Url, 28, 28),
    ("Hugging Face token", &["hf_", "api_org_"], Alphabet::Letters, 34, 40),
    ("npm token", &["npm_"], Alphabet::Letters, 36, 36),
    ("OpenAI key", &["sk-proj-", "sk-svcacct-", "sk-admin-"], Alphabet::Url, 40, 250),
    ("OpenAI key", &["sk-"], Alphabet::Letters, 48, 48),
    ("OpenRouter key", &["sk-or-v1-"], Alphabet::Hex, 64, 64),
    ("PyPI token", &["pypi-AgE"], Alphabet::Url, 50, 400),
    ("SendGrid key", &["SG."], Alphabet::Dotted, 66, 66),
    ("Slack token", &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-"], Alphabet::Url, 20, 250),
    ("Slack webhook", &["hooks.slack.com/services/"], Alphabet::Path, 40, 60),
    ("Stripe key", &["sk_live_", "rk_live_", "sk_test_", "rk_test_"], Alphabet::Letters, 24, 247),
    ("Stripe webhook secret", &["whsec_"], Alphabet::Letters, 32, 64),
];

/// Every provider token of the text.
pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for &(name, beginnings, alphabet, least, greatest) in RULES {
        for beginning in beginnings {
            for (start, _) in text.match_indices(beginning) {
                let inside_a_word = start > 0 && (bytes[start - 1].is_ascii_alphanumeric() || matches!(bytes[start - 1], b'_' | b'-'));
                let rest = &bytes[start + beginning.len()..];
                let length = rest.iter().take(greatest + 1).take_while(|&&byte| alphabet.has(byte)).count();
                // A full stop that ends a sentence belongs to no token.
                let stops = rest[..length].iter().rev().take_while(|&&byte| byte == b'.').count();
                let end = start + beginning.len() + length - stops;
                let fits = (least..=greatest).contains(&(length - stops));
                if fits && !inside_a_word && !is_placeholder(&text[start + beginning.len()..end]) {
                    found.push((name, start..end));
                }
            }
        }
    }
    found
}
