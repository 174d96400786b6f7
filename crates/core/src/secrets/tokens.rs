//! Provider tokens: prefix, alphabet and length, from the providers' documented formats.

use std::ops::Range;
use std::sync::LazyLock;

use super::is_placeholder;

/// Alphabet after the prefix.
#[derive(Clone, Copy)]
enum Alphabet {
    /// `A-Z0-9`
    Upper,
    /// `0-9A-Fa-f`
    Hex,
    /// `A-Za-z0-9`
    Letters,
    /// `A-Za-z0-9_-`
    Url,
    /// `A-Za-z0-9_-` and full stops
    Dotted,
    /// `A-Za-z0-9_-/`
    Path,
    /// `A-Za-z0-9+/=_-`: base64 of either kind
    Base64,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Path => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/'),
            Self::Base64 => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-')
            }
        }
    }
}

/// Name, prefixes, alphabet of the rest, its minimum and maximum length.
type Rule = (
    &'static str,
    &'static [&'static str],
    Alphabet,
    usize,
    usize,
);

/// The first rule of a prefix wins.
const RULES: &[Rule] = &[
    (
        "1Password service account token",
        &["ops_eyJ"],
        Alphabet::Base64,
        250,
        2000,
    ),
    (
        "age secret key",
        &["AGE-SECRET-KEY-1", "AGE-SECRET-KEY-PQ-1"],
        Alphabet::Upper,
        58,
        80,
    ),
    (
        "Alibaba Cloud access key id",
        &["LTAI"],
        Alphabet::Letters,
        20,
        20,
    ),
    ("Amazon Bedrock key", &["ABSK"], Alphabet::Base64, 109, 280),
    (
        "Amazon Bedrock key",
        &["bedrock-api-key-"],
        Alphabet::Base64,
        40,
        4000,
    ),
    ("Anthropic key", &["sk-ant-"], Alphabet::Url, 40, 200),
    (
        "Atlassian token",
        &["ATATT3", "ATCTT3", "ATSTT3"],
        Alphabet::Base64,
        100,
        300,
    ),
    (
        "AWS access key id",
        &["AKIA", "ASIA", "ABIA", "ACCA"],
        Alphabet::Upper,
        16,
        16,
    ),
    (
        "Azure storage key",
        &["AccountKey="],
        Alphabet::Base64,
        86,
        88,
    ),
    (
        "Bitbucket app password",
        &["ATBB"],
        Alphabet::Letters,
        32,
        40,
    ),
    (
        "Brevo key",
        &["xkeysib-", "xsmtpsib-"],
        Alphabet::Url,
        81,
        81,
    ),
    ("Contentful token", &["CFPAT-"], Alphabet::Url, 43, 43),
    ("crates.io token", &["cio"], Alphabet::Letters, 32, 32),
    ("Databricks token", &["dapi", "dose"], Alphabet::Hex, 32, 32),
    (
        "DigitalOcean token",
        &["dop_v1_", "doo_v1_", "dor_v1_"],
        Alphabet::Hex,
        64,
        64,
    ),
    (
        "Discord webhook",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        Alphabet::Path,
        70,
        120,
    ),
    (
        "Docker Hub token",
        &["dckr_pat_", "dckr_oat_"],
        Alphabet::Url,
        27,
        40,
    ),
    (
        "Doppler token",
        &[
            "dp.ct.",
            "dp.pt.",
            "dp.st.",
            "dp.sa.",
            "dp.scim.",
            "dp.audit.",
        ],
        Alphabet::Dotted,
        40,
        80,
    ),
    ("Dropbox token", &["sl."], Alphabet::Dotted, 130, 2000),
    (
        "Dynatrace token",
        &["dt0c01.", "dt0s01.", "dt0s16."],
        Alphabet::Dotted,
        80,
        100,
    ),
    ("ElevenLabs key", &["sk_"], Alphabet::Hex, 48, 48),
    (
        "Facebook token",
        &["EAAC", "EAAM"],
        Alphabet::Letters,
        100,
        400,
    ),
    ("Figma token", &["figd_", "figo_"], Alphabet::Url, 40, 80),
    ("Fly.io token", &["fo1_"], Alphabet::Url, 43, 43),
    (
        "Fly.io token",
        &["fm1r_", "fm1a_", "fm2_"],
        Alphabet::Base64,
        100,
        4000,
    ),
    (
        "GitHub token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        Alphabet::Letters,
        36,
        251,
    ),
    (
        "GitHub fine-grained token",
        &["github_pat_"],
        Alphabet::Url,
        60,
        244,
    ),
    (
        "GitLab token",
        &[
            "glpat-", "gldt-", "glrt-", "glrtr-", "glptt-", "glft-", "glimt-", "glagent-",
            "glsoat-", "glffct-",
        ],
        Alphabet::Dotted,
        20,
        320,
    ),
    (
        "GitLab token",
        &["glcbt-", "gloas-", "GR1348941"],
        Alphabet::Dotted,
        20,
        320,
    ),
    ("Google API key", &["AIza"], Alphabet::Url, 35, 35),
    ("Google OAuth secret", &["GOCSPX-"], Alphabet::Url, 28, 28),
    ("Google OAuth token", &["ya29."], Alphabet::Dotted, 20, 2048),
    ("Google OAuth token", &["1//0"], Alphabet::Url, 40, 512),
    ("Grafana token", &["glsa_"], Alphabet::Url, 41, 41),
    ("Grafana token", &["glc_"], Alphabet::Base64, 32, 400),
    ("Grafana token", &["eyJrIjoi"], Alphabet::Base64, 60, 400),
    ("Groq key", &["gsk_"], Alphabet::Letters, 40, 64),
    ("Heroku key", &["HRKU-AA"], Alphabet::Url, 58, 58),
    (
        "Hugging Face token",
        &["hf_", "api_org_"],
        Alphabet::Letters,
        34,
        40,
    ),
    (
        "LangSmith key",
        &["lsv2_pt_", "lsv2_sk_"],
        Alphabet::Url,
        43,
        43,
    ),
    ("Linear key", &["lin_api_"], Alphabet::Letters, 40, 40),
    ("Linear key", &["lin_oauth_"], Alphabet::Letters, 40, 64),
    ("Mailgun key", &["key-", "pubkey-"], Alphabet::Hex, 32, 32),
    ("New Relic key", &["NRAK-"], Alphabet::Letters, 27, 27),
    ("Notion token", &["ntn_"], Alphabet::Letters, 40, 50),
    ("Notion token", &["secret_"], Alphabet::Letters, 43, 43),
    ("npm token", &["npm_"], Alphabet::Letters, 36, 36),
    ("NVIDIA key", &["nvapi-"], Alphabet::Url, 60, 80),
    (
        "OpenAI key",
        &["sk-proj-", "sk-svcacct-", "sk-admin-"],
        Alphabet::Url,
        40,
        250,
    ),
    ("OpenRouter key", &["sk-or-v1-"], Alphabet::Hex, 64, 64),
    // OpenAI's first form; DeepSeek, Moonshot and others use it with 32 to 64 characters.
    ("OpenAI key", &["sk-"], Alphabet::Letters, 32, 64),
    ("OpenShift token", &["sha256~"], Alphabet::Url, 43, 43),
    ("Perplexity key", &["pplx-"], Alphabet::Letters, 40, 64),
    ("Pinecone key", &["pcsk_"], Alphabet::Url, 60, 80),
    (
        "PlanetScale token",
        &["pscale_tkn_", "pscale_pw_", "pscale_oauth_"],
        Alphabet::Dotted,
        32,
        64,
    ),
    ("Postman key", &["PMAK-"], Alphabet::Url, 59, 59),
    ("Prefect key", &["pnu_", "pnb_"], Alphabet::Letters, 36, 36),
    ("Pulumi token", &["pul-"], Alphabet::Hex, 40, 40),
    ("PyPI token", &["pypi-AgE"], Alphabet::Url, 50, 400),
    ("ReadMe key", &["rdme_"], Alphabet::Letters, 70, 72),
    ("Replicate token", &["r8_"], Alphabet::Url, 37, 40),
    ("RubyGems key", &["rubygems_"], Alphabet::Hex, 48, 48),
    ("SendGrid key", &["SG."], Alphabet::Dotted, 66, 66),
    ("Sentry token", &["sntryu_"], Alphabet::Hex, 64, 64),
    ("Sentry token", &["sntrys_"], Alphabet::Base64, 80, 500),
    (
        "Shopify token",
        &["shpat_", "shpca_", "shppa_", "shpss_", "shptka_"],
        Alphabet::Hex,
        30,
        34,
    ),
    (
        "Slack token",
        &[
            "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xoxe.xox", "xapp-",
        ],
        Alphabet::Url,
        20,
        250,
    ),
    (
        "Slack webhook",
        &[
            "hooks.slack.com/services/",
            "hooks.slack.com/workflows/",
            "hooks.slack.com/triggers/",
        ],
        Alphabet::Path,
        40,
        80,
    ),
    (
        "Square token",
        &["sq0atp-", "sq0idp-"],
        Alphabet::Url,
        22,
        60,
    ),
    ("Square token", &["sq0csp-"], Alphabet::Url, 43, 60),
    ("Square token", &["EAAA"], Alphabet::Base64, 60, 64),
    (
        "Stripe key",
        &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "sk_org_"],
        Alphabet::Letters,
        24,
        247,
    ),
    (
        "Stripe webhook secret",
        &["whsec_"],
        Alphabet::Base64,
        32,
        64,
    ),
    ("Supabase key", &["sbp_"], Alphabet::Url, 40, 50),
    ("Supabase key", &["sb_secret_"], Alphabet::Url, 22, 60),
    ("Tailscale key", &["tskey-"], Alphabet::Url, 20, 120),
    ("Together key", &["tgp_v1_"], Alphabet::Url, 40, 64),
    ("Twilio key", &["SK", "AC"], Alphabet::Hex, 32, 32),
    (
        "Vault token",
        &["hvs.", "hvb.", "hvr."],
        Alphabet::Url,
        24,
        400,
    ),
    ("xAI key", &["xai-"], Alphabet::Url, 60, 100),
];

/// Prefixes by first byte.
static BEGINNINGS: LazyLock<Vec<Vec<(&'static str, &'static Rule)>>> = LazyLock::new(|| {
    let mut by_byte = vec![Vec::new(); 256];
    for rule in RULES {
        rule.1.iter().for_each(|beginning| {
            by_byte[usize::from(beginning.as_bytes()[0])].push((*beginning, rule))
        });
    }
    by_byte
});

/// Minimum length of a token's rest before a truncation mark; shorter if it has a digit, as words
/// have none.
const CUT: usize = 16;
const CUT_WITH_DIGIT: usize = 6;

/// Finds provider tokens, also those truncated by `…`, since the remainder may suffice.
pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let bytes = text.as_bytes();
    let begins = |start: &usize| {
        *start == 0
            || !(bytes[start - 1].is_ascii_alphanumeric()
                || matches!(bytes[start - 1], b'_' | b'-'))
    };
    let candidates = (0..bytes.len()).filter(begins).flat_map(|start| {
        BEGINNINGS[usize::from(bytes[start])]
            .iter()
            .map(move |rule| (start, rule))
    });
    let mut found = Vec::new();
    for (start, &(beginning, &(name, _, alphabet, least, greatest))) in candidates {
        let Some(rest) = bytes[start..].strip_prefix(beginning.as_bytes()) else {
            continue;
        };
        let length = rest
            .iter()
            .take(greatest + 1)
            .take_while(|&&byte| alphabet.has(byte))
            .count();
        // A full stop at the end of a sentence is not part of the token.
        let stops = rest[..length]
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'.')
            .count();
        let (length, end) = (length - stops, start + beginning.len() + length - stops);
        let left = &rest[..length];
        let is_long =
            length >= CUT || (length >= CUT_WITH_DIGIT && left.iter().any(u8::is_ascii_digit));
        let was_cut = is_long && length < least && text[end..].starts_with('…');
        if (was_cut || (least..=greatest).contains(&length))
            && !is_placeholder(&text[start + beginning.len()..end])
        {
            found.push((name, start..end));
        }
    }
    found
}
