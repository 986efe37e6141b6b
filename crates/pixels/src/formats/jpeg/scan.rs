//! The entropy-coded data of a scan.

use numerics::vectorized;

use super::huffman::{BAD_CODE, Bits, NO_BITS, Table};
use super::transform::Inverse;
use super::{BAD_SEGMENT, Block, Component, Decoder, NATURAL_ORDER, Reason};

/// What a scan says of its coefficients.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// First and last coefficient.
    start: usize,
    end: usize,
    /// Lowest bit that is known from earlier scans, 0 for none; lowest bit of this scan.
    high: u32,
    low: u32,
}

/// A component's part in a scan.
struct Member<'t> {
    component: usize,
    dc: Option<&'t Table>,
    ac: Option<&'t Table>,
}

/// What is remembered from block to block.
#[derive(Debug, Default)]
struct State {
    predictions: [i32; 4],
    /// Blocks, this one included, that have no more coefficients in this scan.
    end_of_band: u32,
}

impl Decoder<'_> {
    /// Reads the scan whose header is given.
    pub(super) fn scan(&mut self, header: &[u8]) -> Result<(), Reason> {
        let Self { bytes, position, frame, quantization, dc_tables, ac_tables, .. } = self;
        let (&count, rest) = header.split_first().ok_or(BAD_SEGMENT)?;
        let count = usize::from(count);
        if !(1..=4).contains(&count) || rest.len() != 2 * count + 3 {
            return Err(BAD_SEGMENT);
        }
        let (list, last) = rest.split_at(2 * count);
        let progress = Progress {
            start: usize::from(last[0]),
            end: usize::from(last[1]),
            high: u32::from(last[2] >> 4),
            low: u32::from(last[2] & 15),
        };
        let mut members: Vec<Member<'_>> = Vec::with_capacity(count);
        for pair in list.chunks_exact(2) {
            let component = frame.components.iter().position(|component| component.id == pair[0]);
            let component = component.ok_or(BAD_SEGMENT)?;
            if members.iter().any(|member| member.component == component) {
                return Err(BAD_SEGMENT);
            }
            let [dc, ac] = [pair[1] >> 4, pair[1] & 15].map(usize::from);
            let dc = dc_tables.get(dc).and_then(Option::as_deref);
            let ac = ac_tables.get(ac).and_then(Option::as_deref);
            members.push(Member { component, dc, ac });
        }

        let progressive = frame.progressive;
        if progressive {
            check_progress(progress, count)?;
        }
        for member in &members {
            let component = &mut frame.components[member.component];
            if component.quantizer.is_none() {
                let table = quantization.get(component.quantization).copied().flatten();
                component.quantizer = Some(table.ok_or("a JPEG quantization table is missing")?);
            } else if !progressive {
                return Err("a component of the JPEG file has two scans");
            }
            if progressive {
                for known in &mut component.missing_bits[progress.start..=progress.end] {
                    *known = progress.low as i8;
                }
            }
        }

        let units = match &members[..] {
            // A component alone has no filling blocks.
            [member] => frame.components[member.component].blocks,
            _ => frame.units(),
        };
        let interleaved = members.len() > 1;
        let sizes: Vec<(usize, usize)> = members
            .iter()
            .map(|member| &frame.components[member.component])
            .map(|component| match interleaved {
                true => (component.horizontal, component.vertical),
                false => (1, 1),
            })
            .collect();
        if interleaved && sizes.iter().map(|(h, v)| h * v).sum::<usize>() > 10 {
            return Err("a unit of the JPEG file has too many blocks");
        }

        let mut bits = Bits::new(bytes, *position);
        let mut state = State::default();
        let mut until_restart = self.restart_interval;
        let mut restarts = 0u8;
        // For each member the blocks of a row of units, where they are not kept for all scans.
        let mut rows: Vec<Vec<Block>> = vec![Vec::new(); members.len()];
        for unit_row in 0..units.1 {
            if !progressive {
                for (blocks, (member, &(_, v))) in rows.iter_mut().zip(members.iter().zip(&sizes)) {
                    blocks.clear();
                    blocks.resize(frame.components[member.component].padded.0 * v, [0; 64]);
                }
            }
            for unit in 0..units.0 {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart(restarts % 8)?;
                        restarts = restarts.wrapping_add(1);
                        state = State::default();
                        until_restart = self.restart_interval;
                    }
                    until_restart -= 1;
                }
                for (slot, member) in members.iter().enumerate() {
                    let component = &mut frame.components[member.component];
                    let across = component.padded.0;
                    let (h, v) = sizes[slot];
                    for y in 0..v {
                        for x in 0..h {
                            let column = unit * h + x;
                            if progressive {
                                let block = (unit_row * v + y) * across + column;
                                let block = &mut component.coefficients[block];
                                progressive_block(
                                    &mut bits, member, progress, &mut state, slot, block,
                                )?;
                            } else {
                                let block = &mut rows[slot][y * across + column];
                                let prediction = &mut state.predictions[slot];
                                whole_block(&mut bits, member, prediction, block)?;
                            }
                        }
                    }
                }
            }
            if bits.overrun() {
                return Err(NO_BITS);
            }
            if !progressive {
                for (slot, member) in members.iter().enumerate() {
                    let v = sizes[slot].1;
                    let component = &mut frame.components[member.component];
                    transform_row(component, &rows[slot], unit_row * v, v);
                }
            }
        }
        *position = bits.position();
        Ok(())
    }
}

/// The samples of `count` rows of blocks from row `first`.
fn transform_row(component: &mut Component, blocks: &[Block], first: usize, count: usize) {
    let across = component.padded.0;
    let Component { quantizer, samples, .. } = component;
    let quantizer = quantizer.as_ref().expect("it was set before the scan was read");
    let samples = &mut samples[64 * across * first..][..64 * across * count];
    let blocks = &blocks[..across * count];
    vectorized(Inverse { blocks, across, quantizer, samples });
}

fn check_progress(progress: Progress, components: usize) -> Result<(), Reason> {
    let Progress { start, end, high, low } = progress;
    let band = if start == 0 { end == 0 } else { start <= end && end < 64 && components == 1 };
    if band && low <= 13 && (high == 0 || high == low + 1) { Ok(()) } else { Err(BAD_SEGMENT) }
}

const NO_TABLE: Reason = "a JPEG Huffman table is missing";

/// A block of a file that is not progressive.
#[inline(always)]
fn whole_block(
    bits: &mut Bits<'_>,
    member: &Member<'_>,
    prediction: &mut i32,
    block: &mut Block,
) -> Result<(), Reason> {
    let (dc, ac) = (member.dc.ok_or(NO_TABLE)?, member.ac.ok_or(NO_TABLE)?);
    *prediction = prediction.wrapping_add(bits.difference(dc)?);
    block[0] = *prediction as i16;
    let mut place = 0;
    while place < 63 {
        let (zeros, size, value) = bits.coefficient(ac)?;
        if size == 0 {
            if zeros != 15 {
                break;
            }
            place += 16;
            continue;
        }
        place += zeros + 1;
        if place > 63 {
            return Err(BAD_CODE);
        }
        block[usize::from(NATURAL_ORDER[place])] = value as i16;
    }
    Ok(())
}

#[inline(always)]
fn progressive_block(
    bits: &mut Bits<'_>,
    member: &Member<'_>,
    progress: Progress,
    state: &mut State,
    slot: usize,
    block: &mut Block,
) -> Result<(), Reason> {
    let Progress { start, high, low, .. } = progress;
    if start > 0 {
        let ac = member.ac.ok_or(NO_TABLE)?;
        return match high {
            0 => first_band(bits, ac, progress, &mut state.end_of_band, block),
            _ => refined_band(bits, ac, progress, &mut state.end_of_band, block),
        };
    }
    if high == 0 {
        let prediction = &mut state.predictions[slot];
        *prediction = prediction.wrapping_add(bits.difference(member.dc.ok_or(NO_TABLE)?)?);
        block[0] = (*prediction << low) as i16;
    } else if bits.bit() {
        block[0] |= 1 << low;
    }
    Ok(())
}

/// Coefficients whose upper bits come first.
fn first_band(
    bits: &mut Bits<'_>,
    table: &Table,
    Progress { start, end, low, .. }: Progress,
    end_of_band: &mut u32,
    block: &mut Block,
) -> Result<(), Reason> {
    if *end_of_band > 0 {
        *end_of_band -= 1;
        return Ok(());
    }
    let mut place = start;
    while place <= end {
        let (zeros, size, value) = bits.coefficient(table)?;
        if size == 0 {
            if zeros != 15 {
                *end_of_band = (1 << zeros) + bits.take(zeros as u32) - 1;
                break;
            }
            place += 16;
            continue;
        }
        place += zeros;
        if place > end {
            return Err(BAD_CODE);
        }
        block[usize::from(NATURAL_ORDER[place])] = (value << low) as i16;
        place += 1;
    }
    Ok(())
}

/// One more bit of coefficients whose upper bits are known.
fn refined_band(
    bits: &mut Bits<'_>,
    table: &Table,
    Progress { start, end, low, .. }: Progress,
    end_of_band: &mut u32,
    block: &mut Block,
) -> Result<(), Reason> {
    let refine = |bits: &mut Bits<'_>, coefficient: &mut i16| {
        let bit = 1i16 << low;
        if bits.bit() && *coefficient & bit == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
        }
    };
    let mut place = start;
    if *end_of_band == 0 {
        while place <= end {
            let symbol = bits.symbol(table)?;
            let (mut zeros, size) = (symbol >> 4, symbol & 15);
            let value = match size {
                0 if zeros != 15 => {
                    *end_of_band = (1 << zeros) + bits.take(u32::from(zeros));
                    break;
                }
                0 => 0,
                1 if bits.bit() => 1i16 << low,
                1 => -(1i16 << low),
                _ => return Err(BAD_CODE),
            };
            // Known coefficients on the way are refined and not counted.
            loop {
                if place > end {
                    if value != 0 {
                        return Err(BAD_CODE);
                    }
                    break;
                }
                let coefficient = &mut block[usize::from(NATURAL_ORDER[place])];
                place += 1;
                if *coefficient != 0 {
                    refine(bits, coefficient);
                } else if zeros > 0 {
                    zeros -= 1;
                } else {
                    *coefficient = value;
                    break;
                }
            }
        }
    }
    if *end_of_band > 0 {
        for &natural in NATURAL_ORDER.iter().take(end + 1).skip(place) {
            let coefficient = &mut block[usize::from(natural)];
            if *coefficient != 0 {
                refine(bits, coefficient);
            }
        }
        *end_of_band -= 1;
    }
    Ok(())
}
