//! The workload's output, from its pipes to the agent's standard output.

use enclave_tests::Hypervisor;

use crate::{start, under_both};

under_both!(logs_arrive_once_and_in_order, logs_keep_every_byte);

async fn logs_arrive_once_and_in_order(hypervisor: Hypervisor) {
    let count = match hypervisor {
        Hypervisor::Sim => 200_000,
        Hypervisor::Qemu => 20_000,
    };
    let mut agent = start(hypervisor, &format!("lines {count}"), &[]);
    agent.line("done").await.unwrap();
    let ended = agent.stopped().await.unwrap();
    let mut numbers = [Vec::new(), Vec::new()];
    for (record, sequence) in ended.records("application").zip(1..) {
        assert_eq!(record["sequence"], sequence);
        let text = record["text"].as_str().unwrap();
        let Some(number) = text.strip_prefix("line ") else {
            assert_eq!(text, "done");
            continue;
        };
        let number: usize = number.parse().unwrap();
        let source = if number.is_multiple_of(2) {
            "stdout"
        } else {
            "stderr"
        };
        assert_eq!(record["source"], source);
        numbers[number % 2].push(number);
    }
    for (parity, numbers) in numbers.into_iter().enumerate() {
        let expected: Vec<_> = (parity..count).step_by(2).collect();
        assert!(
            numbers == expected,
            "lines are lost, doubled or out of order"
        );
    }
}

async fn logs_keep_every_byte(hypervisor: Hypervisor) {
    let agent = start(hypervisor, "bytes", &[]);
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.end(), ended.stderr);
    let mut bytes = Vec::new();
    let records: Vec<_> = ended.records("application").collect();
    for record in &records {
        match (record["text"].as_str(), record["base64"].as_str()) {
            (Some(text), _) => bytes.extend(text.as_bytes()),
            (None, Some(text)) => bytes.extend(base64(text)),
            (None, None) => panic!("{record}"),
        }
        if record["continues"] == false {
            bytes.push(b'\n');
        }
    }
    let every: Vec<u8> = (0..=255).collect();
    let expected = [&every, &b"\n"[..], &vec![b'x'; 150_000], b"\nno end\n"].concat();
    assert!(
        bytes == expected,
        "{} bytes of {}",
        bytes.len(),
        expected.len()
    );
}

/// Decodes base64 (RFC 4648, section 4) independently of the agent's crate.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|&byte| byte != b'=') {
        let value = ALPHABET.iter().position(|&known| known == byte).unwrap();
        bits = (bits << 6 | u32::try_from(value).unwrap()) & 0xfff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff).try_into().unwrap());
        }
    }
    bytes
}
