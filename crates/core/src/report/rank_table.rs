//! Each rank's part of the last step, as a table.

use crate::format::percent_short;
use crate::page::{Cell, Row, Table};
use crate::run::events::RankStep;

/// A row a rank.
pub fn rank_table(ranks: &[RankStep]) -> Table {
    let tokens = |rank: &RankStep| rank.sampled_tokens + rank.trained_tokens;
    let all = ranks.iter().map(tokens).sum::<usize>();
    let has_hosts = ranks.iter().any(|rank| rank.host != ranks[0].host);
    let row = |(number, rank): (usize, &RankStep)| {
        let measured = |cell| Cell::known(cell, "not measured");
        let condition = &rank.condition;
        let percent = |share| percent_short(share).into();
        let share = (all > 0).then(|| percent(tokens(rank) as f64 / all as f64));
        let watts = |watts| format!("{watts:.0} W").into();
        let cells = [
            device(rank),
            measured(condition.utilisation.map(percent)),
            measured(condition.memory_used_bytes.map(Cell::Bytes)),
            measured(condition.power_watts.map(watts)),
            Cell::known(share, "no tokens"),
            Cell::Seconds(rank.rollout_seconds),
            Cell::Seconds(rank.update_seconds),
            Cell::Seconds(rank.waited_seconds),
        ];
        let host = has_hosts.then(|| rank.host.as_str().into());
        Row::new(number.to_string(), cells.into_iter().chain(host))
    };
    let head = [
        "rank", "device", "use", "memory", "power", "share", "rollout", "update", "waited", "host",
    ];
    let head = &head[..head.len() - usize::from(!has_hosts)];
    Table {
        left_out: &[9, 7, 6, 4, 3, 2, 1, 8, 5],
        ..Table::new(head, "r", ranks.iter().enumerate().map(row).collect())
    }
}

/// `GPU 3`, or a name.
fn device(rank: &RankStep) -> Cell {
    let name = Some(rank.condition.device.as_str()).filter(|name| !name.is_empty());
    let index = rank.condition.index;
    let index = index.map(|index| format!("GPU {index}").into());
    Cell::known(index.or(name.map(Cell::from)), "not measured")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::text::fitted;
    use crate::run::events::Device;

    fn ranks() -> Vec<RankStep> {
        let condition = Device {
            device: "NVIDIA H200 GPU-1".to_owned(),
            index: Some(3),
            utilisation: Some(0.97),
            memory_used_bytes: Some(98_300_000_000),
            power_watts: Some(612.4),
            ..Device::default()
        };
        let rank = |host: &str, sampled_tokens, condition| RankStep {
            host: host.to_owned(),
            sampled_tokens,
            rollout_seconds: 1.2,
            update_seconds: 0.81,
            waited_seconds: 0.1,
            condition,
            ..RankStep::default()
        };
        vec![
            rank("n1", 300, condition),
            rank(
                "n2",
                100,
                Device {
                    device: "cpu".to_owned(),
                    ..Device::default()
                },
            ),
        ]
    }

    #[test]
    fn what_is_unknown_is_not_zero_and_little_room_has_what_matters() {
        let lines = |ranks: &[RankStep], columns| {
            let rows = fitted(&rank_table(ranks), |line| line.len() <= columns);
            let line = |row: Vec<String>| row.concat().trim_end().to_owned();
            rows.into_iter().map(line).collect::<Vec<_>>()
        };
        let narrow = [
            "rank device use  memory power share rollout update waited host",
            "   0  GPU 3 97% 98.3 GB 612 W   75%   1.2 s  0.8 s  0.1 s   n1",
            "   1    cpu n/a     n/a   n/a   25%   1.2 s  0.8 s  0.1 s   n2",
        ];
        assert_eq!(lines(&ranks(), 65), narrow);
        let shortest = [
            "rank share waited",
            "   0   75%  0.1 s",
            "   1   25%  0.1 s",
        ];
        assert_eq!(lines(&ranks(), 17), shortest);
        assert_eq!(lines(&ranks(), 0), ["rank", "   0", "   1"]);
        let idle = lines(&[RankStep::default(), RankStep::default()], 200);
        assert!(
            idle[1].contains("n/a (not measured)") && !idle[0].contains("host"),
            "{idle:?}"
        );
    }
}
