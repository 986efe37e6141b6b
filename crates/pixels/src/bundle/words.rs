//! What emoji are called: captions from the names in `emoji.json`.

use super::Emoji;

/// Skin tones by code point.
const SKIN_TONES: [(&str, &str); 5] = [
    ("1F3FB", "light"),
    ("1F3FC", "medium-light"),
    ("1F3FD", "medium"),
    ("1F3FE", "medium-dark"),
    ("1F3FF", "dark"),
];
/// Words that Unicode's names write in another way than people do.
const SPELLINGS: [(&str, &str); 6] = [
    ("womans", "woman's"),
    ("mans", "man's"),
    ("womens", "women's"),
    ("mens", "men's"),
    ("oclock", "o'clock"),
    ("pinata", "piñata"),
];
/// Synonyms that nobody should have to read, a trademark, and words that say too little alone.
const LEFT_OUT: [&str; 8] =
    ["shit", "hankey", "iphone", "flipper", "mans", "womens", "mens", "clock"];
/// Names that say another colour than the picture has.
const OTHER_NAMES: [(&str, &str); 1] = [("heavy black heart", "red heart")];
/// Where a name goes on behind the thing itself.
#[rustfmt::skip]
const JOINTS: [&str; 13] = [
    " with ", " without ", " in ", " on ", " of ", " and ", " at ", " over ", " behind ",
    " facing ", " holding ", ": ", ", ",
];
/// Things without an article, beside those in the plural.
#[rustfmt::skip]
const WITHOUT_ARTICLE: [&str; 43] = [
    "bacon", "baguette bread", "bowling", "bread", "breast-feeding", "broccoli",
    "building construction", "butter", "camping", "canned food", "cooked rice", "cooking", "coral",
    "curry", "father christmas", "fog", "foggy", "garlic", "handball", "horse racing", "juggling",
    "kaaba", "luggage", "meat", "men", "men wrestling", "milky way", "money", "mother christmas",
    "mount fuji", "mx claus", "nail polish", "oden", "palms up together", "popcorn",
    "pouring liquid", "shaved ice", "sleeping accommodation", "spaghetti", "sushi", "tokyo tower",
    "water polo", "wood",
];
/// Beginnings of names that are no thing or several.
const NO_THINGS: [&str; 5] = ["people ", "rolling ", "statue of ", "two ", "women "];

/// Whether the sub-category is that of countries' or regions' flags.
pub(super) fn is_flag_of_a_place(subcategory: &str) -> bool {
    matches!(subcategory, "country-flag" | "subdivision-flag")
}

/// The captions of an emoji's drawing `unified`: its name and style; its sub-category, too; each
/// synonym; and its name alone.
pub(super) fn captions(emoji: &Emoji, unified: &str, style: &str) -> Vec<String> {
    let tone = skin_tone(unified);
    let (name, with_article) = names(emoji);
    let kind = emoji.subcategory.replace(" & ", " and ").replace('-', " ");
    let mut captions =
        vec![format!("{with_article}{tone}, {style}"), format!("{kind}: {name}{tone}, {style}")];
    captions.extend(synonyms(emoji, &name).map(|synonym| format!("{synonym}{tone}, {style}")));
    captions.push(format!("{with_article}{tone}"));
    captions
}

/// `, dark skin tone`; of two people of different tones both; nothing for the yellow ones.
fn skin_tone(unified: &str) -> String {
    let tone = |code| SKIN_TONES.iter().find(|(tone, _)| *tone == code).map(|(_, name)| *name);
    let mut tones: Vec<&str> = unified.split('-').filter_map(tone).collect();
    tones.dedup();
    match tones[..] {
        [] => String::new(),
        [tone] => format!(", {tone} skin tone"),
        _ => format!(", {} skin tones", tones.join(" and ")),
    }
}

/// The name, and the name with its article if it has one.
fn names(emoji: &Emoji) -> (String, String) {
    if is_flag_of_a_place(&emoji.subcategory) {
        let place = emoji.name.trim_end_matches(" Flag");
        return (format!("flag of {place}"), format!("the flag of {place}"));
    }
    let has_colour = |colour: &str| emoji.short_names.iter().any(|short| short.contains(colour));
    let listed = emoji.name.to_lowercase();
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == listed);
    let words = other.map_or(&*listed, |(_, other)| other);
    let words = words.split(' ').filter(|word| match *word {
        // Unicode's names call filled signs black and outlined ones white, whatever their colour.
        colour @ ("black" | "white") => has_colour(colour),
        _ => true,
    });
    let spelt = words.map(|word| {
        SPELLINGS.iter().find(|(old, _)| *old == word).map_or(word, |(_, spelling)| spelling)
    });
    let name = described(spelt.collect::<Vec<_>>().join(" "));
    let with_article = match article(&name, &emoji.category) {
        Some(article) => format!("{article} {name}"),
        None => name.clone(),
    };
    (name, with_article)
}

/// `man: red hair` as people say it.
fn described(name: String) -> String {
    match name.split_once(": ") {
        Some((who, "bald")) => format!("bald {who}"),
        Some((who @ ("man" | "woman" | "person"), what)) => format!("{who} with {what}"),
        _ => name,
    }
}

fn article(name: &str, category: &str) -> Option<&'static str> {
    let end = JOINTS.iter().filter_map(|joint| name.find(joint)).min().unwrap_or(name.len());
    let thing = &name[..end];
    let is_singular = |ending: &&str| thing.ends_with(*ending);
    let is_plural = thing.ends_with('s') && !["ss", "us", "is", "os"].iter().any(is_singular);
    if is_plural
        || matches!(category, "Symbols" | "Flags")
        || WITHOUT_ARTICLE.contains(&thing)
        || NO_THINGS.iter().any(|beginning| name.starts_with(beginning))
    {
        return None;
    }
    let begins_with = |beginning: &&str| name.starts_with(*beginning);
    let has_vowel = name.starts_with(['a', 'e', 'i', 'o', 'u']);
    let sounds_otherwise = ["european", "hour", "unicorn", "x-ray"].iter().any(begins_with);
    Some(if has_vowel != sounds_otherwise { "an" } else { "a" })
}

/// Other names, without those that say the same as `name` or are mere codes.
fn synonyms<'a>(emoji: &'a Emoji, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    let shorter = [" sign", " symbol"].iter().find_map(|ending| name.strip_suffix(ending));
    let short_names = emoji.short_names.iter().filter_map(move |short| {
        // `rabbit2` is the second drawing of a rabbit.
        let short = short.strip_suffix('2').unwrap_or(short).replace(['_', '-'], " ");
        let short = short.trim();
        let has_other_colour = ["black", "white"]
            .iter()
            .any(|colour| short.contains(colour) && !name.contains(colour));
        let is_code = short.len() < 3
            || short.contains(|c: char| c.is_ascii_digit() || c == '+')
            || short.starts_with("flag ")
            || short.starts_with("lower left ");
        let is_word = !is_code && !has_other_colour && !LEFT_OUT.contains(&short);
        is_word.then(|| short.to_owned())
    });
    let mut met = vec![letters(name)];
    short_names.chain(shorter.map(str::to_owned)).filter(move |word| {
        let is_new = !met.contains(&letters(word));
        met.push(letters(word));
        is_new
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::Drawing;

    fn emoji(name: &str, short_names: &[&str], category: &str, subcategory: &str) -> Emoji {
        Emoji {
            name: name.to_owned(),
            category: category.to_owned(),
            subcategory: subcategory.to_owned(),
            short_names: short_names.iter().map(|name| (*name).to_owned()).collect(),
            drawing: Drawing::default(),
            skin_variations: BTreeMap::new(),
        }
    }

    fn first(name: &str, short_names: &[&str], category: &str) -> String {
        let emoji = emoji(name, short_names, category, "any");
        captions(&emoji, "1F34E", "Noto").swap_remove(0)
    }

    #[test]
    fn should_say_name_style_sub_category_and_synonyms() {
        let apple = emoji("RED APPLE", &["apple"], "Food & Drink", "food-fruit");
        assert_eq!(
            captions(&apple, "1F34E", "Fluent"),
            [
                "a red apple, Fluent",
                "food fruit: red apple, Fluent",
                "apple, Fluent",
                "a red apple"
            ]
        );
        let flag = emoji("Côte d’Ivoire Flag", &["flag-ci"], "Flags", "country-flag");
        assert_eq!(
            captions(&flag, "1F1E8-1F1EE", "Noto"),
            [
                "the flag of Côte d’Ivoire, Noto",
                "country flag: flag of Côte d’Ivoire, Noto",
                "the flag of Côte d’Ivoire"
            ]
        );
        let thumb = ["+1", "thumbsup"];
        let thumb = emoji("THUMBS UP SIGN", &thumb, "People & Body", "hand-fingers-closed");
        let said = captions(&thumb, "1F44D-1F3FD", "Twemoji");
        assert_eq!(said[0], "a thumbs up sign, medium skin tone, Twemoji");
        assert_eq!(
            said[2..].len(),
            2,
            "`+1` is no word, `thumbs up` the same as `thumbsup`: {said:?}"
        );
        let rabbit = emoji("RABBIT FACE", &["rabbit2", "rabbit"], "Animals & Nature", "x");
        assert_eq!(captions(&rabbit, "1F430", "Noto")[2..], ["rabbit, Noto", "a rabbit face"]);
    }

    #[test]
    fn should_say_skin_tones_once() {
        assert_eq!(skin_tone("1F44B"), "");
        assert_eq!(skin_tone("1F44B-1F3FF"), ", dark skin tone");
        assert_eq!(skin_tone("1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3FB"), ", light skin tone");
        let two = "1F469-1F3FB-200D-1F91D-200D-1F468-1F3FE";
        assert_eq!(skin_tone(two), ", light and medium-dark skin tones");
    }

    #[test]
    fn should_write_names_as_people_do() {
        for (name, short_name, category, said) in [
            ("WOMANS HAT", "womans_hat", "Objects", "a woman's hat"),
            ("MAN: RED HAIR", "red_haired_man", "People & Body", "a man with red hair"),
            ("WOMAN: BALD", "bald_woman", "People & Body", "a bald woman"),
            ("BLACK SCISSORS", "scissors", "Objects", "scissors"),
            ("BLACK CAT", "black_cat", "Animals & Nature", "a black cat"),
            ("HEAVY BLACK HEART", "heart", "Smileys & Emotion", "a red heart"),
            ("OCTOPUS", "octopus", "Animals & Nature", "an octopus"),
            ("UNICORN FACE", "unicorn_face", "Animals & Nature", "a unicorn face"),
            ("MONEY WITH WINGS", "money_with_wings", "Objects", "money with wings"),
            ("TWO HEARTS", "two_hearts", "Smileys & Emotion", "two hearts"),
            ("CHERRIES", "cherries", "Food & Drink", "cherries"),
            ("HEAVY PLUS SIGN", "heavy_plus_sign", "Symbols", "heavy plus sign"),
        ] {
            assert_eq!(first(name, &[short_name], category), format!("{said}, Noto"));
        }
    }
}
