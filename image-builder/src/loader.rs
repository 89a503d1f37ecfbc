//! Loaders of dynamic programs: glibc's (ld.so(8), ldconfig(8)) and musl's
//! (`ldso/dynlink.c`), and where each of them looks for libraries by itself.

use std::collections::VecDeque;
use std::rc::Rc;

use eif::Architecture;

use crate::files::{Files, Found, Undecided, file_name, folder};

/// Most folders in one list.
pub(crate) const MAX_FOLDERS: usize = 256;
/// Largest file of a loader's configuration, in bytes, and how many there may be.
const MAX_CONFIGURATION: u64 = 64 * 1024;
const MAX_CONFIGURATIONS: usize = 256;
/// Largest cache of glibc's loader, in bytes.
const MAX_CACHE: u64 = 4 * 1024 * 1024;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Glibc,
    Musl,
}

/// A loader of the image.
pub(crate) struct Loader<'a> {
    pub(crate) kind: Kind,
    files: &'a Files<'a>,
    machine: &'static str,
    path: &'a str,
    /// The folder that it is in, without links.
    home: String,
    /// The cache, once it has been read.
    cache: Option<Vec<u8>>,
}

impl<'a> Loader<'a> {
    /// Which loader it is. One that is elsewhere, as in Nix, has other folders built in,
    /// and one that only stands in for glibc's on musl, too.
    pub(crate) fn new(
        files: &'a Files<'a>,
        architecture: Architecture,
        path: &'a str,
    ) -> Result<Self, Undecided> {
        let machine = machine(architecture);
        let real = files.real_path(path)?.ok_or(Undecided)?;
        let home = folder(&real).to_owned();
        if !usual_folders(machine).contains(&home) {
            return Err(Undecided);
        }
        let name = file_name(path);
        let musl = format!("/lib/ld-musl-{machine}.so.1");
        let kind = if name.starts_with("ld-musl-") {
            Kind::Musl
        } else if name.starts_with("ld-linux") && files.real_path(&musl)?.is_none() {
            Kind::Glibc
        } else {
            return Err(Undecided);
        };
        Ok(Self {
            kind,
            files,
            machine,
            path,
            home,
            cache: None,
        })
    }

    /// Whether a library of this name is the loader itself.
    pub(crate) fn is(&self, name: &str) -> bool {
        name == file_name(self.path)
            || self.kind == Kind::Musl && IN_MUSL.iter().any(|own| name.starts_with(own))
    }

    /// The folders in which it looks for the libraries of every program.
    pub(crate) fn folders(&self) -> Result<Vec<Rc<str>>, Undecided> {
        match self.kind {
            Kind::Glibc => self.glibc_folders(),
            Kind::Musl => self.musl_folders(),
        }
    }

    /// Whether its cache has a library of this name, wherever.
    pub(crate) fn is_cached(&mut self, name: &str) -> Result<bool, Undecided> {
        if self.kind == Kind::Musl {
            return Ok(false);
        }
        let files = self.files;
        let cache = match &mut self.cache {
            Some(cache) => cache,
            cache => cache.insert(match files.find(CACHE)? {
                Some(found) => whole(files, &found, MAX_CACHE)?,
                None => Vec::new(),
            }),
        };
        files.spend_bytes(cache.len())?;
        let mut texts = cache.split(|&byte| byte == 0);
        Ok(texts.any(|text| text == name.as_bytes()))
    }

    fn glibc_folders(&self) -> Result<Vec<Rc<str>>, Undecided> {
        let mut folders = Vec::new();
        let mut files = VecDeque::from([CONFIGURATION.to_owned()]);
        let mut files_left = MAX_CONFIGURATIONS;
        while let Some(file) = files.pop_front() {
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
                            let matching = self.matching(pattern, files_left)?;
                            files_left = files_left.checked_sub(matching.len()).ok_or(Undecided)?;
                            files.extend(matching);
                        }
                    }
                    Some("hwcap") | None => {}
                    Some(first) => {
                        for word in std::iter::once(first).chain(words) {
                            // A type may follow, as in `/usr/lib=libc6`.
                            let folder = word.split('=').next().unwrap_or(word);
                            self.add(&mut folders, folder)?;
                        }
                    }
                }
            }
        }
        for folder in usual_folders(self.machine) {
            folders.push(folder.into());
        }
        folders.push(self.home.as_str().into());
        Ok(folders)
    }

    fn musl_folders(&self) -> Result<Vec<Rc<str>>, Undecided> {
        let name = file_name(self.path);
        let name = name.strip_suffix(".so.1").ok_or(Undecided)?;
        let Some(list) = self.text(&format!("/etc/{name}.path"))? else {
            return Ok(MUSL_FOLDERS.map(Rc::from).to_vec());
        };
        let mut folders = Vec::new();
        let parts = list.split(['\n', ':']).filter(|part| !part.is_empty());
        for folder in parts {
            self.add(&mut folders, folder)?;
        }
        Ok(folders)
    }

    fn add(&self, folders: &mut Vec<Rc<str>>, folder: &str) -> Result<(), Undecided> {
        if folders.len() >= MAX_FOLDERS {
            return Err(Undecided);
        }
        self.files.spend_bytes(folder.len())?;
        folders.push(folder.into());
        Ok(())
    }

    /// The files that a pattern of `ld.so.conf` means: one `*` in a file's name.
    fn matching(&self, pattern: &str, most: usize) -> Result<Vec<String>, Undecided> {
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
            return Err(Undecided);
        }
        match self.files.real_path(parent)? {
            Some(real) => self.files.matching(&real, before, after, most),
            None => Ok(Vec::new()),
        }
    }

    /// A file of the configuration, if it is there.
    fn text(&self, path: &str) -> Result<Option<String>, Undecided> {
        let Some(found) = self.files.find(path)? else {
            return Ok(None);
        };
        let bytes = whole(self.files, &found, MAX_CONFIGURATION)?;
        String::from_utf8(bytes).map(Some).map_err(|_| Undecided)
    }
}

fn whole(files: &Files<'_>, found: &Found, limit: u64) -> Result<Vec<u8>, Undecided> {
    if found.content.size > limit {
        return Err(Undecided);
    }
    files.read(found.content, limit)
}

/// The processor, as it is named in folders and loaders.
pub(crate) fn machine(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Aarch64 => "aarch64",
    }
}

/// Folders that glibc has built in, in one distribution or another.
fn usual_folders(machine: &str) -> [String; 6] {
    [
        format!("/lib/{machine}-linux-gnu"),
        format!("/usr/lib/{machine}-linux-gnu"),
        "/lib64".to_owned(),
        "/usr/lib64".to_owned(),
        "/lib".to_owned(),
        "/usr/lib".to_owned(),
    ]
}
