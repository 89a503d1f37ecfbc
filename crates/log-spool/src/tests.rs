//! The spool under everything that may happen to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use link::logs::MAX_RECORD;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const BOOT: Boot = Boot([7; 16]);

fn options() -> SpoolOptions {
    SpoolOptions {
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(3600),
        when_full: WhenFull::Block,
        fsync: Fsync::Never,
    }
}

fn writer(directory: &Path, options: SpoolOptions) -> (Writer, Recovery) {
    Writer::open(directory, options).unwrap()
}

fn record(sequence: u64, data: &[u8]) -> Record<'_> {
    Record {
        stream: LogStream::Application,
        sequence,
        time_us: sequence,
        source: link::logs::Source::Stdout,
        continues: false,
        data,
        workload: None,
    }
}

/// Appends lines whose numbers follow on each other, one batch.
fn append(writer: &mut Writer, lines: std::ops::RangeInclusive<u64>) {
    let texts: Vec<_> = lines
        .map(|number| (number, format!("line {number}")))
        .collect();
    let records: Vec<_> = texts
        .iter()
        .map(|(number, text)| record(*number, text.as_bytes()))
        .collect();
    let held = writer.positions().get(BOOT);
    for chunk in chunk::encode(BOOT, held, &records) {
        writer.append(chunk, u64::MAX).unwrap();
    }
}

fn read(reader: &mut Reader) -> Vec<(u64, String)> {
    let mut batch = Batch::default();
    let mut found = Vec::new();
    while reader.read(None, &mut batch).unwrap() {
        while let Some((number, record)) = batch.peek() {
            found.push((number, String::from_utf8(record.data.to_vec()).unwrap()));
            batch.advance();
        }
    }
    found
}

fn read_all(directory: &Path) -> (Vec<(u64, String)>, Losses) {
    let mut reader = Reader::oldest(directory, None);
    let found = read(&mut reader);
    (found, reader.take_losses())
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn copy(files: &BTreeMap<String, Vec<u8>>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn newest(files: &BTreeMap<String, Vec<u8>>) -> String {
    let segments = files.keys().filter(|name| name.contains('-'));
    segments.max().unwrap().clone()
}

#[test]
fn what_was_appended_is_read_across_segments_and_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let small = SpoolOptions {
        max_bytes: 64 * 1024,
        ..options()
    };
    let mut next = 1;
    for _ in 0..4 {
        let (mut writer, recovery) = writer(folder.path(), small);
        assert!(recovery.is_clean());
        for _ in 0..20 {
            append(&mut writer, next..=next + 9);
            next += 10;
        }
    }
    assert!(segment::list(folder.path()).unwrap().len() > 2);
    let (found, losses) = read_all(folder.path());
    assert_eq!(losses, Losses::default());
    assert_eq!(found.len() as u64, next - 1);
    for (index, (number, text)) in found.iter().enumerate() {
        assert_eq!(*number, index as u64);
        assert_eq!(*text, format!("line {}", index + 1));
    }
}

#[test]
fn a_record_that_is_held_is_not_appended_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(folder.path(), options());
    append(&mut writer, 1..=5);
    // A chunk that was encoded before the others were stored.
    let late: Vec<_> = (3..=7).map(|number| record(number, b"line")).collect();
    let chunk = chunk::encode(BOOT, [0; positions::STREAMS], &late).remove(0);
    let appended = writer.append(chunk, 0).unwrap();
    assert_eq!((appended.records, appended.missing), (2, 0));
    assert_eq!(writer.positions().get(BOOT)[0], 7);
    assert_eq!(read_all(folder.path()).0.len(), 7);
}

#[test]
fn a_large_batch_is_split_and_its_largest_record_fits() {
    let folder = tempfile::tempdir().unwrap();
    let large = SpoolOptions {
        max_bytes: 64 << 20,
        ..options()
    };
    let (mut writer, _) = writer(folder.path(), large);
    let data = vec![b'x'; MAX_RECORD];
    let records: Vec<_> = (1..=60).map(|number| record(number, &data)).collect();
    let chunks = chunk::encode(BOOT, [0; positions::STREAMS], &records);
    assert!(chunks.len() > 2);
    for chunk in chunks {
        assert!(chunk.size() <= (format::BATCH_HEADER + format::MAX_PAYLOAD) as u64);
        writer.append(chunk, 0).unwrap();
    }
    assert_eq!(read_all(folder.path()).0.len(), 60);
}

#[test]
fn a_spool_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = writer(folder.path(), options());
    let error = Writer::open(folder.path(), options()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
    drop(first);
    writer(folder.path(), options());
}

/// Whatever a crash leaves of the newest segment: what is read then is what was
/// appended, without its end.
#[test]
fn a_segment_cut_at_any_byte_keeps_every_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _) = writer(folder.path(), options());
    let mut ends = vec![(first.end(), 0)];
    for batch in 0..4 {
        append(&mut first, batch * 2 + 1..=batch * 2 + 2);
        ends.push((first.end(), batch * 2 + 2));
    }
    drop(first);
    let files = files(folder.path());
    let newest = newest(&files);
    let whole = files[&newest].clone();
    for length in 0..=whole.len() {
        let mut files = files.clone();
        files.insert(newest.clone(), whole[..length].to_vec());
        let folder = copy(&files);
        let kept = ends
            .iter()
            .rev()
            .find(|(end, _)| *end <= length as u64)
            .map_or(0, |(_, last)| *last);
        let (mut writer, recovery) = writer(folder.path(), options());
        assert_eq!(writer.positions().get(BOOT)[0], kept, "{length}");
        let is_whole = length == 0 || ends.iter().any(|(end, _)| *end == length as u64);
        assert!(is_whole || recovery.cut_bytes > 0, "{length}");
        // The init sends the rest again.
        append(&mut writer, kept + 1..=9);
        let (found, losses) = read_all(folder.path());
        let texts: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
        let expected: Vec<_> = (1..=9).map(|number| format!("line {number}")).collect();
        assert_eq!(texts, expected, "{length}");
        assert_eq!(losses, Losses::default(), "{length}");
    }
}

/// A flipped bit costs its batch at most, which is named where others follow.
#[test]
fn a_flipped_bit_costs_its_batch_and_nothing_is_invented() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _) = writer(folder.path(), options());
    for batch in 0..3 {
        append(&mut first, batch * 2 + 1..=batch * 2 + 2);
    }
    drop(first);
    let files = files(folder.path());
    let newest = newest(&files);
    let all: Vec<_> = (1..=6).map(|number| format!("line {number}")).collect();
    // Every bit of the batches; of the header, which is mostly unused room,
    // every bit of its beginning and its checksum.
    let header = format::SEGMENT_HEADER;
    let bytes = (0..32).chain(header - 4..files[&newest].len());
    for (byte, bit) in bytes.flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut files = files.clone();
        files.get_mut(&newest).unwrap()[byte] ^= 1 << bit;
        let folder = copy(&files);
        // Before it is opened, and repaired, by a writer.
        let (found, losses) = read_all(folder.path());
        let missing = all.len() - found.len();
        assert_eq!(missing, if byte < header { 0 } else { 2 }, "{byte} {bit}");
        assert!(
            found
                .iter()
                .all(|(number, text)| *text == all[usize::try_from(*number).unwrap()])
        );
        let last_is_lost = found.last().is_none_or(|(number, _)| *number != 5);
        let first_is_lost = found.first().is_none_or(|(number, _)| *number != 0);
        // What was before the first that is found is not known to have been there.
        if missing > 0 && !last_is_lost && !first_is_lost {
            assert_eq!(losses.damaged, 2, "{byte} {bit}");
        }
        let (mut writer, recovery) = writer(folder.path(), options());
        assert_eq!(recovery.is_clean(), byte < header, "{byte} {bit}");
        let position = writer.positions().get(BOOT)[0];
        assert_eq!(position, if last_is_lost { 4 } else { 6 }, "{byte} {bit}");
        append(&mut writer, position + 1..=8);
        let texts: Vec<_> = read_all(folder.path())
            .0
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert!(
            texts.ends_with(&["line 7".to_owned(), "line 8".to_owned()]),
            "{byte} {bit}"
        );
        assert!(
            texts.len() >= 6 && texts.is_sorted(),
            "{byte} {bit} {texts:?}"
        );
    }
}

#[test]
fn a_sink_is_told_what_damage_has_cost_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _) = writer(folder.path(), options());
    append(&mut first, 1..=2);
    let start = first.end();
    append(&mut first, 3..=5);
    append(&mut first, 6..=6);
    drop(first);
    let newest = newest(&files(folder.path()));
    let file = fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join(newest))
        .unwrap();
    file.write_all_at(b"!", start + 70).unwrap();
    let (_writer, recovery) = writer(folder.path(), options());
    assert_eq!(recovery.damaged_records, 3);
    assert_eq!(recovery.cut_bytes, 0);
    let mut reader = Reader::at(
        folder.path(),
        None,
        Cursor {
            offset: 0,
            record: 1,
        },
    );
    let found: Vec<_> = read(&mut reader)
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(found, [1, 5]);
    let losses = Losses {
        removed: 0,
        damaged: 3,
    };
    assert_eq!(reader.take_losses(), losses);
}

#[test]
fn bytes_that_look_like_batches_are_no_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(folder.path(), options());
    append(&mut writer, 1..=2);
    // The workload logs what it thinks the spool looks like, then the batch
    // around it is damaged.
    let stolen = fs::read(folder.path().join(newest(&files(folder.path())))).unwrap();
    let stolen = &stolen[format::SEGMENT_HEADER..];
    let place = writer.end();
    let bait = record(3, stolen);
    for chunk in chunk::encode(BOOT, writer.positions().get(BOOT), &[bait]) {
        writer.append(chunk, 0).unwrap();
    }
    append(&mut writer, 4..=4);
    drop(writer);
    let path = folder.path().join(newest(&files(folder.path())));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"!", place).unwrap();
    let (found, losses) = read_all(folder.path());
    let texts: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 4"]);
    assert_eq!(losses.damaged, 1);
}

fn fill(writer: &mut Writer, floor: u64) -> (u64, Option<AppendError>) {
    let data = vec![b'x'; 1000];
    for sequence in 1..10_000 {
        let held = writer.positions().get(BOOT);
        let records = [record(held[0] + 1, &data)];
        let chunk = chunk::encode(BOOT, held, &records).remove(0);
        if let Err(refused) = writer.append(chunk, floor) {
            return (sequence, Some(refused.error));
        }
    }
    (10_000, None)
}

#[test]
fn a_full_spool_takes_nothing_until_a_sink_has_passed_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(folder.path(), options());
    let (stored, error) = fill(&mut writer, 0);
    assert!(matches!(error, Some(AppendError::Full)));
    assert!(writer.bytes() <= 1 << 20);
    assert!(stored > 900);
    // For what the agent has to say of it there is room.
    writer.note(LogStream::System, b"full", 0).unwrap();
    assert!(writer.bytes() <= 1 << 20);
    // The sink has passed the first segment.
    let floor = segment::list(folder.path()).unwrap()[1].base;
    let (stored, error) = fill(&mut writer, floor);
    assert!(matches!(error, Some(AppendError::Full)));
    assert!(stored > 100);
    assert_eq!(segment::list(folder.path()).unwrap()[0].base, floor);
    assert!(fill(&mut writer, u64::MAX).1.is_none());
    assert!(writer.bytes() <= 1 << 20);
}

#[test]
fn a_full_spool_may_drop_its_oldest_and_readers_count_them() {
    let folder = tempfile::tempdir().unwrap();
    let dropping = SpoolOptions {
        when_full: WhenFull::DropOldest,
        ..options()
    };
    let (mut writer, _) = writer(folder.path(), dropping);
    append(&mut writer, 1..=3);
    let mut reader = Reader::at(
        folder.path(),
        None,
        Cursor {
            offset: 0,
            record: 2,
        },
    );
    assert!(fill(&mut writer, 0).1.is_none());
    let found = read(&mut reader);
    let losses = reader.take_losses();
    assert_eq!(losses.removed, found[0].0 - 2);
    assert_eq!(losses.damaged, 0);
    assert_eq!(found.last().unwrap().0, writer.next() - 1);
}

#[test]
fn a_disk_that_refuses_costs_nothing_once_it_takes_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(folder.path(), options());
    append(&mut writer, 1..=3);
    let path = folder.path().join(newest(&files(folder.path())));
    // The kernel refuses to write to what is open for reading only.
    let writable = std::mem::replace(&mut writer.file, File::open(path).unwrap());
    let lines = [record(4, b"line 4")];
    let chunk = chunk::encode(BOOT, writer.positions().get(BOOT), &lines).remove(0);
    let refused = writer.append(chunk, 0).unwrap_err();
    assert!(matches!(refused.error, AppendError::Io(_)));
    assert_eq!(writer.positions().get(BOOT)[0], 3);
    writer.file = writable;
    writer.append(refused.chunk, 0).unwrap();
    append(&mut writer, 5..=5);
    let (found, losses) = read_all(folder.path());
    let texts: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3", "line 4", "line 5"]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn what_is_old_goes_once_every_sink_has_passed_it() {
    let folder = tempfile::tempdir().unwrap();
    let ageing = SpoolOptions {
        max_age: Duration::ZERO,
        ..options()
    };
    let (mut writer, _) = writer(folder.path(), ageing);
    fill(&mut writer, 0);
    let count = writer.segments();
    writer.expire(0).unwrap();
    assert_eq!(writer.segments(), count);
    writer.expire(u64::MAX).unwrap();
    assert_eq!(writer.segments(), 1);
}

#[test]
fn a_new_sink_begins_at_the_end_and_an_unreadable_place_at_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _) = writer(folder.path(), options());
    append(&mut first, 1..=3);
    drop(first);
    let (spool, _) = Spool::open(folder.path(), options()).unwrap();
    let cursor = spool.cursor("stdout");
    assert_eq!(cursor.record, 3);
    drop(spool);
    fs::write(cursor::path(folder.path(), "stdout"), "{").unwrap();
    let (spool, _) = Spool::open(folder.path(), options()).unwrap();
    assert_eq!(spool.cursor("stdout"), Cursor::default());
    drop(spool);
    // A place that a power loss has taken back.
    let beyond = Cursor {
        offset: 1 << 40,
        record: 1 << 40,
    };
    cursor::store(&cursor::path(folder.path(), "later"), beyond).unwrap();
    let (spool, _) = Spool::open(folder.path(), options()).unwrap();
    assert_eq!(spool.cursor("later"), cursor);
}

#[test]
fn a_reader_follows_the_writer_through_its_segments() {
    let folder = tempfile::tempdir().unwrap();
    let small = SpoolOptions {
        max_bytes: 64 * 1024,
        ..options()
    };
    let (mut writer, _) = writer(folder.path(), small);
    let mut reader = Reader::oldest(folder.path(), None);
    let mut seen = 0;
    for number in 1..2000 {
        append(&mut writer, number..=number);
        for (index, text) in read(&mut reader) {
            assert_eq!(text, format!("line {}", index + 1));
            assert_eq!(index, seen);
            seen += 1;
        }
        assert_eq!(seen, number);
    }
    assert_eq!(reader.take_losses(), Losses::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_reader_resumes_at_any_record(
        batches in proptest::collection::vec(1..8_u64, 1..20), resume in 0..160_u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _) = writer(folder.path(), SpoolOptions { max_bytes: 32 * 1024, ..options() });
        let mut next = 1;
        let mut cursors = vec![];
        for count in batches {
            let cursor = Cursor { offset: writer.end(), record: writer.next() };
            append(&mut writer, next..=next + count - 1);
            cursors.extend((0..count).map(|skip| Cursor { record: cursor.record + skip, ..cursor }));
            next += count;
        }
        let cursor = cursors[usize::try_from(resume).unwrap() % cursors.len()];
        let mut reader = Reader::at(folder.path(), None, cursor);
        let found: Vec<_> = read(&mut reader).into_iter().map(|(number, _)| number).collect();
        let expected: Vec<_> = (cursor.record..next - 1).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(reader.take_losses(), Losses::default());
    }

    #[test]
    fn any_file_is_opened_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let folder = tempfile::tempdir().unwrap();
        let name = segment::SegmentName { base: 0, salt: 1 };
        fs::write(folder.path().join(name.file_name()), &bytes).unwrap();
        prop_assert!(read_all(folder.path()).0.is_empty());
        let (mut writer, _) = writer(folder.path(), options());
        append(&mut writer, 1..=1);
        prop_assert_eq!(read_all(folder.path()).0.len(), 1);
    }
}
