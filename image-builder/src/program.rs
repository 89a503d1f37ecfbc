//! Whether the workload's program can be executed in the image at all.

use std::io;

use eif::Architecture;
use manifest::Environment;

use crate::access::Access;
use crate::elf::{Elf, HEAD_BYTES};
use crate::files::Files;
use crate::libraries::Loading;
use crate::node::{Content, Kind, Metadata, Node};
use crate::tree::Tree;

/// How often a script may be run by a script (Linux, `exec_binprm`).
const MAX_SCRIPTS: usize = 5;

/// What a program is executed in.
pub(crate) struct Surroundings<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) environment: &'a Environment,
    pub(crate) working_directory: &'a str,
    pub(crate) access: Access<'a>,
    pub(crate) architecture: Architecture,
    /// Reads the beginning of a file.
    pub(crate) read: &'a dyn Fn(Content, u64) -> io::Result<Vec<u8>>,
}

/// What is at a path, and whether the workload gets there.
struct Found<'a> {
    path: String,
    node: &'a Node,
    /// The first folder on the way that the workload may not pass through.
    closed: Option<(String, Metadata)>,
}

impl Surroundings<'_> {
    /// Checks that the kernel will be able to execute `program`, which `key` names.
    pub(crate) fn check(&self, program: &str, key: &str) -> Result<(), String> {
        let found = self
            .find(program)
            .ok_or_else(|| self.missing(program, key))?;
        if content(found.node).is_none() {
            return Err(format!(
                "{} is not a file: set {key} to a program",
                found.path
            ));
        }
        self.check_file(&found, MAX_SCRIPTS)
    }

    /// The name of the file that `program` is in the end, every link followed.
    pub(crate) fn file_name(&self, program: &str) -> Option<String> {
        let found = self.find(program)?;
        let (path, _) = self.tree.walk(found.path.as_bytes(), &mut |_, _| {})?;
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// As `execvp` does.
    fn find(&self, program: &str) -> Option<Found<'_>> {
        if program.contains('/') {
            return self.locate(program);
        }
        let path = self.environment.get("PATH")?;
        let found: Vec<_> = path
            .split(':')
            .filter_map(|folder| self.locate(&format!("{folder}/{program}")))
            .collect();
        let executable = found.iter().position(|found| self.may_execute(found));
        // If none is, the error names the first.
        found.into_iter().nth(executable.unwrap_or(0))
    }

    /// What is at a path.
    fn locate(&self, path: &str) -> Option<Found<'_>> {
        let absolute = self.absolute(path);
        // The init has entered the working directory: what is above it is not passed through.
        let (start, _) = self
            .tree
            .walk(self.working_directory.as_bytes(), &mut |_, _| {})?;
        let is_above = |folder: &[u8]| folder.len() < start.len() && start.starts_with(folder);
        let mut closed = None;
        let (_, node) = self.tree.walk(absolute.as_bytes(), &mut |folder, node| {
            let is_passed = path.starts_with('/') || !is_above(folder);
            if is_passed && closed.is_none() && !self.access.searches(node) {
                let folder = format!("/{}", String::from_utf8_lossy(folder));
                closed = Some((folder, node.metadata));
            }
        })?;
        Some(Found {
            path: absolute,
            node,
            closed,
        })
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.working_directory.trim_end_matches('/'))
        }
    }

    fn may_execute(&self, found: &Found<'_>) -> bool {
        found.closed.is_none() && self.access.executes(found.node)
    }

    fn check_file(&self, found: &Found<'_>, scripts_left: usize) -> Result<(), String> {
        let Found { path, node, closed } = found;
        let Some(content) = content(node) else {
            return Err(format!("{path} is not a file"));
        };
        if node.metadata.permissions & 0o111 == 0 {
            return Err(format!(
                "{path} is not executable: make it so in the image (chmod +x)"
            ));
        }
        let refused = match closed {
            Some((folder, metadata)) => Some(("in a folder that is closed to", folder, metadata)),
            None if !self.access.executes(node) => {
                Some(("not executable for", path, &node.metadata))
            }
            None => None,
        };
        if let Some((what, place, metadata)) = refused {
            return Err(format!(
                "{path} is {what} {}: {place} belongs to {}:{} and has the mode {:04o}; change that in the image, or set workload.user",
                self.access, metadata.uid, metadata.gid, metadata.permissions
            ));
        }
        let head = (self.read)(content, HEAD_BYTES).map_err(|error| error.to_string())?;
        match head.strip_prefix(b"#!") {
            Some(rest) => self.check_script(path, rest, scripts_left),
            None => self.check_elf(path, &head),
        }
    }

    fn check_script(&self, path: &str, rest: &[u8], scripts_left: usize) -> Result<(), String> {
        let line = rest
            .split(|&byte| byte == b'\n')
            .next()
            .expect("a split has at least one part");
        let line = String::from_utf8_lossy(line);
        // As Linux does, only spaces and tabs separate.
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let interpreter = words.next().unwrap_or_default();
        if line.ends_with('\r') {
            return Err(format!(
                "{path} has Windows line ends, so Linux cannot find its interpreter: save it with Unix line ends"
            ));
        }
        let absent = |name: &str| {
            format!(
                "{path} is a script for `{name}`, which the image does not have: add it, or use another program"
            )
        };
        let Some(found) = self
            .locate(interpreter)
            .filter(|found| content(found.node).is_some())
        else {
            return Err(absent(interpreter));
        };
        let Some(scripts_left) = scripts_left.checked_sub(1) else {
            return Err(format!(
                "{path} is a script for a script, more than {MAX_SCRIPTS} deep: Linux does not run it"
            ));
        };
        self.check_file(&found, scripts_left)?;
        // `env` looks for the program itself.
        match (interpreter.rsplit('/').next(), words.next(), words.next()) {
            (Some("env"), Some(name), None)
                if !name.starts_with('-') && !name.contains('=') && self.find(name).is_none() =>
            {
                Err(absent(name))
            }
            _ => Ok(()),
        }
    }

    fn check_elf(&self, path: &str, head: &[u8]) -> Result<(), String> {
        let Some(elf) = Elf::parse(head) else {
            return Err(format!(
                "{path} is neither a 64-bit ELF program nor a script with #!: use one that is"
            ));
        };
        if elf.architecture != Some(self.architecture) {
            return Err(format!(
                "{path} is not built for {}, the enclave's processor: use an image that is",
                self.architecture
            ));
        }
        let Some(loader) = elf.interpreter else {
            return Ok(());
        };
        let loader = String::from_utf8_lossy(loader);
        match self.locate(&loader) {
            Some(found) if self.may_execute(&found) => self.loading().check(path, &loader),
            Some(_) => Err(format!(
                "{path} needs the loader {loader}, which is closed to {}: change its mode in the image, or set workload.user",
                self.access
            )),
            None => Err(format!(
                "{path} needs the loader {loader}, which the image does not have: link it statically, or use a base image with its C library"
            )),
        }
    }

    fn loading(&self) -> Loading<'_> {
        Loading {
            files: Files::new(self.tree, self.working_directory, self.read),
            environment: self.environment,
            architecture: self.architecture,
        }
    }

    /// The message for a program that is not there, with the files of its name.
    fn missing(&self, program: &str, key: &str) -> String {
        let name = program.rsplit('/').next().unwrap_or(program).as_bytes();
        let similar: Vec<_> = self
            .tree
            .iter()
            .filter(|(path, node)| {
                path.rsplit(|&byte| byte == b'/').next() == Some(name) && self.access.executes(node)
            })
            .map(|(path, _)| format!("/{}", String::from_utf8_lossy(path)))
            .take(3)
            .collect();
        let hint = if similar.is_empty() {
            format!("set {key} to a program that is in the image")
        } else {
            format!("did you mean {}?", similar.join(" or "))
        };
        let place = if program.contains('/') {
            "does not exist in the image"
        } else {
            "is in no folder of the image's PATH"
        };
        format!("{program} {place}; {hint}")
    }
}

fn content(node: &Node) -> Option<Content> {
    match node.kind {
        Kind::File { content, .. } => Some(content),
        _ => None,
    }
}
