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
    check("GitHub token", &format!("ghp_{}", letters(36)));
    check(
        "GitHub token",
        &format!("github_pat_{}_{}", letters(22), letters(59)),
    );
    check("GitLab token", &format!("glpat-{}", letters(20)));
    check("Google API key", &format!("AIza{}", letters(35)));
    check("Hugging Face token", &format!("hf_{}", letters(34)));
    check("NVIDIA key", &format!("nvapi-{}", letters(64)));
    check("API key", &format!("sk-{}", letters(48)));
    check("API key", &format!("sk-{}", hex(32)));
    check("API key", &format!("sk-proj-{}", letters(120)));
    check("API key", &format!("sk-ant-api03-{}", letters(93)));
    check("PyPI token", &format!("pypi-AgE{}", letters(150)));
    check(
        "Slack token",
        &format!("xoxb-{}-{}", random("123456789", 12), letters(24)),
    );
    check("Stripe key", &format!("sk_live_{}", letters(24)));
    check("JSON Web Token", &web_token());
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
    ] {
        check(&format!("{before}{value}\""), &value);
    }
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
fn private_keys_and_assignments_are_found() {
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
    let text = format!("a ghp_{} b", letters(36));
    assert_eq!(redact(&text), ("a ghp_…(40 characters) b".into(), 1));
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
