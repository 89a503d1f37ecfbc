//! The library as C meets it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{Policy, Profile, Roots};
use attestation_results::{Appraisal, Issuer, SigningKey};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tempfile::TempDir;

const CORPUS: &str = "../../attestation/corpus";
const PCR0: &str = "17bf8f048519797be90497001a7559a3d555395937117d76f8baaedf56ca6d97952de79479bc0c76e5d176d20f663790";
/// Before 1.0 a minor version may break.
const SONAME: &str = concat!(
    "libattestation.so.",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
);
/// What a caller may be wrong about, and what is undefined, are errors.
const WARNINGS: [&str; 6] = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-Wstrict-prototypes",
];

#[test]
fn header_is_what_the_library_is() {
    let config = cbindgen::Config::from_file("cbindgen.toml").unwrap();
    let sources = [
        "lib",
        "verifier",
        "policy",
        "verification",
        "evidence",
        "result",
        "border",
    ];
    let builder = cbindgen::Builder::new().with_config(config);
    let bindings = sources
        .iter()
        .fold(builder, |builder, module| {
            builder.with_src(format!("src/{module}.rs"))
        })
        .generate()
        .unwrap();
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let path = "include/attestation.h";
    if std::env::var_os("ATTESTATION_WRITE_HEADER").is_some() {
        fs::write(path, &generated).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == generated,
        "write it anew: ATTESTATION_WRITE_HEADER=1 cargo xtask bindings"
    );
}

/// The library as `install` puts it somewhere.
struct Installed {
    folder: TempDir,
}

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("built");
        fs::create_dir(&built).unwrap();
        for name in ["libattestation_c.so", "libattestation_c.a"] {
            fs::copy(newest(name), built.join(name)).unwrap();
        }
        let output = Command::new("./install")
            .arg("--built")
            .args([&built, &folder.path().join("usr")])
            .output()
            .unwrap();
        assert_succeeded(&output);
        Self { folder }
    }

    fn lib(&self) -> PathBuf {
        self.folder.path().join("usr/lib")
    }

    /// What pkg-config says.
    fn flags(&self, arguments: &[&str]) -> Vec<String> {
        let output = Command::new("pkg-config")
            .args(arguments)
            .arg("attestation")
            .env("PKG_CONFIG_PATH", self.lib().join("pkgconfig"))
            .output()
            .unwrap();
        assert_succeeded(&output);
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn compile(&self, source: &Path, program: &Path, more: &[String]) -> Output {
        Command::new("cc")
            .args(WARNINGS)
            .args(["-O1", "-g"])
            .args(self.flags(&["--cflags"]))
            .arg("-o")
            .arg(program)
            .arg(source)
            .args(more)
            .output()
            .unwrap()
    }

    /// Compiles a program that loads the shared library.
    fn program(&self, source: &str) -> PathBuf {
        let program = self.folder.path().join("program");
        let mut link = self.flags(&["--libs"]);
        link.push(format!("-Wl,-rpath,{}", self.lib().display()));
        assert_succeeded(&self.compile(Path::new(source), &program, &link));
        program
    }

    /// Compiles a program with the static library in it. The sanitizers look at every
    /// access of the caller's.
    fn sanitized(&self, source: &str) -> PathBuf {
        let program = self.folder.path().join("program");
        let library = self.lib().join("libattestation.a");
        let mut link = vec![
            "-fsanitize=address,undefined".to_owned(),
            "-fno-sanitize-recover=all".to_owned(),
            library.display().to_string(),
        ];
        // The shared library is not wanted here.
        let all = self.flags(&["--static", "--libs"]);
        link.extend(all.into_iter().filter(|flag| flag != "-lattestation"));
        assert_succeeded(&self.compile(Path::new(source), &program, &link));
        program
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

/// The library that stands beside this test; another build may have left others.
fn newest(name: &str) -> PathBuf {
    let (stem, extension) = name.split_once('.').unwrap();
    let own = std::env::current_exe().unwrap();
    fs::read_dir(own.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(stem) && path.extension() == Some(extension.as_ref())
        })
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())
        .unwrap()
}

fn assert_succeeded(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn installed_programs_find_the_library_by_its_soname() {
    let installed = Installed::new();
    let program = installed.program("examples/verify.c");
    let needed = |file: &Path, tag: &str| {
        let output = Command::new("readelf")
            .arg("-d")
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = format!("[{SONAME}]");
        text.lines()
            .any(|found| found.contains(tag) && found.ends_with(&line))
    };
    assert!(needed(&program, "(NEEDED)"));
    assert!(needed(&installed.lib().join(SONAME), "(SONAME)"));
    assert_eq!(
        installed.flags(&["--modversion"]),
        [env!("CARGO_PKG_VERSION")]
    );
    let output = run(&program, &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn example_accepts_and_refuses_a_document_of_aws() {
    let installed = Installed::new();
    let program = installed.program("examples/verify.c");
    let good = installed.write("good.toml", format!("[pcrs]\n0 = \"{PCR0}\"\n"));
    let wrong = installed.write("wrong.toml", format!("[pcrs]\n8 = \"{PCR0}\"\n"));
    let nothing = installed.write("nothing.toml", "max_age = \"1m\"\n");
    let document = format!("{CORPUS}/aws/3a4a0301e6aa2839.cbor");
    for (arguments, code, expected) in [
        (
            vec![&*document, &good, "--audit", "of-document"],
            0,
            "accepted: i-0df237f0418feb41e-enc018d1c7ef94eb110 at 1708930921439, PCR0 ",
        ),
        (
            vec![&document, &good, "--audit", "1708930921439"],
            0,
            "accepted: ",
        ),
        (
            vec![&document, &good, "--unchallenged"],
            1,
            "refused: certificate.validity: ",
        ),
        (
            vec![&document, &good, "00ff"],
            1,
            "refused: certificate.validity: ",
        ),
        (
            vec![&document, &wrong, "--audit", "of-document"],
            1,
            "refused: policy.pcr.8: ",
        ),
        (
            vec![&good, &good, "--audit", "of-document"],
            1,
            "refused: cbor.encoding: ",
        ),
    ] {
        let (code_found, report, end) = judged(&program, &arguments);
        assert_eq!(code_found, code, "{arguments:?}: {end}");
        assert_eq!(report["accepted"], code == 0);
        assert!(end.starts_with(expected), "{arguments:?}: {end}");
    }
    for (arguments, expected) in [
        (vec![&*document, &nothing, "00"], "names no code"),
        (vec![&document, &good, "no digits"], "nonce is empty"),
    ] {
        let output = run(&program, &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn words_for_registers_are_those_of_every_policy() {
    let installed = Installed::new();
    let program = installed.program("examples/verify.c");
    let document = format!("{CORPUS}/aws/3a4a0301e6aa2839.cbor");
    for (word, expected) in [
        ("instance_id = \"i-0df237f0418feb41e\"", "accepted: "),
        (
            "instance_id = \"i-1234567890abcdef0\"",
            "refused: policy.pcr.4: ",
        ),
        (
            "role_arn = \"arn:aws:iam::123456789012:role/Webserver\"",
            "refused: policy.pcr.3: ",
        ),
    ] {
        let policy = format!("allow_any_image = true\n{word}\n");
        let policy = installed.write("words.toml", policy);
        let (_, _, end) = judged(&program, &[&document, &policy, "--audit", "of-document"]);
        assert!(end.starts_with(expected), "{word}: {end}");
    }
    // A text is in no folder where the file could be.
    let policy = installed.write("signer.toml", "signer = \"signer.pem\"\n");
    let output = run(&program, &[&document, &policy, "--audit", "of-document"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("signer.pem") && error.contains("content"),
        "{error}"
    );
}

/// How the example ends, the report and the line after it.
fn judged(program: &Path, arguments: &[&str]) -> (i32, serde_json::Value, String) {
    let output = run(program, arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let (report, end) = text.split_once('\n').unwrap_or_else(|| panic!("{errors}"));
    (
        output.status.code().unwrap(),
        serde_json::from_str(report).unwrap(),
        end.to_owned(),
    )
}

#[test]
fn clock_skew_of_a_minute_refuses_no_good_document() {
    let installed = Installed::new();
    let program = installed.program("examples/verify.c");
    let any = installed.write("any.toml", "allow_any_image = true\nallow_debug = true\n");
    let cases: Vec<_> = fs::read_dir(format!("{CORPUS}/aws"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with("-at-its-own-time.json"))
        .collect();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let case: serde_json::Value = serde_json::from_slice(&fs::read(case).unwrap()).unwrap();
        let document = format!("{CORPUS}/{}", case["document"].as_str().unwrap());
        let made = case["claims"]["timestamp_ms"].as_u64().unwrap();
        let at = |seconds: u64| {
            let time = (made - seconds * 1000).to_string();
            judged(&program, &[&document, &any, "--audit", &time])
        };
        let (code, _, end) = at(59);
        assert_eq!(code, 0, "{document}: {end}");
        let (code, _, end) = at(61);
        assert_eq!(code, 1, "{document}: {end}");
        assert!(
            end.contains("the clock is") && end.contains("behind"),
            "{end}"
        );
    }
}

const NONCE: [u8; 32] = [42; 32];
const PCR: Pcr = Pcr::new([7; 48]);

/// A live document, which answers the challenge [`NONCE`].
struct Live {
    root_pem: String,
    document: Vec<u8>,
}

impl Live {
    fn new() -> Self {
        let root = TestRoot::generate().unwrap();
        let root_pem = root.certificate_pem().to_owned();
        let identity = Identity {
            instance_id: "i-00000000000000000".to_owned(),
            enclave_id: "enc0000000000000000".to_owned(),
            measurements: Some(Measurements {
                pcr0: PCR,
                pcr1: PCR,
                pcr2: PCR,
                pcr8: None,
            }),
        };
        let answer = SoftwareNsm::new(identity, root)
            .unwrap()
            .answer(Request::Attestation {
                user_data: None,
                nonce: Some(NONCE.to_vec().into()),
                public_key: None,
            });
        let Response::Attestation { document } = answer else {
            panic!("{answer:?}");
        };
        Self { root_pem, document }
    }
}

/// Null, nonsense, what is freed and what nobody initialised, in C; linked statically, and
/// shared between threads.
#[test]
fn misuse_is_an_error_and_accepts_nothing() {
    let installed = Installed::new();
    let live = Live::new();
    let arguments = [
        format!("{CORPUS}/aws/8ff485d8a838b3ca.cbor"),
        installed.write("root.pem", live.root_pem),
        installed.write("live.cbor", live.document),
        installed.write("nonce", NONCE),
    ];
    let program = installed.sanitized("tests/misuse.c");
    assert_succeeded(&run(&program, &arguments.each_ref().map(String::as_str)));
}

/// The same, of signed results.
#[test]
fn misuse_of_results_is_an_error_and_accepts_nothing() {
    let installed = Installed::new();
    let live = Live::new();
    let verifier = attestation::Verifier::new(Roots::from_pem(live.root_pem.as_bytes()).unwrap());
    let policy = Policy::builder().pcr(0, PCR).build().unwrap();
    let nonce = attestation::Nonce::Fresh(&NONCE);
    let verification = verifier.verify(&live.document, &policy, nonce);
    let (key, _) = SigningKey::generate().unwrap();
    let issuer = Issuer {
        developer: "tests".to_owned(),
        url: None,
        lifetime: Duration::from_secs(300),
    };
    let appraisal = Appraisal {
        report: &verification.report,
        document: &live.document,
        profile: Profile::Enclave,
        policy_ids: &["tests"],
        nonce: attestation_results::NonceSource::Caller(&NONCE),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = issuer.token(&key, &appraisal, now.as_secs()).unwrap();
    let keys = serde_json::json!({ "keys": [key.jwk()] }).to_string();
    let expectations = r#"{"policies": ["tests"], "allow_other_roots": true}"#;
    let arguments = [
        installed.write("keys", keys),
        installed.write("expectations", expectations),
        installed.write("token", token),
        installed.write("nonce", NONCE),
    ];
    let program = installed.sanitized("tests/result.c");
    assert_succeeded(&run(&program, &arguments.each_ref().map(String::as_str)));
}

/// What compiles with warnings alone would be accepted where nobody reads them.
#[test]
fn misuse_that_the_compiler_sees_does_not_compile() {
    let installed = Installed::new();
    let program = installed.folder.path().join("misuse.o");
    for (body, complaint) in [
        (
            "if (attestation_verify(v, p, d, 1, d, 1, 0, 0) == ATTESTATION_ACCEPTED) return 1;",
            None,
        ),
        (
            "attestation_verify(v, p, d, 1, d, 1, 0, 0);",
            Some("unused"),
        ),
        (
            "attestation_verify_unchallenged(v, p, d, 1, 0, 0);",
            Some("unused"),
        ),
        ("attestation_audit_at(v, p, d, 1, 0, 0, 0);", Some("unused")),
        (
            "attestation_audit_of_document(v, p, d, 1, 0, 0);",
            Some("unused"),
        ),
        (
            "return attestation_verification_evidence(a) != 0;",
            Some("incompatible pointer"),
        ),
        (
            "attestation_verification *live; return attestation_audit_at(v, p, d, 1, 0, &live, 0);",
            Some("incompatible pointer"),
        ),
    ] {
        let source = installed.write(
            "misuse.c",
            format!(
                "#include <attestation.h>\n\
                 int f(attestation_verifier *v, attestation_policy *p, const uint8_t *d, attestation_audit *a);\n\
                 int f(attestation_verifier *v, attestation_policy *p, const uint8_t *d, attestation_audit *a)\n\
                 {{ (void)v; (void)p; (void)d; (void)a; {body} return 0; }}\n"
            ),
        );
        let output = installed.compile(Path::new(&source), &program, &["-c".to_owned()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            complaint.is_none(),
            "{body}: {errors}"
        );
        assert!(
            errors.contains(complaint.unwrap_or_default()),
            "{body}: {errors}"
        );
    }
}
