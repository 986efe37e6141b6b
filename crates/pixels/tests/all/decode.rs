//! Decoding against Pillow, to the bit.
//!
//! `tests/fixtures/decode.safetensors` holds small files and, under `NAME.rgb`, their pixels as
//! Pillow 13.0 (libjpeg-turbo 3.2, libwebp 1.6) decodes them: `Image.open(file).convert("RGB")`,
//! pasted on white where there is transparency. The pictures are parts of `photo_0.png` and noise.
//! JPEG files were written by Pillow (subsampling 0, 1 and 2, progressive, restart markers,
//! qualities 1 to 100, grey, CMYK, `keep_rgb`) and, for 4:4:0, 4:1:1 and YCCK, by simplejpeg 1.9;
//! `cmyk-without-adobe` lost its Adobe segment, `stray-bytes-before-end` has three bytes too many.
//!
//! `odd_pictures.safetensors` holds files that programs write and that stretch the standards, in
//! the same form; `odd_pictures.py` beside it made them with Pillow 13.0.

use fixtures::Tensors;
use pixels::{Picture, PixelsError};
use tokens::noise::{Noise, Purpose};

/// The files of this ending: name, bytes, and the pixels that Pillow sees.
fn files(ending: &str) -> Vec<(String, Vec<u8>, Picture)> {
    let tensors = Tensors::open("decode.safetensors");
    let names = tensors.names().into_iter().filter(|name| name.ends_with(ending));
    names
        .map(|name| {
            let rgb = format!("{name}.rgb");
            let [height, width, 3] = tensors.shape(&rgb)[..] else {
                panic!("{name} is no picture")
            };
            let picture = Picture::new(width, height, tensors.bytes(&rgb)).unwrap();
            let bytes = tensors.bytes(&name);
            (name, bytes, picture)
        })
        .collect()
}

fn file(name: &str) -> Vec<u8> {
    files(name).remove(0).1
}

#[test]
fn should_decode_jpeg_as_libjpeg_turbo_does() {
    let jpegs = files(".jpg");
    assert_eq!(jpegs.len(), 38);
    for (name, bytes, expected) in jpegs {
        assert!(Picture::decode(&bytes, &name).unwrap() == expected, "{name}");
    }
}

#[test]
fn should_decode_png_webp_and_gif_as_pillow_does() {
    for (ending, count) in [(".png", 15), (".webp", 6), (".gif", 5)] {
        let files = files(ending);
        assert_eq!(files.len(), count, "{ending}");
        for (name, bytes, expected) in files {
            assert!(Picture::decode(&bytes, &name).unwrap() == expected, "{name}");
        }
    }
}

#[test]
fn should_read_odd_files_as_pillow_does() {
    let tensors = Tensors::open("odd_pictures.safetensors");
    let names = tensors.names();
    let files: Vec<_> = names.iter().filter(|name| !name.ends_with(".rgb")).collect();
    assert_eq!(files.len(), 62);
    for name in files {
        let rgb = format!("{name}.rgb");
        let [height, width, 3] = tensors.shape(&rgb)[..] else { panic!("{name} is no picture") };
        let expected = Picture::new(width, height, tensors.bytes(&rgb)).unwrap();
        assert!(Picture::decode(&tensors.bytes(name), name).unwrap() == expected, "{name}");
    }
}

#[test]
fn should_say_what_a_file_is_that_is_no_picture() {
    for (bytes, kind) in [
        (&b""[..], "an empty file"),
        (b"II*\0\x08\0\0\0", "a TIFF or camera raw picture"),
        (b"\0\0\0\x20ftypavif", "an AVIF picture"),
        (b"\0\0\0\x20ftypheic", "a HEIC picture or a video"),
        (b"<!DOCTYPE html><html>", "a page of HTML, as a failed download leaves it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"PK\x03\x04....", "a zip file"),
        (b"hello", "text"),
    ] {
        let error = Picture::decode(bytes, "cat.jpg").unwrap_err().to_string();
        assert!(error.contains("cat.jpg") && error.contains(kind), "{error}");
    }
}

#[test]
fn should_follow_the_orientation_tag_only_when_asked() {
    let bytes = file("orientation-6.jpg");
    let stored = Picture::decode(&bytes, "x").unwrap();
    assert_eq!((stored.width(), stored.height()), (37, 29));
    // 6 asks for a quarter turn to the right: the lowest row becomes the first column.
    let upright = Picture::decode_upright(&bytes, "x").unwrap();
    assert_eq!((upright.width(), upright.height()), (29, 37));
    for (x, y) in [(0, 0), (28, 0), (0, 36), (11, 23)] {
        let (to, from) = (29 * y + x, 37 * (28 - x) + y);
        assert_eq!(upright.rgb()[3 * to..][..3], stored.rgb()[3 * from..][..3], "{x}, {y}");
    }
    let plain = file("444.jpg");
    let both = [Picture::decode, Picture::decode_upright].map(|read| read(&plain, "x").unwrap());
    assert!(both[0] == both[1]);
}

#[test]
fn should_call_a_jpeg_damaged_wherever_it_is_cut() {
    for name in ["420.jpg", "420-progressive.jpg", "restart.jpg", "cmyk.jpg"] {
        let bytes = file(name);
        for length in 3..bytes.len() {
            let cut = Picture::decode(&bytes[..length], "cat.jpg");
            assert!(matches!(cut, Err(PixelsError::Damaged { .. })), "{name} cut to {length}");
        }
    }
}

#[test]
fn should_refuse_a_progressive_jpeg_that_lacks_scans() {
    // libjpeg would show it smoothed; the last scan is the one behind the last marker of its kind.
    let mut bytes = file("420-progressive.jpg");
    let last = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    bytes.truncate(last);
    bytes.extend([0xFF, 0xD9]);
    let error = Picture::decode(&bytes, "cat.jpg").unwrap_err();
    assert!(error.to_string().contains("scans of the progressive JPEG file are missing"));
}

#[test]
fn should_go_by_the_content_and_not_by_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.jpg");
    let (_, png, expected) = files("rgb.png").remove(0);
    std::fs::write(&path, png).unwrap();
    assert!(Picture::read(&path).unwrap() == expected);
    for content in [&b""[..], b"a picture of a cat"] {
        std::fs::write(&path, content).unwrap();
        let error = Picture::read(&path).unwrap_err();
        assert!(matches!(error, PixelsError::NotAPicture { .. }));
        assert!(error.to_string().contains("picture.jpg"));
    }
}

#[test]
fn should_refuse_a_jpeg_bomb_before_decoding_it() {
    let mut bytes = file("420-progressive.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC2]).unwrap();
    bytes[frame + 5..frame + 9].fill(0xEA); // 60138 × 60138
    let error = Picture::decode(&bytes, "bomb.jpg").unwrap_err();
    assert!(matches!(error, PixelsError::TooLarge { .. }), "{error}");
}

#[test]
fn should_give_a_picture_or_an_error_for_any_damage() {
    // For each file; `MUTATIONS` in the environment sets another number.
    let rounds = std::env::var("MUTATIONS").map_or(150, |count| count.parse().unwrap());
    let mut decoded = 0;
    let usual = [".jpg", ".png", ".webp", ".gif"].iter().flat_map(|ending| files(ending));
    let usual = usual.map(|(name, bytes, _)| (name, bytes));
    let odd = Tensors::open("odd_pictures.safetensors");
    let odd = odd.names().into_iter().filter(|name| !name.ends_with(".rgb")).map(|name| {
        let bytes = odd.bytes(&name);
        (name, bytes)
    });
    for (number, (name, whole)) in usual.chain(odd).enumerate() {
        for round in 0..rounds {
            let mut noise = Noise::new(7, Purpose::Order, number as u64, round);
            let mut bytes = whole.clone();
            for _ in 0..=noise.below(6) {
                let at = noise.below(bytes.len());
                match noise.below(4) {
                    0 => bytes[at] = noise.bits() as u8,
                    1 => bytes[at] ^= 1 << noise.below(8),
                    2 if bytes.len() > 1 => {
                        bytes.remove(at);
                    }
                    _ => bytes.truncate(at.max(1)),
                }
            }
            match Picture::decode(&bytes, &name) {
                Ok(_) => decoded += 1,
                Err(error) => assert!(error.to_string().contains(&name)),
            }
        }
    }
    assert!(decoded > 100, "only {decoded} were still pictures: the damage is too coarse");
}
