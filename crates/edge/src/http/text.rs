//! Times and durations as v2 writes them.

use wk_proto::WallMs;

const SECOND_MS: u64 = 1_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// RFC 3339 in UTC with milliseconds.
pub(super) fn rfc3339(time: WallMs) -> String {
    let seconds = time.0 / SECOND_MS;
    let (year, month, day) = civil(seconds / DAY);
    let (hour, minute, second) = (
        seconds % DAY / HOUR,
        seconds % HOUR / MINUTE,
        seconds % MINUTE,
    );
    let ms = time.0 % SECOND_MS;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `1y2d3h4m5s`, from the largest unit that is not zero.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / SECOND_MS;
    let parts = [
        (seconds / YEAR, "y"),
        (seconds % YEAR / DAY, "d"),
        (seconds % DAY / HOUR, "h"),
        (seconds % HOUR / MINUTE, "m"),
        (seconds % MINUTE, "s"),
    ];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(4);
    parts[first..]
        .iter()
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect()
}

/// Days since 1970-01-01 to year, month, day, in eras of 400 years that start in March.
fn civil(days: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(WallMs(ms)), text);
        }
    }

    #[test]
    fn durations() {
        for (ms, text) in [
            (999, "0s"),
            (3_723_000, "1h2m3s"),
            (DAY * 2_000 + 301_000, "2d0h5m1s"),
            (YEAR * 1_000, "1y0d0h0m0s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
