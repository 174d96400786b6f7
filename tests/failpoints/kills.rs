//! Killed without warning at named places and at any moment, a run ends bit for bit as an uninterrupted one, and
//! nothing that was told is lost.
//!
//! `cargo test --test main failpoints::kills` kills eight times; with `-- --ignored --nocapture` it goes on until 200 workers
//! have died, or as many as `GRPO_TUI_FAULTS` says.

use std::collections::BTreeMap;

use super::places::{Chance, by_chance, everywhere, some};
use super::story::{Death, Outcome, Stage, play};

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_killed_run_ends_as_if_nothing_had_happened() {
    killed(some(), 8);
}

#[test]
#[ignore = "nightly: kills at every place, then 200 at random"]
fn a_run_killed_anywhere_ends_as_if_nothing_had_happened() {
    let requested = std::env::var("GRPO_TUI_FAULTS").map_or(200, |number| {
        number.parse().expect("GRPO_TUI_FAULTS is a number")
    });
    killed(everywhere(), requested);
}

/// Plays runs with the `scripted` deaths, then with others by chance until so many workers have died.
fn killed(scripted: Vec<Vec<Death>>, requested: usize) {
    let seed = std::env::var("GRPO_TUI_FAULTS_SEED")
        .ok()
        .map_or(1, |number| {
            number.parse().expect("GRPO_TUI_FAULTS_SEED is a number")
        });
    let (stage, mut chance) = (Stage::new(), Chance(seed));
    // All weights, and adapters.
    let kinds: [&[&str]; 2] = [&[], &["lora_rank=4", "learning_rate=2e-3"]];
    let expected = kinds.map(|set| {
        let (run, expected) = stage.expected(set);
        std::fs::remove_dir_all(run.parent().unwrap().parent().unwrap()).unwrap();
        expected
    });
    let mut total = Outcome::default();
    let mut scripted = scripted.into_iter();
    for number in 0.. {
        let deaths = match scripted.next() {
            Some(deaths) => deaths,
            None if total.kills.values().sum::<usize>() < requested => by_chance(6, &mut chance),
            None => break,
        };
        let kind = number % kinds.len();
        let outcome = play(
            &stage,
            &format!("run-{number}"),
            kinds[kind],
            &deaths,
            &expected[kind],
        );
        if !outcome.lost.is_empty() || !outcome.differences.is_empty() {
            eprintln!(
                "run {number}, {deaths:?}:\n  lost {:?}\n  differs in {:?}",
                outcome.lost, outcome.differences
            );
        }
        add(&mut total, outcome);
    }
    let kills: usize = total.kills.values().sum();
    eprintln!(
        "faults: {kills} workers killed at {} places, {} spared; {} records checked; {} acknowledged, {} lost; {} differences",
        total.kills.len(),
        total.spared,
        total.records,
        total.acknowledged,
        total.lost.len(),
        total.differences.len()
    );
    for (place, count) in &total.kills {
        eprintln!("{count:5}  {place}");
    }
    assert!(total.lost.is_empty(), "lost: {:#?}", total.lost);
    assert!(
        total.differences.is_empty(),
        "different: {:#?}",
        total.differences
    );
    assert!(
        kills >= requested,
        "only {kills} workers were killed: {:?}",
        total.kills
    );
}

/// The program under test can be told to die exactly where this build has failpoints: a release binary does not even
/// hold the variable's name.
#[test]
fn only_development_builds_have_failpoints() {
    let program = std::fs::read(crate::program::PROGRAM).unwrap();
    let found = program.windows(14).any(|bytes| bytes == b"GRPO_TUI_FAULT");
    assert_eq!(found, cfg!(debug_assertions));
}

fn add(total: &mut Outcome, one: Outcome) {
    let Outcome {
        kills,
        spared,
        records,
        acknowledged,
        lost,
        differences,
    } = one;
    let sums: &mut BTreeMap<String, usize> = &mut total.kills;
    kills
        .into_iter()
        .for_each(|(place, count)| *sums.entry(place).or_default() += count);
    total.spared += spared;
    total.records += records;
    total.acknowledged += acknowledged;
    total.lost.extend(lost);
    total.differences.extend(differences);
}
