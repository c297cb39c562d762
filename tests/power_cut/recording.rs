//! The file system calls of a process, as strace recorded them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use importguard_tests::{SOON, eventually};

/// What changes files or their names, or makes such a change durable. One that [`Disk`](super::disk::Disk) does not know stops the
/// test, so that none is overlooked.
const CALLS: &str = "open,openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,\
     copy_file_range,sendfile,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,\
     link,linkat,symlink,symlinkat";

/// `command` under strace, which writes to `log`. The process stays a direct child, to be signalled and waited for.
pub(super) fn recorded(strace: &Path, command: Command, log: &Path) -> Command {
    let mut traced = Command::new(strace);
    traced
        .args(["-D", "-f", "--seccomp-bpf", "-ttt", "-T", "-y"])
        // Whole buffers: the largest is what SQLite or nats-server writes at once.
        .args(["-s", "16777216"])
        .args(["-e", &format!("trace={CALLS}"), "-o"])
        .arg(log)
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        traced.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// A system call that succeeded.
#[derive(Debug)]
pub(super) struct Call {
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// When it had returned.
    pub ended: f64,
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// What it returned.
    pub result: Argument,
}

/// An argument, or a result.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    /// A file descriptor and the path it was opened by.
    File(i64, PathBuf),
    /// The bytes of a buffer or of a path.
    Bytes(Vec<u8>),
    /// Anything else: a number, flags, a structure.
    Word(String),
}

impl Argument {
    /// As a number; stops the test if it is none.
    pub(super) fn number(&self) -> usize {
        match self {
            Self::Word(word) => word.parse().expect("a number"),
            other => panic!("{other:?} is no number"),
        }
    }

    /// As words.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Word(word) => word,
            _ => "",
        }
    }
}

/// The calls in `log`, in the order of their beginning, once the process has ended.
pub(super) async fn calls(log: &Path) -> Vec<Call> {
    let log = eventually("the recording is complete", SOON, async || {
        let log = fs::read(log)?;
        let last = log.trim_ascii_end().rsplit(|&byte| byte == b'\n').next();
        let is_complete = last.is_some_and(|line| line.ends_with(b"+++"));
        anyhow::ensure!(is_complete, "it ends without an exit");
        Ok(log)
    })
    .await;
    let mut calls = parse(&log);
    calls.sort_by(|a, b| a.began.total_cmp(&b.began));
    calls
}

fn parse(log: &[u8]) -> Vec<Call> {
    let mut unfinished: HashMap<&[u8], (f64, &[u8])> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.split(|&byte| byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let (thread, rest) = word(line);
        let (time, rest) = word(rest);
        let Ok(time) = text(time).parse::<f64>() else {
            panic!(
                "not a line of strace: {}",
                text(&line[..line.len().min(200)])
            );
        };
        if rest.starts_with(b"+++") || rest.starts_with(b"---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix(b" <unfinished ...>") {
            unfinished.insert(thread, (time, begun));
        } else if rest.starts_with(b"<... ") {
            let resumed = find(rest, b" resumed>").map(|at| &rest[at + " resumed>".len()..]);
            if let (Some((began, begun)), Some(resumed)) = (unfinished.remove(thread), resumed) {
                calls.extend(call(began, &[begun, resumed].concat()));
            }
        } else {
            calls.extend(call(time, rest));
        }
    }
    calls
}

/// `name(arguments) = result <seconds>`; nothing for a call that failed or did not return.
fn call(began: f64, text_of_call: &[u8]) -> Option<Call> {
    let open = text_of_call.iter().position(|&byte| byte == b'(')?;
    let name = text(&text_of_call[..open]).to_owned();
    let mut reader = Reader(&text_of_call[open + 1..]);
    let arguments = reader.arguments();
    let rest = reader.0.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    let at = rest.iter().rposition(|&byte| byte == b'<')?;
    let lasted: f64 = text(rest[at + 1..].strip_suffix(b">")?).parse().ok()?;
    let result = Reader(rest[..at].trim_ascii()).argument();
    if matches!(&result, Argument::Word(word) if word.starts_with(['-', '?'])) {
        return None;
    }
    Some(Call {
        began,
        ended: began + lasted,
        name,
        arguments,
        result,
    })
}

/// What is left of a line.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// All up to the closing parenthesis; the buffers of a vector one after another.
    fn arguments(&mut self) -> Vec<Argument> {
        let mut arguments = Vec::new();
        loop {
            self.0 = self.0.trim_ascii_start();
            match self.0.first() {
                None => return arguments,
                Some(b')') => {
                    self.0 = &self.0[1..];
                    return arguments;
                }
                Some(b',') => self.0 = &self.0[1..],
                Some(_) => arguments.push(self.argument()),
            }
        }
    }

    fn argument(&mut self) -> Argument {
        match self.0.first() {
            Some(b'"') => Argument::Bytes(self.string()),
            Some(b'[') => self.vector(),
            _ => self.word(),
        }
    }

    /// `[{iov_base="…", iov_len=5}, …]`, joined.
    fn vector(&mut self) -> Argument {
        let mut all = Vec::new();
        loop {
            match self.0.first() {
                None => return Argument::Bytes(all),
                Some(b']') => {
                    self.0 = &self.0[1..];
                    return Argument::Bytes(all);
                }
                Some(b'"') => all.extend(self.string()),
                Some(_) => self.0 = &self.0[1..],
            }
        }
    }

    /// With C's escapes; octal ones have up to three digits.
    fn string(&mut self) -> Vec<u8> {
        let text = self.0;
        let (mut bytes, mut at) = (Vec::new(), 1);
        while at < text.len() && text[at] != b'"' {
            let plain = text[at..]
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\'));
            let plain = plain.unwrap_or(text.len() - at);
            bytes.extend_from_slice(&text[at..at + plain]);
            at += plain;
            if text.get(at) != Some(&b'\\') {
                continue;
            }
            at += 1;
            let digits = text[at..].iter().take(3);
            let digits = digits
                .take_while(|byte| (b'0'..=b'7').contains(byte))
                .count();
            if digits > 0 {
                let value = text[at..at + digits].iter();
                bytes.push(value.fold(0_u8, |value, digit| value.wrapping_mul(8) + (digit - b'0')));
                at += digits;
            } else {
                bytes.push(match text[at] {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other => other,
                });
                at += 1;
            }
        }
        self.0 = &text[(at + 1).min(text.len())..];
        assert!(!self.0.starts_with(b"..."), "strace cut a buffer short");
        bytes
    }

    /// A number, flags, or `7</path>`.
    fn word(&mut self) -> Argument {
        let mut depth = 0_usize;
        let end = self.0.iter().position(|byte| {
            match byte {
                b'<' | b'{' => depth += 1,
                b'>' | b'}' => depth = depth.saturating_sub(1),
                b',' | b')' if depth == 0 => return true,
                _ => {}
            }
            false
        });
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        let word = text(word).trim();
        let file = word.split_once('<').and_then(|(number, path)| {
            let number = match number {
                "AT_FDCWD" => -1,
                number => number.parse().ok()?,
            };
            Some(Argument::File(number, path.split('>').next()?.into()))
        });
        file.unwrap_or_else(|| Argument::Word(word.to_owned()))
    }
}

/// The first word, and what comes after it and any blanks: short process ids are padded.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|&byte| byte == b' ');
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, rest.trim_ascii_start())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("strace writes ASCII outside of strings")
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
