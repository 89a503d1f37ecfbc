//! What the queue keeps, drops and reports.

use link::logs::MAX_RECORD;
use proptest::prelude::*;

use super::*;

fn queue(when_full: WhenFull) -> (Queue, Instant) {
    let now = Instant::now();
    (Queue::new(when_full, LogBuffer::default(), now), now)
}

fn offer(queue: &mut Queue, length: usize, now: Instant) -> bool {
    let piece = Piece {
        data: vec![b'a'; length].into(),
        time_us: 0,
        continues: false,
    };
    let origin = Origin {
        source: Source::Stdout,
        workload: None,
    };
    queue.offer(&origin, piece, now).is_ok()
}

fn application(queue: &mut Queue, now: Instant) {
    assert!(offer(queue, 10, now));
}

fn system(queue: &mut Queue, length: usize, now: Instant) {
    queue.add(
        LogStream::System,
        &Origin::INIT,
        vec![b's'; length].into(),
        0,
        now,
    );
}

/// Everything that a new connection would carry.
fn carry(queue: &mut Queue, now: Instant) -> Vec<Queued> {
    queue.begin(&[], now);
    let mut carried = Vec::new();
    loop {
        let batch = queue.next_batch(0, now);
        if batch.is_empty() {
            return carried;
        }
        carried.extend(batch);
        assert!(carried.len() < 100_000, "reports displace records for ever");
    }
}

fn text(record: &Queued) -> &str {
    std::str::from_utf8(&record.data).unwrap()
}

fn numbers(batch: &[Queued]) -> Vec<(LogStream, u64)> {
    batch
        .iter()
        .map(|record| (record.stream, record.sequence))
        .collect()
}

#[test]
fn a_full_queue_waits_and_then_drops_the_oldest_and_says_so_once() {
    let (mut queue, start) = queue(WhenFull::DropOldest);
    let mut kept = 0;
    while offer(&mut queue, MAX_RECORD, start) {
        kept += 1;
    }
    assert!(queue.bytes <= queue.limit && kept == 63);
    let end = start + PATIENCE;
    assert!(!offer(
        &mut queue,
        MAX_RECORD,
        end - Duration::from_millis(1)
    ));
    for _ in 0..10 {
        assert!(offer(&mut queue, MAX_RECORD, end));
    }
    assert!(queue.bytes <= queue.limit);
    assert_eq!(queue.records.front().unwrap().sequence, 11);
    let mut carried = carry(&mut queue, end);
    let report = carried.pop().unwrap();
    assert!(
        text(&report).starts_with("10 log records were dropped from application, numbers 1 to 10:"),
        "{report:?}"
    );
    assert_eq!(report.stream, LogStream::Errors);
    assert_eq!(carried.len(), kept, "the report displaces nothing");
    // Taking records ends the drops: the workload waits again.
    assert!(queue.acknowledge(&[(LogStream::Application, 11)], end));
    assert!(offer(&mut queue, MAX_RECORD, end));
    assert!(!offer(&mut queue, MAX_RECORD, end));
}

#[test]
fn patience_begins_when_there_is_something_to_take() {
    let (mut queue, start) = queue(WhenFull::DropOldest);
    let later = start + Duration::from_secs(3600);
    while offer(&mut queue, MAX_RECORD, later) {}
    assert_eq!(queue.waiting_since(), Some(later));
    assert_eq!(queue.patience_ends(), Some(later + PATIENCE));
    // A parent that comes and takes nothing buys no time.
    let end = later + PATIENCE;
    assert!(!queue.begin(&[(LogStream::Application, 5)], end));
    assert!(offer(&mut queue, 1, end));
}

#[test]
fn a_queue_that_blocks_never_drops_the_workloads_records() {
    let (mut queue, start) = queue(WhenFull::Block);
    let mut kept = 0;
    while offer(&mut queue, MAX_RECORD, start) {
        kept += 1;
    }
    let later = start + Duration::from_secs(3600);
    assert!(!offer(&mut queue, MAX_RECORD, later));
    assert_eq!(queue.patience_ends(), None);
    let mut own = 0;
    while queue.dropped[LogStream::System as usize].count < 3 {
        // Smaller than a report.
        system(&mut queue, 0, later);
        own += 1;
    }
    let carried = carry(&mut queue, later);
    let application = |record: &&Queued| record.stream == LogStream::Application;
    assert_eq!(carried.iter().filter(application).count(), kept);
    queue.acknowledge(&[(LogStream::Application, 1)], later);
    let batch = queue.next_batch(0, later);
    let expected = format!(
        "3 log records were dropped from system, numbers {} to {own}:",
        own - 2
    );
    assert!(text(&batch[0]).starts_with(&expected), "{batch:?}");
}

#[test]
fn a_report_that_has_no_room_waits() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    while queue.dropped[LogStream::System as usize].count == 0 {
        system(&mut queue, MAX_RECORD, now);
    }
    while queue.bytes + RECORD_OVERHEAD <= queue.limit + MAX_OWN {
        system(&mut queue, 0, now);
    }
    carry(&mut queue, now);
    assert_eq!(queue.dropped[LogStream::System as usize].count, 1);
    queue.acknowledge(&[(LogStream::System, 5)], now);
    let batch = queue.next_batch(0, now);
    assert_eq!(numbers(&batch), [(LogStream::Errors, 1)]);
}

#[test]
fn losses_of_a_queue_that_is_given_up_are_all_that_is_not_held() {
    for when_full in [WhenFull::DropOldest, WhenFull::Block] {
        let (mut queue, now) = queue(when_full);
        for _ in 0..5 {
            application(&mut queue, now);
            system(&mut queue, 1, now);
        }
        carry(&mut queue, now);
        queue.acknowledge(&[(LogStream::Application, 2), (LogStream::System, 1)], now);
        queue.abandon();
        // What still comes waits for nothing, and nothing reports it.
        while queue.lost[LogStream::Application as usize][LossReason::Ended as usize] < 100 {
            application(&mut queue, now);
        }
        assert!(queue.is_empty() && queue.bytes == 0);
        assert_eq!(queue.next_batch(0, now).len(), 0);
        let loss = |stream, records| Loss {
            stream,
            reason: LossReason::Ended,
            records,
        };
        let expected = [
            loss(LogStream::Application, 100),
            loss(LogStream::System, 4),
        ];
        assert_eq!(queue.losses().0, expected);
        let numbered = [(LogStream::Application, 102), (LogStream::System, 5)];
        assert_eq!(queue.numbered(), numbered);
    }
}

#[test]
fn drops_are_reported_for_each_stream() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    for _ in 0..10 {
        system(&mut queue, 1, now);
    }
    while offer(&mut queue, MAX_RECORD, now) {}
    for _ in 0..3 {
        assert!(offer(&mut queue, MAX_RECORD, now + PATIENCE));
    }
    let carried = carry(&mut queue, now);
    let reports: Vec<_> = carried
        .iter()
        .filter(|record| record.stream == LogStream::Errors)
        .map(|record| text(record).split(':').next().unwrap())
        .collect();
    assert_eq!(
        reports,
        [
            "3 log records were dropped from application, numbers 1 to 3",
            "10 log records were dropped from system, numbers 1 to 10"
        ]
    );
}

#[test]
fn the_inits_own_records_do_not_displace_the_workloads() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    while offer(&mut queue, MAX_RECORD, now) {}
    system(&mut queue, 1, now);
    assert!(queue.dropped.iter().all(|dropped| dropped.count == 0));
}

#[test]
fn few_records_wait_for_an_acknowledgement_and_many_do_not() {
    let (mut queue, now) = queue(WhenFull::Block);
    queue.begin(&[], now);
    application(&mut queue, now);
    assert!(!queue.gathers(), "nothing is on its way");
    assert_eq!(queue.next_batch(0, now).len(), 1);
    for _ in 1..FEW {
        application(&mut queue, now);
    }
    assert!(queue.gathers());
    application(&mut queue, now);
    assert!(!queue.gathers());
    queue.acknowledge(&[(LogStream::Application, 1)], now);
    queue.next_batch(0, now);
    queue.acknowledge(&[(LogStream::Application, 1 + FEW as u64)], now);
    application(&mut queue, now);
    assert!(!queue.gathers());
}

#[test]
fn acknowledged_records_leave() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    queue.begin(&[], now);
    for _ in 0..3 {
        application(&mut queue, now);
        system(&mut queue, 1, now);
    }
    assert_eq!(queue.next_batch(0, now).len(), 6);
    // In any order of the streams.
    queue.acknowledge(&[(LogStream::System, 1), (LogStream::Application, 3)], now);
    assert_eq!((queue.records.len(), queue.sent), (3, 3));
    queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 3)], now);
    assert_eq!((queue.records.len(), queue.bytes, queue.sent), (0, 0, 0));
    assert_eq!(queue.waiting_since(), None);
}

#[test]
fn numbers_that_were_never_carried_are_not_acknowledged() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    queue.begin(&[(LogStream::Application, u64::MAX)], now);
    application(&mut queue, now);
    queue.acknowledge(&[(LogStream::Application, 1)], now);
    assert_eq!(queue.records.len(), 1);
    queue.next_batch(0, now);
    application(&mut queue, now);
    queue.acknowledge(&[(LogStream::Application, u64::MAX)], now);
    assert_eq!(
        numbers(&queue.next_batch(0, now)),
        [(LogStream::Application, 2)]
    );
}

#[test]
fn a_parent_that_has_forgotten_gets_what_is_still_here() {
    let (mut queue, now) = queue(WhenFull::DropOldest);
    queue.begin(&[], now);
    for _ in 0..5 {
        application(&mut queue, now);
    }
    queue.next_batch(0, now);
    queue.acknowledge(&[(LogStream::Application, 3)], now);
    for held in [0, 1, 3] {
        queue.begin(&[(LogStream::Application, held)], now);
        let numbers = numbers(&queue.next_batch(0, now));
        assert_eq!(
            numbers,
            [4, 5].map(|number| (LogStream::Application, number))
        );
    }
}

proptest! {
    /// Whatever connections come and go, and wherever they break, the parent
    /// ends with every record, each once, if it takes only what is next.
    #[test]
    fn nothing_is_lost_or_twice_across_connections(
        steps in prop::collection::vec((0_u8..4, 0_usize..5), 1..60),
    ) {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        let mut held = [0_u64; STREAMS];
        let mut wire = VecDeque::new();
        let mut pushed = 0;
        let stored = |held: &[u64; STREAMS]| {
            LogStream::ALL.into_iter().zip(*held).collect::<Vec<_>>()
        };
        let take = |held: &mut [u64; STREAMS], (stream, sequence): (LogStream, u64)| {
            let last = &mut held[stream as usize];
            if sequence > *last {
                assert_eq!(sequence, *last + 1, "a gap");
                *last = sequence;
            }
        };
        for (kind, count) in steps {
            match kind {
                0 => for _ in 0..count {
                    application(&mut queue, now);
                    system(&mut queue, 1, now);
                    pushed += 1;
                },
                1 => wire.extend(numbers(&queue.next_batch(0, now))),
                2 => {
                    for record in wire.drain(..count.min(wire.len())) {
                        take(&mut held, record);
                    }
                    queue.acknowledge(&stored(&held), now);
                }
                _ => {
                    wire.clear();
                    queue.begin(&stored(&held), now);
                }
            }
        }
        queue.begin(&stored(&held), now);
        for record in numbers(&queue.next_batch(0, now)) {
            take(&mut held, record);
        }
        queue.acknowledge(&stored(&held), now);
        prop_assert!(queue.is_empty());
        prop_assert_eq!(held[LogStream::Application as usize], pushed);
        prop_assert_eq!(held[LogStream::System as usize], pushed);
    }
}
