//! Decoding, value range, grids and files.

use pixels::{Picture, PixelsError};

/// A file of `width` pixels a row, in one of the formats that are read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Png,
    Jpeg,
    Webp,
    Gif,
}

fn encode(format: Format, width: u32, rgb: &[u8]) -> Vec<u8> {
    let height = rgb.len() as u32 / 3 / width;
    let mut bytes = Vec::new();
    match format {
        Format::Png => return png(png::ColorType::Rgb, png::BitDepth::Eight, width, rgb),
        Format::Jpeg => jpeg_encoder::Encoder::new(&mut bytes, 90)
            .encode(rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
            .unwrap(),
        Format::Webp => image_webp::WebPEncoder::new(&mut bytes)
            .encode(rgb, width, height, image_webp::ColorType::Rgb8)
            .unwrap(),
        Format::Gif => {
            // The upper bits of the three colours are the index.
            let palette: Vec<u8> = (0..=255u8)
                .flat_map(|index| [index & 0xE0, index << 3 & 0xE0, index << 6])
                .collect();
            let index = |pixel: &[u8]| pixel[0] & 0xE0 | pixel[1] >> 3 & 0x1C | pixel[2] >> 6;
            let indices: Vec<u8> = rgb.chunks_exact(3).map(index).collect();
            let (width, height) = (width as u16, height as u16);
            let mut encoder = gif::Encoder::new(&mut bytes, width, height, &palette).unwrap();
            encoder
                .write_frame(&gif::Frame::from_indexed_pixels(width, height, indices, None))
                .unwrap();
        }
    }
    bytes
}

fn png(color: png::ColorType, depth: png::BitDepth, width: u32, values: &[u8]) -> Vec<u8> {
    let row =
        color.samples() * width as usize * if depth == png::BitDepth::Sixteen { 2 } else { 1 };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, (values.len() / row) as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(values).unwrap();
    bytes
}

fn gradient(width: usize, height: usize) -> Picture {
    let rgb = (0..width * height * 3).map(|index| (index * 7 % 256) as u8).collect();
    Picture::new(width, height, rgb).unwrap()
}

#[test]
fn should_decode_every_colour_type_over_white() {
    use png::BitDepth::{Eight, Sixteen};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Rgb, Rgba};
    let pixel = |color, depth, values: &[u8]| {
        Picture::decode(&png(color, depth, 1, values), "x").unwrap().rgb().to_vec()
    };
    assert_eq!(pixel(Grayscale, Eight, &[9]), [9; 3]);
    assert_eq!(pixel(Grayscale, Sixteen, &[9, 200]), [9; 3]);
    assert_eq!(pixel(GrayscaleAlpha, Eight, &[0, 0]), [255; 3]);
    assert_eq!(pixel(Rgb, Eight, &[1, 2, 3]), [1, 2, 3]);
    assert_eq!(pixel(Rgb, Sixteen, &[255, 255, 1, 1, 0, 0]), [255, 1, 0]);
    // 51 / 255 is a fifth: 0.2 · 100 + 0.8 · 255 = 224 and 0.8 · 255 = 204.
    assert_eq!(pixel(Rgba, Eight, &[100, 0, 255, 51]), [224, 204, 255]);
    assert_eq!(pixel(Rgba, Sixteen, &[100, 7, 0, 7, 255, 7, 51, 7]), [224, 204, 255]);
}

#[test]
fn should_decode_the_first_frame_of_a_gif_and_lossless_webp() {
    for format in [Format::Gif, Format::Webp] {
        let rgb = [224, 64, 128].repeat(6);
        let picture = Picture::decode(&encode(format, 3, &rgb), "x").unwrap();
        assert_eq!((picture.width(), picture.height()), (3, 2));
        assert_eq!(picture.rgb(), rgb);
    }
}

#[test]
fn should_say_what_is_wrong_with_bytes_that_do_not_decode() {
    let error = |bytes: &[u8]| Picture::decode(bytes, "cat.png").unwrap_err();
    for bytes in [&b""[..], b"hello", b"%PDF-1.7 something", &[0; 100]] {
        assert!(matches!(error(bytes), PixelsError::NotAPicture { .. }));
    }
    let rgb: Vec<u8> = (0..1600).flat_map(|i| [(i % 40 * (i / 40)) as u8, 7, 9]).collect();
    for format in [Format::Png, Format::Jpeg, Format::Webp, Format::Gif] {
        let whole = encode(format, 40, &rgb);
        for length in [20, whole.len() / 2, whole.len() - 4] {
            let cut = Picture::decode(&whole[..length], "cat.png");
            // What follows the last pixel of a GIF or PNG may be missing.
            if length == whole.len() - 4 && matches!(format, Format::Png | Format::Gif) {
                continue;
            }
            let error = cut.expect_err(&format!("{format:?} cut to {length}"));
            assert!(matches!(error, PixelsError::Damaged { .. }), "{format:?}: {error}");
            assert!(error.to_string().contains("cat.png"));
        }
    }
}

#[test]
fn should_refuse_a_bomb_before_decoding_it() {
    // PNG headers that promise as many pixels.
    for side in [60_000u32, 65_535, 32_768] {
        let mut bytes = encode(Format::Png, 1, &[0; 3]);
        bytes[16..20].copy_from_slice(&side.to_be_bytes());
        bytes[20..24].copy_from_slice(&side.to_be_bytes());
        let checksum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = Picture::decode(&bytes, "bomb.png").unwrap_err();
        assert!(matches!(error, PixelsError::TooLarge { .. }), "{error}");
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

#[test]
fn should_refuse_values_that_do_not_fill_the_picture() {
    for (width, height, length) in [(2, 2, 11), (0, 2, 0), (usize::MAX, 2, 6)] {
        let refused = Picture::new(width, height, vec![0; length]);
        assert!(matches!(refused, Err(PixelsError::Values { .. })));
        let refused = Picture::from_unit_planes(width, height, &vec![0.0; length]);
        assert!(matches!(refused, Err(PixelsError::Values { .. })));
    }
}

#[test]
fn should_give_planes_in_the_unit_range_and_take_them_back() {
    let picture = Picture::new(2, 1, vec![0, 51, 255, 102, 153, 204]).unwrap();
    let planes = picture.to_unit_planes();
    assert_eq!(planes, [0.0, 0.4, 0.2, 0.6, 1.0, 0.8]);
    let every = Picture::new(256, 1, (0..=255).flat_map(|v| [v; 3]).collect()).unwrap();
    let centred: Vec<f32> = every.to_unit_planes().iter().map(|x| x + 0.5 / 255.0).collect();
    assert_eq!(Picture::from_unit_planes(256, 1, &centred).unwrap(), every);
    let odd = [-1.0, f32::NAN, 2.0, 0.999, 0.5, f32::INFINITY];
    let picture = Picture::from_unit_planes(2, 1, &odd).unwrap();
    assert_eq!(picture.rgb(), [0, 255, 127, 0, 254, 255]);
}

#[cfg(feature = "data")]
#[test]
fn should_write_png_files_whole_and_read_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let picture = gradient(5, 3);
    picture.write_png(&path).unwrap();
    assert_eq!(Picture::read(&path).unwrap(), picture);
    gradient(2, 2).write_png(&path).unwrap();
    assert_eq!(Picture::read(&path).unwrap(), gradient(2, 2));

    let blocked = folder.path().join("folder.png");
    std::fs::create_dir(&blocked).unwrap();
    for bad in [blocked, folder.path().join("missing/a.png")] {
        let error = picture.write_png(&bad).unwrap_err();
        assert!(matches!(error, PixelsError::Write { .. }));
        assert!(error.to_string().contains(&bad.display().to_string()));
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "a.png and folder.png alone stay");
    let missing = Picture::read(folder.path().join("none.png")).unwrap_err();
    assert!(missing.to_string().contains("none.png"));
}

#[test]
fn should_lay_pictures_out_in_a_grid() {
    let one = |value: u8| Picture::new(1, 1, vec![value; 3]).unwrap();
    let grid = Picture::grid(&[one(1), one(2), one(3)], 2, 1, [9; 3]).unwrap();
    assert_eq!((grid.width(), grid.height()), (5, 5));
    let red: Vec<u8> = grid.rgb().iter().copied().step_by(3).collect();
    #[rustfmt::skip]
    assert_eq!(red, [
        9, 9, 9, 9, 9,
        9, 1, 9, 2, 9,
        9, 9, 9, 9, 9,
        9, 3, 9, 9, 9,
        9, 9, 9, 9, 9,
    ]);
    assert_eq!(Picture::grid(&[one(1)], 8, 0, [9; 3]).unwrap(), one(1));
    assert!(matches!(Picture::grid(&[], 2, 1, [9; 3]), Err(PixelsError::EmptyGrid)));
    assert!(matches!(Picture::grid(&[one(1)], 0, 1, [9; 3]), Err(PixelsError::EmptyGrid)));
}
