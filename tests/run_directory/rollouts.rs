//! Rollouts: complete files are compressed, one step is read alone, a crash at any point loses nothing, and the keep
//! rules delete what they say.

use std::path::Path;

use grpo_tui::run::{
    DiskForecast, RolloutWriter, RunLock, RunState, checkpoint_path, disk_forecast, read_step,
    rollout_segments, rollouts_to_delete,
};

use super::finished::{Made, made};
use super::{created, memory_folder, rollout};

fn segments(run: &Path) -> Vec<(u64, bool)> {
    rollout_segments(run)
        .unwrap()
        .into_iter()
        .map(|segment| (segment.last_step, segment.compressed))
        .collect()
}

fn write(writer: &mut RolloutWriter, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        for prompt in ["a", "b", "c"] {
            writer.append(&rollout(step, prompt)).unwrap();
        }
    }
}

fn three(step: u64) -> [grpo_tui::run::RolloutGroup; 3] {
    ["a", "b", "c"].map(|prompt| rollout(step, prompt))
}

#[test]
fn complete_files_are_compressed_and_read_alike() {
    let (_folder, run) = created();
    let path = run.path();
    let lock = RunLock::acquire(path).unwrap();
    let mut writer = RolloutWriter::resume(&lock, 0).unwrap();
    write(&mut writer, 1..=250);
    assert_eq!(segments(path), [(100, true), (200, true), (300, false)]);
    let check_all = |last: u64| {
        for step in 1..=last {
            assert_eq!(read_step(path, step).unwrap(), three(step), "step {step}");
        }
        assert!(read_step(path, last + 1).unwrap().is_empty());
    };
    check_all(250);
    // Other programs read it too: frames one behind another, the table in a frame that they skip.
    let packed = std::fs::read(path.join("rollouts/000100.jsonl.zst")).unwrap();
    let mut plain = Vec::new();
    std::io::Read::read_to_end(
        &mut zstd::stream::read::Decoder::new(packed.as_slice()).unwrap(),
        &mut plain,
    )
    .unwrap();
    assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 300);
    let mut damaged = packed.clone();
    let end = damaged.len();
    damaged[end - 1] ^= 1;
    std::fs::write(path.join("rollouts/000100.jsonl.zst"), &damaged).unwrap();
    check_all(250);
    std::fs::write(path.join("rollouts/000100.jsonl.zst"), &packed).unwrap();

    // The end compresses the last file; going on from anywhere gives what was there.
    writer.finish().unwrap();
    assert_eq!(segments(path), [(100, true), (200, true), (300, true)]);
    check_all(250);
    let mut writer = RolloutWriter::resume(&lock, 250).unwrap();
    assert_eq!(segments(path), [(100, true), (200, true), (300, false)]);
    assert_eq!(writer.append(&rollout(251, "a")).unwrap().line, 151);
    drop(writer);
    let mut writer = RolloutWriter::resume(&lock, 130).unwrap();
    assert_eq!(segments(path), [(100, true), (200, false)]);
    check_all(130);
    write(&mut writer, 131..=205);
    check_all(205);
    drop(writer);
    // A file that is complete stays compressed.
    RolloutWriter::resume(&lock, 100).unwrap();
    assert_eq!(segments(path), [(100, true)]);
    check_all(100);
}

/// A worker killed between any two steps of compressing or unpacking leaves everything readable, and the next one
/// tidies up.
#[test]
fn a_crash_around_compression_loses_nothing() {
    let (_folder, run) = created();
    let path = run.path();
    let (plain, packed) = (
        path.join("rollouts/000100.jsonl"),
        path.join("rollouts/000100.jsonl.zst"),
    );
    let lock = RunLock::acquire(path).unwrap();
    let mut writer = RolloutWriter::resume(&lock, 0).unwrap();
    write(&mut writer, 1..=100);
    let complete = std::fs::read(&plain).unwrap();
    write(&mut writer, 101..=101);
    let twin = std::fs::read(&packed).unwrap();
    drop(writer);
    // Half a twin under its hidden name; a whole twin beside the plain file; the plain file alone.
    for (hidden, twin_there) in [(true, false), (false, true), (false, false)] {
        std::fs::write(&plain, &complete).unwrap();
        let _ = std::fs::remove_file(&packed);
        if hidden {
            std::fs::write(
                path.join("rollouts/.000100.jsonl.zst.tmp"),
                &twin[..twin.len() / 2],
            )
            .unwrap();
        }
        if twin_there {
            std::fs::write(&packed, &twin).unwrap();
        }
        assert_eq!(read_step(path, 57).unwrap(), three(57));
        for resumed in [101, 100] {
            RolloutWriter::resume(&lock, resumed).unwrap();
            assert_eq!(segments(path)[0], (100, true));
            assert!(!plain.exists() && !path.join("rollouts/.000100.jsonl.zst.tmp").exists());
            assert_eq!(read_step(path, 57).unwrap(), three(57));
        }
    }
    // Unpacked as far as step 40 and killed before the twin went: the plain file counts.
    let until = complete
        .split_inclusive(|byte| *byte == b'\n')
        .take(120)
        .flatten()
        .copied()
        .collect::<Vec<u8>>();
    std::fs::write(&plain, &until).unwrap();
    assert!(read_step(path, 41).unwrap().is_empty());
    RolloutWriter::resume(&lock, 40).unwrap();
    assert!(!packed.exists());
    assert_eq!(
        (
            read_step(path, 40).unwrap().len(),
            read_step(path, 41).unwrap().len()
        ),
        (3, 0)
    );
}

#[test]
fn the_keep_rule_keeps_the_latest_and_what_surrounds_checkpoints() {
    let check = |last_step, keep, checkpoints: &[u64], expected: &[u64]| {
        let segments = [100, 200, 300, 400, 500];
        assert_eq!(
            rollouts_to_delete(&segments, last_step, keep, checkpoints),
            expected,
            "{last_step} {keep} {checkpoints:?}"
        );
    };
    check(450, 0, &[], &[]);
    check(450, 1, &[], &[100, 200, 300, 400]);
    check(450, 51, &[], &[100, 200, 300]);
    check(450, 1, &[0, 450], &[200, 300, 400]);
    check(450, 1, &[150], &[100, 300, 400]);
    check(450, 1, &[200], &[100, 400]);
    check(450, 1000, &[], &[]);

    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let checkpoint = checkpoint_path(run.path(), 150);
    std::fs::create_dir(&checkpoint).unwrap();
    std::fs::write(checkpoint.join(grpo_tui::run::CHECKPOINT_MARK), "{}").unwrap();
    let mut writer = RolloutWriter::resume(&lock, 0).unwrap().with_retention(100);
    write(&mut writer, 1..=401);
    assert_eq!(
        segments(run.path()),
        [(200, true), (400, true), (500, false)]
    );
    assert!(read_step(run.path(), 50).unwrap().is_empty());
    assert_eq!(read_step(run.path(), 150).unwrap(), three(150));
}

#[test]
fn the_disk_is_forecast() {
    let folder = memory_folder();
    let run = made(&folder.path().join("runs"), &Made::default());
    let mut state = RunState::read(run.path()).unwrap();
    let config = &run.file().config;
    let done = disk_forecast(run.path(), &state, config);
    let parts = done.now.events_bytes
        + done.now.rollouts_bytes
        + done.now.evals_bytes
        + done.now.checkpoints_bytes;
    assert!(parts > 0 && done.now.total_bytes >= parts, "{done:?}");
    assert_eq!(
        (done.at_end_bytes, done.needed_bytes),
        (Some(done.now.total_bytes), Some(0))
    );
    // Ten times as many steps: what grows with them grows about so.
    state.run.as_mut().unwrap().total_steps = 400;
    let longer = disk_forecast(run.path(), &state, config);
    let more = longer.at_end_bytes.unwrap() - longer.now.total_bytes;
    assert!(
        more > 9 * done.now.events_bytes && longer.needed_bytes.unwrap() > more,
        "{longer:?}"
    );
    assert!(longer.fits());
    assert!(
        !DiskForecast {
            free_bytes: Some(10),
            ..longer
        }
        .fits()
    );
    state.last_step = 0;
    assert_eq!(disk_forecast(run.path(), &state, config).needed_bytes, None);
}
