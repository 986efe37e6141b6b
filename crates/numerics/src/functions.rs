//! Elementary functions of one f32.

/// a · b + c, rounded once if `FUSED`, else twice.
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Horner's rule; the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut series = coefficients[0];
    for &coefficient in &coefficients[1..] {
        series = multiply_add::<FUSED>(series, x, coefficient);
    }
    series
}

/// eˣ for −87 ≤ x ≤ 88, within 1e-7 of the exact value, relative to it. Below and above, the values at the ends are returned; NaN stays NaN.
///
/// Reduction by multiples of ln 2 in two parts and a polynomial of degree 6, with the constants
/// of `expf` in Moshier's Cephes library.
#[inline(always)]
pub fn exp<const FUSED: bool>(x: f32) -> f32 {
    // 1.5 · 2²³: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Written so that NaN stays NaN.
    let x = clamp(x, -87.0, 88.0);
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = multiply_add::<FUSED>(whole, -355.0 / 512.0, x);
    let rest = multiply_add::<FUSED>(whole, 2.121_944_4e-4, rest);
    let series = polynomial::<FUSED, 6>(
        rest,
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5],
    );
    let fraction = if FUSED {
        series.mul_add(rest * rest, rest) + 1.0
    } else {
        // From left to right: saved models were trained with these bits.
        series * rest * rest + rest + 1.0
    };
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// The nearest number between two bounds; NaN stays NaN.
#[inline(always)]
pub fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 1 / (1 + e⁻ˣ), within 1e-7.
#[inline(always)]
pub fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// exp(−x²/2) and the upper tail of the standard normal distribution at |x|, 1 − Φ(|x|).
///
/// The tail is the exponential times a polynomial in 1 / (1 + 0.3 |x|) (the form of Abramowitz
/// and Stegun 7.1.26), fitted anew for least relative error: 1.3e-7 up to |x| = 13.5.
#[inline(always)]
fn normal_tail<const FUSED: bool>(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let power = exp::<FUSED>(-0.5 * magnitude * magnitude);
    let t = 1.0 / multiply_add::<FUSED>(0.3, magnitude, 1.0);
    let series = polynomial::<FUSED, 8>(
        t,
        [
            0.035_931_956,
            -0.158_276_84,
            0.208_207_95,
            -0.055_394_977,
            0.129_469_74,
            0.099_637_344,
            0.120_798_38,
            0.119_626_39,
        ],
    );
    (power, series * t * power)
}

/// The Gaussian error linear unit x Φ(x), with Φ by the error function, within 3e-7.
#[inline(always)]
pub fn gelu<const FUSED: bool>(x: f32) -> f32 {
    let (_, tail) = normal_tail::<FUSED>(x);
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - x.abs() * tail
}

/// The derivative of [`gelu`], Φ(x) + x φ(x), within 3e-7.
#[inline(always)]
pub fn gelu_derivative<const FUSED: bool>(x: f32) -> f32 {
    const DENSITY_AT_ZERO: f32 = 0.398_942_3; // 1 / √(2π)
    let (power, tail) = normal_tail::<FUSED>(x);
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    distribution + x * (DENSITY_AT_ZERO * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from `low` to `high`, close together.
    fn range(low: f64, high: f64) -> impl Iterator<Item = f32> {
        const COUNT: u32 = 1_000_003;
        (0..=COUNT).map(move |i| (low + (high - low) * f64::from(i) / f64::from(COUNT)) as f32)
    }

    /// 1 − Φ(x) for x ≥ 0 in f64, within 1e-12: the integral of the density by Simpson's rule.
    fn tail(x: f64) -> f64 {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (steps, end) = (4000, x + 10.0);
        let width = (end - x) / f64::from(steps);
        let weight = |i| match i {
            0 => 1.0,
            _ if i == steps => 1.0,
            _ if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let sum = (0..=steps).map(|i| weight(i) * density(x + width * f64::from(i))).sum::<f64>();
        sum * width / 3.0
    }

    fn distribution(x: f64) -> f64 {
        if x < 0.0 { tail(-x) } else { 1.0 - tail(x) }
    }

    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    /// The largest error over numbers that are expensive to check.
    fn largest(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let numbers = range(-14.0, 14.0).step_by(331);
        let errors = numbers.map(|x| (f64::from(f(x)) - exact(f64::from(x))).abs());
        errors.fold(0.0, f64::max)
    }

    fn check_exp<const FUSED: bool>() {
        let relative = |x: f32| (f64::from(exp::<FUSED>(x)) / f64::from(x).exp() - 1.0).abs();
        let error = range(-87.0, 88.0).map(relative).fold(0.0, f64::max);
        assert!(error < 1e-7, "{error:e}");
        assert_eq!(exp::<FUSED>(0.0), 1.0);
        assert_eq!(exp::<FUSED>(f32::NEG_INFINITY), exp::<FUSED>(-87.0));
        assert_eq!(exp::<FUSED>(f32::INFINITY), exp::<FUSED>(88.0));
        assert!(exp::<FUSED>(f32::NAN).is_nan());
    }

    #[test]
    fn should_give_the_exponential() {
        check_exp::<false>();
        check_exp::<true>();
    }

    fn check_sigmoid<const FUSED: bool>() {
        let exact = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
        let error = range(-80.0, 80.0)
            .map(|x| (f64::from(sigmoid::<FUSED>(x)) - exact(x)).abs())
            .fold(0.0, f64::max);
        assert!(error < 1e-7, "{error:e}");
        assert!(sigmoid::<FUSED>(f32::NAN).is_nan());
    }

    #[test]
    fn should_give_the_logistic_function() {
        check_sigmoid::<false>();
        check_sigmoid::<true>();
    }

    fn check_gelu<const FUSED: bool>() {
        let error = largest(gelu::<FUSED>, |x| x * distribution(x));
        assert!(error < 3e-7, "{error:e}");
        let error = largest(gelu_derivative::<FUSED>, |x| distribution(x) + x * density(x));
        assert!(error < 3e-7, "{error:e}");
        assert!(gelu::<FUSED>(f32::NAN).is_nan());
    }

    #[test]
    fn should_give_gelu_and_its_derivative() {
        check_gelu::<false>();
        check_gelu::<true>();
    }

    #[test]
    fn should_clamp_and_keep_what_is_no_number() {
        let clamped = [-3.0, -1.0, 0.5, 2.0, 3.0].map(|x| clamp(x, -1.0, 2.0));
        assert_eq!(clamped, [-1.0, -1.0, 0.5, 2.0, 2.0]);
        assert!(clamp(f32::NAN, -1.0, 2.0).is_nan());
    }
}
