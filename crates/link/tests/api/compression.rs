//! Compressed batches, honest and hostile.

use link::frame::{self, FrameError, MAX_LOGS};
use link::logs::{
    Compressor, Decompressor, FromInit, LogStream, MAX_BATCH_RECORDS, MAX_RECORD, Record, Source,
};
use proptest::prelude::*;

use crate::samples;

fn record(data: &[u8]) -> Record<'_> {
    Record {
        stream: LogStream::Application,
        sequence: u64::MAX,
        time_us: u64::MAX,
        source: Source::Stdout,
        continues: false,
        data,
        workload: None,
    }
}

/// The records of a compressed message with this in it.
fn decompress(length: usize, bytes: &[u8]) -> Result<usize, FrameError> {
    let length = u32::try_from(length).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let records = decompressor.records(FromInit::Compressed { length, bytes })?;
    Ok(records.unwrap().len())
}

/// Why such a message is refused.
fn refusal(length: usize, bytes: &[u8]) -> String {
    decompress(length, bytes).unwrap_err().to_string()
}

/// The body of a frame, compressed.
fn compressed(message: &FromInit<'_>) -> (usize, Vec<u8>) {
    let body = minicbor::to_vec(message).unwrap();
    (body.len(), zstd::bulk::compress(&body, 1).unwrap())
}

proptest! {
    #[test]
    fn records_read_back_whatever_came_before(batches in prop::collection::vec(samples::records(), 1..4)) {
        let mut compressor = Compressor::new().unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for fields in &batches {
            let FromInit::Batch { records } = samples::batch(fields) else {
                panic!("no batch");
            };
            let message = compressor.compress(records.clone()).unwrap();
            let body = minicbor::to_vec(&message).unwrap();
            let received = frame::decode::<FromInit<'_>>(&body).unwrap();
            prop_assert_eq!(decompressor.records(received).unwrap(), Some(records));
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_usize..400) {
        prop_assert!(decompress(length, &bytes).is_err());
    }
}

#[test]
fn a_batch_that_is_not_compressed_passes_and_an_opening_is_none() {
    let mut decompressor = Decompressor::new().unwrap();
    let records = vec![record(b"a")];
    let batch = FromInit::Batch {
        records: records.clone(),
    };
    assert_eq!(decompressor.records(batch).unwrap(), Some(records));
    let boot = link::Bytes::new([7; 16]).unwrap();
    assert_eq!(decompressor.records(FromInit::Open { boot }).unwrap(), None);
}

#[test]
fn the_largest_batches_travel_even_where_nothing_can_be_gained() {
    let mut random = 1_u64;
    let noise: Vec<u8> = (0..MAX_RECORD)
        .map(|_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            random.to_be_bytes()[0]
        })
        .collect();
    for (data, count) in [(noise.as_slice(), 15), (&noise[..64], MAX_BATCH_RECORDS)] {
        let mut compressor = Compressor::new().unwrap();
        let message = compressor.compress(vec![record(data); count]).unwrap();
        let body = minicbor::to_vec(&message).unwrap();
        assert!(body.len() <= MAX_LOGS, "{}", body.len());
        let received = frame::decode::<FromInit<'_>>(&body).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let records = decompressor.records(received).unwrap().unwrap();
        assert_eq!(records, vec![record(data); count]);
    }
    let mut compressor = Compressor::new().unwrap();
    let error = compressor.compress(vec![record(&noise); 17]).unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    // A GiB of zeros in some tens of KiB.
    let mut bomb = Vec::new();
    let mut encoder = zstd::stream::Encoder::new(&mut bomb, 1).unwrap();
    for _ in 0..1024 {
        std::io::Write::write_all(&mut encoder, &vec![0; 1024 * 1024]).unwrap();
    }
    encoder.finish().unwrap();
    assert!(bomb.len() < MAX_LOGS);
    for length in [0, 1, MAX_LOGS] {
        let error = refusal(length, &bomb);
        assert!(
            error.contains("a compressed batch cannot be used"),
            "{error}"
        );
    }
    assert_eq!(
        refusal(MAX_LOGS + 1, &bomb),
        "a frame of 1048577 bytes exceeds the channel's limit of 1048576"
    );
    assert!(refusal(u32::MAX as usize, b"").contains("exceeds the channel's limit"));
}

#[test]
fn what_is_not_exactly_one_batch_of_the_claimed_length_is_refused() {
    let batch = FromInit::Batch {
        records: vec![record(b"abc"); 3],
    };
    let (length, bytes) = compressed(&batch);
    assert_eq!(decompress(length, &bytes).unwrap(), 3);
    assert!(refusal(length - 1, &bytes).contains("a compressed batch cannot be used"));
    assert!(
        refusal(length + 1, &bytes)
            .contains(&format!("it has {length} bytes and claims {}", length + 1))
    );
    for cut in 0..bytes.len() {
        refusal(length, &bytes[..cut]);
    }
    let mut trailing = minicbor::to_vec(&batch).unwrap();
    trailing.push(0);
    let packed = zstd::bulk::compress(&trailing, 1).unwrap();
    assert!(refusal(trailing.len(), &packed).contains("1 bytes follow"));

    let (length, bytes) = compressed(&FromInit::Compressed {
        length: u32::try_from(length).unwrap(),
        bytes: &bytes,
    });
    assert!(refusal(length, &bytes).contains("it is not a batch of records"));
    let boot = link::Bytes::new([7; 16]).unwrap();
    let (length, bytes) = compressed(&FromInit::Open { boot });
    assert!(refusal(length, &bytes).contains("it is not a batch of records"));
    assert!(refusal(0, b"").contains("cannot be"));
}

#[test]
fn a_damaged_batch_is_refused_or_has_bounded_records() {
    let (length, bytes) = compressed(&FromInit::Batch {
        records: vec![record(b"abcabcabcabcabcabcabcabc"); 4],
    });
    let mut damaged = bytes.clone();
    for position in 0..bytes.len() {
        for value in 0..=u8::MAX {
            damaged[position] = value;
            if let Ok(count) = decompress(length, &damaged) {
                assert!(count <= MAX_BATCH_RECORDS);
            }
        }
        damaged[position] = bytes[position];
    }
}
