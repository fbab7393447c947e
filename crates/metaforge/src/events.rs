//! The log as TensorBoard reads it: scalars in an event file.
//!
//! A file is a row of records: the length of the data as `u64`, its check, the data, its check, all little-endian
//! (<https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h>). A check is the CRC-32C
//! (Castagnoli) of the bytes, turned and shifted (`core/lib/hash/crc32c.h`: a check of data that hold checks would be weak).
//! The data are protocol buffers of the messages `Event` and `Summary` (`core/util/event.proto`,
//! `core/framework/summary.proto`), of which a handful of fields is written here by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// An event file opened for appending.
#[derive(Debug)]
pub struct Events {
    file: File,
}

/// What a file begins with, so that readers know the format.
const VERSION: &str = "brain.Event:2";

impl Events {
    /// Opens a file, or makes it, to go on after step `last`: records of later steps, and what a kill left of one, are cut off.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(path: &Path, last: u64) -> io::Result<Events> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut held = Vec::new();
        file.read_to_end(&mut held)?;
        let kept = Records(&held).take_while(|data| step_of(data).is_some_and(|step| step <= last));
        let end: usize = kept.map(|data| data.len() + FRAME).sum();
        file.set_len(end as u64)?;
        file.seek(SeekFrom::Start(end as u64))?;
        let mut events = Events { file };
        if end == 0 {
            let mut event = Message::default();
            event.double(1, 0.0);
            event.bytes(3, VERSION.as_bytes());
            events.file.write_all(&record(&event.0))?;
        }
        Ok(events)
    }

    /// Appends the scalars of a step, which were known at `time`, in seconds since 1970.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write<'a>(&mut self, step: u64, time: f64, values: impl Iterator<Item = (&'a str, f64)>) -> io::Result<()> {
        let mut summary = Message::default();
        for (name, value) in values {
            let mut scalar = Message::default();
            scalar.bytes(1, name.as_bytes());
            scalar.float(2, value as f32);
            summary.bytes(1, &scalar.0);
        }
        let mut event = Message::default();
        event.double(1, time);
        event.integer(2, step);
        event.bytes(5, &summary.0);
        self.file.write_all(&record(&event.0))
    }
}

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

/// How the value of a field is laid out; the low three bits of its key.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_AND_BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

impl Message {
    /// Seven bits a byte, the low ones first; the high bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, layout: u64) {
        self.varint(field << 3 | layout);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, EIGHT_BYTES);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, FOUR_BYTES);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, LENGTH_AND_BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}

/// Bytes of a record beside its data.
const FRAME: usize = 16;

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &check(&length).to_le_bytes(), data, &check(data).to_le_bytes()].concat()
}

/// The data of the whole records at the beginning of a file.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(12)?;
        let (length, sum) = head.split_at(8);
        let whole = |bytes: &[u8], sum: &[u8]| check(bytes).to_le_bytes() == *sum;
        if !whole(length, sum) {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (data, rest) = rest.split_at_checked(length)?;
        let (sum, rest) = rest.split_at_checked(4)?;
        self.0 = rest;
        whole(data, sum).then_some(data)
    }
}

/// The step of an event; 0 for the first record, which has none. None if these are no events of this module.
fn step_of(event: &[u8]) -> Option<u64> {
    // Field 1, the time, is the first in every event here.
    let rest = event.strip_prefix(&[1 << 3 | EIGHT_BYTES as u8])?.get(8..)?;
    let Some(rest) = rest.strip_prefix(&[2 << 3 | VARINT as u8]) else { return Some(0) };
    let mut step = 0;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        step |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(step);
        }
    }
    None
}

/// The check of a record's parts.
fn check(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C: the remainder by the polynomial 0x1edc6f41, bits reflected (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut rest = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                rest = rest >> 1 ^ if rest & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[byte] = rest;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |rest, &byte| rest >> 8 ^ TABLE[(rest as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn checks_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
    }

    /// Step, time, names and values of an event.
    type Parsed = (u64, f64, Vec<(String, f32)>);

    /// The events of a file, read by the definition of the format and not by this module's reader.
    fn parsed(mut file: &[u8]) -> Vec<Parsed> {
        fn varint(from: &mut &[u8]) -> u64 {
            let length = from.iter().position(|b| b & 0x80 == 0).unwrap() + 1;
            let (bytes, rest) = from.split_at(length);
            *from = rest;
            bytes.iter().rev().fold(0, |value, &b| value << 7 | u64::from(b & 0x7f))
        }
        fn fields(mut from: &[u8]) -> Vec<(u64, Vec<u8>)> {
            let mut all = Vec::new();
            while !from.is_empty() {
                let key = varint(&mut from);
                let length = match key & 7 {
                    0 => {
                        all.push((key >> 3, varint(&mut from).to_le_bytes().to_vec()));
                        continue;
                    }
                    1 => 8,
                    5 => 4,
                    2 => varint(&mut from) as usize,
                    other => panic!("wire type {other}"),
                };
                let (bytes, rest) = from.split_at(length);
                (from, _) = (rest, all.push((key >> 3, bytes.to_vec())));
            }
            all
        }
        let mut events = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let (mut step, mut time, mut values) = (0, f64::NAN, Vec::new());
            for (field, bytes) in fields(&file[12..12 + length]) {
                match field {
                    1 => time = f64::from_le_bytes(bytes.try_into().unwrap()),
                    2 => step = u64::from_le_bytes(bytes.try_into().unwrap()),
                    3 => assert_eq!(bytes, VERSION.as_bytes()),
                    5 => values.extend(fields(&bytes).into_iter().map(|(_, value)| {
                        let [name, number] = &fields(&value)[..] else { panic!("a name and a number") };
                        let number = f32::from_le_bytes(number.1.clone().try_into().unwrap());
                        (String::from_utf8(name.1.clone()).unwrap(), number)
                    })),
                    other => panic!("field {other}"),
                }
            }
            events.push((step, time, values));
            file = &file[length + FRAME..];
        }
        events
    }

    #[test]
    fn what_is_written_can_be_read_and_a_resumed_file_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let long = "x".repeat(300);
        let write = |events: &mut Events, step: u64| {
            let values = [("loss/query", step as f64 / 4.0), (long.as_str(), -1.0)];
            events.write(step, 1e9 + step as f64, values.into_iter()).unwrap();
        };
        let mut events = Events::open(&path, 0).unwrap();
        for step in [10, 200, 30_000] {
            write(&mut events, step);
        }
        let whole = fs::read(&path).unwrap();
        let found = parsed(&whole);
        assert_eq!(found[0], (0, 0.0, vec![]));
        let wanted = |step: u64| {
            (step, 1e9 + step as f64, vec![("loss/query".to_owned(), step as f32 / 4.0), (long.clone(), -1.0)])
        };
        assert_eq!(found[1..], [10, 200, 30_000].map(wanted));

        // Back to step 250, whatever a kill left behind.
        for cut in [0, 1, 100, 300] {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut events = Events::open(&path, 250).unwrap();
            write(&mut events, 30_000);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        // A file of something else is begun anew.
        fs::write(&path, "no events, but long enough for a record").unwrap();
        Events::open(&path, 250).unwrap();
        assert_eq!(parsed(&fs::read(&path).unwrap()), [(0, 0.0, vec![])]);
    }
}
