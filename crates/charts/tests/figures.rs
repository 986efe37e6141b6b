//! Whole figures in both formats.

use charts::{
    Axis, Chart, ChartError, Figure, HeatMap, Mark, Panel, Picture, Point, Series, Sheet,
};

fn curves() -> Chart {
    let curve = |shift: f64| {
        (1..400).map(move |step| {
            let step = f64::from(step) * 500.0;
            (step, 2.0 / (1.0 + step / 9000.0 * shift) + 0.05 * (step * shift / 700.0).sin() + 0.2)
        })
    };
    Chart {
        title: "Loss of the generator".into(),
        x: Axis::new("step"),
        y: Axis::new("cross-entropy, nats").logarithmic(),
        series: vec![
            Series::line("A  baseline", curve(0.5)),
            Series::line("B  causal decoder", curve(1.0)),
            Series::line("B  causal decoder, held out", curve(0.9))
                .with_mark(Mark::Dashes)
                .with_color(1),
            Series::line("D  causal decoder + prefix + auxiliary loss", curve(2.0)),
        ],
        ..Chart::default()
    }
}

fn scatter() -> Chart {
    let at = |guidance: f64| Point {
        x: 150.0 + 40.0 * guidance,
        y: 4.0 / guidance + 0.3 * guidance,
        x_error: Some(9.0),
        y_error: Some(0.15),
        label: format!("g = {guidance}"),
    };
    Chart {
        title: "FID against Inception Score".into(),
        x: Axis::new("Inception Score"),
        y: Axis::new("FID"),
        series: vec![
            Series::line("B", [1.0, 2.0, 3.0, 4.0].map(at)).with_mark(Mark::LineAndDots),
            Series::dots(
                "t-SNE",
                (0..400).map(|i| {
                    let i = f64::from(i);
                    (230.0 + 40.0 * (i * 12.9898).sin(), 3.0 + (i * 78.233).cos())
                }),
            ),
        ],
        ..Chart::default()
    }
}

fn attention() -> HeatMap {
    HeatMap {
        digits: Some(2),
        row_names: ["−1", "0", "+1"].map(String::from).to_vec(),
        column_names: ["−1", "0", "+1"].map(String::from).to_vec(),
        x_label: "column".into(),
        y_label: "row".into(),
        ..HeatMap::new(
            "Local attention",
            vec![vec![0.01, 0.08, 0.02], vec![0.11, 0.46, 0.09], vec![0.02, 0.07, f64::NAN]],
        )
    }
}

fn figure() -> Figure {
    let large =
        (0..72)
            .map(|row| {
                (0..72)
                    .map(|column| {
                        if column > row {
                            f64::NAN
                        } else {
                            (-f64::from(row - column) / 20.0).exp()
                        }
                    })
                    .collect()
            })
            .collect();
    let panels: [Panel; 4] = [
        curves().into(),
        scatter().into(),
        attention().into(),
        HeatMap::new("Attention, λ = 0.5, 72 × 72", large).into(),
    ];
    Figure::new(panels).with_columns(2)
}

fn decode(png: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut pixels).expect("a frame");
    (frame.width, frame.height, pixels)
}

#[test]
fn should_write_all_words_into_an_svg_of_the_asked_size() {
    let svg = figure().to_svg().expect("a figure");
    assert!(svg.starts_with("<svg width=\"1120\" height=\"720\""), "{}", &svg[..80]);
    for word in [
        "Loss of the generator",
        "cross-entropy, nats",
        "B  causal decoder, held out",
        "200k",
        "FID against Inception Score",
        "g = 3",
        "Local attention",
        "0.46",
    ] {
        assert!(svg.contains(word), "{word}");
    }
    assert_eq!(svg, figure().to_svg().expect("a figure"));
}

#[test]
fn should_draw_each_curve_in_its_colour_into_a_png() {
    let (width, height, pixels) = decode(&Figure::new([curves()]).to_png().expect("a figure"));
    assert_eq!((width, height), (1120, 720));
    let near = |color: [u8; 3]| {
        let close = |pixel: &&[u8]| pixel.iter().zip(color).all(|(&a, b)| a.abs_diff(b) < 12);
        pixels.chunks(3).filter(close).count()
    };
    // A curve 3 pixels wide goes through nearly 1000 columns.
    for color in [[0, 114, 178], [213, 94, 0], [204, 121, 167]] {
        assert!(near(color) > 1500, "{color:?}: {}", near(color));
    }
    // The colour of no series.
    assert_eq!(near([230, 159, 0]), 0);
}

#[test]
fn should_write_the_format_that_the_name_says_and_refuse_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let figure = Figure::new([curves()]);
    for (name, begins) in [("a.svg", &b"<svg"[..]), ("b.PNG", b"\x89PNG")] {
        let path = folder.path().join(name);
        figure.write(&path).expect("a file");
        assert!(std::fs::read(&path).expect("a file").starts_with(begins));
    }
    let refused = figure.write(&folder.path().join("c.pdf"));
    assert!(matches!(refused, Err(ChartError::Format(_))));
    assert!(!folder.path().join("c.pdf").exists());
}

#[test]
fn should_refuse_what_has_nothing_to_show() {
    assert!(matches!(Figure::new::<Panel>([]).to_svg(), Err(ChartError::NoPanel)));
    let mut chart = curves();
    for point in chart.series.iter_mut().flat_map(|series| &mut series.points) {
        point.y = -1.0;
    }
    let error = Figure::new([chart]).to_svg().expect_err("nothing is positive");
    assert!(error.to_string().contains("Loss of the generator"), "{error}");
    let ragged = HeatMap::new("rows", vec![vec![1.0], vec![]]);
    assert!(matches!(Figure::new([ragged]).to_svg(), Err(ChartError::Ragged { .. })));
    let tiny = Figure::new([curves()]).with_panel_size(10, 10).to_png();
    assert!(matches!(tiny, Err(ChartError::Size(10, 10))));
}

#[test]
fn should_draw_one_number_everywhere() {
    let chart =
        Chart { series: vec![Series::line("", [(3.0, 0.0), (3.0, 0.0)])], ..Chart::default() };
    Figure::new([chart]).to_svg().expect("a figure");
    Figure::new([HeatMap::new("", vec![vec![0.5; 4]; 2])]).to_svg().expect("a figure");
}

#[test]
fn should_show_a_picture_in_both_formats_and_frame_its_parts() {
    // Two pixels, green and blue; the right one framed.
    let mut picture = Picture::new("two", 2, 1, &[0, 200, 0, 0, 0, 200]);
    picture.boxes = vec![[1, 0, 1, 1]];
    let figure = Figure::new([picture.clone()]).with_panel_size(200, 120);
    let (width, height, pixels) = decode(&figure.to_png().expect("a figure"));
    assert_eq!((width, height), (400, 240));
    let at = |x: usize, y: usize| &pixels[3 * (y * 400 + x)..][..3];
    assert_eq!((at(100, 150), at(300, 150)), (&[0, 200, 0][..], &[0, 0, 200][..]));
    let red = pixels.chunks(3).filter(|pixel| pixel[0] > 180 && pixel[1] < 100).count();
    // A square frame, four pixels wide on all sides.
    let side = 2 * 92;
    assert!(red.abs_diff(4 * side * 4) < 100, "{red}");

    let svg = figure.to_svg().expect("a figure");
    let (image, text) = (svg.find("<image ").expect("an image"), svg.find("two").expect("a title"));
    assert!(svg.find("<rect").expect("a background") < image && image < text);
    assert!(svg.contains("data:image/png;base64,iVBOR"), "{svg}");

    picture.rgb.pop();
    assert!(matches!(Figure::new([picture]).to_svg(), Err(ChartError::Pixels { .. })));
}

/// Centres of the discs of an SVG, in its order.
fn discs(svg: &str) -> Vec<(f64, f64)> {
    let number = |tag: &str, name: &str| -> f64 {
        let value = tag.split(&format!("{name}=\"")).nth(1).expect("an attribute");
        value.split('"').next().and_then(|value| value.parse().ok()).expect("a number")
    };
    let tags = svg.split("<circle ").skip(1);
    tags.map(|tag| (number(tag, "cx"), number(tag, "cy"))).collect()
}

#[test]
fn should_draw_equal_differences_equally_long_on_both_axes_of_a_map() {
    for (width, height) in [(400, 400), (700, 300), (300, 700)] {
        let chart = Chart {
            series: vec![Series::dots("", [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (-90.0, 4.0)])],
            is_map: true,
            ..Chart::default()
        };
        let figure = Figure::new([chart]).with_panel_size(width, height);
        let at = discs(&figure.to_svg().expect("a figure"));
        let (across, up) = (at[1].0 - at[0].0, at[0].1 - at[2].1);
        assert!(across > 50.0 && (across - up).abs() < 2.0, "{across} {up}");
        let inside = |(x, y): (f64, f64)| {
            (0.0..10.0 * f64::from(width)).contains(&x)
                && (0.0..10.0 * f64::from(height)).contains(&y)
        };
        assert!(at.len() == 4 && at.into_iter().all(inside));
    }
}

#[test]
fn should_draw_many_points_smaller_than_few() {
    let radius = |count: u32| -> f64 {
        let points = (0..count).map(|index| (f64::from(index), f64::from(index)));
        let chart = Chart { series: vec![Series::dots("", points)], ..Chart::default() };
        let svg = Figure::new([chart]).to_svg().expect("a figure");
        let value = svg.split(" r=\"").nth(1).and_then(|rest| rest.split('"').next());
        value.and_then(|value| value.parse().ok()).expect("a radius")
    };
    assert!(radius(10) == radius(300) && radius(300) > 1.4 * radius(900), "{}", radius(900));
    assert!(radius(100_000) >= 10.0);
}

#[test]
fn should_shorten_titles_that_are_too_wide() {
    let title = format!("a title {}", "of many words that no panel has room for ".repeat(5));
    let panels: [Panel; 3] = [
        Chart { title: title.clone(), ..curves() }.into(),
        HeatMap { title: title.clone(), ..attention() }.into(),
        Picture::new(title.clone(), 1, 1, &[0; 3]).into(),
    ];
    let svg = Figure::new(panels).to_svg().expect("a figure");
    assert!(!svg.contains(title.trim()));
    assert_eq!(svg.matches("a title of many words").count(), 3);
    assert_eq!(svg.matches('\u{2026}').count(), 3);
}

#[test]
fn should_explain_missing_values_and_frame_cells_and_leave_out_a_bar() {
    let svg = |map: HeatMap| Figure::new([map]).to_svg().expect("a figure");
    let whole = svg(attention());
    let explained = svg(HeatMap { missing: "masked".into(), ..attention() });
    assert!(!whole.contains("masked") && explained.contains("masked"));
    let framed = svg(HeatMap { frames: vec![(1, 1)], ..attention() });
    assert!(!whole.contains("#E61E1E") && framed.contains("#E61E1E"), "{framed}");
    let without = svg(HeatMap { without_bar: true, ..attention() });
    assert!(without.matches("<rect").count() + 60 < whole.matches("<rect").count());
    let beyond = HeatMap { frames: vec![(3, 0)], ..attention() };
    assert!(matches!(Figure::new([beyond]).to_svg(), Err(ChartError::Ragged { .. })));
}

#[test]
fn should_number_the_frames_of_a_picture() {
    let mut picture = Picture::new("", 4, 4, &[9; 48]);
    picture.boxes = vec![[0, 0, 1, 1], [2, 2, 1, 1]];
    let svg = |picture: &Picture| Figure::new([picture.clone()]).to_svg().expect("a figure");
    assert_eq!(svg(&picture).matches("<text").count(), 0);
    picture.numbered = true;
    assert_eq!(svg(&picture).matches("<text").count(), 2);
}

/// A sheet of three pictures of 40 × 20 pixels, two a row: red, green and blue.
fn sheet() -> Sheet {
    let colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
    let picture = |color: &[u8; 3]| Picture::new("", 40, 20, &color.repeat(800));
    Sheet { pictures: colors.iter().map(picture).collect(), columns: 2, ..Sheet::default() }
}

/// Left, top, right and bottom of the pixels of a colour, and how many there are.
fn extent((width, _, rgb): &(usize, usize, Vec<u8>), color: [u8; 3]) -> ([usize; 4], usize) {
    let found = rgb.chunks_exact(3).enumerate().filter(|(_, pixel)| **pixel == color);
    let nothing = ([usize::MAX, usize::MAX, 0, 0], 0);
    found.fold(nothing, |([left, top, right, bottom], count), (index, _)| {
        let (x, y) = (index % width, index / width);
        ([left.min(x), top.min(y), right.max(x), bottom.max(y)], count + 1)
    })
}

/// Whether anything but white and the three colours is in a part of a sheet.
fn has_words(
    (width, _, rgb): &(usize, usize, Vec<u8>),
    [left, top, right, bottom]: [usize; 4],
) -> bool {
    (top..bottom).any(|y| {
        (left..right).any(|x| {
            let pixel = &rgb[3 * (y * width + x)..][..3];
            pixel.iter().max().copied().unwrap_or(0) < 200
        })
    })
}

#[test]
fn should_keep_each_pixel_of_a_sheet_as_a_square() {
    let plain = sheet().to_rgb().expect("a sheet");
    assert_eq!((plain.0, plain.1), (2 * 41 + 1, 2 * 21 + 1));
    assert_eq!(extent(&plain, [0, 255, 0]), ([42, 1, 81, 20], 800));
    assert_eq!(extent(&plain, [0, 0, 255]), ([1, 22, 40, 41], 800));

    let mut large = Sheet { scale: 3, ..sheet() };
    large.pictures[0].rgb[..3].copy_from_slice(&[1, 2, 3]);
    let large = large.to_rgb().expect("a sheet");
    let gap = 120 / 32;
    assert_eq!((large.0, large.1), (2 * (120 + gap) + gap, 2 * (60 + gap) + gap));
    assert_eq!(extent(&large, [1, 2, 3]), ([gap, gap, gap + 2, gap + 2], 9));
    assert_eq!(extent(&large, [255, 0, 0]).1, 7200 - 9);
}

#[test]
fn should_write_words_above_beside_and_below_and_none_over_pictures() {
    let mut words = sheet();
    words.title = "A title".into();
    words.row_names = vec!["original".into(), "rebuilt from the first tokens alone".into()];
    words.column_names = vec!["Smileys & Emotion".into(), "Flags".into()];
    words.pictures[2].title = "a very long caption of a picture that is narrow".into();
    let made = words.to_rgb().expect("a sheet");
    for color in [[255, 0, 0], [0, 255, 0], [0, 0, 255]] {
        assert_eq!(extent(&made, color).1, 800, "{color:?}");
    }
    let ([left, top, ..], _) = extent(&made, [255, 0, 0]);
    let ([_, second, _, bottom], _) = extent(&made, [0, 0, 255]);
    assert!(has_words(&made, [0, 0, made.0, top]));
    assert!(has_words(&made, [0, top, left, top + 20]));
    assert!(has_words(&made, [0, second - 1, left, second + 20]));
    assert!(has_words(&made, [left, bottom + 1, left + 40, made.1]));
    // Three lines at most, however long it is.
    assert!(made.1 - bottom < 60, "{}", made.1 - bottom);
    assert_eq!(made, words.to_rgb().expect("a sheet"));
    let (width, height, _) = decode(&words.to_png().expect("a sheet"));
    assert_eq!((width as usize, height as usize), (made.0, made.1));
}

#[test]
fn should_refuse_sheets_of_nothing_or_beyond_all_measure() {
    assert!(matches!(Sheet::default().to_rgb(), Err(ChartError::NoPanel)));
    let large = Sheet { scale: 1 << 20, ..sheet() };
    assert!(matches!(large.to_rgb(), Err(ChartError::Sheet(..))));
    let beyond = Sheet::check_size(usize::MAX, 3, (64, 64), usize::MAX);
    assert!(matches!(beyond, Err(ChartError::Sheet(..))));
    assert!(Sheet::check_size(100, 10, (256, 256), 4).is_ok());
}
