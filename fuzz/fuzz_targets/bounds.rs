//! Any text against schemas that invite endless work: each score is found within a fixed amount of memory.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grpo_tui::score::{Scorer, Task, Tier};
use libfuzzer_sys::fuzz_target;

/// Bytes for a score of a text: of what errors may take at most, twice.
const MAX_ALLOCATED_BYTES: usize = 256 << 20;
const MAX_BYTES: usize = 1 << 14;
const TIME_LIMIT: Duration = Duration::from_secs(8);

/// Counts what is allocated and not yet freed.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Each is followed again at every level of a value, in one way or another.
const SCHEMAS: [&str; 7] = [
    r##"{"oneOf":[{"properties":{"op":{"const":"a"},"args":{"type":"array","items":{"$ref":"#"}}},"required":["op","args"]},{"properties":{"op":{"const":"b"},"args":{"type":"array","items":{"$ref":"#"}}},"required":["op","args"]},{"properties":{"n":{"type":"number"}},"required":["n"],"additionalProperties":false}]}"##,
    r##"{"anyOf":[{"type":"array","items":{"$ref":"#"}},{"type":"array","items":{"$ref":"#"},"minItems":2},{"type":"array","items":{"$ref":"#"},"maxItems":1}]}"##,
    r##"{"allOf":[{"items":{"$ref":"#"},"properties":{"a":{"$ref":"#"}}},{"items":{"$ref":"#"},"additionalProperties":{"$ref":"#"}}],"not":{"const":1}}"##,
    r##"{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"},{"$ref":"#/$defs/b"}]},"b":{"oneOf":[{"$ref":"#/$defs/c"},{"type":"object","additionalProperties":{"$ref":"#/$defs/a"}}]},"c":{"anyOf":[{"items":{"$ref":"#/$defs/a"},"type":"array"},{"items":{"$ref":"#/$defs/b"},"type":"array","minItems":1}]}}}"##,
    r##"{"type":["object","array"],"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}},"items":{"$ref":"#"},"anyOf":[{"required":["a"]},{"minItems":1}],"unevaluatedProperties":false,"uniqueItems":true}"##,
    r##"{"patternProperties":{"(?<=a*)b":{"$ref":"#"},"^c":{"pattern":"(?=x)(x+x+)+y"}},"items":{"pattern":"(?<=a*)b"},"propertyNames":{"maxLength":2000}}"##,
    r##"{"if":{"items":{"$ref":"#"}},"then":{"items":{"not":{"$ref":"#"}}},"else":{"contains":{"$ref":"#"}},"dependentSchemas":{"a":{"additionalProperties":{"$ref":"#"}}}}"##,
];

static SCORERS: LazyLock<Vec<Scorer>> = LazyLock::new(|| {
    let scorer = |schema: &str| {
        let mut task = Task::embedded("invoice").unwrap();
        task = task.with_definition_text(schema).unwrap();
        task.score.graded = true;
        Scorer::new(&task).unwrap()
    };
    SCHEMAS.into_iter().map(scorer).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    // Short inputs are grown: each bracket is written many times, so that depth is found at once.
    let times = 1 + text.len() % 40;
    let grown: String = text
        .chars()
        .flat_map(|letter| {
            std::iter::repeat_n(letter, if "[]{}".contains(letter) { times } else { 1 })
        })
        .collect();
    for scorer in SCORERS.iter() {
        for text in [text, &grown] {
            let before = LIVE.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            let began = Instant::now();
            let score = scorer.score(text, None);
            let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
            assert!(
                peak < MAX_ALLOCATED_BYTES,
                "{peak} bytes for {} bytes",
                text.len()
            );
            assert!(
                began.elapsed() < TIME_LIMIT,
                "{:?} for {} bytes",
                began.elapsed(),
                text.len()
            );
            assert!(
                (0.0..=1.0).contains(&score.reward)
                    && (score.tier == Tier::Valid) == score.errors.is_empty(),
                "{score:?}"
            );
        }
    }
});
