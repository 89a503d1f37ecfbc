//! Libraries that the loader would not find, found when the image is built.

use serde_json::json;

use crate::image::Image;
use crate::layer::{Layer, Linked, elf};
use crate::project::Project;

const GLIBC: &str = "/lib64/ld-linux-x86-64.so.2";
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";

fn program(needed: &[&str]) -> Vec<u8> {
    linked(needed, None, None)
}

fn linked(needed: &[&str], rpath: Option<&str>, runpath: Option<&str>) -> Vec<u8> {
    Linked {
        loader: Some(GLIBC),
        needed,
        rpath,
        runpath,
        ..Linked::default()
    }
    .elf()
}

fn library(needed: &[&str]) -> Vec<u8> {
    Linked {
        needed,
        ..Linked::default()
    }
    .elf()
}

/// An image with glibc as Debian has it: folders merged, libraries of several processors.
fn debian(program: Vec<u8>) -> Layer {
    Layer::new()
        .program("app", program)
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64")
        .symlink(
            "usr/lib64/ld-linux-x86-64.so.2",
            "../lib/x86_64-linux-gnu/ld-2.36.so",
        )
        .program("usr/lib/x86_64-linux-gnu/ld-2.36.so", elf())
        .file(
            "usr/lib/x86_64-linux-gnu/libc.so.6",
            library(&["ld-linux-x86-64.so.2"]),
        )
}

fn alpine(needed: &[&str]) -> Layer {
    let program = Linked {
        loader: Some(MUSL),
        needed,
        ..Linked::default()
    };
    Layer::new()
        .program("app", program.elf())
        .program("lib/ld-musl-x86_64.so.1", elf())
}

#[track_caller]
fn builds(layer: Layer) {
    Project::of(&Image::new(&[layer.last_of_each()])).build();
}

#[track_caller]
fn misses(layer: Layer, words: &[&str]) {
    let words = [&["enclave.toml:1: ", " needs the library "][..], words].concat();
    // There is no table that the line could be of.
    Project::of(&Image::new(&[layer.last_of_each()])).refused(2, &words);
}

#[test]
fn libraries_of_the_system_are_found() {
    builds(debian(program(&["libc.so.6"])));
    let words = [
        "/app needs the library libssl.so.3, which the image does not have",
        "/usr/lib/x86_64-linux-gnu, ",
        "install its package in the image",
    ];
    misses(debian(program(&["libc.so.6", "libssl.so.3"])), &words);
    // Libraries of libraries, of which another has loaded one already.
    let crypto = "usr/lib/x86_64-linux-gnu/libcrypto.so.3";
    let ssl = |layer: Layer| {
        let needed = library(&["libcrypto.so.3", "libc.so.6", "libssl.so.3"]);
        layer.file("usr/lib/x86_64-linux-gnu/libssl.so.3", needed)
    };
    let needs_ssl = || ssl(debian(program(&["libssl.so.3"])));
    let words = ["/usr/lib/x86_64-linux-gnu/libssl.so.3 needs the library libcrypto.so.3"];
    misses(needs_ssl(), &words);
    builds(needs_ssl().file(crypto, library(&[])));
    // A loader passes over what is not for its processor.
    misses(needs_ssl().file(crypto, "not a library"), &words);
    builds(needs_ssl().file(
        "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libcrypto.so.3",
        library(&[]),
    ));
}

#[test]
fn libraries_of_an_interpreter_are_those_of_the_script() {
    let script = |layer: Layer| layer.program("app", "#!/bin/python3\n");
    let python = program(&["libpython3.so"]);
    let layer = script(debian(vec![])).program("bin/python3", python);
    misses(layer, &["/bin/python3 needs the library libpython3.so"]);
}

#[test]
fn libraries_in_folders_that_the_program_names_are_found() {
    let own = |rpath, runpath| {
        let program = linked(&["liba.so", "libb.so"], rpath, runpath);
        debian(vec![])
            .program("opt/bin/app", program)
            .symlink("app", "opt/bin/app")
            .file("opt/lib/liba.so", library(&["libb.so"]))
            .file("opt/lib/libb.so", library(&[]))
    };
    for list in [
        "$ORIGIN/../lib",
        "/none:${ORIGIN}/../lib",
        "/opt/$LIB",
        "/opt/lib",
    ] {
        builds(own(Some(list), None));
        builds(own(None, Some(list)));
    }
    builds(own(Some("/none"), Some("/opt/lib")));
    misses(own(Some("/opt/lib"), Some("/none")), &["liba.so"]);
    misses(own(None, None), &["liba.so"]);
    // `DT_RPATH` is for the libraries' libraries, too, `DT_RUNPATH` is not.
    let indirect = |rpath, runpath| {
        debian(linked(&["liba.so"], rpath, runpath))
            .file("opt/lib/liba.so", library(&["libb.so"]))
            .file("opt/lib/libb.so", library(&[]))
    };
    builds(indirect(Some("/opt/lib"), None));
    misses(
        indirect(None, Some("/opt/lib")),
        &["/opt/lib/liba.so needs the library libb.so"],
    );
    // One that another has loaded has its own name, too.
    let named = Linked {
        own_name: Some("libb.so"),
        ..Linked::default()
    };
    let layer = indirect(None, Some("/opt/lib")).file("opt/lib/libc.so", named.elf());
    let program = linked(&["libc.so", "liba.so"], None, Some("/opt/lib"));
    builds(layer.program("app", program));
    // By its path.
    builds(debian(program_by_path()).file("opt/x.so", library(&[])));
    misses(debian(program_by_path()), &["the library /opt/x.so"]);
}

fn program_by_path() -> Vec<u8> {
    program(&["/opt/x.so"])
}

#[test]
fn libraries_in_folders_of_the_system_and_of_the_environment_are_found() {
    let layer = || debian(program(&["liba.so"])).file("opt/lib/liba.so", library(&[]));
    misses(layer(), &["liba.so"]);
    builds(layer().file("etc/ld.so.conf", "# folders\n/none\n/opt/lib # ours\n"));
    builds(
        layer()
            .file("etc/ld.so.conf", "include ld.so.conf.d/*.conf\n")
            .file("etc/ld.so.conf.d/ours.conf", "/opt/lib\n"),
    );
    misses(
        layer()
            .file("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
            .file("etc/ld.so.conf.d/ours.txt", "/opt/lib\n"),
        &["liba.so"],
    );
    builds(layer().file("etc/ld.so.cache", "glibc\0liba.so\0/elsewhere/liba.so\0"));
    let image = Image::new(&[layer()]).with("Env", json!(["LD_LIBRARY_PATH=/none:/opt/lib"]));
    Project::of(&image).build();
}

#[test]
fn libraries_of_musl_are_found() {
    builds(alpine(&["libc.musl-x86_64.so.1", "libpthread.so.0"]));
    let words = ["the library libz.so.1", "/lib, /usr/local/lib, /usr/lib"];
    misses(alpine(&["libz.so.1"]), &words);
    builds(alpine(&["libz.so.1"]).file("usr/local/lib/libz.so.1", library(&[])));
    let layer = alpine(&["libz.so.1"]).file("etc/ld-musl-x86_64.path", "/opt\n/srv:/data\n");
    builds(layer.clone().file("data/libz.so.1", library(&[])));
    misses(
        layer.file("lib/libz.so.1", library(&[])),
        &["/opt, /srv, /data"],
    );
}

#[test]
fn libraries_are_not_missed_where_it_cannot_be_decided() {
    let needs = |loader: &str| {
        let program = Linked {
            loader: Some(loader),
            needed: &["liba.so"],
            ..Linked::default()
        };
        Layer::new()
            .program("app", program.elf())
            .program(loader, elf())
    };
    // Loaders with other folders built in, or of another kind.
    builds(needs("/nix/store/x-glibc/lib/ld-linux-x86-64.so.2"));
    builds(needs("/lib/ld-other.so.1"));
    // What stands in for glibc's on musl.
    builds(needs("/lib/ld-linux-x86-64.so.2").program("lib/ld-musl-x86_64.so.1", elf()));
    builds(debian(linked(&["liba.so"], None, Some("/opt/$PLATFORM"))));
    builds(debian(program(&["liba.so"])).file("etc/ld.so.conf", "include /etc/[a-z]*.conf\n"));
    let large = vec![b'\n'; 65 * 1024];
    builds(debian(program(&["liba.so"])).file("etc/ld.so.conf", large));
}

#[test]
fn libraries_in_the_working_directory_are_found_where_a_list_has_an_empty_part() {
    let layer = |rpath| debian(linked(&["liba.so"], rpath, None)).file("srv/liba.so", library(&[]));
    let project = |layer: Layer, environment: &str| {
        let image = Image::new(&[layer]).with("WorkingDir", json!("/srv"));
        Project::of(&image.with("Env", json!([environment])))
    };
    for list in ["/none:", ":/none", "/none::/none", "."] {
        project(layer(None), &format!("LD_LIBRARY_PATH={list}")).build();
        project(layer(Some(list)), "A=1").build();
    }
    // A list without parts is none.
    for list in ["", "/none"] {
        let words = ["/app needs the library liba.so"];
        project(layer(None), &format!("LD_LIBRARY_PATH={list}")).refused(2, &words);
        project(layer(Some(list)), "A=1").refused(2, &words);
    }
}

/// Images that are made to take long: each is built, and nothing is said of a library that
/// is missing, because the search ends before.
#[test]
fn libraries_are_not_looked_for_without_end() {
    let needs = || debian(program(&["liba.so"]));
    let origin = "d/".repeat(200);
    let repeated = "$ORIGIN".repeat(2000);
    let many = vec!["$ORIGIN"; 1000].join(":");
    for rpath in [&repeated, &many] {
        let program = linked(&["liba.so"], Some(rpath), None);
        let layer = debian(vec![]).program(&format!("{origin}app"), program);
        builds(layer.symlink("app", &format!("{origin}app")));
    }
    // Patterns that match each other's files, and the whole tree each time.
    let mut layer = needs().file("etc/ld.so.conf", "include c/*\n".repeat(5000));
    for number in 0..200 {
        layer = layer.file(
            &format!("etc/c/{number}"),
            "include /etc/c/*\n".repeat(3000),
        );
    }
    builds(layer);
    // Folders that are many, and libraries that each name more.
    let folders: Vec<_> = (0..5000).map(|number| format!("/{number}\n")).collect();
    builds(needs().file("etc/ld.so.conf", folders.concat()));
    let names: Vec<_> = (0..250).map(|number| format!("lib{number}.so")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let folders: Vec<_> = (0..200).map(|number| format!("/x/{number}")).collect();
    let greedy = linked(&names, None, Some(&folders.join(":")));
    let mut layer = debian(greedy.clone());
    for name in &names {
        layer = layer.file(&format!("usr/lib/{name}"), greedy.clone());
    }
    let last = linked(&["liba.so"], None, Some(&folders.join(":")));
    builds(layer.file("usr/lib/lib249.so", last));
    // A cache that each name is looked for in.
    let names: Vec<_> = (0..250).map(|number| format!("lib{number}.so\0")).collect();
    let mut cache = names.concat();
    cache.extend(std::iter::repeat_n('x', 2 << 20));
    let names: Vec<_> = names
        .iter()
        .map(|name| name.trim_end_matches('\0'))
        .collect();
    builds(debian(program(&[&names[..], &["liba.so"]].concat())).file("etc/ld.so.cache", cache));
}
