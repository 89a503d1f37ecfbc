//! Whether the workload's program can be executed in the image at all.

use std::io;

use eif::Architecture;
use manifest::Environment;

use crate::tree::{Content, Kind, Node, Tree};

/// Where programs are looked for when the environment names no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of a program that are looked at.
const HEAD_BYTES: u64 = 4096;

/// Checks that the kernel will be able to execute `program`.
pub(crate) fn check(
    tree: &Tree,
    program: &str,
    environment: &Environment,
    working_directory: &str,
    architecture: Architecture,
    mut read: impl FnMut(Content, u64) -> io::Result<Vec<u8>>,
) -> Result<(), String> {
    let (path, node) = find(tree, program, environment, working_directory)
        .ok_or_else(|| missing(tree, program))?;
    let content = executable(node).ok_or_else(|| {
        format!("{path} is not an executable file: make it one (chmod +x) in the image")
    })?;
    let head = read(content, HEAD_BYTES).map_err(|error| error.to_string())?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let interpreter = line
            .split(u8::is_ascii_whitespace)
            .find(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .unwrap_or_default();
        return match tree.lookup(interpreter.as_bytes()).and_then(executable) {
            Some(_) => Ok(()),
            None => Err(format!(
                "{path} is a script for {interpreter}, which the image does not have: add it, or use another entrypoint"
            )),
        };
    }
    check_elf(tree, &path, &head, architecture)
}

fn find<'a>(
    tree: &'a Tree,
    program: &str,
    environment: &Environment,
    working_directory: &str,
) -> Option<(String, &'a Node)> {
    let at = |path: String| tree.lookup(path.as_bytes()).map(|node| (path, node));
    if program.starts_with('/') {
        return at(program.to_owned());
    }
    if program.contains('/') {
        return at(format!("{working_directory}/{program}"));
    }
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    path.split(':')
        .filter_map(|folder| at(format!("{folder}/{program}")))
        .find(|(_, node)| executable(node).is_some())
}

fn executable(node: &Node) -> Option<Content> {
    match node.kind {
        Kind::File { content, .. } if node.metadata.permissions & 0o111 != 0 => Some(content),
        _ => None,
    }
}

/// The message for a program that is not there, with the files of its name.
fn missing(tree: &Tree, program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program).as_bytes();
    let similar: Vec<_> = tree
        .iter()
        .filter(|(path, node)| {
            executable(node).is_some() && path.rsplit(|&byte| byte == b'/').next() == Some(name)
        })
        .map(|(path, _)| format!("/{}", String::from_utf8_lossy(path)))
        .take(3)
        .collect();
    let hint = if similar.is_empty() {
        "set workload.command to a program that is in the image".to_owned()
    } else {
        format!("did you mean {}?", similar.join(" or "))
    };
    format!("{program} does not exist in the image; {hint}")
}

/// Fields of the ELF header and program headers (System V ABI, chapters 4 and 5).
fn check_elf(
    tree: &Tree,
    path: &str,
    head: &[u8],
    architecture: Architecture,
) -> Result<(), String> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(format!(
            "{path} is neither a 64-bit ELF program nor a script with #!: use one that is"
        ));
    }
    let half = |offset: usize| {
        head.get(offset..)?
            .first_chunk()
            .map(|bytes| u16::from_le_bytes(*bytes))
    };
    let long = |offset: usize| {
        let bytes = head.get(offset..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*bytes)).ok()
    };
    let (machine, name) = match architecture {
        Architecture::X86_64 => (62, "x86-64"),
        Architecture::Aarch64 => (183, "arm64"),
    };
    if half(18) != Some(machine) {
        return Err(format!(
            "{path} is not built for {name}: use an image for the enclave's processor"
        ));
    }
    let (Some(table), Some(size), Some(count)) = (long(32), half(54), half(56)) else {
        return Ok(());
    };
    for index in 0..usize::from(count) {
        let Some(header) = index
            .checked_mul(size.into())
            .and_then(|offset| offset.checked_add(table))
        else {
            return Ok(());
        };
        let is_interpreter = head
            .get(header..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes))
            == Some(3);
        if !is_interpreter {
            continue;
        }
        let text = long(header.saturating_add(8))
            .and_then(|offset| head.get(offset..)?.split(|&byte| byte == 0).next());
        let Some(interpreter) = text else {
            return Ok(());
        };
        if tree.lookup(interpreter).and_then(executable).is_none() {
            return Err(format!(
                "{path} needs the loader {}, which the image does not have: link it statically, or use a base image with its C library",
                String::from_utf8_lossy(interpreter)
            ));
        }
    }
    Ok(())
}
