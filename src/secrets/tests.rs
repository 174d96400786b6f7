//! Positives and look-alikes. Tokens are put together here, so that no scanner takes this file for a leak.

use super::*;

/// `length` characters that look random, from an alphabet.
fn random(alphabet: &str, length: usize) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    (0..length).map(|place| letters[(place * place * 7 + place * 13 + 5) % letters.len()]).collect()
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
    let sextet = |part: &[u8]| usize::from_str_radix(&format!("{:0<6}", String::from_utf8_lossy(part)), 2).unwrap();
    bits.as_bytes().chunks(6).map(|part| char::from(alphabet[sextet(part)])).collect()
}

fn web_token() -> String {
    format!("{}.{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(r#"{"sub":"1234567890"}"#), letters(43))
}

#[test]
fn secrets_are_found_with_their_rule_and_place() {
    let check = |rule: &str, secret: &str| {
        for (before, after) in [("", ""), ("use ", " now"), ("key: \"", "\","), ("(", ")."), ("ä ", "\n")] {
            let text = format!("{before}{secret}{after}");
            let found = scan(&text);
            assert_eq!(found.iter().map(|found| found.rule).collect::<Vec<_>>(), [rule], "{text}");
            assert_eq!(&text[found[0].place.clone()], secret);
        }
    };
    check("AWS access key id", &format!("AKIA{}", random("ABCDEFGH234567", 16)));
    check("Anthropic key", &format!("sk-ant-{}-{}", "api03", letters(93)));
    check("crates.io token", &format!("cio{}", letters(32)));
    check("DigitalOcean token", &format!("dop_v1_{}", hex(64)));
    check("Docker Hub token", &format!("dckr_pat_{}", letters(27)));
    check("GitHub token", &format!("ghp_{}", letters(36)));
    check("GitHub fine-grained token", &format!("github_pat_{}_{}", letters(22), letters(59)));
    check("GitLab token", &format!("glpat-{}", letters(20)));
    check("Google API key", &format!("AIza{}", letters(35)));
    check("Google OAuth secret", &format!("GOCSPX-{}", letters(28)));
    check("Hugging Face token", &format!("hf_{}", letters(34)));
    check("npm token", &format!("npm_{}", letters(36)));
    check("OpenAI key", &format!("sk-{}", letters(48)));
    check("OpenAI key", &format!("sk-proj-{}", letters(120)));
    check("PyPI token", &format!("pypi-AgE{}", letters(150)));
    check("SendGrid key", &format!("SG.{}.{}", letters(22), letters(43)));
    check("Slack token", &format!("xoxb-{}-{}", random("123456789", 12), letters(24)));
    check("Slack webhook", &format!("hooks.slack.com/services/T{}/B{}/{}", random("A1B2C3", 8), random("D4E5F6", 10), letters(24)));
    check("Stripe key", &format!("sk_live_{}", letters(24)));
    check("JSON Web Token", &web_token());
}

#[test]
fn private_keys_passwords_and_assignments_are_found() {
    let check = |text: &str, rule: &str, secret: &str| {
        let found = scan(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!((found[0].rule, &text[found[0].place.clone()]), (rule, secret));
    };
    let body = format!("-----BEGIN OPENSSH {} KEY-----\n{}\n", "PRIVATE", letters(64));
    check(&format!("a {body}-----END OPENSSH PRIVATE KEY----- b"), "private key", &body);
    check("postgres://app:hunter2x@db.local:5432/shop", "connection string password", "hunter2x");
    check("mongodb+srv://u:p%40ss9w@c0.mongodb.net", "connection string password", "p%40ss9w");
    check("redis://:s3cr3t-9@cache:6379", "connection string password", "s3cr3t-9");
    check("https://bob:tr0ub4dor@example.org/x", "connection string password", "tr0ub4dor");
    let value = letters(24);
    for text in ["API_KEY=", "api-key: ", "\"client_secret\": \"", "export DB_PASSWORD='", "{\\\"token\\\": \\\"", "möglich: Secret = "] {
        check(&format!("{text}{value}"), "high-entropy assignment", &value);
    }
    // The provider's rule says more than the name beside it.
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
    assert_eq!(redact(&text), "a ghp_…(40 characters) b redis://:…(8 characters)@cache c");
    assert!(matches!(redact("nothing here"), Cow::Borrowed("nothing here")));
}

#[test]
fn megabytes_of_beginnings_cost_no_more_than_their_length() {
    for piece in ["sk-", "eyJ.", "://:", "=:\"", "-----BEGIN PRIVATE KEY-----", "token="] {
        let text = piece.repeat(200_000 / piece.len());
        let start = std::time::Instant::now();
        scan(&text);
        assert!(start.elapsed().as_secs() < 5, "{piece}: {:?}", start.elapsed());
    }
}
