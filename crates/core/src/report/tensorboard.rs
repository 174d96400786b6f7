//! A run's steps and evals as a TensorBoard event file: records of `Event` messages in protocol buffers, each between its
//! length and checksums (TFRecord).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::run_report::Report;
use super::tables::steps;
use crate::run::events::{Eval, EvalKey};
use crate::run::{EventBody, EventReader, LogItem, RunDirectory, RunError, write_export};
use crate::secrets::redact;

/// Event times in milliseconds since 1970: by step, and of evals by step, set and target.
#[derive(Default)]
struct Times {
    steps: BTreeMap<u64, u64>,
    evals: BTreeMap<EvalKey, u64>,
}

/// The event file of a run below a folder: TensorBoard names a run by its folder, and the same run has the same file.
pub fn event_file(folder: &Path, run: &RunDirectory) -> PathBuf {
    folder.join(run.id()).join(format!(
        "events.out.tfevents.{}.grpo-tui",
        run.file().created_ms / 1000
    ))
}

/// A written event file.
#[derive(Debug)]
pub struct EventFile {
    pub path: PathBuf,
    pub bytes: usize,
    /// The number of masked secrets.
    pub masked: usize,
}

/// Writes the event file of a run below a folder.
///
/// # Errors
/// [`RunError`] naming the log, or the file: one that exists is replaced with `force` only.
pub fn write_event_file(
    folder: &Path,
    run: &RunDirectory,
    force: bool,
) -> Result<EventFile, RunError> {
    let path = event_file(folder, run);
    let (bytes, masked) = tensorboard(&Report::read(run.clone())?)?;
    let of_run = folder.join(run.id());
    std::fs::create_dir_all(&of_run).map_err(RunError::io("create", &of_run))?;
    write_export(&path, &bytes, force)?;
    let bytes = bytes.len();
    Ok(EventFile {
        path,
        bytes,
        masked,
    })
}

/// The bytes of an event file, and the number of masked secrets. Tags are those of the Hugging Face trainers:
/// `train/reward`, `eval/valid`, `test/exact`.
fn tensorboard(report: &Report) -> Result<(Vec<u8>, usize), RunError> {
    let history = &report.history;
    let times = Times::read(report)?;
    let (mut masked, start) = (
        0,
        history
            .first_ms
            .unwrap_or(report.directory.file().created_ms),
    );
    let mut file = record(&event(start, None, &bytes_field(3, b"brain.Event:2")));
    let mut write = |ms: u64, step: u64, scalars: &[(String, f64)]| {
        let mut values = Vec::new();
        for (tag, number) in scalars {
            let (tag, secrets) = redact(tag);
            masked += secrets;
            let value = [
                bytes_field(1, tag.as_bytes()),
                fixed_field(2, &(*number as f32).to_le_bytes()),
            ];
            values.extend(bytes_field(1, &value.concat()));
        }
        file.extend(record(&event(ms, Some(step), &bytes_field(5, &values))));
    };
    let mut evals = history
        .evals
        .iter()
        .filter(|(_, eval)| eval.is_of_trained())
        .map(|(key, eval)| {
            (
                eval.step,
                times.evals.get(key).copied().unwrap_or(start),
                rates(eval),
            )
        })
        .peekable();
    for step in steps(history) {
        while let Some((at, ms, scalars)) = evals.next_if(|(at, ..)| *at < step) {
            write(ms, at, &scalars);
        }
        let measured = history.metrics.keys().filter(|name| *name != "seconds");
        let scalars: Vec<_> = measured
            .filter_map(|name| Some((format!("train/{name}"), history.metric_at(name, step)?)))
            .collect();
        write(
            times.steps.get(&step).copied().unwrap_or(start),
            step,
            &scalars,
        );
    }
    evals.for_each(|(at, ms, scalars)| write(ms, at, &scalars));
    Ok((file, masked))
}

fn rates(eval: &Eval) -> Vec<(String, f64)> {
    let summary = &eval.summary;
    let all = [
        ("parse", Some(summary.parse)),
        ("valid", Some(summary.valid)),
        ("exact", summary.exact),
        ("invented", summary.invented.as_ref().map(|of| of.rate)),
        ("valid_after_unwrapping", Some(summary.tolerant)),
        (
            "mean_tokens",
            Some(summary.mean_tokens).filter(|mean| mean.is_finite()),
        ),
        ("truncated", Some(summary.truncated)),
    ];
    all.into_iter()
        .filter_map(|(name, rate)| Some((format!("{}/{name}", eval.set), rate?)))
        .collect()
}

impl Times {
    /// The later event of the same step counts, as in [`crate::run::RunState::fold`].
    fn read(report: &Report) -> Result<Self, RunError> {
        let mut times = Self::default();
        EventReader::new(&report.directory.events_path()).each(|item| match item {
            LogItem::Restarted => times = Self::default(),
            LogItem::Event(event) => match event.body {
                EventBody::Step(step) => _ = times.steps.insert(step.step, event.time_ms),
                EventBody::Eval(eval) => _ = times.evals.insert(eval.key(), event.time_ms),
                _ => {}
            },
            LogItem::SkippedLine(_) | LogItem::Missing(_) => {}
        })?;
        Ok(times)
    }
}

fn event(ms: u64, step: Option<u64>, content: &[u8]) -> Vec<u8> {
    let mut bytes = fixed_field(1, &(ms as f64 / 1e3).to_le_bytes());
    if let Some(step) = step {
        bytes.push(2 << 3);
        varint(&mut bytes, step);
    }
    bytes.extend(content);
    bytes
}

fn bytes_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    varint(&mut bytes, content.len() as u64);
    bytes.extend(content);
    bytes
}

fn fixed_field(number: u8, content: &[u8]) -> Vec<u8> {
    let wire_type = if content.len() == 4 { 5 } else { 1 };
    [&[number << 3 | wire_type], content].concat()
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [
        &length[..],
        &masked_crc32c(&length),
        data,
        &masked_crc32c(data),
    ]
    .concat()
}

/// Masked so that a checksum may lie within data that has one itself.
fn masked_crc32c(data: &[u8]) -> [u8; 4] {
    crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
        .to_le_bytes()
}

/// Castagnoli's polynomial, reflected.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut value, mut bit) = (index as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 {
                value >> 1 ^ 0x82f6_3b78
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From TensorBoard 2.21:
    ///
    /// ```python
    /// writer, value = RecordWriter(out), summary_pb2.Summary.Value
    /// writer.write(Event(wall_time=1795184525.25, file_version="brain.Event:2").SerializeToString())
    /// writer.write(Event(wall_time=1795184526.5, step=300, summary=Summary(value=[
    ///     value(tag="train/reward", simple_value=0.25), value(tag="eval/valid", simple_value=float("nan"))])).SerializeToString())
    /// print(out.getvalue().hex())
    /// ```
    #[test]
    fn records_are_those_of_tensorboard() {
        let value = |tag: &str, number: f32| {
            bytes_field(
                1,
                &[
                    bytes_field(1, tag.as_bytes()),
                    fixed_field(2, &number.to_le_bytes()),
                ]
                .concat(),
            )
        };
        let values = [value("train/reward", 0.25), value("eval/valid", f32::NAN)].concat();
        let file = [
            record(&event(
                1_795_184_525_250,
                None,
                &bytes_field(3, b"brain.Event:2"),
            )),
            record(&event(
                1_795_184_526_500,
                Some(300),
                &bytes_field(5, &values),
            )),
        ];
        let hex: String = file
            .concat()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "1800000000000000a37f4b2209000050e315c0da411a0d627261696e2e4576656e743a321b4a9a8c36000000000000004f578cef\
             090000a0e315c0da4110ac022a280a130a0c747261696e2f726577617264150000803e0a110a0a6576616c2f76616c6964150000\
             c07fd86dda34"
        );
        assert_eq!(
            crc32c(b"123456789"),
            0xe306_9283,
            "the check value of CRC-32C"
        );
    }
}
