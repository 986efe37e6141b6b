//! TensorBoard's event files: numbers and pictures by step.
//!
//! A file is a sequence of TFRecords, each an `Event` message of protocol buffers
//! (tensorflow/core/util/event.proto and summary.proto); the few fields that are needed are
//! written here.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use pixels::Picture;

use crate::TrainingError;

/// TensorBoard finds files by this part of their names, and reads them in the order of their names.
const STEM: &str = "events.out.tfevents.";

/// The event files of a run, of which the last is written.
///
/// Each time a run starts or goes on, it begins another file; events of steps that will be done
/// again are first cut off the older ones. So no step comes twice, and a TensorBoard that reads
/// meanwhile sees the steps begin anew, which it knows from its own restarts.
///
/// Files of this repository carry no time of day. Where TensorBoard expects one, an event has the
/// seconds that the run has trained.
pub(super) struct EventFiles {
    path: PathBuf,
    file: File,
    /// Seconds of training up to `since`.
    seconds: f64,
    since: Instant,
}

impl EventFiles {
    /// Cuts what was written after `step` off the files in a folder, and begins another.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self, TrainingError> {
        let mut seconds = 0.0;
        for path in existing(folder)? {
            seconds = f64::max(seconds, cut(&path, step).map_err(TrainingError::file(&path))?);
        }
        let path = folder.join(format!("{STEM}{step:010}.alitok"));
        let mut events = Self {
            file: begin(&path).map_err(TrainingError::file(&path))?,
            path,
            seconds,
            since: Instant::now(),
        };
        let mut message = Message::default();
        message.bytes(3, b"brain.Event:2");
        events.append(message, None)?;
        Ok(events)
    }

    /// Adds the numbers of a step.
    pub(super) fn add_numbers<'a>(
        &mut self,
        step: u64,
        numbers: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), TrainingError> {
        let mut summary = Message::default();
        for (name, number) in numbers {
            let mut value = Message::default();
            value.bytes(1, name.as_bytes());
            value.float(2, number as f32);
            summary.message(1, &value);
        }
        self.add_summary(step, &summary)
    }

    /// Adds a picture of a step.
    pub(super) fn add_picture(
        &mut self,
        step: u64,
        name: &str,
        picture: &Picture,
    ) -> Result<(), TrainingError> {
        const RGB: u64 = 3;
        let mut image = Message::default();
        image.number(1, picture.height() as u64);
        image.number(2, picture.width() as u64);
        image.number(3, RGB);
        image.bytes(4, &picture.encode_png());
        let mut value = Message::default();
        value.bytes(1, name.as_bytes());
        value.message(4, &image);
        let mut summary = Message::default();
        summary.message(1, &value);
        self.add_summary(step, &summary)
    }

    fn add_summary(&mut self, step: u64, summary: &Message) -> Result<(), TrainingError> {
        let mut message = Message::default();
        message.number(2, step);
        message.message(5, summary);
        self.append(message, Some(self.since.elapsed().as_secs_f64()))
    }

    /// Writes an event: its time, and what else it has.
    fn append(&mut self, rest: Message, elapsed: Option<f64>) -> Result<(), TrainingError> {
        let mut event = Message::default();
        event.double(1, self.seconds + elapsed.unwrap_or_default());
        event.0.extend(rest.0);
        self.file.write_all(&record(&event.0)).map_err(TrainingError::file(&self.path))
    }
}

fn begin(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).open(path)
}

/// The event files of a folder in the order of their names.
fn existing(folder: &Path) -> Result<Vec<PathBuf>, TrainingError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TrainingError::file(folder))? {
        let entry = entry.map_err(TrainingError::file(folder))?;
        if entry.file_name().to_string_lossy().starts_with(STEM) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Cuts a file before its first event after `step`, or before a record that was not written to its
/// end. Returns the time of the last event that is left.
fn cut(path: &Path, step: u64) -> std::io::Result<f64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut reader = BufReader::new(&file);
    let (mut good, mut seconds) = (0, 0.0);
    while let Some(data) = read_record(&mut reader)? {
        let (time, of_step) = time_and_step(&data);
        if of_step > step {
            break;
        }
        good += 16 + data.len() as u64;
        seconds = time;
    }
    file.set_len(good)?;
    Ok(seconds)
}

/// A TFRecord: length, checksum of the length, data, checksum of the data.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_checksum(data).to_le_bytes());
    record
}

/// The data of the next record, or nothing at the end and where a record is damaged.
fn read_record(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    /// Larger than any grid of pictures; a damaged length must not fill the memory.
    const LARGEST: u64 = 1 << 28;
    let read = |reader: &mut dyn Read, count: u64| -> std::io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        reader.take(count).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 == count).then_some(bytes))
    };
    let Some(header) = read(reader, 12)? else { return Ok(None) };
    let (length, checksum) = header.split_at(8);
    let known = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    if checksum != masked_checksum(length).to_le_bytes() || known > LARGEST {
        return Ok(None);
    }
    let Some(mut data) = read(reader, known + 4)? else { return Ok(None) };
    let checksum = data.split_off(known as usize);
    Ok((checksum == masked_checksum(&data).to_le_bytes()).then_some(data))
}

/// TFRecord's checksum: CRC-32C, turned and shifted so that a checksum of data with checksums in
/// them stays a good one.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// What stands in front of each of our events.
fn time_and_step(event: &[u8]) -> (f64, u64) {
    let Some((&TIME, rest)) = event.split_first() else { return (0.0, 0) };
    let Some((time, rest)) = rest.split_first_chunk() else { return (0.0, 0) };
    let time = f64::from_le_bytes(*time);
    let Some((&STEP, rest)) = rest.split_first() else { return (time, 0) };
    let mut step = 0;
    for (place, byte) in rest.iter().enumerate().take(10) {
        step |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    (time, step)
}

/// Field 1 as a double, and field 2 as a number.
const TIME: u8 = (1 << 3) | 1;
const STEP: u8 = 2 << 3;

/// A message of protocol buffers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn variable(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.variable(field << 3);
        self.variable(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.variable(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.variable(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.variable(field << 3 | 2);
        self.variable(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn records(path: &Path) -> Vec<Vec<u8>> {
        let mut reader = BufReader::new(File::open(path).unwrap());
        std::iter::from_fn(|| read_record(&mut reader).unwrap()).collect()
    }

    #[test]
    fn should_write_the_bytes_that_tensorboard_writes() {
        // `tests/fixtures/events.py` made them with the package `tensorboard`.
        let fixture = include_bytes!("../../../../tests/fixtures/events.tfevents");
        let mut expected = Vec::new();
        let mut message = Message::default();
        message.double(1, 0.25);
        message.bytes(3, b"brain.Event:2");
        expected.extend(record(&message.0));
        for (step, seconds, loss) in [(25_u64, 1.5, 0.75_f32), (300, 20.25, 0.5)] {
            let (mut first, mut second) = (Message::default(), Message::default());
            first.bytes(1, b"loss");
            first.float(2, loss);
            second.bytes(1, b"learning_rate");
            second.float(2, 1e-3);
            let mut summary = Message::default();
            summary.message(1, &first);
            summary.message(1, &second);
            message = Message::default();
            message.double(1, seconds);
            message.number(2, step);
            message.message(5, &summary);
            expected.extend(record(&message.0));
        }
        let (mut image, mut value, mut summary) =
            (Message::default(), Message::default(), Message::default());
        image.number(1, 2);
        image.number(2, 200);
        image.number(3, 3);
        image.bytes(4, b"\x89PNG");
        value.bytes(1, b"samples");
        value.message(4, &image);
        summary.message(1, &value);
        message = Message::default();
        message.double(1, 21.0);
        message.number(2, 300);
        message.message(5, &summary);
        expected.extend(record(&message.0));
        assert_eq!(expected, fixture);
    }

    #[test]
    fn should_go_on_without_repeating_a_step_or_keeping_half_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let steps = || -> Vec<u64> {
            let files = existing(folder.path()).unwrap();
            let events = files.iter().flat_map(|path| records(path));
            events.map(|event| time_and_step(&event).1).filter(|step| *step > 0).collect()
        };
        let add =
            |events: &mut EventFiles, step| events.add_numbers(step, [("loss", 1.0)]).unwrap();
        let mut events = EventFiles::open(folder.path(), 0).unwrap();
        (1..=200).for_each(|step| add(&mut events, step));
        events.file.write_all(&record(b"half of it")[..20]).unwrap();
        assert_eq!(steps(), (1..=200).collect::<Vec<_>>());
        // Back to a checkpoint of step 150, and again.
        let mut events = EventFiles::open(folder.path(), 150).unwrap();
        (151..=160).for_each(|step| add(&mut events, step));
        let picture = Picture::new(2, 1, vec![7; 6]).unwrap();
        events.add_picture(160, "samples", &picture).unwrap();
        let mut events = EventFiles::open(folder.path(), 150).unwrap();
        (151..=155).for_each(|step| add(&mut events, step));
        assert_eq!(steps(), (1..=155).collect::<Vec<_>>());
        let mut events = EventFiles::open(folder.path(), 140).unwrap();
        add(&mut events, 141);
        assert_eq!(steps().len(), 141);
        assert!(events.seconds >= 0.0);
    }
}
