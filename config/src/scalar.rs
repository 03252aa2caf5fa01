//! What a plain (unquoted) YAML scalar means: the core schema of YAML 1.2.
//!
//! `yes`, `no`, `on` and `off` are text here, as YAML 1.2 has it; the validator says so where a boolean is wanted.

use crate::tree::Kind;

/// The value of a plain scalar.
pub(crate) fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        _ => {}
    }
    integer(text).or_else(|| float(text)).unwrap_or_else(|| Kind::Text(text.to_owned()))
}

/// Decimal with an optional sign, `0o` octal, `0x` hexadecimal. What no 128 bits hold is left to `float`.
fn integer(text: &str) -> Option<Kind> {
    let (digits, radix) = match text.get(..2) {
        Some("0o") => (&text[2..], 8),
        Some("0x") => (&text[2..], 16),
        _ => (text.strip_prefix(['-', '+']).unwrap_or(text), 10),
    };
    // `from_str_radix` takes a sign of its own, which YAML does not allow after `0x`.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some(Kind::Int(if text.starts_with('-') { -number } else { number }))
}

fn float(text: &str) -> Option<Kind> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return Some(Kind::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    // Rust also reads `inf`, `nan` and `infinity`, which are text in YAML.
    let numeric = body.starts_with(|c: char| c == '.' || c.is_ascii_digit())
        && body.chars().all(|c| matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'));
    if !numeric {
        return None;
    }
    text.parse().ok().map(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        assert_eq!(plain("~"), Kind::Null);
        assert_eq!(plain("True"), Kind::Bool(true));
        assert_eq!(plain("-12"), Kind::Int(-12));
        assert_eq!(plain("0x1F"), Kind::Int(31));
        assert_eq!(plain("0o17"), Kind::Int(15));
        assert_eq!(plain("1e3"), Kind::Float(1000.0));
        assert_eq!(plain("-.5"), Kind::Float(-0.5));
        assert_eq!(plain("-.inf"), Kind::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn everything_else_is_text() {
        for text in [
            "yes",
            "off",
            "nan",
            "inf",
            "1_000",
            "0x",
            "0x-1",
            "1.2.3",
            ".",
            "1e",
            "+",
            "30s",
            "0.0.0.0:9102",
            "é",
        ] {
            assert_eq!(plain(text), Kind::Text(text.to_owned()));
        }
    }

    #[test]
    fn a_number_beyond_128_bits_is_a_float() {
        assert!(matches!(plain(&"9".repeat(60)), Kind::Float(_)));
    }
}
