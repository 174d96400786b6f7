//! The model compiled into the binary, so that a first run needs no download and works from any folder.

/// The files of `tiny` as (name, bytes), made by `grpo-tui model pretrain`; empty in a build without it.
pub(super) static TINY: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../sample-data/models/tiny/config.json")),
    ("model.safetensors", include_bytes!("../../sample-data/models/tiny/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../sample-data/models/tiny/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../sample-data/models/tiny/tokenizer_config.json")),
];
