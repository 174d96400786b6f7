//! The log of a run: the shape of its lines, and what its reader and writer make of torn and strange ones.

use std::collections::BTreeMap;
use std::io::Write;

use grpo_tui::advantage::GroupSignal;
use grpo_tui::files::sum;
use grpo_tui::run::events::{End, Note, Run, Step};
use grpo_tui::run::{Event, EventBody, EventReader, EventWriter, RunLock, Status};

use super::{created, group, memory_folder, step};

/// A small log, cut at every byte: the whole lines before the cut survive, the sequence goes on, and the torn rest is
/// reported.
#[test]
fn a_tail_torn_at_any_byte_is_sealed() {
    let (_folder, run) = created();
    let path = run.events_path();
    {
        let lock = RunLock::acquire(run.path()).unwrap();
        let mut writer = EventWriter::open(&lock).unwrap();
        writer
            .append(Run {
                id: run.id().into(),
                ..Run::default()
            })
            .unwrap();
        writer.append(group(1, 1, GroupSignal::Mixed)).unwrap();
        writer.append(step(1, f64::NAN)).unwrap();
        writer
            .append(Note {
                text: "ünï\n\"line\"".into(),
            })
            .unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let torn = cut
            - whole[..cut]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
        let mut reader = EventReader::new(&path);
        let seen = reader.read().unwrap();
        assert_eq!(
            (seen.events.len(), seen.skipped.len(), seen.gaps),
            (lines, 0, 0),
            "cut at {cut}"
        );

        let lock = RunLock::acquire(run.path()).unwrap();
        let mut writer = EventWriter::open(&lock).unwrap();
        let seq = writer.append(step(2, 1.0)).unwrap();
        drop((writer, lock));
        let new = reader.read().unwrap();
        assert!(
            !new.restarted && new.skipped.is_empty() && new.gaps == 0,
            "cut at {cut}: {new:?}"
        );
        let dropped = match &new.events[0].body {
            EventBody::Recovered(recovered) => recovered.dropped_bytes as usize,
            _ => 0,
        };
        assert_eq!(dropped, torn, "cut at {cut}");
        assert_eq!(
            seq as usize,
            lines + 1 + usize::from(torn > 0),
            "cut at {cut}"
        );
        let log = EventReader::new(&path).read().unwrap();
        assert_eq!(
            log.events[..lines].len() + new.events.len(),
            log.events.len()
        );
    }
}

#[test]
fn a_line_longer_than_a_chunk_does_not_hide_the_sequence() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = EventWriter::open(&lock).unwrap();
    writer.append(step(1, 1.0)).unwrap();
    writer
        .append(Note {
            text: "x".repeat(3_000_000),
        })
        .unwrap();
    drop(writer);
    assert_eq!(
        EventWriter::open(&lock)
            .unwrap()
            .append(step(2, 1.0))
            .unwrap(),
        3
    );
    let seen = EventReader::new(&run.events_path()).read().unwrap();
    assert_eq!((seen.events.len(), seen.gaps), (3, 0));
}

#[test]
fn the_reader_survives_strange_lines() {
    let folder = memory_folder();
    let path = folder.path().join("events.jsonl");
    let mut reader = EventReader::new(&path);
    assert!(reader.read().unwrap().events.is_empty());
    let lines = [
        r#"{"v":1,"seq":1,"t":5,"kind":"telepathy","thought":1}"#,
        "not json",
        r#"{"v":1,"seq":4,"t":6,"kind":"step","step":1,"seconds":1.0,"metrics":{"reward":null},"nonfinite":["reward"],"extra":true}"#,
        r#"{"v":1,"seq":5,"t":7,"kind":"step","step":"one"}"#,
        "",
        r#"{"v":1,"seq":6,"t":7,"kind":"note","text":"torn"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let seen = reader.read().unwrap();
    assert_eq!(seen.events[0].body, EventBody::Unknown("telepathy".into()));
    assert!(
        matches!(&seen.events[1].body, EventBody::Step(step) if step.metrics["reward"].is_nan())
    );
    assert_eq!((seen.events.len(), seen.gaps), (2, 2));
    assert_eq!(
        seen.skipped
            .iter()
            .map(|skipped| skipped.line)
            .collect::<Vec<_>>(),
        [2, 4, 5]
    );
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"\"}\n")
        .unwrap();
    assert!(
        matches!(&reader.read().unwrap().events[0].body, EventBody::Note(note) if note.text == "torn")
    );

    std::fs::write(
        &path,
        "{\"v\":1,\"seq\":1,\"t\":1,\"kind\":\"note\",\"text\":\"anew\"}\n",
    )
    .unwrap();
    let again = reader.read().unwrap();
    assert!(again.restarted && again.events.len() == 1);
    std::fs::write(&path, "{\"v\":2,\"seq\":1,\"t\":1,\"kind\":\"note\"}\n").unwrap();
    let error = EventReader::new(&path).read().unwrap_err().to_string();
    assert!(
        error.contains("format version 2, newer than this program's 1"),
        "{error}"
    );
}

#[test]
fn lines_have_the_documented_shape() {
    let line = |body: EventBody| {
        String::from_utf8(
            Event {
                seq: 7,
                time_ms: 1000,
                body,
            }
            .to_line()
            .unwrap(),
        )
        .unwrap()
    };
    // The checksum is of what precedes it.
    let sealed = |line: &str| {
        let content = line.strip_suffix("}\n").unwrap();
        format!("{content},\"xxh3\":\"{}\"}}\n", sum(content.as_bytes()))
    };
    let metrics = BTreeMap::from([("kl".to_owned(), f64::INFINITY), ("reward".to_owned(), 0.5)]);
    assert_eq!(
        line(
            Step {
                step: 3,
                seconds: 1.5,
                metrics,
                ..Step::default()
            }
            .into()
        ),
        sealed(
            "{\"v\":1,\"seq\":7,\"t\":1000,\"kind\":\"step\",\"nonfinite\":[\"kl\"],\"step\":3,\"seconds\":1.5,\"metrics\":{\"kl\":null,\"reward\":0.5}}\n"
        )
    );
    assert_eq!(
        line(
            End {
                status: Status::Finished,
                cause: "all steps done".into(),
                step: 3,
                seconds: 9.0
            }
            .into()
        ),
        sealed(
            "{\"v\":1,\"seq\":7,\"t\":1000,\"kind\":\"end\",\"status\":\"finished\",\"cause\":\"all steps done\",\"step\":3,\"seconds\":9.0}\n"
        )
    );
}
