//! The study `sft-vs-grpo`: its settings, and which of them are compared.

use super::axes::Setting;
use super::error::StudyError;

/// The study's name, as a command takes it and a sweep's file has it.
pub const SFT_VS_GRPO: &str = "sft-vs-grpo";

/// Evals without a better valid rate after which a run counts as converged.
const PATIENCE: u64 = 3;
/// It is cut off at so many times the updates of the others.
const MAX_UPDATE_FACTOR: u64 = 4;

type Pairs = Vec<[Option<usize>; 2]>;

/// Seven settings: three of `updates` updates, with a half that one of them continues, and three until nothing
/// improves; and the pairs that are compared on the test set, where `None` is the base.
///
/// # Errors
/// An error for fewer than two updates.
pub fn sft_vs_grpo(updates: u64) -> Result<(Vec<Setting>, Pairs), StudyError> {
    if updates < 2 {
        return Err(StudyError::Other(format!(
            "{SFT_VS_GRPO} needs the number of updates: --set max_steps=N, 2 or more"
        )));
    }
    let half = updates / 2;
    let equal = format!("{updates} updates");
    let setting =
        |label: &str, group: &str, method: &str, steps: u64, after: Option<usize>| Setting {
            label: label.to_owned(),
            group: group.to_owned(),
            set: vec![format!("method={method}"), format!("max_steps={steps}")],
            after,
            ..Setting::default()
        };
    let mut settings = vec![
        setting("SFT", &equal, "sft", updates, None),
        setting("GRPO", &equal, "grpo", updates, None),
        setting(&format!("SFT, first {half}"), "", "sft", half, None),
        setting(
            &format!("GRPO after SFT, {half} + {}", updates - half),
            &equal,
            "grpo",
            updates - half,
            Some(2),
        ),
    ];
    for (label, method, after) in [
        ("SFT", "sft", None),
        ("GRPO", "grpo", None),
        ("GRPO after SFT", "grpo", Some(4)),
    ] {
        let mut converged = setting(
            &format!("{label}, converged"),
            "convergence",
            method,
            MAX_UPDATE_FACTOR * updates,
            after,
        );
        converged.set.push(format!("patience={PATIENCE}"));
        settings.push(converged);
    }
    let pairs = [
        all_pairs([None, Some(0), Some(1), Some(3)]),
        all_pairs([None, Some(4), Some(5), Some(6)]),
    ]
    .concat();
    Ok((settings, pairs))
}

fn all_pairs([base, a, b, c]: [Option<usize>; 4]) -> [[Option<usize>; 2]; 6] {
    [[base, a], [base, b], [base, c], [a, b], [a, c], [b, c]]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn updates_add_up_and_every_setting_resolves() {
        let (settings, pairs) = sft_vs_grpo(25).unwrap();
        let steps = |place: usize| settings[place].set[1].as_str();
        assert_eq!(
            (steps(0), steps(2), steps(3), steps(6)),
            (
                "max_steps=25",
                "max_steps=12",
                "max_steps=13",
                "max_steps=100"
            )
        );
        assert_eq!(
            (settings[3].after, settings[6].after, pairs.len()),
            (Some(2), Some(4), 12)
        );
        let places = pairs.iter().flatten().flatten();
        assert!(places.into_iter().all(|place| *place < settings.len()));
        for (place, setting) in settings.into_iter().enumerate() {
            assert!(setting.after.is_none_or(|after| after < place));
            let layers = Layers {
                set: setting.set,
                ..Layers::default()
            };
            layers.resolve().unwrap();
        }
        assert!(
            sft_vs_grpo(1)
                .unwrap_err()
                .to_string()
                .contains("max_steps=N")
        );
    }
}
