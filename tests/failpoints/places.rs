//! Where workers die: every phase, every kind of write, and the gaps between two of them.

use super::story::Death;

/// Numbers as by chance, the same in every run of the tests.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn at(places: &[&str]) -> Vec<Death> {
    let deaths = places.iter().map(|place| Death::At((*place).to_owned()));
    deaths.collect()
}

/// Two runs that together die in every phase, inside a write and between two.
pub(super) fn some() -> Vec<Vec<Death>> {
    vec![
        at(&[
            "replace.half=state.json:1",
            "line.after=phase-rollout:2+5",
            "line.half=group:5",
            "checkpoint.half=model:2",
        ]),
        at(&[
            "line.after=phase-update:3+4",
            "checkpoint.unmarked:1",
            "line.half=eval:1",
            "line.before=end:1",
        ]),
    ]
}

/// Five runs that together die once in every phase and every kind of write.
pub(super) fn everywhere() -> Vec<Vec<Death>> {
    vec![
        // Before the first step, then in a rollout and in an update.
        at(&[
            "replace.half=state.json:1",
            "replace.half=step-:1",
            "checkpoint.half=model:1",
            "line.after=phase-rollout:2+15",
        ]),
        // Inside events, and around a checkpoint.
        at(&[
            "line.half=group:5",
            "line.after=phase-update:3+4",
            "folder.renamed:2",
            "line.half=checkpoint:1",
            "checkpoint.unmarked:1",
        ]),
        // Inside rollouts and evals, and while it stops.
        [
            at(&[
                "line.half=rollout:7",
                "line.after=phase-eval:3+20",
                "replace.written=step-:1",
                "line.half=eval:1",
            ]),
            vec![
                Death::WhileStopping(600, "folder.filled:2".to_owned()),
                Death::After(700),
            ],
        ]
        .concat(),
        // Between the last checkpoint and its event, which applies the keep rules.
        at(&["folder.renamed:5"]),
        // At the end.
        at(&[
            "rollouts.both=compress:1",
            "line.before=end:1",
            "rollouts.both=expand:1",
            "line.half=recovered:1",
            "line.after=end:1",
        ]),
    ]
}

/// A run that dies `count` times, wherever chance has it.
pub(super) fn by_chance(count: usize, chance: &mut Chance) -> Vec<Death> {
    let kinds = [
        "run",
        "group",
        "step",
        "eval",
        "checkpoint",
        "recovered",
        "control",
        "note",
        "phase",
        "rollout",
    ];
    (0..count)
        .map(|_| {
            let (few, visit) = (1 + chance.below(3), 1 + chance.below(8));
            let kind = kinds[chance.below(kinds.len() as u64) as usize];
            let spec = match chance.below(20) {
                0 => return Death::After(150 + chance.below(2000)),
                1 => format!("line.after=phase-rollout:{visit}+{}", 1 + chance.below(60)),
                2 => format!("line.after=phase-update:{visit}+{}", 1 + chance.below(40)),
                3 => format!("line.after=phase-eval:{few}+{}", 1 + chance.below(80)),
                4 => format!("line.after=phase-checkpoint:{few}+{}", chance.below(25)),
                5..=7 => format!("line.half={kind}:{few}"),
                8 => format!("line.before={kind}:{few}"),
                9 => format!("line.after={kind}:{few}"),
                10 => format!(
                    "checkpoint.half={}:{few}",
                    ["model", "adapter_model", "optimizer", "trainer"][chance.below(4) as usize]
                ),
                11 => format!("folder.filled:{few}"),
                12 => format!("folder.renamed:{few}"),
                13 => format!("checkpoint.unmarked:{few}"),
                14 => format!(
                    "replace.{}=step-:{few}",
                    ["half", "written", "renamed"][chance.below(3) as usize]
                ),
                15 => format!(
                    "replace.{}=state.json:{few}",
                    ["half", "written", "renamed"][chance.below(3) as usize]
                ),
                16 => format!(
                    "line.{}=end:1",
                    ["before", "half", "after"][chance.below(3) as usize]
                ),
                17 => format!(
                    "{}:1",
                    [
                        "rollouts.half",
                        "replace.written=0",
                        "rollouts.both=compress",
                        "rollouts.both=expand"
                    ][chance.below(4) as usize]
                ),
                // An accepted request: the only file that a worker creates so.
                18 => format!("create.half:{few}"),
                _ => {
                    return Death::WhileStopping(
                        300 + chance.below(900),
                        format!(
                            "{}:{few}",
                            ["checkpoint.half", "folder.filled", "folder.renamed"]
                                [chance.below(3) as usize]
                        ),
                    );
                }
            };
            Death::At(spec)
        })
        .collect()
}
