//! A run of several ranks on the live screen: a line each in the place of the device.

use grpo_tui::run::events::{Device, RankStep, Step};
use grpo_tui::view::Message;

use super::harness::Stage;
use super::synthetic_run::{Written, shown};

fn append(stage: &mut Stage, written: &mut Written, ranks: usize) {
    let rank = |number: usize| RankStep {
        host: "node1".to_owned(),
        sampled_tokens: 100,
        trained_tokens: 100 * (1 + number % 2),
        rollout_seconds: 1.25,
        update_seconds: 0.5,
        waited_seconds: 0.02,
        condition: Device {
            device: "NVIDIA H200 GPU-1".to_owned(),
            index: Some(number as u32),
            utilisation: Some(0.93),
            memory_used_bytes: Some(94_000_000_000),
            power_watts: (number > 0).then_some(612.0),
            ..Device::default()
        },
    };
    written.append(Step {
        step: 2,
        seconds: 1.9,
        ranks: (0..ranks).map(rank).collect(),
        ..Step::default()
    });
    written.send(stage);
}

#[test]
fn each_rank_has_a_line_in_the_place_of_the_device() {
    let (mut stage, mut written) = shown(120, 36);
    written.step(1);
    append(&mut stage, &mut written, 8);
    for text in [
        "step time 1.9 s by rank",
        "rank device use  memory power share rollout update waited",
        "   0  GPU 0 93% 94.0 GB   n/a   10%   1.2 s  0.5 s  20 ms",
        "   7  GPU 7 93% 94.0 GB 612 W   15%   1.2 s  0.5 s  20 ms",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    stage.keys("[");
    assert!(
        stage.shows("step time 12 s; ranks of step 2 "),
        "{}",
        stage.screen()
    );
    // Ranks that do not fit are counted, and zoomed they are all there.
    append(&mut stage, &mut written, 16);
    assert!(
        stage.shows("and 9 more ranks: z zooms"),
        "{}",
        stage.screen()
    );
    stage.keys("alt-7 z");
    assert!(
        stage.shows("  15  GPU 15") && !stage.shows("more ranks"),
        "{}",
        stage.screen()
    );
    stage.keys("z");
    // A narrow pane has the reason no more.
    for (columns, rows, expected) in [
        (80, 24, "   0   GPU 0  93%  94.0 GB  n/a (not measured)"),
        (60, 20, "   0  GPU 0 93% 94.0 GB   n/a"),
    ] {
        stage.send(Message::Resize(columns, rows));
        assert!(stage.shows(expected), "{}", stage.screen());
    }
    // One rank again: its device, of which nothing is known.
    append(&mut stage, &mut written, 0);
    assert!(
        stage.shows("step time 12 s ") && !stage.shows("rank device"),
        "{}",
        stage.screen()
    );
}
