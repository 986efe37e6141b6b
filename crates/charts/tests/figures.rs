//! Whole figures in both formats.

use charts::{Axis, Chart, ChartError, Figure, HeatMap, Mark, Panel, Picture, Point, Series};

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
