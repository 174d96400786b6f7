//! Separate heads of models whose configuration ties them to the embedding.

use std::io::{Read, Seek, SeekFrom};

use super::{HubError, ModelSource, TensorEntry};

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";
const CHUNK_BYTES: usize = 1 << 20;

impl ModelSource {
    /// Whether the weights have a head that differs from the embedding: transformers 5 keeps it,
    /// whatever `tie_word_embeddings` says. False if the weights are missing or unreadable, which
    /// loading reports.
    pub(super) fn has_own_head(&self) -> bool {
        let mut found = [None, None];
        for file in self.weight_files().unwrap_or_default() {
            for entry in self.tensors(&file).unwrap_or_default() {
                match entry.name.as_str() {
                    HEAD => found[0] = Some((file.clone(), entry)),
                    EMBEDDING => found[1] = Some((file.clone(), entry)),
                    _ => {}
                }
            }
        }
        let [Some(head), Some(embedding)] = found else {
            return false;
        };
        if head.1.shape != embedding.1.shape || head.1.element_type != embedding.1.element_type {
            return head.1.shape == embedding.1.shape;
        }
        self.differ(&head, &embedding).unwrap_or(false)
    }

    fn differ(
        &self,
        one: &(String, TensorEntry),
        other: &(String, TensorEntry),
    ) -> Result<bool, HubError> {
        let (mut one, mut other) = (self.bytes_of(one)?, self.bytes_of(other)?);
        let (mut left, mut right) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        loop {
            let (read, read_other) = (fill(&mut one, &mut left), fill(&mut other, &mut right));
            if left[..read] != right[..read_other] {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
        }
    }

    /// A tensor's bytes. `.0`: its file.
    pub(super) fn bytes_of(
        &self,
        (file, entry): &(String, TensorEntry),
    ) -> Result<Box<dyn Read + '_>, HubError> {
        let (offset, size) = (entry.offset_bytes, entry.size_bytes);
        if let Some(bytes) = self.embedded_bytes(file) {
            let part = bytes.get(offset as usize..(offset + size) as usize);
            return Ok(Box::new(part.unwrap_or_default()));
        }
        let mut opened = self.open_file(file)?;
        opened
            .seek(SeekFrom::Start(offset))
            .map_err(|source| self.refused(file, source))?;
        Ok(Box::new(opened.take(size)))
    }
}

/// Reads until the buffer is full or the input ends; returns the bytes read.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Ok(read @ 1..) = reader.read(&mut buffer[filled..]) {
        filled += read;
    }
    filled
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::weights::tests::weight_file;
    use super::*;

    /// A safetensors file of bytes, [2, 2] each.
    fn weights(tensors: &[(&str, [u8; 4])]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        for (place, (name, _)) in tensors.iter().enumerate() {
            let offsets = [4 * place, 4 * place + 4];
            header.insert(
                (*name).to_owned(),
                serde_json::json!({"dtype": "U8", "shape": [2, 2], "data_offsets": offsets}),
            );
        }
        let header = serde_json::Value::from(header).to_string();
        let bytes = tensors.iter().flat_map(|(_, bytes)| bytes).copied();
        weight_file(&header, &bytes.collect::<Vec<_>>())
    }

    #[test]
    fn a_head_of_other_numbers_is_a_head() {
        let (one, other) = ([1, 2, 3, 4], [1, 2, 3, 5]);
        for (tensors, is_tied) in [
            (&[(EMBEDDING, one)][..], true),
            (&[(EMBEDDING, one), (HEAD, one)], true),
            (&[(EMBEDDING, one), (HEAD, other)], false),
            (
                &[
                    ("model.language_model.embed_tokens.weight", one),
                    (HEAD, other),
                ],
                false,
            ),
            (&[(HEAD, other)], true),
        ] {
            let work = tempfile::tempdir().unwrap();
            let config = r#"{"model_type":"qwen3","vocab_size":2,"hidden_size":2,"intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,
                "head_dim":2,"tie_word_embeddings":true,"max_position_embeddings":8,"x":[Infinity]}"#;
            std::fs::write(work.path().join("config.json"), format!("\u{feff}{config}")).unwrap();
            std::fs::write(work.path().join("model.safetensors"), weights(tensors)).unwrap();
            let source = ModelSource::at("m", work.path());
            assert_eq!(
                source.config().unwrap().tie_word_embeddings,
                is_tied,
                "{tensors:?}"
            );
        }
    }
}
