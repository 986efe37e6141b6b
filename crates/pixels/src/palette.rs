//! Reducing a picture to a palette, so that the bundled data set stays small.

use std::collections::BTreeMap;

/// How often the palette is moved to the means of its pixels (Lloyd's algorithm).
const REFINEMENTS: usize = 8;

/// A colour of the picture and how many pixels have it.
type Counted = ([u8; 3], u64);

/// At most `size` colours for the pixels of `rgb`, and each pixel's index into them.
///
/// A picture of no more than `size` colours is kept as it is. Otherwise the group of colours with
/// the largest squared error is split at its mean until there are `size` groups (Wan et al. 1990),
/// and Lloyd's algorithm refines their means. Only whole numbers are compared, so every machine
/// makes the same palette.
pub(crate) fn quantize(rgb: &[u8], size: usize) -> (Vec<[u8; 3]>, Vec<u8>) {
    assert!((1..=256).contains(&size), "a palette has 1 to 256 colours");
    let pixel = |chunk: &[u8]| [chunk[0], chunk[1], chunk[2]];
    let mut counts = BTreeMap::<[u8; 3], u64>::new();
    for chunk in rgb.chunks_exact(3) {
        *counts.entry(pixel(chunk)).or_default() += 1;
    }
    let colours: Vec<Counted> = counts.into_iter().collect();

    let mut palette: Vec<[u8; 3]> = split(&colours, size).iter().map(|group| mean(group)).collect();
    for _ in 0..REFINEMENTS {
        let mut members = vec![Vec::new(); palette.len()];
        for &colour in &colours {
            members[nearest(&palette, colour.0)].push(colour);
        }
        palette =
            members.iter().filter(|group| !group.is_empty()).map(|group| mean(group)).collect();
    }
    // Dark to bright: neighbouring pixels get neighbouring indices.
    palette.sort_unstable_by_key(|&[red, green, blue]| {
        (u32::from(red) * 3 + u32::from(green) * 6 + u32::from(blue), red, green)
    });
    palette.dedup();

    let index: BTreeMap<[u8; 3], u8> =
        colours.iter().map(|&(colour, _)| (colour, nearest(&palette, colour) as u8)).collect();
    let indices = rgb.chunks_exact(3).map(|chunk| index[&pixel(chunk)]).collect();
    (palette, indices)
}

/// Splits colours into at most `size` groups.
fn split(colours: &[Counted], size: usize) -> Vec<Vec<Counted>> {
    let mut groups = vec![colours.to_vec()];
    while groups.len() < size {
        let widest = (0..groups.len())
            .map(|group| (widest_channel(&groups[group]), group))
            .max_by_key(|&((error, _), group)| (error, std::cmp::Reverse(group)));
        let Some(((error, channel), group)) = widest else { break };
        if error == 0 {
            break;
        }
        let (total, sums) = sums(&groups[group]);
        let centre = (sums[channel] / total) as u8;
        let (low, high) = groups[group].iter().partition(|(colour, _)| colour[channel] <= centre);
        // The mean is rounded down and the channel varies, so both sides have members.
        groups[group] = low;
        groups.push(high);
    }
    groups
}

/// The channel in which a group varies most, and how much: its squared error.
fn widest_channel(group: &[Counted]) -> (u64, usize) {
    let (total, sums) = sums(group);
    (0..3)
        .map(|channel| {
            let squares: u64 =
                group.iter().map(|(colour, count)| u64::from(colour[channel]).pow(2) * count).sum();
            ((total * squares - sums[channel].pow(2)) / total, channel)
        })
        .max()
        .unwrap_or((0, 0))
}

/// The count of a group's pixels and their sum in each channel.
fn sums(group: &[Counted]) -> (u64, [u64; 3]) {
    let sum = |channel: usize| {
        group.iter().map(|(colour, count)| u64::from(colour[channel]) * count).sum()
    };
    (group.iter().map(|(_, count)| count).sum(), std::array::from_fn(sum))
}

/// The mean colour of a group, rounded to the nearest, so that a white page stays white.
fn mean(group: &[Counted]) -> [u8; 3] {
    let (total, sums) = sums(group);
    sums.map(|sum| ((2 * sum + total) / (2 * total)) as u8)
}

fn nearest(palette: &[[u8; 3]], colour: [u8; 3]) -> usize {
    let distance = |entry: &[u8; 3]| -> u32 {
        (0..3).map(|c| u32::from(entry[c].abs_diff(colour[c])).pow(2)).sum()
    };
    (0..palette.len()).min_by_key(|&index| distance(&palette[index])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore((palette, indices): &(Vec<[u8; 3]>, Vec<u8>)) -> Vec<u8> {
        indices.iter().flat_map(|&index| palette[usize::from(index)]).collect()
    }

    #[test]
    fn should_keep_a_picture_of_few_colours() {
        let rgb: Vec<u8> = (0..300).map(|index| (index % 12 * 20) as u8).collect();
        let quantized = quantize(&rgb, 4);
        assert_eq!(quantized.0.len(), 4);
        assert_eq!(restore(&quantized), rgb);
    }

    #[test]
    fn should_put_many_colours_near_their_own_and_keep_a_white_page_white() {
        let mut rgb = vec![255; 3 * 3000];
        rgb.extend((0..3000).map(|index| (index * index % 256) as u8));
        let quantized = quantize(&rgb, 256);
        assert!(quantized.0.len() <= 256);
        let kept = restore(&quantized);
        assert!(kept[..9000].iter().all(|&value| value == 255));
        assert!(rgb.iter().zip(&kept).all(|(&a, &b)| a.abs_diff(b) < 40));
        assert_eq!(restore(&quantize(&[250, 1, 2, 3, 4, 5], 1)), [127, 3, 4, 127, 3, 4]);
    }
}
