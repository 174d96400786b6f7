//! Any bytes as `task.toml`, schema and completion (parted by lines of `%%%`): an error or a task that scores, never a panic.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::config::{Assignments, Layers};
use grpo_tui::score::{Scorer, Task};
use grpo_tui::task::PromptSet;
use libfuzzer_sys::fuzz_target;

const TIME_LIMIT: Duration = Duration::from_secs(5);

/// One folder a process, in memory where there is such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = PathBuf::from("/dev/shm");
    let base = if std::env::var_os("TMPDIR").is_none() && shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    };
    let folder = base.join(format!("grpo-tui-fuzz-task-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let began = Instant::now();
    let mut parts = parts(bytes);
    let completion = parts
        .next_back()
        .filter(|_| parts.len() >= 2)
        .unwrap_or(b"{}");
    let settings = parts
        .next()
        .unwrap_or(b"name = \"a\"\nschema = \"schema.json\"\n");
    let schema = parts.next().unwrap_or(bytes);
    std::fs::write(FOLDER.join("task.toml"), settings).unwrap();
    std::fs::write(FOLDER.join("schema.json"), schema).unwrap();
    let task = match Task::load(&FOLDER) {
        Ok(task) => task,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(!task.name.is_empty() && !task.name.contains('/'));
    let tiers = task.score.tiers;
    assert!(tiers.unparsable <= tiers.invalid && tiers.invalid <= tiers.valid);
    for set in PromptSet::ALL {
        let _ = grpo_tui::dataset::load(&task, set);
    }
    assert_eq!(task.digest(), task.clone().digest());
    let train =
        Assignments::from_task("task.toml", &String::from_utf8_lossy(settings)).map(|train| {
            Layers {
                task: Some(train),
                ..Layers::default()
            }
        });
    let _ = train.map(|layers| layers.resolve());
    match Scorer::new(&task) {
        Ok(scorer) => {
            for text in [
                std::str::from_utf8(completion).unwrap_or(""),
                "{}",
                "[[[]]]",
                "{\"a\":{\"a\":{\"a\":1}}}",
            ] {
                assert!(scorer.score(text, None).reward.is_finite());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(
        began.elapsed() < TIME_LIMIT,
        "{:?} for {} bytes",
        began.elapsed(),
        bytes.len()
    );
});

/// The parts between lines of `%%%`: settings, schema, completion; a single part is a schema alone.
fn parts(bytes: &[u8]) -> std::vec::IntoIter<&[u8]> {
    const LINE: &[u8] = b"\n%%%\n";
    let mut parts = Vec::new();
    let mut rest = bytes;
    while parts.len() < 2
        && let Some(at) = rest.windows(LINE.len()).position(|window| window == LINE)
    {
        parts.push(&rest[..at + 1]);
        rest = &rest[at + LINE.len()..];
    }
    if !parts.is_empty() {
        parts.push(rest);
    }
    parts.into_iter()
}
