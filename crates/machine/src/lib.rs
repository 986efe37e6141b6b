//! What a machine still has: memory and disk, so that work which does not fit is refused before it
//! begins and not ended halfway by the system.

mod disk;
mod memory;

pub use disk::free_disk;
pub use memory::{available_memory, peak_memory};

/// Bytes for people: `1.5 GiB`, `300 MiB`, `12 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit > 0 && value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn should_say_bytes_in_the_unit_that_needs_few_digits() {
        let said = [0, 999, 1000, 1536, 12_288, 1 << 30, 23 << 30, u64::MAX].map(bytes);
        let expected = [
            "0 bytes",
            "999 bytes",
            "1.0 KiB",
            "1.5 KiB",
            "12 KiB",
            "1.0 GiB",
            "23 GiB",
            "16384 PiB",
        ];
        assert_eq!(said, expected);
    }
}
