//! Requests to the software NSM, through its socket: any bytes are answered
//! within the device's limits, registers of the platform never change, and a
//! document carries what was asked for and is authentic. Requests of one process
//! meet one module, so registers 16 to 31 have a history.

#![no_main]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;

use attestation::{Nonce, Policy, Roots, Verifier};
use fuzz::within;
use libfuzzer_sys::fuzz_target;
use measurements::{Measurements, Pcr};
use nsm::{ErrorCode, MAX_REQUEST, MAX_RESPONSE, Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 256;

struct Module {
    socket: PathBuf,
    verifier: Verifier,
    policy: Policy,
}

/// One for the process: making keys takes long.
static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let socket = folder.join("nsm.sock");
    let root = TestRoot::generate().expect("a root");
    let roots = Roots::from_pem(root.certificate_pem().as_bytes()).expect("its certificate");
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(Measurements {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: None,
        }),
    };
    let module = SoftwareNsm::new(identity, root).expect("a module");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    listener
        .set_nonblocking(true)
        .expect("a socket that does not block");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("a socket");
            serve(listener, module).await
        })
    });
    Module {
        socket,
        verifier: Verifier::new(roots),
        policy: Policy::builder()
            .allow_any_image()
            .build()
            .expect("a policy"),
    }
});

thread_local! {
    static CONNECTION: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
}

/// Sends a request on a connection that is kept, and gives the answer.
fn ask(request: &[u8]) -> Response {
    CONNECTION.with_borrow_mut(|connection| {
        let stream = connection.get_or_insert_with(|| {
            UnixStream::connect(&MODULE.socket).expect("the module's socket")
        });
        let length = u32::try_from(request.len()).expect("a short request");
        // The module closes in the middle of a request that is too long.
        let _ = stream.write_all(&[&length.to_be_bytes(), request].concat());
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        let length = u32::from_be_bytes(length) as usize;
        assert!(length <= MAX_RESPONSE);
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).expect("a whole answer");
        if request.len() > MAX_REQUEST {
            *connection = None;
        }
        ciborium::from_reader(answer.as_slice()).expect("an answer that the device could give")
    })
}

fn check(bytes: &[u8]) {
    let answer = ask(bytes);
    if bytes.len() > MAX_REQUEST {
        assert!(matches!(answer, Response::Error(ErrorCode::InputTooLarge)));
        return;
    }
    let Ok(request) = ciborium::from_reader::<Request, _>(bytes) else {
        assert!(matches!(
            answer,
            Response::Error(ErrorCode::InvalidArgument)
        ));
        return;
    };
    match (request, answer) {
        (Request::DescribePCR { index: 0 }, Response::DescribePCR { lock, data }) => {
            assert!(lock);
            assert_eq!(data, [1; 48]);
        }
        (Request::DescribePCR { index }, Response::DescribePCR { data, .. }) => {
            assert!(index < 32);
            assert_eq!(data.len(), 48);
        }
        (Request::ExtendPCR { index, data: with }, Response::ExtendPCR { data }) => {
            assert!((16..32).contains(&index));
            assert!(!with.is_empty());
            assert_eq!(data.len(), 48);
        }
        (Request::LockPCR { index }, Response::LockPCR) => assert!((16..32).contains(&index)),
        (Request::LockPCRs { range }, Response::LockPCRs) => assert!(range <= 32),
        (Request::DescribeNSM, Response::DescribeNSM { locked_pcrs, .. }) => {
            assert!((0..16).all(|index| locked_pcrs.contains(&index)));
        }
        (Request::GetRandom, Response::GetRandom { random }) => assert_eq!(random.len(), 256),
        (
            Request::Attestation {
                user_data,
                nonce,
                public_key,
            },
            Response::Attestation { document },
        ) => {
            let verifier = &MODULE.verifier;
            let verification = verifier.verify(&document, &MODULE.policy, Nonce::Unchallenged);
            let accepted = verification.outcome.expect("a good document");
            assert_eq!(
                accepted.user_data(),
                user_data.as_ref().map(|bytes| bytes.as_slice())
            );
            assert_eq!(
                accepted.nonce(),
                nonce.as_ref().map(|bytes| bytes.as_slice())
            );
            assert_eq!(
                accepted.public_key(),
                public_key.as_ref().map(|bytes| bytes.as_slice())
            );
            assert_eq!(accepted.pcr(0), Some(Pcr::new([1; 48])));
        }
        (_, Response::Error(code)) => assert!(!matches!(
            code,
            ErrorCode::Success | ErrorCode::InternalError
        )),
        (request, answer) => panic!("{request:?} was answered with {answer:?}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&MODULE);
    within(MEMORY_KIB, || check(bytes));
});
