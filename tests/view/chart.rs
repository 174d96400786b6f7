//! The chart: what is drawn where, at every size, and that nothing that matters is lost on the way.

use grpo_tui::run::Series;
use grpo_tui::view::draw::symbols_in_ascii;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::theme::Theme;
use grpo_tui::view::widgets::chart::{Chart, Curve, Dot};

fn series(values: impl IntoIterator<Item = f64>) -> Series {
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| (index as u64 + 1, value))
        .collect()
}

fn chart(series: &Series, smoothing: f64, steps: (u64, u64)) -> Chart<'_> {
    let last = series.extent().map_or(0, |(_, last)| last);
    let curve = Curve {
        label: "reward".to_owned(),
        role: Role::SeriesOne,
        series,
        smoothing,
        last,
    };
    Chart {
        curves: vec![curve],
        steps,
        ..Chart::default()
    }
}

fn rendered(chart: &Chart<'_>, theme: &Theme, columns: usize, rows: usize) -> String {
    chart
        .lines(theme, columns, rows)
        .iter()
        .map(|line| line.to_string().trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn pictures() {
    let theme = Theme::default();
    let rising = series((0..60).map(|step| (f64::from(step) / 6.0).sin() * 0.3 + 0.5));
    let mut plain = chart(&rising, 0.0, (1, 60));
    plain.marks = vec![(10, "e"), (30, "c")];
    plain.levels = vec![(0.6, Role::Base, "base")];
    plain.dots = vec![Dot {
        step: 45,
        value: 0.7,
        role: Role::Trained,
        label: "eval",
        sign: "◆",
    }];
    plain.cursor = Some(20);
    insta::assert_snapshot!("chart_linear", rendered(&plain, &theme, 60, 12));
    insta::assert_snapshot!(
        "chart_ascii",
        symbols_in_ascii(
            &rendered(&plain, &Theme::default().in_ascii(), 60, 12),
            true
        )
    );
    let wide = series([0.001, 0.01, 0.1, 1.0, 10.0, 0.0, -1.0, 100.0]);
    insta::assert_snapshot!(
        "chart_log",
        rendered(
            &Chart {
                log: true,
                ..chart(&wide, 0.0, (1, 8))
            },
            &theme,
            50,
            14
        )
    );
    let holes: Series = [
        (1, 0.2),
        (2, 0.3),
        (3, f64::NAN),
        (4, 0.4),
        (8, 0.8),
        (9, f64::INFINITY),
        (10, 0.6),
    ]
    .into_iter()
    .collect();
    insta::assert_snapshot!(
        "chart_holes",
        rendered(&chart(&holes, 0.0, (1, 10)), &theme, 50, 10)
    );
}

/// No size panics, no line is wider than allowed, and a chart has exactly its rows.
#[test]
fn every_size_and_every_kind_of_values() {
    let of = |values: &[f64]| series(values.iter().copied());
    let all = [
        of(&[]),
        of(&[0.5]),
        of(&[f64::NAN]),
        of(&[f64::INFINITY, f64::NEG_INFINITY, 1.0]),
        of(&[f64::MAX, f64::MIN, 0.0]),
        of(&[1e-300, 1e300]),
        of(&[3.0; 40]),
        [(u64::MAX - 3, 1.0), (u64::MAX - 1, 2.0)]
            .into_iter()
            .collect(),
    ];
    for series in &all {
        for (log, theme) in [
            (false, Theme::default()),
            (true, Theme::default().in_ascii()),
        ] {
            for steps in [
                (0, 0),
                (0, 1),
                (1, 40),
                (5, 2),
                (0, u64::MAX),
                (u64::MAX, u64::MAX),
            ] {
                for columns in [0, 1, 2, 3, 10, 23, 24, 25, 80] {
                    for rows in [0, 1, 2, 3, 4, 5, 6, 7, 20] {
                        let cursor = Some(steps.0);
                        let shown = Chart {
                            log,
                            cursor,
                            marks: vec![(1, "e")],
                            ..chart(series, 0.9, steps)
                        };
                        let lines = shown.lines(&theme, columns, rows);
                        assert_eq!(
                            lines.len(),
                            if columns == 0 { 0 } else { rows },
                            "{columns} x {rows}"
                        );
                        let widest = lines
                            .iter()
                            .map(ratatui::text::Line::width)
                            .max()
                            .unwrap_or(0);
                        assert!(widest <= columns, "{columns} x {rows}, {steps:?}: {widest}");
                        assert!(shown.legend(&theme, columns).width() <= columns);
                    }
                }
            }
        }
    }
}

/// One odd value among a hundred thousand is drawn, whatever the width.
#[test]
fn a_spike_never_vanishes() {
    for at in [0, 1, 49_999, 77_777, 99_999] {
        let long = series((0..100_000).map(|step| if step == at { 1.0 } else { 0.0 }));
        for columns in [30, 60, 79, 200] {
            let shown = Chart {
                values: Some((0.0, 1.0)),
                ..chart(&long, 0.9, (1, 100_000))
            };
            let rendered = rendered(&shown, &Theme::default(), columns, 8);
            let top = rendered.lines().next().unwrap_or_default();
            assert!(
                top.chars()
                    .any(|letter| ('\u{2801}'..='\u{28ff}').contains(&letter)),
                "step {at} in {columns} columns:\n{rendered}"
            );
        }
    }
}

#[test]
fn the_cursor_reads_raw_and_smoothed_values() {
    let values = series([1.0, 2.0, 4.0, f64::NAN]);
    let last = values.extent().map_or(0, |(_, last)| last);
    let curve = Curve {
        label: "reward".to_owned(),
        role: Role::SeriesOne,
        series: &values,
        smoothing: 0.5,
        last,
    };
    let check = |step, raw: Option<f64>, smoothed: Option<f64>| {
        let (found, average) = curve.at(step);
        assert_eq!(found.filter(|value| value.is_finite()), raw, "{step}");
        assert!(
            average
                .zip(smoothed)
                .map_or(average == smoothed, |(a, b)| (a - b).abs() < 1e-9),
            "{step}: {average:?}"
        );
    };
    check(1, Some(1.0), Some(1.0));
    check(2, Some(2.0), Some(5.0 / 3.0));
    check(
        3,
        Some(4.0),
        Some((1.0 / 8.0 + 2.0 / 4.0 + 4.0 / 2.0) / (7.0 / 8.0)),
    );
    check(9, None, None);
}

/// Without colours a curve has a sign of its own, the same in the legend and in the chart.
#[test]
fn curves_are_told_apart_without_colours() {
    let (rising, falling) = (
        series((0..40).map(f64::from)),
        series((0..40).map(|step| 40.0 - f64::from(step))),
    );
    let curve = |label: &str, role, series| Curve {
        label: label.to_owned(),
        role,
        series,
        smoothing: 0.0,
        last: 40,
    };
    let both = || {
        vec![
            curve("reward", Role::SeriesOne, &rising),
            curve("valid", Role::SeriesTwo, &falling),
        ]
    };
    let chart = Chart {
        curves: both(),
        steps: (1, 40),
        ..Chart::default()
    };
    let ascii = Theme::default().in_ascii();
    assert_eq!(
        chart.legend(&ascii, 60).to_string().trim_end(),
        "* reward 39  + valid 1"
    );
    let drawn = rendered(&chart, &ascii, 60, 12);
    assert!(drawn.contains('*') && drawn.contains('+'), "{drawn}");
    assert_eq!(
        chart.legend(&Theme::default(), 60).to_string().trim_end(),
        "━ reward 39  ╍ valid 1"
    );
    let level = series([1.0; 40]);
    let row = |index: usize| {
        let mut curves = both();
        curves[index].series = &level;
        let alone = Chart {
            curves: curves
                .into_iter()
                .map(|curve| Curve {
                    role: Role::Text,
                    ..curve
                })
                .collect(),
            ..Chart {
                steps: (1, 40),
                values: Some((0.0, 2.0)),
                ..Chart::default()
            }
        };
        rendered(&alone, &Theme::default(), 60, 5)
    };
    assert_ne!(row(0), row(1), "a gap shows which one it is");
    let compared = Chart {
        under: 1,
        curves: both(),
        steps: (1, 40),
        ..Chart::default()
    };
    assert_eq!(
        compared
            .legend(&Theme::default(), 60)
            .to_string()
            .trim_end(),
        "━ valid 1  ╍ reward 39",
        "what it is compared with comes last"
    );
}

/// Without colours raw values are no line beside the curve, and the lines of the legend differ.
#[test]
fn curves_differ_without_colours() {
    let jumping = series((0..60).map(|step| if step % 10 < 5 { 0.1 } else { 0.9 }));
    let raw_and_smooth = rendered(
        &chart(&jumping, 0.97, (1, 60)),
        &Theme::monochrome(),
        60,
        12,
    );
    let lines = rendered(&chart(&jumping, 0.0, (1, 60)), &Theme::monochrome(), 60, 12);
    // A line rises between the values, dots do not.
    let rises = |screen: &str| screen.matches(['⢸', '⡇']).count();
    assert!(
        rises(&lines) > 40 && rises(&raw_and_smooth) < 5,
        "{raw_and_smooth}\n{lines}"
    );
    let curve = |index: usize| Curve {
        label: index.to_string(),
        role: Role::SeriesOne,
        series: &jumping,
        smoothing: 0.0,
        last: 60,
    };
    for theme in [Theme::monochrome(), Theme::monochrome().in_ascii()] {
        let chart = Chart {
            curves: (0..6).map(curve).collect(),
            steps: (1, 60),
            ..Chart::default()
        };
        let signs: std::collections::BTreeSet<&str> =
            (0..6).map(|index| chart.sign(&theme, index)).collect();
        assert_eq!(signs.len(), 6, "{signs:?}");
    }
}
