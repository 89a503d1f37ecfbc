//! Whether the loader will find the libraries that a program needs.
//!
//! It is never said of an image that works: what cannot be decided is taken for found.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use eif::Architecture;
use manifest::Environment;

use crate::dynamic::Dynamic;
use crate::elf::{Elf, HEADER_BYTES};
use crate::files::{Files, Found, Undecided, folder};
use crate::loader::{self, Loader, MAX_FOLDERS};
use crate::node::Content;
use crate::path::MAX_PATH;

/// Most libraries of a program that are looked at.
const MAX_LIBRARIES: usize = 256;
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
    pub(crate) files: Files<'a>,
    pub(crate) environment: &'a Environment,
    pub(crate) architecture: Architecture,
}

/// Why the search ended early.
#[derive(Debug)]
enum Stop {
    /// A library is missing: the message.
    Missing(String),
    Undecided,
}

impl From<Undecided> for Stop {
    fn from(_: Undecided) -> Self {
        Self::Undecided
    }
}

/// A program or library that is loaded.
struct Object {
    path: String,
    dynamic: Dynamic,
    /// Its own folder, which `$ORIGIN` stands for, as it was found and as it is.
    origins: [String; 2],
    /// Folders that it and those who need it name for all that they need.
    inherited: Vec<Rc<str>>,
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

    fn load(&self, program: &str, loader: &str) -> Result<(), Stop> {
        let mut loader = Loader::new(&self.files, self.architecture, loader)?;
        let system = loader.folders()?;
        let variable = match self.environment.get("LD_LIBRARY_PATH") {
            Some(list) => self.folders(list, &[])?,
            None => Vec::new(),
        };
        let program = self.files.find(program)?.ok_or(Stop::Undecided)?;
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::from([self.object(program, loader.kind, &[])?]);
        while let Some(object) = waiting.pop_front() {
            let runpath = match &object.dynamic.runpath {
                Some(list) => self.folders(list, &object.origins)?,
                None => Vec::new(),
            };
            let inherited: &[Rc<str>] = match loader.kind {
                loader::Kind::Glibc if object.dynamic.runpath.is_some() => &[],
                _ => &object.inherited,
            };
            let folders = [inherited, &variable, &runpath, &system].concat();
            for name in &object.dynamic.needed {
                if loader.is(name) || !names.insert(name.clone()) {
                    continue;
                }
                let Some(found) = self.find(name, &folders, &object)? else {
                    if loader.is_cached(name)? {
                        continue;
                    }
                    return Err(Stop::Missing(missing(&object.path, name, &folders)));
                };
                if !seen.insert(found.real.clone()) {
                    continue;
                }
                if seen.len() > MAX_LIBRARIES {
                    return Err(Stop::Undecided);
                }
                let library = self.object(found, loader.kind, &object.inherited)?;
                names.extend(library.dynamic.own_name.clone());
                waiting.push_back(library);
            }
        }
        Ok(())
    }

    /// The folders in a list.
    fn folders(&self, list: &str, origins: &[String]) -> Result<Vec<Rc<str>>, Undecided> {
        let mut folders = Vec::new();
        if list.is_empty() {
            return Ok(folders);
        }
        for part in list.split([':', ';']) {
            let part = match part {
                // As to the loader, a part that is empty is the working directory.
                "" => self.files.working_directory(),
                part => part,
            };
            let meant = self.meant(part, origins)?;
            folders.extend(meant.into_iter().map(Rc::from));
            if folders.len() > MAX_FOLDERS {
                return Err(Undecided);
            }
        }
        Ok(folders)
    }

    /// All that a path may mean in which `$ORIGIN` and `$LIB` are to be replaced.
    fn meant(&self, path: &str, origins: &[String]) -> Result<Vec<String>, Undecided> {
        let gnu = format!("lib/{}-linux-gnu", loader::machine(self.architecture));
        let libraries = ["lib".to_owned(), "lib64".to_owned(), gnu];
        let path = path
            .replace("${ORIGIN}", "$ORIGIN")
            .replace("${LIB}", "$LIB");
        let mut meant = vec![path];
        for (token, values) in [("$ORIGIN", origins), ("$LIB", &libraries)] {
            let mut replaced = Vec::new();
            for text in meant {
                let count = text.matches(token).count();
                if count == 0 {
                    replaced.push(text);
                    continue;
                }
                for value in values {
                    // Asked before it is written: a path may repeat its origin.
                    if text.len().saturating_add(count.saturating_mul(value.len())) > MAX_PATH {
                        return Err(Undecided);
                    }
                    replaced.push(text.replace(token, value));
                }
            }
            meant = replaced;
        }
        if meant.is_empty() || meant.iter().any(|text| text.contains('$')) {
            return Err(Undecided);
        }
        self.files
            .spend_bytes(meant.iter().map(String::len).sum())?;
        Ok(meant)
    }

    /// A library that can be loaded.
    fn find(
        &self,
        name: &str,
        folders: &[Rc<str>],
        by: &Object,
    ) -> Result<Option<Found>, Undecided> {
        if name.contains('/') {
            for path in self.meant(name, &by.origins)? {
                if let Some(found) = self.library(&path)? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        for folder in folders {
            for variant in VARIANTS {
                if let Some(found) = self.library(&format!("{folder}{variant}/{name}"))? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// A file for this processor: a loader passes over others.
    fn library(&self, path: &str) -> Result<Option<Found>, Undecided> {
        let Some(found) = self.files.find(path)? else {
            return Ok(None);
        };
        let head = self.files.read(found.content, HEADER_BYTES)?;
        let fits = Elf::parse(&head).is_some_and(|elf| elf.architecture == Some(self.architecture));
        Ok(fits.then_some(found))
    }

    /// What a program or library asks of the loader.
    fn object(
        &self,
        found: Found,
        kind: loader::Kind,
        inherited: &[Rc<str>],
    ) -> Result<Object, Undecided> {
        let Found {
            path,
            real,
            content,
        } = found;
        let dynamic = Dynamic::read(&|offset, limit| {
            let part = Content {
                offset: content.offset.saturating_add(offset.min(content.size)),
                size: content.size.saturating_sub(offset),
            };
            let bytes = self.files.read(part, limit);
            bytes.map_err(|Undecided| io::ErrorKind::QuotaExceeded.into())
        });
        let dynamic = dynamic.ok().flatten().ok_or(Undecided)?;
        let origins = [folder(&real).to_owned(), folder(&path).to_owned()];
        let own = match kind {
            loader::Kind::Glibc if dynamic.runpath.is_some() => None,
            loader::Kind::Glibc => dynamic.rpath.as_ref(),
            loader::Kind::Musl => dynamic.runpath.as_ref().or(dynamic.rpath.as_ref()),
        };
        let mut own = match own {
            Some(list) => self.folders(list, &origins)?,
            None => Vec::new(),
        };
        own.extend_from_slice(inherited);
        if own.len() > MAX_FOLDERS {
            return Err(Undecided);
        }
        Ok(Object {
            path: real,
            dynamic,
            origins,
            inherited: own,
        })
    }
}

fn missing(object: &str, name: &str, folders: &[Rc<str>]) -> String {
    let mut named: Vec<&str> = Vec::new();
    for folder in folders {
        if !named.contains(&&**folder) && named.len() < MOST_NAMED {
            named.push(folder);
        }
    }
    format!(
        "{object} needs the library {name}, which the image does not have where the loader looks ({}): install its package in the image, or copy it with its program",
        named.join(", ")
    )
}
