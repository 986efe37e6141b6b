//! The crops against Pillow's and torchvision's, to the bit.

use fixtures::{Tensors, fixture};
use pixels::crop::{Crop, center_crop, ten_crop};
use pixels::{Picture, PixelsError, augment};
use tokens::noise::{Noise, Purpose};

/// For each photo its name, its pixels as Pillow decodes them, and the named crops of it.
fn photos(crop: &str) -> Vec<(String, Picture, Vec<Picture>)> {
    let tensors = Tensors::open("crops.safetensors");
    let pictures = |name: String| -> Vec<Picture> {
        let [.., height, width, 3] = tensors.shape(&name)[..] else {
            panic!("{name} is no picture")
        };
        let rgb = tensors.bytes(&name);
        let each = rgb.chunks_exact(height * width * 3);
        each.map(|rgb| Picture::new(width, height, rgb.to_vec()).unwrap()).collect()
    };
    (0..3)
        .flat_map(|photo| ["png", "jpg"].map(|kind| format!("photo_{photo}.{kind}")))
        .map(|name| {
            let decoded = pictures(format!("{name}.decoded")).remove(0);
            let crops = pictures(format!("{name}.{crop}"));
            (name, decoded, crops)
        })
        .collect()
}

#[test]
fn should_center_crop_as_pillow_does() {
    for (name, decoded, expected) in photos("center64") {
        assert!(center_crop(&decoded, 64).unwrap() == expected[0], "{name}");
    }
}

#[test]
fn should_ten_crop_as_torchvision_does() {
    for (name, decoded, expected) in photos("ten64") {
        let crops = ten_crop(&decoded, 64).unwrap();
        assert_eq!(crops.len(), 10);
        for (index, (got, want)) in crops.iter().zip(&expected).enumerate() {
            assert!(got == want, "{name}, crop {index}");
        }
    }
}

#[test]
fn should_cut_the_size_of_the_ten_crop_as_the_released_code_does() {
    // 1.1 · 256 = 281.6 becomes 281. On a picture of that size the centre crop changes nothing,
    // so the second crop starts at column 25.
    let rgb = (0..281 * 281).flat_map(|pixel| [(pixel % 281 % 256) as u8, 0, 0]).collect();
    let crops = ten_crop(&Picture::new(281, 281, rgb).unwrap(), 256).unwrap();
    assert_eq!(crops[1].rgb()[0], 25);
    // The middle of 25 spare pixels is 12.5, which rounds to the even 12.
    assert_eq!(crops[4].rgb()[0], 12);
}

#[test]
fn should_agree_with_pillow_when_photos_are_decoded_here() {
    for (name, decoded, _) in photos("center64") {
        if name.starts_with("photo_1") {
            continue; // its files are not among the fixtures
        }
        let ours = Picture::read(fixture(&name)).unwrap();
        assert_eq!((ours.width(), ours.height()), (decoded.width(), decoded.height()));
        assert!(ours == decoded, "{name}");
    }
}

/// A picture whose values follow from their place.
fn synthetic(width: usize, height: usize) -> Picture {
    let rgb = (0..width * height * 3).map(|i| ((i * 7 + ((i * i) >> 9)) % 256) as u8).collect();
    Picture::new(width, height, rgb).unwrap()
}

fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

#[test]
fn should_round_sizes_and_offsets_as_the_originals_do() {
    // Checksums (`zlib.crc32`) of what guided-diffusion's `center_crop_arr` and torchvision 0.29's
    // `ten_crop` make of the same picture with Pillow 13. Of 84 × 86 the longer side becomes 64.5,
    // of 84 × 90 67.5, which round to 64 and 68; from there on halves are cut. 33 − 30 spare
    // pixels put the middle of the ten-crop at 1.5, which rounds to 2; 281 − 256 at 12.
    for (width, height, size, expected) in [
        (84, 86, 63, 0xFBAD_2401_u32),
        (84, 90, 63, 0x062A_923A),
        (86, 84, 63, 0x0CE5_DB07),
        (281, 281, 256, 0x1EF8_7DDE),
        (281, 300, 256, 0xFEAC_83A8),
        (500, 281, 256, 0x5786_97E7),
        (563, 511, 256, 0xD3CB_85D4),
        (341, 1030, 256, 0x2835_AF29),
        (130, 65, 31, 0xD203_5922),
        (33, 200, 16, 0xE80E_B0F2),
    ] {
        let crop = center_crop(&synthetic(width, height), size).unwrap();
        assert_eq!((crop.width(), crop.height()), (size, size));
        assert_eq!(crc32(crop.into_rgb()), expected, "{width} x {height} to {size}");
    }
    for (width, height, size, expected) in [
        (84, 90, 10, 0x1662_DE94_u32),
        (84, 90, 30, 0x4919_36DA),
        (300, 281, 256, 0x3515_1F6C),
        (281, 281, 255, 0x1102_C0B7),
    ] {
        let crops = ten_crop(&synthetic(width, height), size).unwrap();
        let bytes = crops.into_iter().flat_map(Picture::into_rgb);
        assert_eq!(crc32(bytes), expected, "{width} x {height} to {size}");
    }
}

#[test]
fn should_enlarge_as_well_as_shrink_and_cost_no_more_for_a_long_picture() {
    let thin = Picture::new(1, 30_000, [7, 80, 255].repeat(30_000)).unwrap();
    assert_eq!(center_crop(&thin, 64).unwrap().rgb(), [7, 80, 255].repeat(64 * 64));
}

#[test]
fn should_refuse_another_size_when_cropping_is_off() {
    let picture = Picture::new(3, 2, vec![1; 18]).unwrap();
    let error = Crop::Never.fit(picture.clone(), 3, 3, "cat.png").unwrap_err();
    assert!(matches!(error, PixelsError::WrongSize { width: 3, height: 2, wanted: (3, 3), .. }));
    assert!(error.to_string().starts_with("cat.png is 3 x 2 pixels"));
    let square = Picture::new(2, 2, (0..12).collect()).unwrap();
    assert_eq!(Crop::Never.fit(square.clone(), 2, 2, "cat.png").unwrap(), square);
    assert_eq!(Crop::Center.fit(square.clone(), 2, 2, "cat.png").unwrap(), square);
    assert!(matches!(center_crop(&square, 0), Err(PixelsError::Values { .. })));
    assert!(matches!(ten_crop(&square, 0), Err(PixelsError::Values { .. })));
}

#[test]
fn should_mirror_left_to_right() {
    let picture = Picture::new(2, 2, (0..12).collect()).unwrap();
    let mirrored = augment::horizontal_flip(&picture);
    assert_eq!(mirrored.rgb(), [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
    assert_eq!(augment::horizontal_flip(&mirrored), picture);
}

#[test]
fn should_augment_by_address_alone() {
    let picture = Picture::new(2, 1, (0..6).collect()).unwrap();
    let noise = |sample| Noise::new(1, Purpose::Augmentation, 0, sample);
    let flipped = |sample| augment::random_flip(picture.clone(), &mut noise(sample)) != picture;
    assert_eq!(flipped(5), flipped(5));
    let count = (0..1000).filter(|&sample| flipped(sample)).count();
    assert!((430..570).contains(&count), "{count} of 1000");
}

#[test]
fn should_cut_random_squares_from_the_picture_that_pillow_resizes() {
    // Made with Pillow 13 from the decoded photo_0.png, 311 × 205:
    // `sum(photo.resize((97, 64), Image.BILINEAR).crop((x, 0, x + 64, 64)).tobytes())`.
    const SUMS: [(usize, u64); 3] = [(0, 1_538_620), (16, 1_575_002), (33, 1_577_730)];
    let (_, photo, _) = photos("center64").remove(0);
    let mut seen = std::collections::BTreeSet::new();
    for sample in 0..200 {
        let mut noise = Noise::new(1, Purpose::Augmentation, 0, sample);
        let crop = augment::random_crop(&photo, 64, &mut noise).unwrap();
        assert_eq!((crop.width(), crop.height()), (64, 64));
        seen.insert(crop.rgb().iter().map(|&value| u64::from(value)).sum::<u64>());
    }
    assert_eq!(seen.len(), 97 - 64 + 1);
    for (left, sum) in SUMS {
        assert!(seen.contains(&sum), "the crop at {left}");
    }
}

#[test]
fn should_cut_random_parts_of_the_stated_area_and_ratio() {
    // Each pixel says where it is: red its column, green its row.
    let (width, height) = (120, 90);
    let position = |index: usize| [(index % width) as u8, (index / width) as u8, 0];
    let rgb = (0..width * height).flat_map(position).collect();
    let picture = Picture::new(width, height, rgb).unwrap();
    let (mut smallest, mut largest) = (f64::MAX, 0.0_f64);
    let mut mean_center = 0.0;
    for sample in 0..500 {
        let mut noise = Noise::new(1, Purpose::Augmentation, 0, sample);
        let crop = augment::random_resized_crop(&picture, (30, 30), 0.25, &mut noise).unwrap();
        assert_eq!((crop.width(), crop.height()), (30, 30));
        let at = |x: usize, y: usize| &crop.rgb()[3 * (30 * y + x)..];
        // Between the centres of the first and the last pixel lie 29 of 30 parts.
        let spans = [at(29, 15)[0] - at(0, 15)[0], at(15, 29)[1] - at(15, 0)[1]];
        let [across, down] = spans.map(|span| f64::from(span) * 30.0 / 29.0);
        assert!((0.7..1.45).contains(&(across / down)), "{across} by {down}");
        let area = across * down / (width * height) as f64;
        (smallest, largest) = (smallest.min(area), largest.max(area));
        mean_center += f64::from(at(15, 15)[0]) / 500.0;
    }
    assert!((0.22..0.3).contains(&smallest), "{smallest}");
    assert!((0.9..1.03).contains(&largest), "{largest}");
    assert!((mean_center - 60.0).abs() < 3.0, "{mean_center}");
    // Of a strip no part has an allowed ratio: the middle is taken.
    let strip = Picture::new(400, 3, vec![9; 3600]).unwrap();
    let mut noise = Noise::new(1, Purpose::Augmentation, 0, 0);
    let crop = augment::random_resized_crop(&strip, (8, 8), 0.5, &mut noise).unwrap();
    assert_eq!(crop.rgb(), [9; 192]);
}

#[test]
fn should_refuse_crops_that_memory_cannot_hold() {
    let picture = Picture::new(2, 3, vec![7; 18]).unwrap();
    for size in [100_000, 1 << 40, usize::MAX / 2 + 1, usize::MAX] {
        for refused in
            [center_crop(&picture, size).map(|_| ()), ten_crop(&picture, size).map(|_| ())]
        {
            assert!(matches!(refused, Err(pixels::PixelsError::CropSize { .. })), "{size}");
        }
    }
}
