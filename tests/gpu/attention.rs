//! Attention over packed segments, and of one new token a row, on the GPU against the CPU.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::attention::{
    Segment, Segments, segment_attention, segment_attention_backward,
};
use grpo_tui::kernels::decode_attention::{DecodeRow, DecodeRows, decode_attention};
use grpo_tui::kernels::heads::{Attention, Heads};

use super::{assert_close, assert_close_beside, gpu, on_gpu, random, rounded, tolerance};

/// A batch of prompts, each with its completions: `(prompt length, completion lengths)`.
fn groups(groups: &[(usize, &[usize])]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut rows = 0;
    let mut push = |length, prefix| {
        segments.push(Segment {
            start: rows,
            length,
            prefix,
        });
        rows += length;
        (rows - length, length)
    };
    for &(prompt, completions) in groups {
        let prefix = push(prompt, (0, 0));
        for &completion in completions {
            push(completion, prefix);
        }
    }
    segments
}

/// Both dtypes, without sinks and with some of the query heads: in `dtype`, on the CPU and on the GPU.
fn dtypes_and_sinks(query_heads: usize) -> impl Iterator<Item = (DType, Option<[Tensor; 2]>)> {
    [DType::F32, DType::BF16]
        .into_iter()
        .flat_map(move |dtype| {
            let sinks = (random(6, &[query_heads]) * 3.0).unwrap();
            [None, Some([rounded(&sinks, dtype), on_gpu(&sinks, dtype)])]
                .map(|sinks| (dtype, sinks))
        })
}

/// Both directions; queries, keys and values each on their own.
fn check(segments: &[Segment], attention: impl Into<Attention<'static>>) {
    let attention = attention.into();
    let heads = attention.heads;
    let rows = segments.iter().map(|segment| segment.length).sum();
    let (packed, seed) = (
        random(1, &[rows, heads.row_width()]),
        random(2, &[rows, heads.query_width()]),
    );
    let packed = (packed * 2.0).unwrap();
    for (dtype, sinks) in dtypes_and_sinks(heads.query) {
        let [attention_cpu, attention] = [0, 1].map(|at| Attention {
            sinks: sinks.as_ref().map(|sinks| &sinks[at]),
            ..attention
        });
        let [packed_cpu, seed_cpu] = [&packed, &seed].map(|tensor| rounded(tensor, dtype));
        let [packed, seed] = [&packed, &seed].map(|tensor| on_gpu(tensor, dtype));
        let on_cpu = Segments::new(segments.to_vec(), &Device::Cpu).unwrap();
        let segments = Segments::new(segments.to_vec(), &gpu()).unwrap();
        let what = format!("{dtype:?}, {rows} rows, {}", described(attention));
        poison(rows * heads.row_width(), dtype);
        let attended = segment_attention(&packed, attention, &segments, 8).unwrap();
        let expected = segment_attention(&packed_cpu, attention_cpu, &on_cpu, 0).unwrap();
        let own = attended
            .rows
            .narrow(1, 0, heads.query_width())
            .unwrap()
            .contiguous()
            .unwrap();
        assert_close(&what, &own, &expected.rows, tolerance(dtype));
        poison(rows * heads.row_width(), dtype);
        let backward =
            || segment_attention_backward(&seed, &packed, &attended, attention, &segments).unwrap();
        let gradient = backward();
        let expected =
            segment_attention_backward(&seed_cpu, &packed_cpu, &expected, attention_cpu, &on_cpu)
                .unwrap();
        let (query, key) = (heads.query_width(), heads.key_width());
        for (name, start, length) in [
            ("queries", 0, query),
            ("keys", query, key),
            ("values", query + key, key),
        ] {
            let part = |tensor: &Tensor| {
                tensor
                    .narrow(1, start, length)
                    .unwrap()
                    .contiguous()
                    .unwrap()
            };
            // A row that sees itself alone has no gradient of its query, which only nearly cancels here.
            let what = format!("{what}: {name}");
            assert_close_beside(
                &what,
                &part(&gradient),
                &part(&expected),
                &expected,
                tolerance(dtype),
            );
        }
        assert_close(&format!("{what}: again"), &backward(), &gradient, 0.0);
    }
}

fn described(
    Attention {
        heads,
        window,
        sinks,
        ..
    }: Attention<'_>,
) -> String {
    format!(
        "{heads:?}, window {window:?}, {} sinks",
        sinks.map_or(0, Tensor::elem_count)
    )
}

/// Leaves NaN in memory that the next tensor of this size is likely to get.
fn poison(count: usize, dtype: DType) {
    drop(
        Tensor::full(f32::NAN, count, &gpu())
            .unwrap()
            .to_dtype(dtype)
            .unwrap(),
    );
}

const fn heads(query: usize, key_value: usize, dimension: usize) -> Heads {
    Heads {
        query,
        key_value,
        dimension,
    }
}

#[test]
#[ignore = "needs a GPU"]
fn segments_agree() {
    let batches = [
        groups(&[(1, &[])]),
        groups(&[(3, &[2, 4]), (1, &[1])]),
        groups(&[
            (70, &[5, 1, 64, 65, 33, 2, 7, 100, 12]),
            (129, &[1]),
            (300, &[]),
        ]),
    ];
    for batch in &batches {
        for dimension in [6, 8, 24, 64, 80, 128] {
            check(batch, heads(4, 1, dimension));
            check(batch, heads(2, 2, dimension));
        }
        for heads in [heads(2, 1, 256), heads(3, 3, 200), heads(1, 1, 136)] {
            check(batch, heads);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn long_segments_agree() {
    for dimension in [128, 256] {
        check(
            &groups(&[(1500, &[]), (700, &[130, 20])]),
            heads(4, 2, dimension),
        );
    }
    check(&groups(&[(1500, &[40])]), heads(3, 1, 24));
}

/// Windows that end in a tile, at its end, in a prompt that is shared, and beyond everything.
#[test]
#[ignore = "needs a GPU"]
fn windows_agree() {
    let batch = groups(&[
        (70, &[5, 1, 64, 65, 33, 2, 7, 100, 12]),
        (129, &[1]),
        (300, &[]),
    ]);
    for window in [1, 5, 32, 33, 64, 100, 1000] {
        for heads in [
            heads(4, 1, 256),
            heads(3, 3, 256),
            heads(2, 2, 64),
            heads(4, 2, 128),
            heads(3, 1, 24),
        ] {
            check(
                &batch,
                Attention {
                    window: Some(window),
                    ..heads.into()
                },
            );
        }
    }
    check(
        &groups(&[(1500, &[40])]),
        Attention {
            divisor: 12.0,
            window: Some(512),
            sinks: None,
            heads: heads(4, 1, 256),
        },
    );
}

#[test]
#[ignore = "needs a GPU"]
fn a_prefix_is_a_segment() {
    let list = vec![
        Segment {
            start: 0,
            length: 3,
            prefix: (0, 0),
        },
        Segment {
            start: 3,
            length: 1,
            prefix: (0, 2),
        },
    ];
    assert!(Segments::new(list, &gpu()).is_err());
}

/// A step over prompts of these lengths, `tokens[i]` tokens of row i in a cache of `positions`; row i belongs to prompt
/// i % prompts.
fn check_decode(
    prompts: &[usize],
    tokens: &[usize],
    positions: usize,
    attention: impl Into<Attention<'static>>,
) {
    let attention = attention.into();
    let heads = attention.heads;
    let prompt_rows: usize = prompts.iter().sum();
    let starts: Vec<usize> = prompts
        .iter()
        .scan(0, |end, length| Some(std::mem::replace(end, *end + length)))
        .collect();
    // Places in another order than the rows, and some that no row uses.
    let slots = tokens.len() + 1;
    let rows: Vec<DecodeRow> = tokens
        .iter()
        .enumerate()
        .map(|(i, &length)| {
            let prompt = i % prompts.len();
            DecodeRow {
                first: (slots - 1 - i) * positions,
                prefix: (starts[prompt], prompts[prompt]),
                length,
                states: (0, 0),
            }
        })
        .collect();
    let numbers: Vec<u32> = rows
        .iter()
        .flat_map(|row| [row.first, row.prefix.0, row.prefix.1, row.length])
        .map(|n| n as u32)
        .collect();
    let table = DecodeRows::Table {
        rows: Tensor::from_vec(numbers, (rows.len(), 4), &gpu()).unwrap(),
        states: Tensor::zeros((rows.len(), 2), DType::U32, &gpu()).unwrap(),
        longest: prompts.iter().max().unwrap() + positions,
    };
    let listed = DecodeRows::Listed(rows.clone());
    let tensors = [
        random(3, &[rows.len(), heads.row_width()]),
        random(4, &[prompt_rows, 2 * heads.key_width()]),
        random(5, &[slots * positions, 2 * heads.key_width()]),
    ];
    for (dtype, sinks) in dtypes_and_sinks(heads.query) {
        let [attention_cpu, attention] = [0, 1].map(|at| Attention {
            sinks: sinks.as_ref().map(|sinks| &sinks[at]),
            ..attention
        });
        let [packed_cpu, prefix_cpu, cache_cpu] = tensors
            .each_ref()
            .map(|tensor| rounded(&(tensor * 2.0).unwrap(), dtype));
        let [packed, prefix, cache] = tensors
            .each_ref()
            .map(|tensor| on_gpu(&(tensor * 2.0).unwrap(), dtype));
        let what = format!(
            "{dtype:?}, {} rows, prompts {prompts:?}, {}",
            rows.len(),
            described(attention)
        );
        poison(rows.len() * heads.query_width(), dtype);
        let found = decode_attention(&packed, &prefix, &cache, attention, &table).unwrap();
        let expected =
            decode_attention(&packed_cpu, &prefix_cpu, &cache_cpu, attention_cpu, &listed).unwrap();
        assert_close(&what, &found, &expected, tolerance(dtype));
    }
}

#[test]
#[ignore = "needs a GPU"]
fn decode_agrees() {
    for dimension in [6, 8, 24, 64, 128, 256] {
        for (query, key_value) in [(4, 1), (2, 2), (4, 2), (7, 1), (16, 1)] {
            check_decode(&[3], &[1], 4, heads(query, key_value, dimension));
            check_decode(
                &[37, 1, 52],
                &[5, 1, 40, 17, 33],
                40,
                heads(query, key_value, dimension),
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn decode_agrees_where_rows_share_long_prompts() {
    for (query, key_value, dimension) in
        [(8, 2, 128), (4, 4, 64), (6, 2, 64), (4, 1, 40), (7, 1, 128)]
    {
        check_decode(
            &[1500],
            &[5, 300, 1, 80, 9],
            300,
            heads(query, key_value, dimension),
        );
        // Neighbours have different prompts.
        check_decode(
            &[1100, 40],
            &[5, 1, 130, 7, 60, 2, 9, 100, 3],
            130,
            heads(query, key_value, dimension),
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn decode_agrees_where_keys_are_divided_among_blocks() {
    check_decode(&[2000, 30], &[5, 700, 1], 700, heads(8, 2, 128));
    check_decode(&[300], &[9; 300], 16, heads(4, 4, 64));
}

#[test]
#[ignore = "needs a GPU"]
fn decode_agrees_with_a_window() {
    for window in [1, 7, 64, 600, 10_000] {
        for heads in [heads(4, 1, 256), heads(4, 2, 64), heads(3, 1, 24)] {
            let attention = Attention {
                window: Some(window),
                ..heads.into()
            };
            check_decode(&[37, 1, 52], &[5, 1, 40, 17, 33], 40, attention);
            check_decode(&[2000, 30], &[5, 700, 1], 700, attention);
        }
    }
}
