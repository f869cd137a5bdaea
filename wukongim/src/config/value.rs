//! Values as text: YAML flattened, booleans, durations, and how far apart two names are.

use serde_yaml_ng::Value;

/// Leaves of a YAML tree with dotted names. Lists are joined by blanks.
pub fn flatten(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Mapping(map) => {
            for (name, value) in map {
                let name = scalar(name);
                let path = if prefix.is_empty() {
                    name
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&path, value, out);
            }
        }
        Value::Sequence(items) if !prefix.is_empty() => {
            let words: Vec<String> = items.iter().map(scalar).collect();
            out.push((prefix.to_owned(), words.join(" ")));
        }
        Value::Null => {}
        leaf if !prefix.is_empty() => out.push((prefix.to_owned(), scalar(leaf))),
        _ => {}
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Tagged(t) => scalar(&t.value),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => String::new(),
    }
}

/// Line of a dotted key in a YAML text, by its last part: good enough to point an operator at it.
pub fn line_of(text: &str, name: &str) -> Option<usize> {
    let last = name.rsplit('.').next()?;
    let starts = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(last)
            .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
    };
    text.lines().position(starts).map(|n| n + 1)
}

/// Go's spellings.
pub fn bool(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "t" | "yes" | "on" => Some(true),
        "false" | "0" | "f" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Milliseconds of `1m30s`, `300ms`, `30d`; a bare number is nanoseconds, as in v2. `None`: not a duration, or under a millisecond
/// without being 0.
pub fn duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(ns) = text.parse::<u64>() {
        return (ns == 0 || ns >= 1_000_000).then_some(ns / 1_000_000);
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let ms = match &rest[..unit] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            "w" => 6.048e8,
            _ => return None,
        };
        total += number * ms;
        rest = &rest[unit..];
    }
    ((1.0..1e15).contains(&total) && !text.is_empty()).then_some(total as u64)
}

/// Edit distance of two short names.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
