//! The ids that the administrator has given to an ordinary user (subuid(5)).

use std::fs;
use std::io;

use thiserror::Error;

/// Ids that an image may use: `nobody` has 65534, and tools take 65535 for nobody at all.
pub(super) const ENOUGH: u32 = 65_536;
const PASSWD: &str = "/etc/passwd";
/// The first id that tools give as a subordinate one (`SUB_UID_MIN`, login.defs(5)): the
/// ids below are those of users.
const FIRST: u32 = 100_000;

/// Why not all of the image's ids can be mapped.
#[derive(Debug, Error)]
pub(super) enum Unmapped {
    /// The caller is root of a namespace that has few ids itself.
    #[error("{file} has fewer than {ENOUGH} ids: start the agent where root has all of them")]
    FewIds { file: &'static str },
    /// A program is missing.
    #[error("`{0}` is not installed: install it (apt install uidmap)")]
    Missing(&'static str),
    /// The caller has no range.
    #[error("{file} has no ids for user {user}: {advice}")]
    NoRange {
        file: &'static str,
        user: String,
        advice: Advice,
    },
    /// The caller's range is too short.
    #[error("{file} has {count} ids for user {user}, and an image needs {ENOUGH}: {advice}")]
    ShortRange {
        file: &'static str,
        user: String,
        count: u32,
        advice: Advice,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read: {source}")]
    Read {
        file: &'static str,
        source: io::Error,
    },
    /// The kernel, or a program, says no.
    #[error("{what}: {reason}")]
    Refused { what: String, reason: String },
}

/// The line that a file lacks.
#[derive(Debug, Error)]
pub(super) enum Advice {
    /// Its ids are beyond all that the file gives to anybody: users who share ids can
    /// reach each other's files and processes.
    #[error("add the line `{user}:{start}:{ENOUGH}` to it")]
    Add { user: String, start: u32 },
    /// Only the administrator can say which ids are free.
    #[error("give {user} {ENOUGH} consecutive ids there that nobody else has")]
    Choose { user: String },
}

/// Whose ids are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Their name, or their number if they have none here.
    name: String,
    uid: u32,
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) count: u32,
}

impl Owner {
    pub(super) fn read(uid: u32) -> Result<Self, Unmapped> {
        Ok(Self::find(&read(PASSWD)?, uid))
    }

    /// The user in the text of passwd(5).
    fn find(passwd: &str, uid: u32) -> Self {
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, found) = (fields.next()?, fields.nth(1)?);
            (found.parse() == Ok(uid)).then_some(name)
        });
        Self {
            name: name.map_or_else(|| uid.to_string(), str::to_owned),
            uid,
        }
    }

    /// The longest range that a file gives to the user.
    pub(super) fn range(&self, file: &'static str) -> Result<Range, Unmapped> {
        self.find_range(file, &read(file)?)
    }

    fn find_range(&self, file: &'static str, text: &str) -> Result<Range, Unmapped> {
        match self.longest(text) {
            Some(range) if range.count >= ENOUGH => Ok(range),
            Some(range) => Err(Unmapped::ShortRange {
                file,
                user: self.name.clone(),
                count: range.count,
                advice: self.advice(text),
            }),
            None => Err(Unmapped::NoRange {
                file,
                user: self.name.clone(),
                advice: self.advice(text),
            }),
        }
    }

    fn longest(&self, text: &str) -> Option<Range> {
        let is_own = |owner: &str| owner == self.name || owner.parse() == Ok(self.uid);
        ranges(text)
            .filter(|(owner, _)| is_own(owner))
            .map(|(_, range)| range)
            .max_by_key(|range| range.count)
    }

    fn advice(&self, text: &str) -> Advice {
        let user = self.name.clone();
        let ends = ranges(text).map(|(_, range)| range.start + range.count);
        let start = ends.fold(FIRST, u32::max);
        match start.checked_add(ENOUGH) {
            Some(_) => Advice::Add { user, start },
            None => Advice::Choose { user },
        }
    }
}

/// The ranges of a file that end within 32 bits, and whose they are.
fn ranges(text: &str) -> impl Iterator<Item = (&str, Range)> {
    text.lines().filter_map(|line| {
        let (owner, range) = line.split_once(':')?;
        let (start, count) = range.split_once(':')?;
        let range = Range {
            start: start.trim().parse().ok()?,
            count: count.trim().parse().ok()?,
        };
        range.start.checked_add(range.count)?;
        Some((owner, range))
    })
}

/// The text of a file; nothing if there is none.
fn read(file: &'static str) -> Result<String, Unmapped> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|source| Unmapped::Read { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";

    #[test]
    fn subordinate_ids_are_the_longest_range_of_name_or_number() {
        let alice = Owner::find(PASSWD, 1000);
        let text = "bob:100000:65536\nalice:1:2\nnonsense\nalice:200000:65536\n1000:300000:9\n";
        let range = |start, count| Some(Range { start, count });
        assert_eq!(alice.longest(text), range(200_000, 65_536));
        assert_eq!(alice.longest("1000:300000:70000\n"), range(300_000, 70_000));
        assert_eq!(alice.longest("alicia:1:70000\n10:1:70000\nalice:1\n"), None);
        // Ids end with 32 bits.
        assert_eq!(alice.longest("alice:4294967290:10\n"), None);
        let nameless = Owner::find(PASSWD, 4242);
        assert_eq!(
            nameless.longest("4242:100000:65536\n"),
            range(100_000, 65_536)
        );
    }

    #[test]
    fn subordinate_ids_that_are_missing_are_told_with_the_line_to_add() {
        let alice = Owner::find(PASSWD, 1000);
        let error = alice.range("/absent/subuid").unwrap_err().to_string();
        assert!(error.contains("/absent/subuid"), "{error}");
        assert!(error.contains("`alice:100000:65536`"), "{error}");
    }

    #[test]
    fn subordinate_ids_that_are_advised_are_nobodys() {
        let alice = Owner::find(PASSWD, 1000);
        let error = |text| {
            alice
                .find_range("/etc/subuid", text)
                .unwrap_err()
                .to_string()
        };
        for (text, line) in [
            ("bob:100:5\n", "`alice:100000:65536`"),
            ("bob:100000:65536\n", "`alice:165536:65536`"),
            (
                "carol:300000:70000\nbob:100000:65536\n",
                "`alice:370000:65536`",
            ),
            // Her own are too few, and others follow them.
            ("alice:100000:9\nbob:100009:65536\n", "`alice:165545:65536`"),
            ("bob:4294900000:65536\n", "that nobody else has"),
        ] {
            let error = error(text);
            assert!(error.contains(line), "{text:?}: {error}");
        }
    }
}
