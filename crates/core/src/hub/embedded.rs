//! Models compiled into the binary: a first run needs no download and works in any folder.

/// Name, and files as (name, bytes). Made by `grpo-tui model pretrain`, each on its sample task.
pub(super) type EmbeddedModel = (&'static str, &'static [(&'static str, &'static [u8])]);

macro_rules! model {
    ($name:literal) => {
        (
            $name,
            &[
                (
                    "config.json",
                    include_bytes!(concat!(
                        "../../../../sample-data/models/",
                        $name,
                        "/config.json"
                    )),
                ),
                (
                    "model.safetensors",
                    include_bytes!(concat!(
                        "../../../../sample-data/models/",
                        $name,
                        "/model.safetensors"
                    )),
                ),
                // One tokenizer for all.
                (
                    "tokenizer.json",
                    include_bytes!("../../../../sample-data/models/tiny/tokenizer.json"),
                ),
                (
                    "tokenizer_config.json",
                    include_bytes!(concat!(
                        "../../../../sample-data/models/",
                        $name,
                        "/tokenizer_config.json"
                    )),
                ),
            ],
        )
    };
}

pub(super) static MODELS: &[EmbeddedModel] = &[
    model!("tiny"),
    model!("tiny-sql"),
    model!("tiny-tools"),
    model!("tiny-shell"),
    model!("tiny-python"),
    model!("tiny-assistant"),
];
