//! A model that is pretrained further.

use std::path::Path;

use super::{lab, sample};

/// Its shape and tokenizer stay, its weights move, and in bf16 its file is half as large.
#[test]
fn pretraining_continues_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/nano");
    let task = sample("sql");
    let pretrain = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let words = [
            "pretrain",
            task.to_str().unwrap(),
            "--from",
            nano.to_str().unwrap(),
            "--examples",
            "2",
            "--out",
            out.to_str().unwrap(),
        ];
        lab(&[&words[..], more].concat())
    };
    let file = |out: &str, name: &str| std::fs::read(folder.path().join(out).join(name)).unwrap();
    let tokenizer = std::fs::read(sample("models/tiny/tokenizer.json")).unwrap();
    for (out, more) in [
        ("same", &["--updates", "0"][..]),
        ("moved", &["--updates", "2"]),
        ("small", &["--updates", "0", "--bf16"]),
    ] {
        pretrain(out, more).unwrap();
        assert!(file(out, "tokenizer.json") == tokenizer, "{out}");
    }
    let weights = |out: &str| file(out, "model.safetensors");
    assert!(weights("same") != weights("moved") && weights("same").len() == weights("moved").len());
    assert!((0.49..0.51).contains(&(weights("small").len() as f64 / weights("same").len() as f64)));
    assert!(pretrain("x", &["--hidden", "64"]).is_err());
    assert!(pretrain("same", &[]).unwrap_err().contains("exists"));
}
