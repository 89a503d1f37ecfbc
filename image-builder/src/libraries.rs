//! Whether the loader will find the libraries that a program needs, as ld.so(8) of glibc
//! and the dynamic linker of musl (`ldso/dynlink.c`) look for them.
//!
//! It is never said of an image that works: what cannot be decided is taken for found.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use eif::Architecture;
use manifest::Environment;

use crate::dynamic::Dynamic;
use crate::elf::{Elf, HEAD_BYTES};
use crate::node::{Content, Kind, Node};
use crate::tree::Tree;

/// Most libraries of a program that are looked at.
const MAX_LIBRARIES: usize = 256;
/// Largest file of a loader's configuration, in bytes, and how many there may be.
const MAX_CONFIGURATION: u64 = 64 * 1024;
const MAX_CONFIGURATIONS: usize = 256;
/// Largest cache of glibc's loader, in bytes.
const MAX_CACHE: u64 = 16 * 1024 * 1024;
const CONFIGURATION: &str = "/etc/ld.so.conf";
const CACHE: &str = "/etc/ld.so.cache";
/// Where musl looks unless `/etc/ld-musl-*.path` says something else.
const MUSL_FOLDERS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
/// Libraries that are part of musl's loader itself, by the beginnings of their names.
const IN_MUSL: [&str; 8] = [
    "libc.",
    "libpthread.",
    "librt.",
    "libm.",
    "libdl.",
    "libutil.",
    "libxnet.",
    "libcrypt.",
];
/// Folders that glibc prefers within each other, on newer processors.
const VARIANTS: [&str; 4] = [
    "",
    "/glibc-hwcaps/x86-64-v2",
    "/glibc-hwcaps/x86-64-v3",
    "/glibc-hwcaps/x86-64-v4",
];
/// Folders that an error names.
const MOST_NAMED: usize = 8;

/// What a program is loaded in.
pub(crate) struct Loading<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) environment: &'a Environment,
    pub(crate) working_directory: &'a str,
    pub(crate) architecture: Architecture,
    /// Reads the beginning of a file.
    pub(crate) read: &'a dyn Fn(Content, u64) -> io::Result<Vec<u8>>,
}

/// Why the search ended early.
enum Stop {
    /// A library is missing: the message.
    Missing(String),
    /// Something is not as it usually is.
    Undecided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    Glibc,
    Musl,
}

/// A program or library that is loaded.
struct Object {
    path: String,
    dynamic: Dynamic,
    /// Its own folder, which `$ORIGIN` stands for, as it was found and as it is.
    origins: Vec<String>,
    /// Folders that it and those who need it name for all that they need.
    inherited: Vec<String>,
}

impl Loading<'_> {
    /// Looks for every library that the program needs, and that these need. Gives the
    /// message about one that is missing.
    pub(crate) fn check(&self, program: &str, loader: &str) -> Result<(), String> {
        match self.load(program, loader) {
            Err(Stop::Missing(message)) => Err(message),
            Ok(()) | Err(Stop::Undecided) => Ok(()),
        }
    }

    fn load(&self, program: &str, loader_path: &str) -> Result<(), Stop> {
        let (loader, home) = self.loader(loader_path)?;
        let system = match loader {
            Loader::Glibc => self.glibc_folders(home)?,
            Loader::Musl => self.musl_folders(loader_path)?,
        };
        let variable = match self.environment.get("LD_LIBRARY_PATH") {
            Some(list) => self.folders(list, &[])?,
            None => Vec::new(),
        };
        let mut names = BTreeSet::from([file_name(loader_path).to_owned()]);
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::from([self.object(program, loader, &[])?]);
        while let Some(object) = waiting.pop_front() {
            let runpath = match &object.dynamic.runpath {
                Some(list) => self.folders(list, &object.origins)?,
                None => Vec::new(),
            };
            let inherited: &[String] = match loader {
                Loader::Glibc if object.dynamic.runpath.is_some() => &[],
                _ => &object.inherited,
            };
            let folders = [inherited, &variable, &runpath, &system].concat();
            for name in &object.dynamic.needed {
                let is_own =
                    loader == Loader::Musl && IN_MUSL.iter().any(|own| name.starts_with(own));
                if is_own || !names.insert(name.clone()) {
                    continue;
                }
                let Some(path) = self.find(name, &folders, &object)? else {
                    if loader == Loader::Glibc && self.is_cached(name)? {
                        continue;
                    }
                    return Err(Stop::Missing(missing(&object.path, name, &folders)));
                };
                let library = self.object(&path, loader, &object.inherited)?;
                names.extend(library.dynamic.own_name.clone());
                if seen.insert(library.path.clone()) {
                    waiting.push_back(library);
                }
                if seen.len() > MAX_LIBRARIES {
                    return Err(Stop::Undecided);
                }
            }
        }
        Ok(())
    }

    /// Which loader it is, and the folder that it is in. One that is elsewhere, as in Nix,
    /// has other folders built in, and one that only stands in for glibc's on musl, too.
    fn loader(&self, path: &str) -> Result<(Loader, String), Stop> {
        let (real, _) = self.walk(path).ok_or(Stop::Undecided)?;
        let folder = folder(&real);
        let name = file_name(path);
        let musl = format!("/lib/ld-musl-{}.so.1", self.machine());
        let is_known = self.usual_folders().iter().any(|usual| usual == folder);
        match is_known {
            true if name.starts_with("ld-musl-") => Ok((Loader::Musl, folder.to_owned())),
            true if name.starts_with("ld-linux") && self.tree.lookup(musl.as_bytes()).is_none() => {
                Ok((Loader::Glibc, folder.to_owned()))
            }
            _ => Err(Stop::Undecided),
        }
    }

    fn machine(&self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }

    /// Folders that glibc has built in, in one distribution or another.
    fn usual_folders(&self) -> [String; 6] {
        let machine = self.machine();
        [
            format!("/lib/{machine}-linux-gnu"),
            format!("/usr/lib/{machine}-linux-gnu"),
            "/lib64".to_owned(),
            "/usr/lib64".to_owned(),
            "/lib".to_owned(),
            "/usr/lib".to_owned(),
        ]
    }

    fn glibc_folders(&self, home: String) -> Result<Vec<String>, Stop> {
        let mut folders = Vec::new();
        let mut files = VecDeque::from([CONFIGURATION.to_owned()]);
        let mut read = 0;
        while let Some(file) = files.pop_front() {
            read += 1;
            if read > MAX_CONFIGURATIONS {
                return Err(Stop::Undecided);
            }
            let Some(text) = self.text(&file)? else {
                continue;
            };
            for line in text.lines() {
                let line = line.split('#').next().unwrap_or_default();
                let mut words = line
                    .split([' ', '\t', ':', ','])
                    .filter(|word| !word.is_empty());
                match words.next() {
                    Some("include") => {
                        for pattern in words {
                            files.extend(self.matching(pattern)?);
                        }
                    }
                    Some("hwcap") | None => {}
                    Some(first) => {
                        let named = std::iter::once(first).chain(words);
                        // A type may follow, as in `/usr/lib=libc6`.
                        folders.extend(
                            named
                                .filter_map(|word| word.split('=').next())
                                .map(str::to_owned),
                        );
                    }
                }
            }
        }
        folders.extend(self.usual_folders());
        folders.push(home);
        Ok(folders)
    }

    fn musl_folders(&self, loader: &str) -> Result<Vec<String>, Stop> {
        let name = file_name(loader);
        let name = name.strip_suffix(".so.1").ok_or(Stop::Undecided)?;
        Ok(match self.text(&format!("/etc/{name}.path"))? {
            Some(list) => list
                .split(['\n', ':'])
                .filter(|folder| !folder.is_empty())
                .map(str::to_owned)
                .collect(),
            None => MUSL_FOLDERS.map(str::to_owned).to_vec(),
        })
    }

    /// The files that a pattern of `ld.so.conf` means: one `*` in a file's name.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, Stop> {
        let pattern = match pattern.strip_prefix('/') {
            Some(_) => pattern.to_owned(),
            None => format!("/etc/{pattern}"),
        };
        let (parent, name) = (folder(&pattern), file_name(&pattern));
        let Some((before, after)) = name.split_once('*') else {
            return Ok(vec![pattern]);
        };
        if [parent, before, after]
            .iter()
            .any(|part| part.contains(['*', '?', '[']))
        {
            return Err(Stop::Undecided);
        }
        let Some((real, _)) = self.walk(parent) else {
            return Ok(Vec::new());
        };
        let entries = self.tree.iter().filter_map(|(path, _)| {
            let path = format!("/{}", String::from_utf8_lossy(path));
            let name = file_name(&path);
            let fits = folder(&path) == real
                && name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after);
            fits.then_some(path)
        });
        Ok(entries.take(MAX_CONFIGURATIONS + 1).collect())
    }

    /// A file of the loader's configuration, if it is there.
    fn text(&self, path: &str) -> Result<Option<String>, Stop> {
        match self.walk(path) {
            Some((
                _,
                Node {
                    kind: Kind::File { content, .. },
                    ..
                },
            )) => {
                if content.size > MAX_CONFIGURATION {
                    return Err(Stop::Undecided);
                }
                let bytes = self.bytes(*content, MAX_CONFIGURATION)?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Whether glibc's cache has a library of this name, wherever.
    fn is_cached(&self, name: &str) -> Result<bool, Stop> {
        let Some((
            _,
            Node {
                kind: Kind::File { content, .. },
                ..
            },
        )) = self.walk(CACHE)
        else {
            return Ok(false);
        };
        if content.size > MAX_CACHE {
            return Err(Stop::Undecided);
        }
        let bytes = self.bytes(*content, MAX_CACHE)?;
        Ok(bytes
            .split(|&byte| byte == 0)
            .any(|text| text == name.as_bytes()))
    }

    /// The folders in a list, with `$ORIGIN` and `$LIB` replaced by all that they may mean.
    fn folders(&self, list: &str, origins: &[String]) -> Result<Vec<String>, Stop> {
        let libraries = ["lib", "lib64"].map(str::to_owned).into_iter();
        let libraries: Vec<_> = libraries
            .chain([format!("lib/{}-linux-gnu", self.machine())])
            .collect();
        let mut folders = Vec::new();
        for part in list.split([':', ';']) {
            let mut meant = vec![
                part.replace("${ORIGIN}", "$ORIGIN")
                    .replace("${LIB}", "$LIB"),
            ];
            for (token, values) in [("$ORIGIN", origins), ("$LIB", &libraries)] {
                if meant.iter().any(|text| text.contains(token)) {
                    let replaced = |text: &String| {
                        let replaced = values.iter().map(|value| text.replace(token, value));
                        replaced.collect::<Vec<_>>()
                    };
                    meant = meant.iter().flat_map(replaced).collect();
                }
            }
            if meant.is_empty() || meant.iter().any(|text| text.contains('$')) {
                return Err(Stop::Undecided);
            }
            folders.extend(meant);
        }
        Ok(folders)
    }

    /// The path of a library that can be loaded.
    fn find(&self, name: &str, folders: &[String], by: &Object) -> Result<Option<String>, Stop> {
        let fits = |path: &String| self.is_library(path);
        if name.contains('/') {
            return Ok(self.folders(name, &by.origins)?.into_iter().find(fits));
        }
        let paths = folders.iter().flat_map(|folder| {
            let paths = VARIANTS.map(|variant| format!("{folder}{variant}/{name}"));
            paths.into_iter()
        });
        Ok(paths.into_iter().find(fits))
    }

    /// Whether it is a file for this processor: a loader passes over others.
    fn is_library(&self, path: &str) -> bool {
        let Some((
            _,
            Node {
                kind: Kind::File { content, .. },
                ..
            },
        )) = self.walk(path)
        else {
            return false;
        };
        let head = (self.read)(*content, HEAD_BYTES).unwrap_or_default();
        Elf::parse(&head).is_some_and(|elf| elf.architecture == Some(self.architecture))
    }

    /// What is at a path, with what it asks of the loader.
    fn object(&self, path: &str, loader: Loader, inherited: &[String]) -> Result<Object, Stop> {
        let Some((
            real,
            Node {
                kind: Kind::File { content, .. },
                ..
            },
        )) = self.walk(path)
        else {
            return Err(Stop::Undecided);
        };
        let dynamic = Dynamic::read(&|offset, limit| {
            let content = Content {
                offset: content.offset.saturating_add(offset.min(content.size)),
                size: content.size.saturating_sub(offset),
            };
            (self.read)(content, limit)
        });
        let dynamic = dynamic.ok().flatten().ok_or(Stop::Undecided)?;
        let origins = vec![folder(&real).to_owned(), folder(path).to_owned()];
        let own = match loader {
            Loader::Glibc if dynamic.runpath.is_some() => None,
            Loader::Glibc => dynamic.rpath.as_ref(),
            Loader::Musl => dynamic.runpath.as_ref().or(dynamic.rpath.as_ref()),
        };
        let own = match own {
            Some(list) => self.folders(list, &origins)?,
            None => Vec::new(),
        };
        Ok(Object {
            path: real,
            dynamic,
            origins,
            inherited: [&own, inherited].concat(),
        })
    }

    /// What is at a path, and its path without links.
    fn walk(&self, path: &str) -> Option<(String, &Node)> {
        let absolute = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.working_directory.trim_end_matches('/'))
        };
        let (path, node) = self.tree.walk(absolute.as_bytes(), &mut |_, _| {})?;
        Some((format!("/{}", String::from_utf8_lossy(&path)), node))
    }

    fn bytes(&self, content: Content, limit: u64) -> Result<Vec<u8>, Stop> {
        (self.read)(content, limit).map_err(|_| Stop::Undecided)
    }
}

fn missing(object: &str, name: &str, folders: &[String]) -> String {
    let mut named: Vec<&str> = Vec::new();
    for folder in folders {
        if !named.contains(&folder.as_str()) && named.len() < MOST_NAMED {
            named.push(folder);
        }
    }
    format!(
        "{object} needs the library {name}, which the image does not have where the loader looks ({}): install its package in the image, or copy it with its program",
        named.join(", ")
    )
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder that something with an absolute path is in.
fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((folder, _)) => folder,
    }
}
