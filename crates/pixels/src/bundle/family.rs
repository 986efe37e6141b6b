//! Which emoji are variants of one, so that no emoji is learned from in one variant and measured on
//! in another.

use tokens::noise::{Noise, Purpose};

use super::Split;

/// The share of families that is held out; with this hash it makes about 256 pictures of each style.
const HELD_OUT_SHARE: f64 = 0.075;

/// The side of a family, from its hash (FNV-1a): it depends on nothing else in the package.
pub(super) fn split_of(family: &str) -> Split {
    let hash = family.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let held_out = Noise::new(hash, Purpose::Order, 0, 0).uniform() < HELD_OUT_SHARE;
    if held_out { Split::HeldOut } else { Split::Train }
}

/// What is left of an emoji's code points (as in "1F3C3-1F3FD-200D-2640-FE0F") without skin tone,
/// gender and direction: the same text for all variants of one base emoji.
pub(super) fn family(unified: &str) -> String {
    let neutral = |code: &str| {
        Some(match code {
            // Variation selector, joiner, skin tones, gender signs, the arrow of "facing right".
            "FE0F" | "200D" | "1F3FB" | "1F3FC" | "1F3FD" | "1F3FE" | "1F3FF" | "2640" | "2642"
            | "27A1" => "",
            "1F468" | "1F469" => "1F9D1",       // man, woman: person
            "1F466" | "1F467" => "1F9D2",       // boy, girl: child
            "1F474" | "1F475" => "1F9D3",       // old man, old woman: older person
            "1F478" | "1F934" => "1FAC5",       // princess, prince: person with crown
            "1F57A" => "1F483",                 // man dancing: woman dancing
            "1F930" | "1FAC3" => "1FAC4",       // pregnant woman, man: person
            "1F385" | "1F936" => "1F9D1-1F384", // Santa, Mrs. Claus: Mx Claus
            "1F931" => "1F9D1-1F37C",           // breast-feeding: person feeding baby
            "1F46B" | "1F46C" | "1F46D" => "1F9D1-1F91D-1F9D1", // two holding hands
            "1F491" => "1F9D1-2764-1F9D1",      // couple with heart
            "1F48F" => "1F9D1-2764-1F48B-1F9D1", // kiss
            "1F6B9" | "1F6BA" => "1F6BB",       // signs of the men's and women's room
            _ => return None,
        })
    };
    let codes: Vec<&str> = unified
        .split('-')
        .map(|code| neutral(code).unwrap_or(code))
        .filter(|code| !code.is_empty())
        .collect();
    let joined = codes.join("-");
    let same_drawing = match joined.as_str() {
        // A gender sign or an arrow alone is an emoji of its own.
        "" => unified.trim_end_matches("-FE0F"),
        // Two hands of two skin tones: the handshake.
        "1FAF1-1FAF2" => "1F91D",
        // Territories that fly another flag; this package draws Sark's as Saudi Arabia's.
        "1F1E8-1F1F5" | "1F1F2-1F1EB" => "1F1EB-1F1F7", // Clipperton, St. Martin: France
        "1F1E7-1F1FB" | "1F1F8-1F1EF" => "1F1F3-1F1F4", // Bouvet, Svalbard: Norway
        "1F1E9-1F1EC" => "1F1EE-1F1F4",                 // Diego Garcia: British Indian Ocean
        "1F1ED-1F1F2" => "1F1E6-1F1FA",                 // Heard & McDonald: Australia
        "1F1E8-1F1F6" => "1F1F8-1F1E6",                 // Sark: Saudi Arabia
        "1F1EA-1F1E6" => "1F1EA-1F1F8",                 // Ceuta & Melilla: Spain
        "1F1FA-1F1F2" => "1F1FA-1F1F8",                 // outlying islands: United States
        // Families of any size.
        _ if codes.len() > 1 && codes.iter().all(|code| matches!(*code, "1F9D1" | "1F9D2")) => {
            "1F46A"
        }
        itself => itself,
    };
    same_drawing.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_the_base_emoji_of_every_variant() {
        for (base, variants) in [
            ("1F3C3", &["1F3C3-1F3FD-200D-2640-FE0F", "1F3C3-200D-2642-FE0F-200D-27A1-FE0F"][..]),
            ("1F9D1-200D-1F373", &["1F468-200D-1F373", "1F469-1F3FF-200D-1F373"]),
            ("1F46B", &["1F468-1F3FB-200D-1F91D-200D-1F468-1F3FE", "1F46D-1F3FC", "1F46C"]),
            ("1F491", &["1F469-200D-2764-FE0F-200D-1F468"]),
            ("1F48F", &["1F468-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F468-1F3FB"]),
            ("1F46A", &["1F468-200D-1F469-200D-1F467-200D-1F466", "1F9D1-200D-1F9D2"]),
            ("1F91D", &["1FAF1-1F3FB-200D-1FAF2-1F3FF"]),
            ("1F385", &["1F936-1F3FB", "1F9D1-200D-1F384"]),
        ] {
            for variant in variants {
                assert_eq!(family(variant), family(base), "{variant}");
            }
        }
        let others = ["2640-FE0F", "2642-FE0F", "27A1-FE0F", "1F9D1", "1F46A", "1F46B", "1F491"];
        let families: std::collections::BTreeSet<_> = others.map(family).into();
        assert_eq!(families.len(), others.len());
    }
}
