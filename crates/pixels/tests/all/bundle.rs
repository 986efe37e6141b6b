//! The bundled shard, and how it is built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pixels::data::{self, DataSet};
use pixels::{Picture, bundle};

use fixtures::home;

fn sides() -> [Box<dyn DataSet>; 2] {
    ["bundled", "bundled:heldout"].map(|source| data::open(source, &home()).unwrap())
}

/// Those of the captioned set.
fn captioned_sides() -> [Box<dyn DataSet>; 2] {
    ["bundled:emoji", "bundled:emoji:heldout"].map(|source| data::open(source, &home()).unwrap())
}

/// Fails if a group, found by the name and caption of its members, stands on both sides.
fn assert_undivided(group: impl Fn(&str, &str) -> String) {
    assert_sides_undivided(sides(), group);
}

fn assert_sides_undivided(sides: [Box<dyn DataSet>; 2], group: impl Fn(&str, &str) -> String) {
    let [train, held_out] = sides.map(|side| -> BTreeMap<String, String> {
        (0..side.len())
            .map(|index| {
                let (name, caption) = (side.name(index), side.caption(index).unwrap());
                (group(name, caption), format!("{name} ({caption})"))
            })
            .collect()
    });
    for (group, picture) in held_out {
        let other = train.get(&group);
        assert_eq!(other, None, "{picture} is held out, its variant is trained on");
    }
}

#[test]
fn should_keep_skin_tones_of_one_emoji_on_one_side() {
    let tones = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff", "fe0f"];
    assert_undivided(|name, _| {
        name.split('-').filter(|code| !tones.contains(code)).collect::<Vec<_>>().join("-")
    });
    // Variants of two tones are drawn from other code points, but have the same caption.
    assert_undivided(|_, caption| caption.to_owned());
}

#[test]
fn should_keep_genders_of_one_emoji_on_one_side() {
    let signs = ["2640", "2642", "fe0f"];
    let people = ["1f468", "1f469", "1f9d1"];
    assert_undivided(|name, _| {
        let codes = name.split('-').filter(|code| !signs.contains(code));
        let neutral: Vec<_> =
            codes.map(|code| if people.contains(&code) { "person" } else { code }).collect();
        // The signs of the genders are emoji of their own.
        if neutral.is_empty() { name.to_owned() } else { neutral.join("-") }
    });
    let words = [
        "man", "woman", "men", "women", "person", "people", "male", "female", "boy", "girl",
        "child", "father", "mother", "mr", "mrs", "mx", "prince", "princess",
    ];
    assert_undivided(|_, caption| {
        let neutral = |word: &str| if words.contains(&word) { "person" } else { word }.to_owned();
        caption.split([' ', ',', ':', '.']).map(neutral).collect::<Vec<_>>().join(" ")
    });
    // Runner: person, woman, man, to the left and to the right.
    let side_of = |name: &str| sides().map(|s| (0..s.len()).any(|index| s.name(index) == name));
    let runner = side_of("1f3c3");
    for other in ["1f3c3-200d-2640-fe0f", "1f3c3-1f3fd-200d-2642-fe0f-200d-27a1-fe0f"] {
        assert_eq!(side_of(other), runner, "{other}");
    }
}

#[test]
fn should_hold_out_no_picture_that_is_trained_on() {
    let [train, held_out] = sides().map(|side| -> BTreeSet<Vec<u8>> {
        (0..side.len()).map(|index| side.picture(index).unwrap().into_rgb()).collect()
    });
    assert!(held_out.is_disjoint(&train));
}

#[test]
fn should_have_the_size_and_classes_that_it_is_known_for() {
    let shard = home().path("data/noto-emoji-64.tar").unwrap();
    assert!(std::fs::metadata(shard).unwrap().len() <= 12_000_000);
    let [train, held_out] = sides();
    assert_eq!((train.len(), held_out.len()), (3518, 263));
    assert_eq!(train.classes(), held_out.classes());
    #[rustfmt::skip]
    assert_eq!(train.classes(), [
        "Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects", "People & Body",
        "Smileys & Emotion", "Symbols", "Travel & Places",
    ]);
    for side in [&train, &held_out] {
        let labels: BTreeSet<usize> = (0..side.len()).map(|index| side.label(index)).collect();
        assert_eq!(labels.len(), 9, "each class stands on both sides");
    }
    let dog = (0..train.len()).find(|&index| train.caption(index) == Some("dog face")).unwrap();
    let dog = train.sample(dog).unwrap();
    assert_eq!((dog.name.as_str(), dog.label), ("1f436", 1));
    assert_eq!((dog.picture.width(), dog.picture.height()), (64, 64));
    assert_eq!(dog.picture.rgb()[..3], [255; 3]);
}

/// The code points in a name of the captioned set, and the style.
fn codes_and_style(name: &str) -> (&str, &str) {
    name.split_once('_').unwrap()
}

#[test]
fn should_hold_out_the_same_emoji_in_every_style() {
    assert_sides_undivided(captioned_sides(), |name, _| codes_and_style(name).0.to_owned());
    let tones = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff", "fe0f"];
    assert_sides_undivided(captioned_sides(), |name, _| {
        let codes = codes_and_style(name).0.split('-').filter(|code| !tones.contains(code));
        codes.collect::<Vec<_>>().join("-")
    });
    // So a tokenizer that learned from the set by category has not seen what is held out here.
    let [train, held_out] = sides();
    let names = |side: &dyn DataSet| -> BTreeSet<String> {
        (0..side.len()).map(|index| side.name(index).to_owned()).collect()
    };
    let by_category = [names(&*train), names(&*held_out)];
    for (side, known) in captioned_sides().iter().zip(&by_category) {
        for index in 0..side.len() {
            let codes = codes_and_style(side.name(index)).0;
            assert!(known.contains(codes), "{codes} is on another side of `bundled`");
        }
    }
    let [train, held_out] = captioned_sides().map(|side| -> BTreeSet<Vec<u8>> {
        (0..side.len()).map(|index| side.picture(index).unwrap().into_rgb()).collect()
    });
    assert!(held_out.is_disjoint(&train));
}

#[test]
fn should_have_the_captions_and_sub_categories_that_it_is_known_for() {
    let shard = home().path("data/emoji-64.tar").unwrap();
    assert!(std::fs::metadata(shard).unwrap().len() <= 30_000_000);
    let [train, held_out] = captioned_sides();
    assert_eq!((train.len(), held_out.len()), (9923, 766));
    assert_eq!(train.classes(), held_out.classes());
    assert_eq!(train.classes().len(), 98);
    assert!(train.classes().contains(&"food-fruit".to_owned()));
    for side in [&train, &held_out] {
        for index in 0..side.len() {
            let captions = side.captions(index);
            assert!(captions.len() >= 3, "{captions:?}");
            let style = codes_and_style(side.name(index)).1;
            assert!(captions[0].to_lowercase().ends_with(&format!(", {style}")), "{captions:?}");
            let words = BTreeSet::from_iter(captions);
            assert_eq!(words.len(), captions.len(), "{captions:?}");
        }
    }
    let apple = "1f34e_fluent";
    let apple = (0..train.len()).find(|&index| train.name(index) == apple).unwrap();
    assert_eq!(train.classes()[train.label(apple)], "food-fruit");
    assert_eq!(
        train.captions(apple),
        ["a red apple, Fluent", "food fruit: red apple, Fluent", "apple, Fluent", "a red apple"]
    );
    let picture = train.picture(apple).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
    assert_eq!(picture.rgb()[..3], [255; 3]);
}

/// A package of two emoji, one of them with two skin tones, and two that are not to be bundled.
fn write_package(folder: &Path) -> Picture {
    let rgb = (0..64 * 64).flat_map(|pixel| [(pixel % 64 * 4) as u8, (pixel / 64 * 4) as u8, 9]);
    let smooth = Picture::new(64, 64, rgb.collect()).unwrap();
    let images = folder.join("img/google/64");
    std::fs::create_dir_all(&images).unwrap();
    for name in ["1f436", "1f44b", "1f44b-1f3fb"] {
        smooth.write_png(images.join(format!("{name}.png"))).unwrap();
    }
    let list = r#"[
        {"name": "WAVING HAND SIGN", "category": "People & Body", "unified": "1F44B",
         "image": "1f44b.png", "has_img_google": true, "skin_variations": {
            "1F3FB": {"unified": "1F44B-1F3FB", "image": "1f44b-1f3fb.png", "has_img_google": true},
            "1F3FC": {"unified": "1F44B-1F3FC", "image": "none.png", "has_img_google": false}}},
        {"name": "DOG FACE", "category": "Animals & Nature", "unified": "1F436",
         "image": "1f436.png", "has_img_google": true},
        {"name": "SKIN TONE", "category": "Component", "unified": "1F3FB",
         "image": "none.png", "has_img_google": true}
    ]"#;
    std::fs::write(folder.join("emoji.json"), list).unwrap();
    smooth
}

#[test]
fn should_build_the_same_shard_from_the_same_package() {
    let folder = tempfile::tempdir().unwrap();
    let smooth = write_package(folder.path());
    let [first, second] = ["a.tar", "b.tar"].map(|name| folder.path().join(name));
    let summary = bundle::build(folder.path(), &first).unwrap();
    assert_eq!(bundle::build(folder.path(), &second).unwrap(), summary);
    let bytes = std::fs::read(&first).unwrap();
    assert_eq!(bytes, std::fs::read(&second).unwrap());
    assert_eq!(bytes.len(), summary.bytes);

    let set = data::open(first.to_str().unwrap(), &home()).unwrap();
    let names: Vec<&str> = (0..set.len()).map(|index| set.name(index)).collect();
    assert_eq!(names, ["1f436", "1f44b", "1f44b-1f3fb"]);
    assert_eq!(set.classes(), ["Animals & Nature", "People & Body"]);
    assert_eq!(set.caption(2), Some("waving hand sign"));
    let counted: usize = summary.classes.iter().map(|class| class.train + class.held_out).sum();
    assert_eq!(counted, 3);

    // 256 colours for 4096, each at most half a step of 16 levels away on two channels.
    let kept = set.picture(0).unwrap();
    let pairs = kept.rgb().iter().zip(smooth.rgb());
    let error: f64 = pairs.map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    let psnr = 10.0 * (255.0 * 255.0 / (error / kept.rgb().len() as f64)).log10();
    assert!((36.0..60.0).contains(&psnr), "{psnr} dB");
}

#[test]
fn should_leave_nothing_behind_when_the_package_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.tar");
    let error = || bundle::build(folder.path(), &out).unwrap_err().to_string();
    assert!(error().contains("emoji.json"));
    std::fs::write(folder.path().join("emoji.json"), "{}").unwrap();
    assert!(error().contains("not a list of emoji"));
    write_package(folder.path());
    let list = std::fs::read_to_string(folder.path().join("emoji.json")).unwrap();
    std::fs::write(folder.path().join("emoji.json"), list.replace("1F44B-1F3FB", "../1")).unwrap();
    assert!(error().contains("no list of code points"));
    write_package(folder.path());
    std::fs::remove_file(folder.path().join("img/google/64/1f436.png")).unwrap();
    assert!(error().contains("1f436.png"));
    assert!(!out.exists());
}

/// The three packages of the captioned set, of the emoji that [`write_package`] knows and a flag.
fn write_packages(folder: &Path) -> [std::path::PathBuf; 3] {
    let packages = ["google", "twitter", "fluent"].map(|name| folder.join(name));
    let [google, twitter, fluent] = &packages;
    let smooth = write_package(google);
    let names = ["emoji-datasource-google", "emoji-datasource-twitter", "@lobehub/fluent-emoji-3d"];
    for (package, name) in packages.iter().zip(names) {
        std::fs::create_dir_all(package).unwrap();
        let about = format!(r#"{{"name": "{name}", "version": "1"}}"#);
        std::fs::write(package.join("package.json"), about).unwrap();
    }
    let list = r#"[
        {"name": "DOG FACE", "category": "Animals & Nature", "subcategory": "animal-mammal",
         "short_names": ["dog"], "unified": "1F436", "image": "1f436.png",
         "has_img_google": true, "has_img_twitter": true},
        {"name": "Peru Flag", "category": "Flags", "subcategory": "country-flag",
         "short_names": ["flag-pe"], "unified": "1F1F5-1F1EA", "image": "1f44b.png",
         "has_img_google": true, "has_img_twitter": false}
    ]"#;
    std::fs::write(google.join("emoji.json"), list).unwrap();
    let images = twitter.join("img/twitter/64");
    std::fs::create_dir_all(&images).unwrap();
    smooth.write_png(images.join("1f436.png")).unwrap();
    std::fs::create_dir_all(fluent.join("assets")).unwrap();
    for name in ["1f436", "1f1f5-1f1ea"] {
        let webp = smooth.encode_webp().unwrap();
        std::fs::write(fluent.join(format!("assets/{name}.webp")), webp).unwrap();
    }
    packages
}

#[test]
fn should_build_the_captioned_shard_from_three_packages_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let [google, twitter, fluent] = write_packages(folder.path());
    let out = folder.path().join("out.tar");
    let build = |packages: &[std::path::PathBuf]| bundle::build_captioned(packages, &out);
    build(&[google.clone(), twitter.clone(), fluent.clone()]).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    build(&[fluent.clone(), google.clone(), twitter.clone()]).unwrap();
    assert_eq!(bytes, std::fs::read(&out).unwrap());

    // Twemoji has no picture of the flag, and Fluent's is not its own.
    let set = data::open(out.to_str().unwrap(), &home()).unwrap();
    let names: Vec<&str> = (0..set.len()).map(|index| set.name(index)).collect();
    assert_eq!(names, ["1f1f5-1f1ea_noto", "1f436_noto", "1f436_twemoji", "1f436_fluent"]);
    assert_eq!(set.classes(), ["animal-mammal", "country-flag"]);
    assert_eq!(set.caption(2), Some("a dog face, Twemoji"));

    std::fs::remove_file(&out).unwrap();
    let refused = |packages: &[std::path::PathBuf]| build(packages).unwrap_err().to_string();
    assert!(refused(&[google.clone(), fluent.clone()]).contains("twitter is missing"));
    assert!(refused(&[google.clone(), google.clone(), fluent]).contains("given twice"));
    std::fs::write(twitter.join("package.json"), r#"{"name": "left-pad"}"#).unwrap();
    assert!(refused(&[google.clone(), twitter]).contains("left-pad"));
    assert!(refused(&[google, folder.path().into()]).contains("package.json"));
    assert!(!out.exists());
}
