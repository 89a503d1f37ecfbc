//! The library as C meets it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
const VECTORS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../attestation/tests/vectors"
);
const PCR0: &str = "17bf8f048519797be90497001a7559a3d555395937117d76f8baaedf56ca6d97952de79479bc0c76e5d176d20f663790";

#[test]
fn the_header_is_what_the_library_is() {
    let config = cbindgen::Config::from_file(Path::new(CRATE).join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_src(Path::new(CRATE).join("src/lib.rs"))
        .with_config(config)
        .generate()
        .unwrap();
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let path = Path::new(CRATE).join("include/attestation.h");
    if std::env::var_os("ATTESTATION_WRITE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "write it anew: ATTESTATION_WRITE_HEADER=1 cargo xtask bindings"
    );
}

/// The folder of the libraries: the one that this test is in.
fn libraries() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().to_owned()
}

/// Compiles a C program against the header, and links it with `link`.
fn compile(source: &Path, program: &Path, link: &[&str]) {
    let output = Command::new("cc")
        .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic"])
        .args(["-Werror", "-Wstrict-prototypes", "-I"])
        .arg(Path::new(CRATE).join("include"))
        .arg("-o")
        .arg(program)
        .arg(source)
        .args(link)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn the_example_accepts_and_rejects_a_document_of_aws() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("verify");
    let libraries = libraries();
    let search = format!("-L{}", libraries.display());
    let at_run_time = format!("-Wl,-rpath,{}", libraries.display());
    let source = Path::new(CRATE).join("examples/verify.c");
    compile(
        &source,
        &program,
        &[&search, &at_run_time, "-lattestation_c"],
    );

    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = write("good.toml", &format!("[pcrs]\n0 = \"{PCR0}\"\n"));
    let wrong = write("wrong.toml", &format!("[pcrs]\n8 = \"{PCR0}\"\n"));
    let nothing = write("nothing.toml", "max_age = \"1m\"\n");
    let document = format!("{VECTORS}/3a4a0301e6aa2839.cbor");
    for (arguments, code, expected) in [
        (
            vec![document.as_str(), &good, "document"],
            0,
            "accepted: i-0df237f0418feb41e-enc018d1c7ef94eb110 at 1708930921439, PCR0 ",
        ),
        (vec![&document, &good, "1708930921439"], 0, "accepted: "),
        (
            vec![&document, &good, "now"],
            1,
            "rejected: certificate.validity",
        ),
        (
            vec![&document, &wrong, "document"],
            1,
            "rejected: policy.pcr.8",
        ),
        (
            vec![&document, &good, "document", "nonce"],
            1,
            "rejected: policy.nonce",
        ),
        (vec![&good, &good, "document"], 1, "rejected: cbor.encoding"),
    ] {
        let output = run(&program, &arguments);
        let (text, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let (report, end) = text.split_once('\n').unwrap();
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        assert_eq!(report["accepted"], code == 0);
        assert!(end.starts_with(expected), "{arguments:?}: {end}");
    }
    let output = run(&program, &[&document, &nothing, "document"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("names no code"), "{error}");
}

/// Null, nonsense and what is freed, in C; linked statically, and shared between
/// threads.
#[test]
fn a_caller_that_errs_gets_an_error_and_threads_share_a_verifier() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("errors");
    let library = std::fs::read_dir(libraries())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("libattestation_c") && path.extension() == Some("a".as_ref())
        })
        .unwrap();
    let source = Path::new(CRATE).join("tests/errors.c");
    let library = library.display().to_string();
    compile(
        &source,
        &program,
        &[&library, "-lpthread", "-ldl", "-lm", "-lgcc_s"],
    );
    let document = format!("{VECTORS}/8ff485d8a838b3ca.cbor");
    let output = run(&program, &[&document]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
}
