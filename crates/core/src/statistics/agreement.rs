//! Agreement of two raters beyond chance, and the correlation of two measures.

use super::Interval;
use super::rates::{Z, wilson};

/// Cohen's kappa of pairs of ratings from 0 to `most`, with its 95% interval by the large-sample
/// variance (Fleiss, Cohen and Everitt 1969); `is_weighted`: weighted by squared distance. Perfect
/// agreement has no variance: the low end is then from Wilson's interval of the agreement. `None`
/// without pairs, and if a rater gives all items one rating.
pub fn kappa(pairs: &[(u8, u8)], most: u8, is_weighted: bool) -> Option<Interval> {
    let (n, size) = (pairs.len() as f64, usize::from(most) + 1);
    let mut table = vec![vec![0.0; size]; size];
    for (one, other) in pairs {
        *table
            .get_mut(usize::from(*one))?
            .get_mut(usize::from(*other))? += 1.0 / n;
    }
    let weight = |one: usize, other: usize| match is_weighted {
        true => 1.0 - ((one as f64 - other as f64) / f64::from(most)).powi(2),
        false => f64::from(u8::from(one == other)),
    };
    let cells = || (0..size).flat_map(|one| (0..size).map(move |other| (one, other)));
    let rows: Vec<f64> = table.iter().map(|row| row.iter().sum()).collect();
    let columns: Vec<f64> = (0..size)
        .map(|other| table.iter().map(|row| row[other]).sum())
        .collect();
    let agreed: f64 = cells()
        .map(|(one, other)| weight(one, other) * table[one][other])
        .sum();
    let chance: f64 = cells()
        .map(|(one, other)| weight(one, other) * rows[one] * columns[other])
        .sum();
    let never_varies = rows
        .iter()
        .chain(&columns)
        .any(|share| *share > 1.0 - 1e-12);
    if pairs.is_empty() || never_varies {
        return None;
    }
    let estimate = (agreed - chance) / (1.0 - chance);
    let of_row: Vec<f64> = (0..size)
        .map(|one| {
            (0..size)
                .map(|other| weight(one, other) * columns[other])
                .sum()
        })
        .collect();
    let of_column: Vec<f64> = (0..size)
        .map(|other| (0..size).map(|one| weight(one, other) * rows[one]).sum())
        .collect();
    let squares: f64 = cells()
        .map(|(one, other)| {
            let term = weight(one, other) - (of_row[one] + of_column[other]) * (1.0 - estimate);
            table[one][other] * term.powi(2)
        })
        .sum();
    let variance =
        (squares - (estimate - chance * (1.0 - estimate)).powi(2)) / ((1.0 - chance).powi(2) * n);
    if agreed > 1.0 - 1e-12 {
        let low = (wilson(pairs.len(), pairs.len()).0 - chance) / (1.0 - chance);
        return Some(Interval {
            estimate,
            low,
            high: 1.0,
        });
    }
    let half = Z * variance.max(0.0).sqrt();
    Some(Interval {
        estimate,
        low: (estimate - half).max(-1.0),
        high: (estimate + half).min(1.0),
    })
}

/// Pearson's correlation with its 95% interval by Fisher's z; `None` for fewer than four pairs or a
/// constant measure.
pub fn correlation(pairs: &[(f64, f64)]) -> Option<Interval> {
    let n = pairs.len() as f64;
    let (sum_x, sum_y) = pairs
        .iter()
        .fold((0.0, 0.0), |(x, y), pair| (x + pair.0, y + pair.1));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let sum = |of: fn(f64, f64) -> f64| {
        pairs
            .iter()
            .map(|pair| of(pair.0 - mean_x, pair.1 - mean_y))
            .sum::<f64>()
    };
    let (xy, xx, yy) = (sum(|x, y| x * y), sum(|x, _| x * x), sum(|_, y| y * y));
    if pairs.len() < 4 || xx < 1e-12 || yy < 1e-12 {
        return None;
    }
    let estimate = (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0);
    let (z, half) = (estimate.atanh(), Z / (n - 3.0).sqrt());
    Some(Interval {
        estimate,
        low: (z - half).tanh(),
        high: (z + half).tanh(),
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::excessive_precision,
    clippy::unreadable_literal
)]
mod tests {
    use super::*;

    fn near(found: Interval, expected: [f64; 3], what: &str) {
        for (found, expected) in [found.estimate, found.low, found.high]
            .into_iter()
            .zip(expected)
        {
            assert!(
                (found - expected).abs() < 1e-9,
                "{what}: {found}, expected {expected}"
            );
        }
    }

    /// Tables from scikit-learn and statsmodels, printed by `scripts/golden/kappa.py`.
    #[rustfmt::skip]
    const KAPPA: &[(&str, &str, u8, bool, [f64; 3])] = &[
        ("11111001010011110011", "11111001000010110000", 1, false, [0.6116504854368932, 0.29797041686633474, 0.925330554007452]),
        ("101001111101010011000001111000011011000001010001001101101111", "101101111101010011100000110010010001100001011011000101100001", 1, false, [0.5333333333333333, 0.31976989962539826, 0.7468967670412686]),
        ("10100111010011001001111001010001011011010100001001011111011110100100101000001011100110110000000100101100100001010001110111000110001111110111001111100000111101101000010100101001000100101000100100101011", "00100111011011001011111001011001011011010100001001001111011110100100101000001011100010110000000100101110100001010001110111000110001111110111001111100000111101101000010100101001000100101010110100101111", 1, false, [0.8999499749874937, 0.8395581615694961, 0.9603417884054911]),
        ("4104002311324321031110313", "0104002331322321031210313", 4, false, [0.7946611909650925, 0.615818684424606, 0.9735036975055787]),
        ("4104002311324321031110313", "0104002331322321031210313", 4, true, [0.6976294146105466, 0.3388555661296662, 1.0]),
        ("440424203222023310204243314032223444440342224304012304013433402040421130013014402114312122031324220024211302304122102401", "440324023122333310244241304332011044423412214321010104013413012144421130013024302124111222031413342344011200301011102243", 4, false, [0.4597402597402598, 0.350083966471725, 0.5693965530087944]),
        ("440424203222023310204243314032223444440342224304012304013433402040421130013014402114312122031324220024211302304122102401", "440324023122333310244241304332011044423412214321010104013413012144421130013024302124111222031413342344011200301011102243", 4, true, [0.5075836276750467, 0.34253619602108154, 0.6726310593290119]),
        ("412013023013143121211311220413", "403134411224013413100443400243", 4, false, [-0.06995884773662553, -0.22699643579687873, 0.08707874032362761]),
        ("412013023013143121211311220413", "403134411224013413100443400243", 4, true, [0.1903171953255426, -0.10867928784483943, 0.4893136784959246]),
    ];

    #[rustfmt::skip]
    const CORRELATION: &[(&[f64], &[f64], [f64; 3])] = &[
        (&[-1.004, 0.212, -0.418, 0.57], &[-1.01, -0.112, -2.024, 0.567], [0.745335556449684, -0.7605786048856917, 0.9942262136354243]),
        (&[-2.342, 0.024, -0.081, 0.888, -1.725, 0.858, -0.19, 0.554, -0.355, 0.065, 1.427, -0.248, 0.556, -0.315, 0.11, 1.136, -0.26, -0.058, 1.171, 0.457], &[-1.648, -0.059, -1.175, -0.165, -2.217, 0.554, 0.334, -1.584, 0.819, 0.396, 0.035, -0.952, -0.737, -0.493, -0.089, 1.407, 2.197, 0.142, 1.214, -1.083], [0.47398401945862556, 0.03981417131360208, 0.7575999042990433]),
        (&[-0.141, 0.694, 0.457, -1.389, 1.154, 0.411, -1.443, 0.722, -1.039, -1.426, -1.219, -0.249, 1.387, 0.578, -0.558, 1.384, 0.303, 0.894, -1.535, 0.503, -0.292, -1.383, 0.713, 0.11, 0.17, -0.507, -1.159, 1.157, -0.055, 0.714, 0.002, 0.241, -0.686, 0.275, -0.084, -0.591, -0.266, 0.223, 0.395, -0.048, -1.024, 0.507, -0.515, -2.34, -1.356, 0.297, -0.581, 0.387, 0.441, 1.751], &[0.756, -3.817, -0.972, -2.09, -0.444, -0.343, 1.051, 0.426, 1.145, -0.289, -0.571, 0.263, -0.747, -0.774, 1.3, -0.646, -0.48, 0.177, 0.021, 0.817, 1.205, -0.499, 0.491, 0.731, 0.396, -0.564, 2.743, 0.082, 0.609, -0.851, 1.969, -0.574, -0.938, -1.24, -0.272, -1.412, -0.289, -0.112, 0.845, 1.035, 1.157, 0.905, 2.346, 0.692, 1.539, 0.748, 0.562, -1.75, -0.167, 1.237], [-0.2006812493349407, -0.4536864218496867, 0.08226152979864748]),
    ];

    #[test]
    fn kappa_is_that_of_scikit_learn_and_its_interval_that_of_statsmodels() {
        for (one, other, most, is_weighted, expected) in KAPPA {
            let pairs: Vec<(u8, u8)> = one
                .bytes()
                .zip(other.bytes())
                .map(|(one, other)| (one - b'0', other - b'0'))
                .collect();
            near(
                kappa(&pairs, *most, *is_weighted).unwrap(),
                *expected,
                &format!("{one} {other} {is_weighted}"),
            );
        }
    }

    #[test]
    fn raters_that_agree_on_all_have_an_interval_and_those_who_never_vary_no_kappa() {
        let agreed: Vec<(u8, u8)> = (0..20).map(|index| (index % 2, index % 2)).collect();
        // Wilson's low end of 20 of 20 is 0.8389; chance explains half of it.
        let low = 2.0 * wilson(20, 20).0 - 1.0;
        near(kappa(&agreed, 1, false).unwrap(), [1.0, low, 1.0], "all");
        assert_eq!(kappa(&[(1, 1); 20], 1, false), None);
        assert_eq!(
            kappa(&[(0, 0), (0, 1), (0, 1)], 1, false),
            None,
            "one rater gives 0 to all"
        );
        assert_eq!(kappa(&[], 1, false), None);
        assert_eq!(kappa(&[(5, 1)], 4, true), None, "a rating beyond the scale");
    }

    #[test]
    fn the_correlation_is_that_of_scipy() {
        for (one, other, expected) in CORRELATION {
            let pairs: Vec<(f64, f64)> = one.iter().copied().zip(other.iter().copied()).collect();
            near(correlation(&pairs).unwrap(), *expected, "correlation");
        }
        assert_eq!(
            correlation(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)]),
            None
        );
        assert_eq!(correlation(&[(1.0, 2.0), (2.0, 3.0), (3.0, 1.0)]), None);
    }
}
