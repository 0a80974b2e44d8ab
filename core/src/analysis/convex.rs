//! Sums of exponentials of lines, as evidence grows with bad requests.

/// The logarithm of evidence for one alternative, as bad requests come in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// What each bad request adds.
    pub(crate) slope: f64,
    /// What there is without any.
    pub(crate) at_zero: f64,
}

/// Returns how many bad requests are needed until the sum of all lines' evidence reaches `limit`; infinity if no number
/// is enough.
///
/// The logarithm of the sum is convex and rises. Where the first line alone reaches the limit the sum has passed it,
/// and from there Newton's method comes back without ever falling below.
pub(crate) fn min_requests_for(limit: f64, lines: &[Line]) -> f64 {
    let alone = |line: &Line| if line.slope > 0.0 { (limit - line.at_zero) / line.slope } else { f64::INFINITY };
    let mut bad = lines.iter().map(alone).fold(f64::INFINITY, f64::min).max(0.0);
    if !bad.is_finite() {
        return f64::INFINITY;
    }
    for _ in 0..4 {
        let at = |line: &Line| line.at_zero + bad * line.slope;
        let highest = lines.iter().map(at).fold(f64::NEG_INFINITY, f64::max);
        let (sum, slope) = lines.iter().fold((0.0, 0.0), |(sum, slope), line| {
            let share = libm::exp(at(line) - highest);
            (sum + share, slope + share * line.slope)
        });
        let excess = highest + libm::log(sum) - limit;
        if excess <= 0.0 || slope <= 0.0 {
            break;
        }
        bad = (bad - excess * sum / slope).max(0.0);
    }
    libm::ceil(bad)
}
