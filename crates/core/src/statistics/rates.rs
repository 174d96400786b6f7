//! A rate: its interval, and its compound over a chain of calls.

pub(super) const Z: f64 = 1.959_963_984_540_054;

/// 95% Wilson score interval of `successes` out of `n` (Wilson 1927); (0, 1) if `n` = 0. More
/// successes than `n` count as `n`.
pub fn wilson(successes: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        (0.0, 1.0)
    } else {
        wilson_of(successes.min(n) as f64 / n as f64, n as f64, Z)
    }
}

/// As [`wilson`] with dependent completions per prompt: `prompts` holds (successes, completions).
/// Wilson's interval with the effective number of completions (cluster-robust variance) and
/// Student's t by the number of prompts. Equals [`wilson`] for one completion per prompt; (0, 1)
/// for a single prompt.
pub fn wilson_by_prompt(prompts: &[(usize, usize)]) -> (f64, f64) {
    let (successes, n) = prompts.iter().fold((0, 0), |(successes, n), (found, of)| {
        (successes + found, n + of)
    });
    let count = prompts.iter().filter(|(_, of)| *of > 0).count();
    if count == n {
        return wilson(successes, n);
    }
    if count < 2 {
        return (0.0, 1.0);
    }
    let (all, prompts_count) = (n as f64, count as f64);
    let rate = successes as f64 / all;
    let squares: f64 = prompts
        .iter()
        .map(|(found, of)| (*found as f64 - rate * *of as f64).powi(2))
        .sum();
    let variance = prompts_count / (prompts_count - 1.0) * squares / (all * all);
    // Without variance each prompt counts once.
    let effective = if successes == 0 || successes == n {
        prompts_count
    } else {
        (rate * (1.0 - rate) / variance).min(all)
    };
    wilson_of(
        rate,
        effective,
        super::beta::t_critical(prompts_count - 1.0),
    )
}

pub(super) fn wilson_of(rate: f64, n: f64, z: f64) -> (f64, f64) {
    let denominator = 1.0 + z * z / n;
    let centre = (rate + z * z / (2.0 * n)) / denominator;
    let half = z * (rate * (1.0 - rate) / n + z * z / (4.0 * n * n)).sqrt() / denominator;
    // At the ends the bound is exactly 0 or 1, whatever the rounding.
    let low = if rate <= 0.0 {
        0.0
    } else {
        (centre - half).max(0.0)
    };
    let high = if rate >= 1.0 {
        1.0
    } else {
        (centre + half).min(1.0)
    };
    (low, high)
}

/// Chance that `k` independent calls of success rate `p` all succeed: p^k.
pub fn compound(p: f64, k: u32) -> f64 {
    p.powf(f64::from(k))
}

/// Quantile of the standard normal, 0 < p < 1 (outside: -inf, +inf). Acklam's rational
/// approximation, relative error 1.2e-9.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [
        7.784695709041462e-3,
        3.224671290700398e-1,
        2.445134137142996,
        3.754408661907416,
    ];
    const TAIL: f64 = 0.02425;
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    if p > 1.0 - TAIL {
        return -normal_quantile(1.0 - p);
    }
    if p < TAIL {
        let q = (-2.0 * p.ln()).sqrt();
        return polynomial(&C, q) / (polynomial(&D, q) * q + 1.0);
    }
    let q = p - 0.5;
    let r = q * q;
    polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
}

/// Horner's rule, highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients
        .iter()
        .fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_reference_values() {
        // The experiment's numbers, and R: binom::binom.wilson.
        let check = |successes, n, low: f64, high: f64| {
            let found = wilson(successes, n);
            assert!(
                (found.0 - low).abs() < 5e-5 && (found.1 - high).abs() < 5e-5,
                "{successes}/{n}: {found:?}"
            );
        };
        check(31, 50, 0.48150, 0.74142);
        check(41, 50, 0.69200, 0.90229);
        check(0, 10, 0.0, 0.27753);
        check(10, 10, 0.72247, 1.0);
        check(1, 10, 0.01788, 0.40415);
        check(0, 0, 0.0, 1.0);
        check(500, 500, 0.99238, 1.0);
        check(11, 10, 0.72247, 1.0);
    }

    #[test]
    fn compounding() {
        let check = |p, k, expected: f64| {
            assert!(
                (compound(p, k) - expected).abs() < 5e-4,
                "{p}^{k} = {}",
                compound(p, k)
            )
        };
        check(0.99, 10, 0.904);
        check(0.99, 50, 0.605);
        check(0.995, 50, 0.778);
        check(0.999, 50, 0.951);
        check(0.0, 0, 1.0);
        check(1.0, 1000, 1.0);
    }

    #[test]
    fn normal_quantiles() {
        let check = |p, expected: f64| {
            assert!(
                (normal_quantile(p) - expected).abs() < 1e-6,
                "{p}: {}",
                normal_quantile(p)
            )
        };
        check(0.5, 0.0);
        check(0.975, 1.959963985);
        check(0.025, -1.959963985);
        check(0.8, 0.841621234);
        check(0.999, 3.090232306);
        check(0.001, -3.090232306);
        assert!(normal_quantile(0.0).is_infinite() && normal_quantile(1.0).is_infinite());
    }
}
