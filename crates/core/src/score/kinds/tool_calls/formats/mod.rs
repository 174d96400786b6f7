//! Call formats, one file each.

pub(super) mod functiongemma;
pub(super) mod harmony;
pub(super) mod hermes;
pub(super) mod llama;
pub(super) mod mistral;
pub(super) mod qwen_xml;
