//! `diff`, of images that are the same, that are not, and that are none.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::image::{Image, app, sha256};
use crate::layer::{Layer, elf};
use crate::project::{Project, error_line, program};

/// Two images in one folder, `a.eif` and `b.eif`.
fn two(first: &Project, second: &Project) -> Project {
    let folder = Project::new();
    folder.write("a.eif", first.build());
    folder.write("b.eif", second.build());
    folder
}

fn of(layer: Layer) -> Project {
    Project::of(&Image::new(&[layer]))
}

fn diff(folder: &Project, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("diff").args(arguments);
    command.current_dir(folder.folder()).output().unwrap()
}

fn text(folder: &Project, code: i32) -> String {
    let output = diff(folder, &["a.eif", "b.eif"]);
    assert_eq!(output.status.code(), Some(code));
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn diff_of_an_image_and_itself_is_empty() {
    let folder = two(&Project::new(), &Project::new());
    assert_eq!(text(&folder, 0), "images          the same\n");
    let json = diff(&folder, &["--json", "a.eif", "b.eif"]).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        json,
        json!({"SameMeasurements": true, "Sections": [], "Registers": []})
    );
}

#[test]
fn diff_names_each_file_of_the_application_and_what_changed() {
    let first = app()
        .file("contents", "one")
        .file("mode", "")
        .file("gone", "")
        .symlink("link", "contents")
        .file("kind", "");
    let second = app()
        .file("contents", "three")
        .program("mode", "")
        .file("new", "")
        .symlink("link", "mode")
        .directory("kind")
        .file("owner\u{1b}[31m", "");
    let folder = two(&of(first), &of(second));
    let text = text(&folder, 4);
    let mut lines = text.lines().skip_while(|line| line.starts_with("metadata"));
    assert_eq!(lines.next(), Some("application     changed files: 7"));
    let files: Vec<_> = lines.by_ref().take(7).map(str::trim_start).collect();
    assert_eq!(
        files,
        [
            "~ rootfs/contents: contents, 3 → 5 bytes",
            "- rootfs/gone",
            "~ rootfs/kind: file → folder, mode 0644 → 0755",
            "~ rootfs/link: target",
            "~ rootfs/mode: mode 0644 → 0755",
            "+ rootfs/new",
            "+ rootfs/owner\\u{1b}[31m",
        ]
    );
    // PCR1 holds kernel, command line and init, which are the same.
    let registers: Vec<_> = lines.filter(|line| line.starts_with("PCR")).collect();
    assert_eq!(registers.len(), 2);
    assert!(registers[0].starts_with("PCR0") && registers[1].starts_with("PCR2"));

    let json = diff(&folder, &["--json", "a.eif", "b.eif"]).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["SameMeasurements"], false);
    let sections = json["Sections"].as_array().unwrap();
    let application = sections.last().unwrap();
    assert_eq!(application["Ramdisk"], 1);
    assert_eq!(
        application["Files"][1],
        json!({"Path": "rootfs/gone", "Change": "Removed", "Details": []})
    );
}

#[test]
fn diff_names_the_init_that_another_build_has() {
    let (first, second) = (Project::new(), Project::new());
    let mut init = elf();
    init.push(0);
    second.write("enclave-init", &init);
    let folder = two(&first, &second);
    let shown = text(&folder, 4);
    assert!(shown.contains("~ init: contents, 64 → 65 bytes"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("PCR1")));
    assert!(!shown.lines().any(|line| line.starts_with("PCR2")));

    let mut command = program();
    command.args(["describe", "b.eif"]);
    let described = command.current_dir(folder.folder()).output().unwrap();
    let described = String::from_utf8(described.stdout).unwrap();
    let line = format!("init            {}", sha256(&init));
    assert!(described.lines().any(|own| own == line), "{described}");
}

#[test]
fn diff_tells_what_is_not_measured_from_what_is() {
    let folder = Project::new();
    folder.write("a.eif", folder.build());
    let mut later = folder.command();
    later.env("SOURCE_DATE_EPOCH", "1");
    assert!(later.status().unwrap().success());
    fs::rename(folder.path("out.eif"), folder.path("b.eif")).unwrap();
    let shown = text(&folder, 4);
    assert_eq!(
        shown,
        "metadata        not the same\nmeasurements    the same\n"
    );
}

#[test]
fn diff_refuses_what_is_no_sound_image() {
    let folder = two(&Project::new(), &Project::new());
    let mut damaged = fs::read(folder.path("b.eif")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    folder.write("b.eif", damaged);
    let output = diff(&folder, &["a.eif", "b.eif"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(error_line(&output).contains("b.eif"));
    assert_eq!(diff(&folder, &["a.eif", "c.eif"]).status.code(), Some(1));
    assert_eq!(diff(&folder, &["a.eif"]).status.code(), Some(2));
}
