//! Any layers, merged by the builder and by a simple model, are the same tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use eif::cpio::{Kind, Reader};
use image_builder::{BuildError, BuildTime, Inputs, build};
use proptest::prelude::*;
use proptest::sample::select;
use tar::EntryType;

use crate::image::{Image, app};
use crate::layer::Layer;
use crate::project::Project;
use crate::ramdisk::ramdisks;

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Directory(Vec<&'static str>, u32),
    File(Vec<&'static str>, u32),
    Symlink(Vec<&'static str>),
    Fifo(Vec<&'static str>),
    HardLink(Vec<&'static str>, Vec<&'static str>),
    Whiteout(Vec<&'static str>),
    Opaque(Vec<&'static str>),
}

/// A tree as the specification describes it: directories of names.
#[derive(Debug, Clone)]
enum Node {
    Directory(u32, BTreeMap<&'static str, Node>),
    /// Owner, and what tells one file from another.
    File(u32, usize),
    Symlink,
    Fifo,
}

#[derive(Debug, Default)]
struct Model {
    root: BTreeMap<&'static str, Node>,
    files: usize,
}

/// The layer is refused.
struct Refused;

impl Model {
    /// The directory that holds the path's last name; missing ones are made.
    fn parent(
        &mut self,
        path: &[&'static str],
    ) -> Result<&mut BTreeMap<&'static str, Node>, Refused> {
        let mut folder = &mut self.root;
        for name in &path[..path.len() - 1] {
            let child = folder
                .entry(*name)
                .or_insert_with(|| Node::Directory(0, BTreeMap::new()));
            let Node::Directory(_, children) = child else {
                return Err(Refused);
            };
            folder = children;
        }
        Ok(folder)
    }

    fn get(&self, path: &[&'static str]) -> Option<&Node> {
        let (last, parents) = path.split_last()?;
        let mut folder = &self.root;
        for name in parents {
            let Some(Node::Directory(_, children)) = folder.get(name) else {
                return None;
            };
            folder = children;
        }
        folder.get(last)
    }

    fn put(&mut self, path: &[&'static str], node: Node) -> Result<(), Refused> {
        let name = path[path.len() - 1];
        self.parent(path)?.insert(name, node);
        Ok(())
    }

    /// Refuses what programs differ on, because of what the layer has before it.
    fn check(&self, written: &[&[&str]], operation: &Operation) -> Result<(), Refused> {
        let is_below =
            |path: &[&str], folder: &[&str]| path.len() > folder.len() && path.starts_with(folder);
        let has = |path: &[&str]| written.contains(&path);
        let has_below = |folder: &[&str]| written.iter().any(|path| is_below(path, folder));
        let differs = match operation {
            Operation::Directory(path, _) => {
                has(path) && !matches!(self.get(path), Some(Node::Directory(..)))
            }
            Operation::File(path, _) | Operation::Whiteout(path) => has(path) || has_below(path),
            Operation::Symlink(path) => {
                has_below(path) || has(path) && !matches!(self.get(path), Some(Node::Symlink))
            }
            Operation::Fifo(path) => {
                has_below(path) || has(path) && !matches!(self.get(path), Some(Node::Fifo))
            }
            Operation::HardLink(path, target) => {
                let is_same = match (self.get(path), self.get(target)) {
                    (Some(Node::File(_, one)), Some(Node::File(_, other))) => one == other,
                    (Some(Node::Symlink), Some(Node::Symlink))
                    | (Some(Node::Fifo), Some(Node::Fifo)) => true,
                    _ => false,
                };
                has_below(path) || has(path) && !is_same
            }
            Operation::Opaque(folder) => written.iter().any(|path| {
                let mut parents = (folder.len() + 1..path.len()).map(|length| &path[..length]);
                is_below(path, folder) && parents.any(|parent| !has(parent))
            }),
        };
        if differs { Err(Refused) } else { Ok(()) }
    }

    fn apply(&mut self, layer: &[Operation]) -> Result<(), Refused> {
        for operation in layer {
            match operation {
                Operation::Whiteout(path) if self.get(path).is_some() => {
                    self.parent(path)?.remove(path[path.len() - 1]);
                }
                Operation::Opaque(path) => {
                    if let Some(Node::Directory(owner, _)) = self.get(path) {
                        let empty = Node::Directory(*owner, BTreeMap::new());
                        self.put(path, empty)?;
                    }
                }
                _ => {}
            }
        }
        let mut written: Vec<&[&'static str]> = Vec::new();
        for operation in layer {
            self.check(&written, operation)?;
            match operation {
                Operation::Directory(path, _)
                | Operation::File(path, _)
                | Operation::Symlink(path)
                | Operation::Fifo(path)
                | Operation::HardLink(path, _) => written.push(path),
                Operation::Whiteout(_) | Operation::Opaque(_) => {}
            }
            match operation {
                Operation::Directory(path, owner) => {
                    let children = match self.get(path) {
                        Some(Node::Directory(_, children)) => children.clone(),
                        _ => BTreeMap::new(),
                    };
                    self.put(path, Node::Directory(*owner, children))?;
                }
                Operation::File(path, owner) => {
                    self.files += 1;
                    self.put(path, Node::File(*owner, self.files))?;
                }
                Operation::Symlink(path) => self.put(path, Node::Symlink)?,
                Operation::Fifo(path) => self.put(path, Node::Fifo)?,
                Operation::HardLink(path, target) => match self.get(target).cloned() {
                    None | Some(Node::Directory(..)) => return Err(Refused),
                    Some(node) => self.put(path, node)?,
                },
                Operation::Whiteout(_) | Operation::Opaque(_) => {}
            }
        }
        Ok(())
    }

    /// One line for each entry, and the names of each file.
    fn lines(&self) -> BTreeSet<String> {
        fn visit(
            prefix: &str,
            folder: &BTreeMap<&'static str, Node>,
            lines: &mut BTreeSet<String>,
            names: &mut BTreeMap<usize, BTreeSet<String>>,
        ) {
            for (name, node) in folder {
                let path = format!("{prefix}{name}");
                match node {
                    Node::Directory(owner, children) => {
                        visit(&format!("{path}/"), children, lines, names);
                        lines.insert(format!("{path} directory {owner}"));
                    }
                    Node::File(owner, file) => {
                        lines.insert(format!("{path} file {owner} {file}"));
                        names.entry(*file).or_default().insert(path);
                    }
                    Node::Symlink => drop(lines.insert(format!("{path} symlink"))),
                    Node::Fifo => drop(lines.insert(format!("{path} fifo"))),
                }
            }
        }
        let (mut lines, mut names) = (BTreeSet::new(), BTreeMap::new());
        visit("", &self.root, &mut lines, &mut names);
        lines.extend(names.into_values().map(|names| format!("{names:?}")));
        lines
    }
}

pub(crate) fn layers(history: &[Vec<Operation>]) -> Vec<Layer> {
    let mut files = 0;
    let mut layers = vec![app()];
    for operations in history {
        let mut layer = Layer::new();
        for operation in operations {
            layer = match operation {
                Operation::Directory(path, owner) => layer
                    .directory(&path.join("/"))
                    .with(|entry| entry.uid = u64::from(*owner)),
                Operation::File(path, owner) => {
                    files += 1;
                    layer
                        .file(&path.join("/"), files.to_string())
                        .with(|entry| entry.uid = u64::from(*owner))
                }
                Operation::Symlink(path) => layer.symlink(&path.join("/"), "nowhere"),
                Operation::Fifo(path) => {
                    layer.entry(EntryType::Fifo, &path.join("/"), 0o644, (0, 0))
                }
                Operation::HardLink(path, target) => {
                    layer.hard_link(&path.join("/"), &target.join("/"))
                }
                Operation::Whiteout(path) => {
                    let (name, parents) = path.split_last().unwrap();
                    let whiteout = format!(".wh.{name}");
                    layer.file(&[parents, &[&whiteout]].concat().join("/"), "")
                }
                Operation::Opaque(path) => {
                    layer.file(&format!("{}/.wh..wh..opq", path.join("/")), "")
                }
            };
        }
        layers.push(layer);
    }
    layers
}

/// The same lines as the model's, of what was built.
pub(crate) fn lines(image: &[u8]) -> BTreeSet<String> {
    let application = ramdisks(image).pop().unwrap();
    let mut archive = Reader::new(application.as_slice());
    let mut lines = BTreeSet::new();
    let mut names: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut contents: BTreeMap<u32, String> = BTreeMap::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        let Some(path) = name.strip_prefix("rootfs/") else {
            continue;
        };
        if path == "app" {
            continue;
        }
        let owner = entry.uid;
        lines.insert(match entry.kind {
            Kind::Directory => format!("{path} directory {owner}"),
            Kind::Symlink => format!("{path} symlink"),
            Kind::Fifo => format!("{path} fifo"),
            Kind::File => {
                let mut text = String::new();
                archive.contents().read_to_string(&mut text).unwrap();
                let text = contents.entry(entry.inode).or_insert(text);
                names
                    .entry(entry.inode)
                    .or_default()
                    .insert(path.to_owned());
                format!("{path} file {owner} {text}")
            }
            other => panic!("{other:?}"),
        });
    }
    lines.extend(names.into_values().map(|names| format!("{names:?}")));
    lines
}

fn path(last: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    let folders = prop::collection::vec(select(&["d", "e"][..]), 0..3);
    (folders, select(last)).prop_map(|(mut path, name)| {
        path.push(name);
        path
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    const FOLDERS: &[&str] = &["d", "e", "f"];
    const LEAVES: &[&str] = &["f", "g", "h"];
    const ANY: &[&str] = &["d", "e", "f", "g", "h", "l"];
    prop_oneof![
        3 => (path(FOLDERS), 0..3_u32).prop_map(|(path, owner)| Operation::Directory(path, owner)),
        5 => (path(LEAVES), 0..3_u32).prop_map(|(path, owner)| Operation::File(path, owner)),
        1 => path(&["d", "g"]).prop_map(|path| Operation::File(path, 0)),
        1 => path(&["l"]).prop_map(Operation::Symlink),
        1 => path(&["l", "h"]).prop_map(Operation::Fifo),
        2 => (path(LEAVES), path(LEAVES)).prop_map(|(path, target)| Operation::HardLink(path, target)),
        3 => path(ANY).prop_map(Operation::Whiteout),
        1 => path(FOLDERS).prop_map(Operation::Opaque),
    ]
}

/// The operations of a few layers.
pub(crate) fn history() -> impl Strategy<Value = Vec<Vec<Operation>>> {
    prop::collection::vec(prop::collection::vec(operation(), 0..8), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_are_merged_as_the_model_does(
        history in history(),
    ) {
        let mut model = Model::default();
        let expected = history
            .iter()
            .try_for_each(|layer| model.apply(layer))
            .map(|()| model.lines());
        let project = Project::of(&Image::new(&layers(&history)));
        let output = project.path("out.eif");
        let built = build(
            &Inputs {
                manifest: &project.path("enclave.toml"),
                kernel: &project.path("kernel"),
                init: &project.path("enclave-init"),
                enclave_kms: &project.path("enclave-kms"),
                output: &output,
                measurements: None,
                platform: None,
                signing: None,
                build_time: BuildTime::default(),
            },
            &mut |_| (),
        );
        match (built, expected) {
            (Ok(_), Ok(expected)) => {
                prop_assert_eq!(lines(&std::fs::read(output).unwrap()), expected);
            }
            (Err(BuildError::Image { .. }), Err(Refused)) => {}
            (built, expected) => {
                return Err(TestCaseError::fail(format!("{built:?}, model: {:?}", expected.ok())));
            }
        }
    }
}

#[test]
fn the_model_itself_can_fail() {
    let mut model = Model::default();
    let operations = [
        Operation::File(vec!["d", "f"], 1),
        Operation::Symlink(vec!["l"]),
    ];
    assert!(model.apply(&operations).is_ok());
    let layer = Layer::new()
        .file("d/f", "1")
        .with(|entry| entry.uid = 2)
        .symlink("l", "nowhere");
    let image = Project::of(&Image::new(&[app(), layer])).build();
    assert_ne!(lines(&image), model.lines());
}
