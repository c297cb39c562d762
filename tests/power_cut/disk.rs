//! What a disk may hold after a power cut, by the calls that a process made before.
//!
//! A write is on the disk for certain once a sync of its file that began after it has returned. Until then it may be there, may be
//! missing, or may be torn, each independently of the others. A name is on the disk for certain once its directory was synced;
//! until then the last of a directory's changes may be missing.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use super::recording::{Argument, Call};

/// Disks write whole sectors, so this is the smallest part of a write that can be missing by itself.
const SECTOR_BYTES: usize = 512;

/// When the name of a new file is on the disk for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Once its directory was synced, as POSIX has it.
    WithTheDirectory,
    /// Once the directory or a file was synced: ext4, XFS and btrfs write a new file's name, and those of the directories on the way
    /// to it, with its content.
    WithTheFile,
}

/// Every change below a directory, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    names: Vec<NameChange>,
    directory_syncs: HashMap<PathBuf, Syncs>,
}

#[derive(Debug, Default)]
struct File {
    changes: Vec<Change>,
    syncs: Syncs,
    /// What a complete replay has arrived at.
    len: usize,
}

#[derive(Debug)]
struct Change {
    began: f64,
    ended: f64,
    /// The file was opened with O_SYNC: the change is durable when it returns.
    synced: bool,
    what: Content,
}

/// The syncs of a file or a directory, in the order of their beginning.
#[derive(Debug, Default)]
struct Syncs(Vec<Sync>);

#[derive(Debug)]
enum Content {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Clone, Copy, Debug)]
struct Sync {
    began: f64,
    /// When it or a later one had returned.
    ended: f64,
}

#[derive(Debug)]
struct NameChange {
    began: f64,
    ended: f64,
    what: Naming,
}

#[derive(Clone, Debug)]
enum Naming {
    File(PathBuf, usize),
    Directory(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// An open file of the process.
#[derive(Clone, Debug)]
struct Open {
    file: usize,
    offset: usize,
    appends: bool,
    synced: bool,
}

impl Disk {
    /// What `calls` did below `root`, which was empty before.
    pub(super) fn of(root: &Path, calls: &[Call]) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            ..Self::default()
        };
        let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut open: HashMap<i64, Open> = HashMap::new();
        let mut ordered: Vec<_> = calls.iter().collect();
        // A descriptor is valid from the end of an open to the beginning of a close.
        let valid = |call: &Call| {
            if call.name.starts_with("open") {
                call.ended
            } else {
                call.began
            }
        };
        ordered.sort_by(|a, b| valid(a).total_cmp(&valid(b)));
        for call in ordered {
            disk.apply(call, &mut names, &mut open);
        }
        let files = disk.files.iter_mut().map(|file| &mut file.syncs);
        files
            .chain(disk.directory_syncs.values_mut())
            .for_each(Syncs::sort);
        disk
    }

    fn apply(
        &mut self,
        call: &Call,
        names: &mut BTreeMap<PathBuf, usize>,
        open: &mut HashMap<i64, Open>,
    ) {
        let arguments = &call.arguments[..];
        match (call.name.as_str(), arguments) {
            ("open" | "openat" | "creat", _) => self.open(call, names, open),
            ("close", [Argument::File(fd, _)]) => {
                open.remove(fd);
            }
            ("lseek", [Argument::File(fd, _), ..]) => {
                if let Some(open) = open.get_mut(fd) {
                    open.offset = call.result.number();
                }
            }
            ("write" | "writev", [Argument::File(fd, _), Argument::Bytes(bytes), ..]) => {
                if let Some(open) = open.get_mut(fd) {
                    let at = if open.appends {
                        self.files[open.file].len
                    } else {
                        open.offset
                    };
                    let written = call.result.number();
                    open.offset = at + written;
                    self.write(call, open, at, &bytes[..written]);
                }
            }
            (
                "pwrite64" | "pwritev" | "pwritev2",
                [Argument::File(fd, _), Argument::Bytes(bytes), _, at, ..],
            ) => {
                if let Some(open) = open.get(fd) {
                    self.write(call, open, at.number(), &bytes[..call.result.number()]);
                }
            }
            ("ftruncate", [Argument::File(fd, _), len]) => {
                if let Some(open) = open.get(fd) {
                    self.change(call, open.file, open.synced, Content::Resize(len.number()));
                }
            }
            ("fsync" | "fdatasync", [Argument::File(fd, path)]) => {
                let sync = Sync {
                    began: call.began,
                    ended: call.ended,
                };
                match open.get(fd) {
                    Some(open) => self.files[open.file].syncs.0.push(sync),
                    None => self
                        .directory_syncs
                        .entry(path.clone())
                        .or_default()
                        .0
                        .push(sync),
                }
            }
            ("rename" | "renameat" | "renameat2", _) => {
                let [from, to] = &self.paths(arguments)[..] else {
                    return;
                };
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
                self.name(call, Naming::Rename(from.clone(), to.clone()));
            }
            ("unlink" | "unlinkat" | "rmdir", _) => {
                let [path] = &self.paths(arguments)[..] else {
                    return;
                };
                names.remove(path);
                self.name(call, Naming::Remove(path.clone()));
            }
            ("mkdir" | "mkdirat", _) => {
                let [path] = &self.paths(arguments)[..] else {
                    return;
                };
                self.name(call, Naming::Directory(path.clone()));
            }
            (name, _) => {
                let is_ours = arguments.iter().any(|argument| match argument {
                    Argument::File(fd, _) => open.contains_key(fd),
                    _ => false,
                });
                assert!(!is_ours, "the model knows no {name}: {arguments:?}");
            }
        }
    }

    fn open(
        &mut self,
        call: &Call,
        names: &mut BTreeMap<PathBuf, usize>,
        open: &mut HashMap<i64, Open>,
    ) {
        let Argument::File(fd, path) = &call.result else {
            return;
        };
        open.remove(fd);
        let flags: String = call
            .arguments
            .iter()
            .map(Argument::word)
            .collect::<Vec<_>>()
            .join(" ");
        let creates = flags.contains("O_CREAT") || call.name == "creat";
        if !path.starts_with(&self.root) || (!creates && !names.contains_key(path)) {
            return;
        }
        let file = *names.entry(path.clone()).or_insert_with(|| {
            self.files.push(File::default());
            let file = self.files.len() - 1;
            self.names.push(NameChange {
                began: call.began,
                ended: call.ended,
                what: Naming::File(path.clone(), file),
            });
            file
        });
        let opened = Open {
            file,
            offset: 0,
            appends: flags.contains("O_APPEND"),
            synced: flags.contains("O_SYNC") || flags.contains("O_DSYNC"),
        };
        if (flags.contains("O_TRUNC") || call.name == "creat") && self.files[file].len > 0 {
            self.change(call, file, opened.synced, Content::Resize(0));
        }
        open.insert(*fd, opened);
    }

    fn write(&mut self, call: &Call, open: &Open, at: usize, bytes: &[u8]) {
        let what = Content::Write(at, bytes.to_vec());
        self.change(call, open.file, open.synced, what);
    }

    fn change(&mut self, call: &Call, file: usize, synced: bool, what: Content) {
        let file = &mut self.files[file];
        file.len = match &what {
            Content::Write(at, bytes) => file.len.max(at + bytes.len()),
            Content::Resize(len) => *len,
        };
        file.changes.push(Change {
            began: call.began,
            ended: call.ended,
            synced,
            what,
        });
    }

    fn name(&mut self, call: &Call, what: Naming) {
        self.names.push(NameChange {
            began: call.began,
            ended: call.ended,
            what,
        });
    }

    /// The paths below the root among `arguments`.
    fn paths(&self, arguments: &[Argument]) -> Vec<PathBuf> {
        let (mut directory, mut paths) = (Path::new(""), Vec::new());
        for argument in arguments {
            match argument {
                Argument::File(_, path) => directory = path,
                Argument::Bytes(bytes) => {
                    let path = std::str::from_utf8(bytes).expect("the paths here are UTF-8");
                    paths.push(directory.join(path));
                }
                Argument::Word(_) => {}
            }
        }
        paths.retain(|path| path.starts_with(&self.root));
        paths
    }

    /// Writes into `target`, an empty directory, what the disk may hold after a power cut at `cut`.
    pub(super) fn after_a_cut(
        &self,
        cut: f64,
        names: Names,
        random: &mut fastrand::Rng,
        target: &Path,
    ) {
        let mut found: BTreeMap<&Path, Option<usize>> = BTreeMap::new();
        for change in self.names_after(cut, names, random) {
            match change {
                Naming::File(path, file) => {
                    found.insert(path, Some(*file));
                }
                Naming::Directory(path) => {
                    found.insert(path, None);
                }
                Naming::Remove(path) => {
                    found.remove(path.as_path());
                }
                Naming::Rename(from, to) => {
                    let moved: Vec<_> = found
                        .keys()
                        .copied()
                        .filter(|name| name.starts_with(from))
                        .collect();
                    assert!(
                        moved.iter().all(|name| *name == from.as_path()),
                        "the model renames no directories with files in them: {}",
                        from.display()
                    );
                    if let Some(entry) = found.remove(from.as_path()) {
                        found.insert(to, entry);
                    }
                }
            }
        }
        for (path, entry) in found {
            let path = target.join(
                path.strip_prefix(&self.root)
                    .expect("it lies below the root"),
            );
            match entry {
                // A file whose directory is lost is lost.
                Some(_) if !path.parent().is_some_and(Path::is_dir) => {}
                Some(file) => {
                    let content = self.files[file].after_a_cut(cut, random);
                    fs::write(&path, content).expect("the target can be written");
                }
                None => {
                    // Its parent may be lost.
                    let _ = fs::create_dir(&path);
                }
            }
        }
    }

    /// Writes the same once more, for whoever looks into a loss, and returns where.
    pub(super) fn keep(&self, cut: f64, names: Names, mut random: fastrand::Rng) -> PathBuf {
        let kept = tempfile::Builder::new().prefix("power-cut-").tempdir();
        let kept = kept.expect("a temporary directory").keep();
        self.after_a_cut(cut, names, &mut random, &kept);
        kept
    }

    /// Of each directory's changes those that are durable, and some of those after them.
    fn names_after(&self, cut: f64, names: Names, random: &mut fastrand::Rng) -> Vec<&Naming> {
        let mut lasting: HashMap<&Path, usize> = HashMap::new();
        let begun: Vec<_> = self
            .names
            .iter()
            .filter(|change| change.began <= cut)
            .collect();
        for (index, change) in begun.iter().enumerate() {
            for directory in change.what.directories() {
                let entry = lasting.entry(directory).or_default();
                if self.is_durable(change, directory, cut, names) {
                    *entry = index + 1;
                }
            }
        }
        for kept in lasting.values_mut() {
            *kept = random.usize(*kept..=begun.len());
        }
        // A rename between two directories may be half there; both of the two processes here rename within one.
        let is_kept = |(index, change): &(usize, &&NameChange)| {
            let mut directories = change.what.directories();
            directories.all(|directory| *index < lasting[directory])
        };
        let kept = begun.iter().enumerate().filter(is_kept);
        kept.map(|(_, change)| &change.what).collect()
    }

    fn is_durable(&self, change: &NameChange, directory: &Path, cut: f64, names: Names) -> bool {
        let syncs = self.directory_syncs.get(directory);
        if syncs.is_some_and(|syncs| syncs.cover(change.ended, cut)) {
            return true;
        }
        names == Names::WithTheFile
            && match &change.what {
                Naming::File(_, file) => self.files[*file].was_synced(change.ended, cut),
                Naming::Directory(path) => self.names.iter().any(|other| match &other.what {
                    Naming::File(name, file) => {
                        name.starts_with(path) && self.files[*file].was_synced(other.ended, cut)
                    }
                    _ => false,
                }),
                Naming::Remove(_) | Naming::Rename(..) => false,
            }
    }
}

impl Naming {
    /// The directories whose content it changes.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        let paths = match self {
            Self::File(path, _) | Self::Directory(path) | Self::Remove(path) => [Some(path), None],
            Self::Rename(from, to) => [Some(from), Some(to)],
        };
        paths.into_iter().flatten().filter_map(|path| path.parent())
    }
}

impl File {
    fn after_a_cut(&self, cut: f64, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut content = Vec::new();
        for change in self.changes.iter().take_while(|change| change.began <= cut) {
            let durable = self.is_durable(change, cut);
            match &change.what {
                Content::Resize(len) => {
                    if durable || random.bool() {
                        content.resize(*len, 0);
                    }
                }
                Content::Write(at, bytes) if durable => put(&mut content, *at, bytes),
                Content::Write(at, bytes) => match random.u8(..3) {
                    0 => put(&mut content, *at, bytes),
                    1 => {}
                    _ => tear(&mut content, *at, bytes, random),
                },
            }
        }
        content
    }

    /// Whether its content was synced between `created` and `cut`.
    fn was_synced(&self, created: f64, cut: f64) -> bool {
        let mut writes = self.changes.iter().filter(|write| write.synced);
        self.syncs.cover(created, cut) || writes.any(|write| write.ended <= cut)
    }

    fn is_durable(&self, change: &Change, cut: f64) -> bool {
        (change.synced && change.ended <= cut) || self.syncs.cover(change.ended, cut)
    }
}

impl Syncs {
    fn sort(&mut self) {
        self.0.sort_by(|a, b| a.began.total_cmp(&b.began));
        let mut ended = f64::INFINITY;
        for sync in self.0.iter_mut().rev() {
            ended = ended.min(sync.ended);
            sync.ended = ended;
        }
    }

    /// Whether what had returned at `written` was synced before `cut`.
    fn cover(&self, written: f64, cut: f64) -> bool {
        let next = self.0.partition_point(|sync| sync.began < written);
        self.0.get(next).is_some_and(|sync| sync.ended <= cut)
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Some of the sectors reach the disk.
fn tear(content: &mut Vec<u8>, at: usize, bytes: &[u8], random: &mut fastrand::Rng) {
    let mut begin = 0;
    while begin < bytes.len() {
        let end = bytes
            .len()
            .min((at + begin) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at);
        if random.bool() {
            put(content, at + begin, &bytes[begin..end]);
        }
        begin = end;
    }
}
