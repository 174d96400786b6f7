//! Positives and look-alikes. Tokens are assembled here, so that no scanner reports this file.

use super::*;

/// `length` pseudo-random characters.
fn random(alphabet: &str, length: usize) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    (0..length)
        .map(|place| letters[(place * place * 7 + place * 13 + 5) % letters.len()])
        .collect()
}

fn letters(length: usize) -> String {
    random("aB3dE5fG7hJ9kLmN1pQrStUvWxYz0C2", length)
}

fn hex(length: usize) -> String {
    random("0a1b2c3d4e5f6789", length)
}

/// Base64url without padding.
fn encode(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
    let sextet = |part: &[u8]| {
        usize::from_str_radix(&format!("{:0<6}", String::from_utf8_lossy(part)), 2).unwrap()
    };
    bits.as_bytes()
        .chunks(6)
        .map(|part| char::from(alphabet[sextet(part)]))
        .collect()
}

fn web_token() -> String {
    format!(
        "{}.{}.{}",
        encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        encode(r#"{"sub":"1234567890"}"#),
        letters(43)
    )
}

#[test]
fn secrets_are_found_with_their_rule_and_place() {
    let check = |rule: &str, secret: &str| {
        for (before, after) in [
            ("", ""),
            ("use ", " now"),
            ("key: \"", "\","),
            ("(", ")."),
            ("ä ", "\n"),
        ] {
            let text = format!("{before}{secret}{after}");
            let found = scan(&text);
            assert_eq!(
                found.iter().map(|found| found.rule).collect::<Vec<_>>(),
                [rule],
                "{text}"
            );
            assert_eq!(&text[found[0].place.clone()], secret);
        }
    };
    check(
        "AWS access key id",
        &format!("AKIA{}", random("ABCDEFGH234567", 16)),
    );
    check(
        "Anthropic key",
        &format!("sk-ant-{}-{}", "api03", letters(93)),
    );
    check("crates.io token", &format!("cio{}", letters(32)));
    check("DigitalOcean token", &format!("dop_v1_{}", hex(64)));
    check("Docker Hub token", &format!("dckr_pat_{}", letters(27)));
    check("GitHub token", &format!("ghp_{}", letters(36)));
    check(
        "GitHub fine-grained token",
        &format!("github_pat_{}_{}", letters(22), letters(59)),
    );
    check("GitLab token", &format!("glpat-{}", letters(20)));
    check("Google API key", &format!("AIza{}", letters(35)));
    check("Google OAuth secret", &format!("GOCSPX-{}", letters(28)));
    check("Hugging Face token", &format!("hf_{}", letters(34)));
    check("npm token", &format!("npm_{}", letters(36)));
    check("OpenAI key", &format!("sk-{}", letters(48)));
    check("OpenAI key", &format!("sk-proj-{}", letters(120)));
    check("PyPI token", &format!("pypi-AgE{}", letters(150)));
    check(
        "SendGrid key",
        &format!("SG.{}.{}", letters(22), letters(43)),
    );
    check(
        "Slack token",
        &format!("xoxb-{}-{}", random("123456789", 12), letters(24)),
    );
    check(
        "Slack webhook",
        &format!(
            "hooks.slack.com/services/T{}/B{}/{}",
            random("A1B2C3", 8),
            random("D4E5F6", 10),
            letters(24)
        ),
    );
    check("Stripe key", &format!("sk_live_{}", letters(24)));
    check("JSON Web Token", &web_token());
}

/// Formats of the providers, with made-up characters.
#[test]
fn tokens_of_every_provider_are_found_and_masked() {
    let upper = |length| random("ABCDEFGH234567", length);
    let digits = |length| random("7130592468", length);
    let check = |rule: &str, secret: String| {
        for (before, after) in [
            ("", ""),
            ("use ", " now"),
            ("\"", "\","),
            ("url=https://x/", "?a=b"),
            ("ä ", "\n"),
            ("(", ")."),
        ] {
            let text = format!("{before}{secret}{after}");
            let found = scan(&text);
            assert_eq!(
                found.iter().map(|found| found.rule).collect::<Vec<_>>(),
                [rule],
                "{text}"
            );
            let (masked, count) = redact(&text);
            let shown = secret.chars().skip(4).collect::<String>();
            assert!(
                count == 1 && !masked.contains(&shown[..8]) && masked.contains("characters)"),
                "{masked}"
            );
        }
    };
    check(
        "1Password service account token",
        format!("ops_{}{}", "eyJ", letters(300)),
    );
    check(
        "age secret key",
        format!("AGE-{}-KEY-1{}", "SECRET", upper(58)),
    );
    check(
        "Alibaba Cloud access key id",
        format!("LTAI{}", letters(20)),
    );
    check("Amazon Bedrock key", format!("ABSK{}", letters(128)));
    check("Atlassian token", format!("ATATT3{}", letters(186)));
    check(
        "Azure AD client secret",
        format!("a1B8{}{}", "Q~", letters(34)),
    );
    check("Bitbucket app password", format!("ATBB{}", letters(32)));
    check("Brevo key", format!("xkeysib-{}-{}", hex(64), letters(16)));
    check("Contentful token", format!("CFPAT-{}", letters(43)));
    check("Databricks token", format!("dapi{}", hex(32)));
    check(
        "Discord bot token",
        format!("MTIzNDU2Nzg5MDEyMzQ1Njc4.{}.{}", letters(6), letters(38)),
    );
    check(
        "Discord webhook",
        format!("discord.com/api/webhooks/{}/{}", digits(18), letters(68)),
    );
    check("Doppler token", format!("dp.pt.{}", letters(43)));
    check("Dropbox token", format!("sl.{}", letters(140)));
    check(
        "Dynatrace token",
        format!("dt0c01.{}.{}", upper(24), upper(64)),
    );
    check("ElevenLabs key", format!("sk_{}", hex(48)));
    check("Facebook token", format!("EAAC{}", letters(150)));
    check("Figma token", format!("figd_{}", letters(40)));
    check("Fly.io token", format!("fo1_{}", letters(43)));
    check("Google OAuth token", format!("ya29.{}", letters(120)));
    check("Google OAuth token", format!("1//0{}", letters(80)));
    check("Grafana token", format!("glsa_{}_{}", letters(32), hex(8)));
    check("Grafana token", format!("glc_{}", letters(120)));
    check("Groq key", format!("gsk_{}", letters(52)));
    check("Heroku key", format!("HRKU-AA{}", letters(58)));
    check("LangSmith key", format!("lsv2_pt_{}_{}", hex(32), hex(10)));
    check("Linear key", format!("lin_api_{}", letters(40)));
    check("Mailgun key", format!("key-{}", hex(32)));
    check("Mailgun key", format!("{}-{}-{}", hex(32), hex(8), hex(8)));
    check("New Relic key", format!("NRAK-{}", upper(27)));
    check("Notion token", format!("ntn_{}{}", digits(11), letters(35)));
    check("Notion token", format!("secret_{}", letters(43)));
    check("NVIDIA key", format!("nvapi-{}", letters(64)));
    check("OpenAI key", format!("sk-{}", hex(32)));
    check("OpenShift token", format!("sha256~{}", letters(43)));
    check("Perplexity key", format!("pplx-{}", letters(48)));
    check("Pinecone key", format!("pcsk_{}", letters(70)));
    check("PlanetScale token", format!("pscale_tkn_{}", letters(43)));
    check("Postman key", format!("PMAK-{}-{}", hex(24), hex(34)));
    check("Prefect key", format!("pnu_{}", letters(36)));
    check("Pulumi token", format!("pul-{}", hex(40)));
    check("ReadMe key", format!("rdme_{}", letters(70)));
    check("Replicate token", format!("r8_{}", letters(37)));
    check("RubyGems key", format!("rubygems_{}", hex(48)));
    check("Sentry token", format!("sntryu_{}", hex(64)));
    check("Shopify token", format!("shpat_{}", hex(32)));
    check("Square token", format!("sq0atp-{}", letters(22)));
    check("Square token", format!("sq0csp-{}", letters(43)));
    check("Square token", format!("EAAA{}", letters(60)));
    check("Supabase key", format!("sbp_{}", hex(40)));
    check(
        "Supabase key",
        format!("sb_secret_{}_{}", letters(22), letters(8)),
    );
    check(
        "Tailscale key",
        format!("tskey-auth-{}-{}", letters(12), letters(32)),
    );
    check(
        "Telegram bot token",
        format!("{}:A{}", digits(10), letters(34)),
    );
    check("Together key", format!("tgp_v1_{}", letters(43)));
    check("Twilio key", format!("SK{}", hex(32)));
    check("Vault token", format!("hvs.{}", letters(95)));
    check("xAI key", format!("xai-{}", letters(80)));
    // A bot's token in its URL.
    let token = format!("{}:A{}", digits(9), letters(34));
    assert!(
        !redact(&format!("https://api.telegram.org/bot{token}/getMe"))
            .0
            .contains(&token)
    );
}

#[test]
fn authorization_headers_are_masked() {
    let check = |text: &str, secret: &str| {
        let found = scan(text);
        assert_eq!(
            (
                found.len(),
                found.first().map(|found| &text[found.place.clone()])
            ),
            (1, Some(secret)),
            "{text}"
        );
    };
    let value = letters(32);
    for before in [
        "Authorization: Bearer ",
        "authorization:bearer ",
        "-H 'Authorization: Basic ",
        "\"Authorization\": \"Token ",
        "Bearer ",
    ] {
        check(&format!("{before}{value}\""), &value);
    }
    check("Authorization: Bearer short-one", "short-one");
    for text in [
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer <token>",
        "the bearer of this letter",
        "Bearer authentication",
        "basic information",
    ] {
        assert_eq!(scan(text), [], "{text}");
    }
}

#[test]
fn a_token_whose_end_was_cut_off_is_masked() {
    let token = format!("ghp_{}", letters(36));
    assert_eq!(
        redact(&format!("got \"{}…", &token[..30])).0,
        "got \"ghp_…(30 characters)…"
    );
    for text in [
        "sk-learning…",
        "key-decade…",
        "cioccolata…",
        "hf_…",
        "ghp_…(40 characters)",
    ] {
        assert_eq!(scan(text), [], "{text}");
    }
}

#[test]
fn documents_are_masked_in_names_and_texts() {
    let (token, value) = (format!("hf_{}", letters(34)), letters(32));
    let mut document = serde_json::json!({"a": [format!("use {token}"), 1, null], "api_key": value, token.clone(): {"b": "c"}, "plain": "text"});
    assert_eq!(redact_json(&mut document), 3);
    let expected = serde_json::json!({
        "a": ["use hf_B…(37 characters)", 1, null], "api_key": format!("{}…(32 characters)", &value[..4]), "hf_B…(37 characters)": {"b": "c"}, "plain": "text",
    });
    let shown = expected.to_string().replace("hf_B", &token[..4]);
    assert_eq!(document.to_string(), shown);
    assert_eq!(redact_json(&mut document), 0, "what is masked is no secret");
}

#[test]
fn private_keys_passwords_and_assignments_are_found() {
    let check = |text: &str, rule: &str, secret: &str| {
        let found = scan(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(
            (found[0].rule, &text[found[0].place.clone()]),
            (rule, secret)
        );
    };
    let body = format!(
        "-----BEGIN OPENSSH {} KEY-----\n{}\n",
        "PRIVATE",
        letters(64)
    );
    check(
        &format!("a {body}-----END OPENSSH PRIVATE KEY----- b"),
        "private key",
        &body,
    );
    check(
        "postgres://app:hunter2x@db.local:5432/shop",
        "connection string password",
        "hunter2x",
    );
    check(
        "mongodb+srv://u:p%40ss9w@c0.mongodb.net",
        "connection string password",
        "p%40ss9w",
    );
    check(
        "redis://:s3cr3t-9@cache:6379",
        "connection string password",
        "s3cr3t-9",
    );
    check(
        "https://bob:tr0ub4dor@example.org/x",
        "connection string password",
        "tr0ub4dor",
    );
    let value = letters(24);
    for text in [
        "API_KEY=",
        "api-key: ",
        "\"client_secret\": \"",
        "export DB_PASSWORD='",
        "{\\\"token\\\": \\\"",
        "möglich: Secret = ",
    ] {
        check(&format!("{text}{value}"), "high-entropy assignment", &value);
    }
    // The provider's rule is more specific than the name.
    let token = format!("hf_{}", letters(34));
    check(&format!("HF_TOKEN={token}"), "Hugging Face token", &token);
}

#[test]
fn look_alikes_are_left_alone() {
    let short = letters(20);
    let texts = [
        "AKIAIOSFODNN7EXAMPLE is the one in the handbook".to_owned(),
        format!("AKIA{}", "X".repeat(16)),
        format!("MAKIA{}", random("ABCDEFGH234567", 16)),
        format!("ghp_{short}"),
        format!("my_ghp_{}", letters(36)),
        "sk-learn and sk-proj- are words".to_owned(),
        format!("hf_{}", "x".repeat(34)),
        "hf_hub_download(repo_id, filename)".to_owned(),
        "SG.1 costs 3.50".to_owned(),
        "tests_of_something_long_12.module.a_very_long_function_name_here_a".to_owned(),
        "missing authorization token somewhere".to_owned(),
        "AIza is a beginning".to_owned(),
        "eyJhbGciOi is the beginning of a token".to_owned(),
        format!("eyJ{}.eyJ{}.{}", letters(20), letters(20), letters(43)),
        "-----BEGIN CERTIFICATE-----\nMIIB".to_owned(),
        "-----BEGIN PUBLIC KEY-----\nMIIB".to_owned(),
        "the line -----BEGIN PRIVATE KEY----- opens it".to_owned(),
        "postgres://user:password@localhost/db".to_owned(),
        "postgres://app:<password>@host/db and https://x:${PASS}@host".to_owned(),
        "https://example.org:8080/a@b and mailto:a@b.org".to_owned(),
        "password: correct horse battery staple".to_owned(),
        "api_key = os.environ[\"OPENAI_API_KEY\"]".to_owned(),
        "token: your-token-goes-here-1234".to_owned(),
        "secret = aaaaaaaaaaaaaaaa1111".to_owned(),
        "max_tokens: 1024, total_tokens=20481234567890123456".to_owned(),
        format!("commit {} of the tree", hex(40)),
        format!("SKU SK{} and AC/DC", hex(8)),
        "0f8fad5b-d9cd-469f-a165-70867728950e at 12:Apples, v1.0-alpha, key-value, sl.en.wikipedia.org".to_owned(),
        "secret_santa_list, ntn_, xai-model, r8_quantised, hvs.example, the SECRET-KEY-1 of AGE".to_owned(),
        "invoice INV-20418 of 12.03.2026: 1.234,50 €, vendor: Müller & Sons GmbH".to_owned(),
        String::new(),
    ];
    for text in texts {
        assert_eq!(scan(&text), [], "{text}");
    }
}

#[test]
fn at_most_four_characters_of_a_secret_are_shown() {
    let text = format!("a ghp_{} b redis://:s3cr3t-9@cache c", letters(36));
    assert_eq!(
        redact(&text),
        (
            "a ghp_…(40 characters) b redis://:…(8 characters)@cache c".into(),
            2
        )
    );
    assert!(matches!(
        redact("nothing here"),
        (Cow::Borrowed("nothing here"), 0)
    ));
}

#[test]
fn rows_of_beginnings_cost_no_more_than_their_length() {
    for piece in [
        "sk-",
        "eyJ.",
        "://:",
        "=:\"",
        "-----BEGIN PRIVATE KEY-----",
        "token=",
        "bearer ",
        "authorization: ",
        "Q~",
        ":A",
        "aB3dE5fG7hJ9kLmN1pQrStUv.",
        "0123456789abcdef",
    ] {
        // A quadratic scan would take more than an hour.
        scan(&piece.repeat((1 << 18) / piece.len()));
    }
}
