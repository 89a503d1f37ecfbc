//! Memory follows what a peer has sent, not what it claims to send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use link::control::{FromAgent, FromInit};
use link::frame::{self, MAX_LOGS, MAX_TARGET, Reader};
use link::logs;
use link::target::Connect;
use peak_alloc::PeakAlloc;
use tokio::io::AsyncWriteExt;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;

/// What the most that was in use while `work` ran exceeds what was before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    (result, HEAP.peak_usage().saturating_sub(before))
}

/// One test, because the allocator counts for the whole process.
#[test]
fn memory_follows_what_was_sent_and_not_what_was_claimed() {
    claimed_lengths();
    many_small_records();
    deep_nesting();
    frames();
}

/// Lengths of a byte string, a text, an array: 2^32, 2^40, the greatest.
fn claimed_lengths() {
    for length in [1 << 32, 1 << 40, u64::MAX] {
        for (major, head) in [
            // `Document`, `Start` and `Boot`: a byte string.
            (0x5b, [0x82, 0x04, 0x82, 0x01].as_slice()),
            (0x5b, &[0x82, 0x00, 0x81]),
            (0x5b, &[0x82, 0x00, 0x82]),
            // `Ending`: a text. `Connect`: its host.
            (0x7b, &[0x82, 0x07, 0x82, 0x82, 0x00, 0x80]),
            (0x7b, &[0x82]),
            // `Batch` and `Stored`: records, and streams.
            (0x9b, &[0x82, 0x01, 0x81]),
            (0x9b, &[0x82, 0x00, 0x81]),
            // An enumeration, and the fields of one.
            (0x9b, &[]),
            (0x9b, &[0x82, 0x02]),
        ] {
            let claim = [head, &[major], &length.to_be_bytes(), &[0; 20]].concat();
            let (refused, used) = peak(|| {
                [
                    frame::decode::<FromInit>(&claim).is_err(),
                    frame::decode::<FromAgent>(&claim).is_err(),
                    frame::decode::<logs::FromInit<'_>>(&claim).is_err(),
                    frame::decode::<logs::FromAgent>(&claim).is_err(),
                    frame::decode::<Connect>(&claim).is_err(),
                ]
            });
            assert_eq!(refused, [true; 5], "{claim:02x?}");
            assert!(used < 8 * KIB, "{used} bytes for {claim:02x?}");
        }
    }
}

/// A full frame of the smallest records: far more than a batch may have.
fn many_small_records() {
    let record = [0x86, 0x00, 0x01, 0x01, 0x00, 0xf4, 0x40];
    let count = (MAX_LOGS - 16) / record.len();
    let body = [
        &[0x82, 0x01, 0x81, 0x9a],
        u32::try_from(count).unwrap().to_be_bytes().as_slice(),
        &record.repeat(count),
    ]
    .concat();
    let (decoded, used) = peak(|| frame::decode::<logs::FromInit<'_>>(&body).is_err());
    assert!(decoded);
    let batch = logs::MAX_BATCH_RECORDS * size_of::<logs::Record<'_>>();
    assert!(used <= 3 * batch, "{used} bytes");
}

/// A further field that is nested as deep as a frame allows: passing over it
/// takes a bounded multiple of its bytes, and no stack.
fn deep_nesting() {
    let field = [0x82, 0x9f].repeat(MAX_LOGS / 2 - 8);
    let body = [&[0x82, 0x00, 0x82, 0x40], field.as_slice()].concat();
    let (refused, used) = peak(|| frame::decode::<logs::FromInit<'_>>(&body).is_err());
    assert!(refused);
    assert!(used <= 64 * MAX_LOGS, "{used} bytes");
}

/// The greatest frame that the channel allows, of which little comes.
fn frames() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let (mut near, far) = tokio::io::duplex(1024);
        let claim = u32::try_from(MAX_LOGS).unwrap().to_be_bytes();
        near.write_all(&claim).await.unwrap();
        near.write_all(&[0; 1000]).await.unwrap();
        drop(near);
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let mut reader = Reader::new(far, MAX_LOGS);
        assert!(reader.receive::<logs::FromAgent>().await.is_err());
        let used = HEAP.peak_usage().saturating_sub(before);
        assert!(used < 256 * KIB, "{used} bytes");

        let prefix = u32::MAX.to_be_bytes();
        let mut stream = prefix.as_slice();
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        assert!(
            frame::read::<_, Connect>(&mut stream, MAX_TARGET)
                .await
                .is_err()
        );
        let used = HEAP.peak_usage().saturating_sub(before);
        assert!(used < KIB, "{used} bytes");
    });
}
