//! Any bytes as an event log: no panic, and every whole line is seen, however the file grew.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use grpo_tui::config::BestBy;
use grpo_tui::run::events::Note;
use grpo_tui::run::{Batch, Event, EventBody, EventReader, RunError, RunState};
use libfuzzer_sys::fuzz_target;

static LOG: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = PathBuf::from("/dev/shm");
    let base = if std::env::var_os("TMPDIR").is_none() && shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    };
    let folder = base.join(format!("grpo-tui-fuzz-events-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("events.jsonl")
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for event in text
        .split('\n')
        .filter_map(|line| Event::from_line(line).ok())
    {
        as_written(&event);
    }
    let last = Event {
        seq: u64::MAX,
        time_ms: 7,
        body: EventBody::Note(Note {
            text: "the last line".to_owned(),
        }),
    };
    let mut log = bytes.to_vec();
    log.push(b'\n');
    log.extend(last.to_line().unwrap());

    let Ok(whole) = read_in_parts(&[&log]) else {
        return;
    };
    let lines = log.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(
        whole.events.len() + whole.skipped.len(),
        lines,
        "a line was lost"
    );
    assert_eq!(whole.events.last(), Some(&last), "the last line was lost");
    assert!(
        whole.skipped.is_sorted_by_key(|skipped| skipped.line)
            && whole.skipped.iter().all(|skipped| skipped.line <= lines)
    );

    let at = bytes.first().map_or(0, |byte| usize::from(*byte)) * log.len() / 256;
    let grown = read_in_parts(&[&log[..at], &log]).unwrap();
    assert_eq!(
        lines_of(&whole),
        lines_of(&grown),
        "a log that grew reads differently"
    );

    let mut folded = RunState::default();
    for event in &whole.events {
        folded.fold(event.clone());
    }
    std::fs::write(&*LOG, &log).unwrap();
    let followed = RunState::read(LOG.parent().unwrap()).unwrap();
    assert_eq!(
        format!("{:?}", folded.metrics),
        format!("{:?}", followed.metrics)
    );
    assert_eq!(
        (folded.last_step, folded.notes.len(), folded.unknown),
        (followed.last_step, followed.notes.len(), followed.unknown)
    );
    assert_eq!(
        (followed.skipped, followed.gaps),
        (whole.skipped.len(), whole.gaps)
    );
    assert!(folded.metrics.values().all(
        |series| series.steps().is_sorted() && series.steps().count() == series.values().len()
    ));
    folded.best_step_by(
        &folded.checkpoints.keys().copied().collect::<Vec<_>>(),
        BestBy::Exact,
    );
});

/// What one reader finds while the file grows to each of these contents.
fn read_in_parts(contents: &[&[u8]]) -> Result<Batch, RunError> {
    let mut reader = EventReader::new(&LOG);
    let mut all = Batch::default();
    for (index, content) in contents.iter().enumerate() {
        std::fs::write(&*LOG, content).unwrap();
        let mut batch = reader.read()?;
        assert!(!batch.restarted, "part {index} was taken for another file");
        all.events.append(&mut batch.events);
        all.skipped.append(&mut batch.skipped);
        all.gaps += batch.gaps;
    }
    Ok(all)
}

/// As text, since NaN differs from itself.
fn lines_of(batch: &Batch) -> String {
    format!("{batch:?}")
}

/// What is written again is read as the same; unknown kinds keep only their name.
fn as_written(event: &Event) {
    let line = event.to_line().unwrap();
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    let text = std::str::from_utf8(&line).unwrap().trim_end_matches('\n');
    let again = Event::from_line(text).unwrap_or_else(|error| panic!("{error:?} in {text}"));
    assert_eq!(format!("{event:?}"), format!("{again:?}"), "{text}");
}
