//! What turns of one set lost against those of another: medians, their error, and whether a budget holds.

/// By how many percent `mine` is less than `without`.
pub fn loss(without: f64, mine: f64) -> f64 {
    (1.0 - mine / without) * 100.0
}

/// Two standard errors decide; within them, the machine was too noisy to know.
pub fn verdict(percents: &[f64], budget: f64) -> &'static str {
    let (middle, error) = (median(percents.to_vec()), error(percents));
    if middle + 2.0 * error <= budget {
        "within"
    } else if middle - 2.0 * error > budget {
        "MISSED"
    } else if middle <= budget {
        "within, as far as this noise lets tell"
    } else {
        "above, as far as this noise lets tell"
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The standard error of the median, as that of a normal distribution with the same middle half.
pub fn error(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let spread = (values[values.len() - 1 - quarter] - values[quarter]) / 1.349;
    1.253 * spread / (values.len() as f64).sqrt()
}
