//! Each rank's part of the last step, as a table.

use crate::format::{bytes, duration, or_na, percent_short};
use crate::run::events::RankStep;
use crate::secrets::visible;

/// To which cells are padded; the name of a device is as long as its writer wants.
const MAX_PADDED: usize = 120;

struct Column {
    title: &'static str,
    /// Columns with the highest numbers are omitted first if not all fit.
    order: usize,
    cells: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        let widths = self
            .cells
            .iter()
            .map(|cell| cell.chars().count())
            .chain([self.title.len()]);
        widths.max().unwrap_or(0).min(MAX_PADDED)
    }
}

/// Titles and a line a rank, with what fits into so many columns.
pub fn rank_lines(ranks: &[RankStep], most_columns: usize) -> Vec<String> {
    let mut columns = columns(ranks);
    while columns.len() > 1
        && columns
            .iter()
            .map(|column| column.width() + 1)
            .sum::<usize>()
            > most_columns.saturating_add(1)
    {
        let last = columns.iter().map(|column| column.order).max();
        columns.retain(|column| Some(column.order) != last);
    }
    let line = |cell: &dyn Fn(&Column) -> String| {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| format!("{:>width$}", cell(column), width = column.width()))
            .collect();
        cells.join(" ")
    };
    let titles = line(&|column| column.title.to_owned());
    std::iter::once(titles)
        .chain((0..ranks.len()).map(|rank| line(&|column| column.cells[rank].clone())))
        .collect()
}

fn columns(ranks: &[RankStep]) -> Vec<Column> {
    let tokens = |rank: &RankStep| rank.sampled_tokens + rank.trained_tokens;
    let all = ranks.iter().map(tokens).sum::<usize>();
    let share = |rank: &RankStep| {
        or_na(
            (all > 0).then(|| tokens(rank) as f64 / all as f64),
            percent_short,
        )
    };
    let column = |title, order, cell: &dyn Fn(&RankStep) -> String| Column {
        title,
        order,
        cells: ranks
            .iter()
            .map(|rank| visible(&cell(rank)).into_owned())
            .collect(),
    };
    let numbers = Column {
        title: "rank",
        order: 0,
        cells: (0..ranks.len()).map(|rank| rank.to_string()).collect(),
    };
    let mut columns = vec![
        numbers,
        column("device", 3, &device),
        column("use", 4, &|rank| {
            or_na(rank.condition.utilisation, percent_short)
        }),
        column("memory", 5, &|rank| {
            or_na(rank.condition.memory_used_bytes, bytes)
        }),
        column("power", 6, &|rank| {
            or_na(rank.condition.power_watts, |watts| format!("{watts:.0} W"))
        }),
        column("share", 1, &share),
        column("rollout", 7, &|rank| duration(rank.rollout_seconds)),
        column("update", 8, &|rank| duration(rank.update_seconds)),
        column("waited", 2, &|rank| duration(rank.waited_seconds)),
    ];
    if ranks.iter().any(|rank| rank.host != ranks[0].host) {
        columns.push(column("host", 9, &|rank| rank.host.clone()));
    }
    columns
}

/// `GPU 3`, or a name.
fn device(rank: &RankStep) -> String {
    let name = Some(&rank.condition.device).filter(|name| !name.is_empty());
    rank.condition.index.map_or_else(
        || or_na(name, String::clone),
        |index| format!("GPU {index}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let all = [
            "rank device use  memory power share rollout update waited host",
            "   0  GPU 3 97% 98.3 GB 612 W   75%   1.2 s  0.8 s  0.1 s   n1",
            "   1    cpu n/a     n/a   n/a   25%   1.2 s  0.8 s  0.1 s   n2",
        ];
        assert_eq!(rank_lines(&ranks(), 100), all);
        assert_eq!(
            rank_lines(&ranks(), 17),
            [
                "rank share waited",
                "   0   75%  0.1 s",
                "   1   25%  0.1 s"
            ]
        );
        assert_eq!(rank_lines(&ranks(), 0), ["rank", "   0", "   1"]);
        let idle = rank_lines(&[RankStep::default(), RankStep::default()], 100);
        assert!(
            idle[1].contains("n/a") && !idle[0].contains("host"),
            "{idle:?}"
        );
    }
}
