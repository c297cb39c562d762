//! Reads SQLite's log to check that committed data is still in it, see <https://sqlite.org/fileformat2.html#walformat>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// First word of the log. Its last bit selects the byte order of the words that are summed up.
const MAGIC: u32 = 0x377f_0682;

/// Returns whether the first `frames` of the log at `path` are as they were written.
pub(super) fn is_intact(path: &Path, frames: usize) -> io::Result<bool> {
    match check(BufReader::new(File::open(path)?), frames) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        intact => intact,
    }
}

fn check(mut log: impl Read, frames: usize) -> io::Result<bool> {
    if frames == 0 {
        return Ok(true);
    }
    let mut header = [0; HEADER_BYTES];
    log.read_exact(&mut header)?;
    let (magic, page_bytes) = (word(&header, 0), word(&header, 2));
    let mut sum = Sum {
        is_big_endian: magic & 1 == 1,
        words: (0, 0),
    };
    sum.add(&header[..24]);
    if magic & !1 != MAGIC || !sum.is_at(&header, 6) || page_bytes > 1 << 16 {
        return Ok(false);
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    for _ in 0..frames {
        log.read_exact(&mut frame)?;
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER_BYTES..]);
        if frame[8..16] != header[16..24] || !sum.is_at(&frame, 4) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = bytes[index * 4..].first_chunk().copied();
    u32::from_be_bytes(bytes.unwrap_or_default())
}

/// SQLite's checksum, which continues from frame to frame.
struct Sum {
    is_big_endian: bool,
    words: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (mut first, mut second) = self.words;
        for index in (0..bytes.len() / 4).step_by(2) {
            let [one, other] = [index, index + 1].map(|index| match self.is_big_endian {
                true => word(bytes, index),
                false => word(bytes, index).swap_bytes(),
            });
            first = first.wrapping_add(one).wrapping_add(second);
            second = second.wrapping_add(other).wrapping_add(first);
        }
        self.words = (first, second);
    }

    /// Returns whether `bytes` contains the checksum at the word `index`.
    fn is_at(&self, bytes: &[u8], index: usize) -> bool {
        self.words == (word(bytes, index), word(bytes, index + 1))
    }
}
