//! Rotated files of JSON lines, which keep every byte.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use log_spool::{Batch, Stored};

use super::config::FileConfig;
use super::telemetry::ratio;
use super::{Delivered, ErrorClass, SendError, Sink};

/// Bytes of lines that are written at once.
const MAX_BATCH: usize = 1024 * 1024;
/// Bytes at a file's end that are searched for the end of its last whole line:
/// more than a record's line can have.
const MAX_LINE: u64 = 512 * 1024;

/// Writes records to a file, and begins the next one by size and age.
pub(super) struct Files {
    writer: Option<RotatingFile>,
    lines: Vec<u8>,
    records: u64,
}

impl Files {
    pub(super) fn new(config: FileConfig) -> Self {
        Self {
            writer: Some(RotatingFile { config, open: None }),
            lines: Vec::new(),
            records: 0,
        }
    }
}

impl Sink for Files {
    const LINGER: Duration = Duration::from_millis(200);

    fn push(&mut self, _: &Batch, record: &Stored<'_>) -> bool {
        if self.lines.len() >= MAX_BATCH {
            return false;
        }
        log_spool::log_line(record, true, &mut self.lines);
        self.records += 1;
        true
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn fill(&self) -> f64 {
        ratio(self.lines.len() as u64, MAX_BATCH as u64).min(1.0)
    }

    async fn send(&mut self) -> Result<Delivered, SendError> {
        let ended = || SendError::new(ErrorClass::Disk, "the agent ends");
        let mut writer = self.writer.take().ok_or_else(ended)?;
        let lines = std::mem::take(&mut self.lines);
        let written = tokio::task::spawn_blocking(move || {
            let result = writer.append(&lines);
            (writer, lines, result)
        });
        let (writer, lines, result) = written.await.map_err(|_| ended())?;
        let what = format!("{} cannot be written", writer.config.path.display());
        self.writer = Some(writer);
        self.lines = lines;
        result.map_err(|error| SendError::io(ErrorClass::Disk, &what, &error))?;
        let delivered = Delivered {
            records: std::mem::take(&mut self.records),
            bytes: self.lines.len() as u64,
            refused: Vec::new(),
        };
        self.lines.clear();
        Ok(delivered)
    }
}

#[derive(Debug)]
struct RotatingFile {
    config: FileConfig,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    since: SystemTime,
}

impl RotatingFile {
    /// Appends whole lines and brings them to the disk. After an error nothing
    /// of them is there.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let result = self.try_append(lines);
        if result.is_err()
            && let Some(open) = self.open.take()
        {
            // Whoever opens the file next cuts off what this leaves.
            let _ = open.file.set_len(open.bytes);
        }
        result
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let is_old = open.since.elapsed().unwrap_or_default() >= self.config.max_age;
        let is_large = open.bytes + lines.len() as u64 > self.config.max_bytes;
        if open.bytes > 0 && (is_old || is_large) {
            drop(open);
            self.rotate()?;
            open = self.open()?;
        }
        let open = self.open.insert(open);
        open.file.write_all(lines)?;
        open.file.sync_data()?;
        open.bytes += lines.len() as u64;
        Ok(())
    }

    /// Opens the file behind its last whole line.
    fn open(&self) -> io::Result<Open> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.config.path)?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        let from = length.saturating_sub(MAX_LINE);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        (&file).take(MAX_LINE).read_to_end(&mut tail)?;
        let bytes = match tail.iter().rposition(|&byte| byte == b'\n') {
            Some(place) => from + place as u64 + 1,
            None if from == 0 => 0,
            None => length,
        };
        if bytes < length {
            file.set_len(bytes)?;
        }
        let since = metadata.created().or_else(|_| metadata.modified())?;
        Ok(Open { file, bytes, since })
    }

    /// Moves every file one number on; the last is lost.
    fn rotate(&self) -> io::Result<()> {
        let path = |number: u32| {
            let mut name = self.config.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (0..=self.config.keep).rev() {
            let moved = if number == self.config.keep {
                fs::remove_file(path(number))
            } else {
                fs::rename(path(number), path(number + 1))
            };
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &std::path::Path, keep: u32) -> RotatingFile {
        RotatingFile {
            config: FileConfig {
                path: folder.join("log"),
                max_bytes: 10,
                max_age: Duration::from_secs(3600),
                keep,
            },
            open: None,
        }
    }

    #[test]
    fn files_are_rotated_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path(), 2);
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "a line too long\n",
            "five\n",
        ] {
            files.append(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("log"), "five\n");
        assert_eq!(read("log.1"), "a line too long\n");
        assert_eq!(read("log.2"), "four\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_torn_line_is_cut_off_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), "one\ntw").unwrap();
        let mut files = files(folder.path(), 0);
        files.append(b"two\n").unwrap();
        let text = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(text, "one\ntwo\n");
        // And where nothing else is there.
        fs::write(folder.path().join("log"), "tor").unwrap();
        files.open = None;
        files.append(b"n\n").unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("log")).unwrap(),
            "n\n"
        );
    }

    #[test]
    fn a_missing_folder_is_an_error_and_its_return_enough() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(&folder.path().join("later"), 0);
        files.append(b"x\n").unwrap_err();
        fs::create_dir(folder.path().join("later")).unwrap();
        files.append(b"x\n").unwrap();
    }
}
