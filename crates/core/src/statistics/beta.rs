//! The incomplete beta function, binomial tails, quantiles of Student's t.

/// P(X <= `k`) for X ~ Binomial(`n`, `p`).
pub(super) fn binomial_cdf(k: usize, n: usize, p: f64) -> f64 {
    if k >= n {
        1.0
    } else {
        incomplete_beta((n - k) as f64, k as f64 + 1.0, 1.0 - p)
    }
}

/// Two-sided 5% critical value of Student's t with `degrees` > 0 degrees of freedom.
pub(super) fn t_critical(degrees: f64) -> f64 {
    let x = beta_quantile(0.05, degrees / 2.0, 0.5);
    (degrees * (1.0 - x) / x).sqrt()
}

/// Regularised incomplete beta function I_x(a, b) by its continued fraction; `a`, `b` > 0. Relative
/// error below 1e-10 up to a + b = 1e5.
pub(super) fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front =
        (a * x.ln() + b * (1.0 - x).ln() + log_gamma(a + b) - log_gamma(a) - log_gamma(b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        (front * fraction(a, b, x) / a).min(1.0)
    } else {
        (1.0 - front * fraction(b, a, 1.0 - x) / b).max(0.0)
    }
}

/// Continued fraction of I_x(a, b), by Lentz's method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_0 = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_0(1.0 - (a + b) * x / (a + 1.0)));
    let mut product = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_0(1.0 + term * d);
            c = away_from_0(1.0 + term / c);
            step = c * d;
            product *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    product
}

/// Solves I_x(a, b) = `p` for x by bisection.
fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if incomplete_beta(a, b, middle) < p {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// Natural logarithm of "n choose k".
pub(super) fn log_choose(n: usize, k: usize) -> f64 {
    log_gamma(n as f64 + 1.0) - log_gamma(k as f64 + 1.0) - log_gamma((n - k) as f64 + 1.0)
}

/// Natural logarithm of the gamma function, x > 0: Stirling's series after shifting x to at least
/// 12; absolute error below 1e-12 there.
fn log_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}
