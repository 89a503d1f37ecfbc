//! From a user as people write it to what the kernel and the programs are told.

use manifest::{Groups, NameOrId, User, UserSource};

/// A user as the image's accounts describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The user in numbers.
    pub(crate) user: User,
    /// The groups beside its primary one.
    pub(crate) groups: Groups,
    /// The home directory: `/` for a user that is not listed, or listed without one.
    pub(crate) home: String,
}

/// Resolves a user in the image's own `/etc/passwd` and `/etc/group` (OCI image
/// specification, `config.User`). A number need not be listed there.
///
/// As with Docker and containerd (`GetExecUser` of `moby/sys/user`), a user has the groups
/// that `/etc/group` lists it in by its name, unless the source names a group: then it has
/// that one alone.
pub(crate) fn resolve(source: &UserSource, passwd: &str, group: &str) -> Result<Account, String> {
    let listed = passwd.lines().find(|line| match &source.user {
        NameOrId::Id(uid) => number(line, 2) == Some(*uid),
        NameOrId::Name(name) => line.split(':').next() == Some(name),
    });
    let (uid, own_group) = match &source.user {
        NameOrId::Id(uid) => (*uid, listed.and_then(|line| number(line, 3)).unwrap_or(0)),
        NameOrId::Name(name) => listed
            .and_then(|line| Some((number(line, 2)?, number(line, 3)?)))
            .ok_or_else(|| {
                format!(
                    "user `{name}` is not in the image's /etc/passwd: use one that is, or a number"
                )
            })?,
    };
    let gid = match &source.group {
        None => own_group,
        Some(NameOrId::Id(gid)) => *gid,
        Some(NameOrId::Name(name)) => group
            .lines()
            .find(|line| line.split(':').next() == Some(name))
            .and_then(|line| number(line, 2))
            .ok_or_else(|| {
                format!(
                    "group `{name}` is not in the image's /etc/group: use one that is, or a number"
                )
            })?,
    };
    let groups = match (
        &source.group,
        listed.and_then(|line| line.split(':').next()),
    ) {
        (None, Some(name)) if !name.is_empty() => group
            .lines()
            .filter(|line| members(line).any(|member| member == name))
            .filter_map(|line| number(line, 2))
            .collect(),
        _ => Vec::new(),
    };
    let home = listed
        .and_then(|line| line.split(':').nth(5))
        .filter(|home| !home.is_empty());
    Ok(Account {
        user: User { uid, gid },
        groups: Groups::try_from(groups).map_err(|error| error.to_string())?,
        home: home.unwrap_or("/").to_owned(),
    })
}

/// The users that a line of group(5) lists.
fn members(line: &str) -> impl Iterator<Item = &str> {
    line.split(':')
        .nth(3)
        .into_iter()
        .flat_map(|list| list.split(','))
}

/// A field of a line in one of these files (passwd(5), group(5)). The largest
/// number is nobody's.
fn number(line: &str, field: usize) -> Option<u32> {
    let number = line.split(':').nth(field)?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/false\nbare:x:7:7::::\nshort:x:8:8\nbroken\n";
    const GROUP: &str = "root:x:0:root\nstaff:x:50:app\ntls:x:101:web,app\nall:x:9:root,app\nnone:x:8:\nbroken:x::app\n";

    fn account(text: &str) -> Account {
        resolve(&text.parse().unwrap(), PASSWD, GROUP).unwrap()
    }

    #[test]
    fn user_names_and_numbers_are_resolved() {
        for (text, uid, gid) in [
            ("app", 1000, 1001),
            ("1000", 1000, 1001),
            ("app:staff", 1000, 50),
            ("app:7", 1000, 7),
            ("4242", 4242, 0),
            ("4242:staff", 4242, 50),
            ("0:0", 0, 0),
        ] {
            assert_eq!(account(text).user, User { uid, gid }, "{text}");
        }
    }

    #[test]
    fn user_groups_are_those_that_list_it_unless_one_is_named() {
        for (text, groups) in [
            ("app", &[9, 50, 101][..]),
            ("1000", &[9, 50, 101]),
            ("root", &[0, 9]),
            ("app:staff", &[]),
            ("app:1001", &[]),
            ("1000:7", &[]),
            ("4242", &[]),
            ("bare", &[]),
        ] {
            assert_eq!(*account(text).groups, *groups, "{text}");
        }
    }

    #[test]
    fn user_home_is_that_of_the_accounts_or_the_root() {
        for (text, home) in [
            ("root", "/root"),
            ("0", "/root"),
            ("app", "/srv/app"),
            ("1000", "/srv/app"),
            ("1000:50", "/srv/app"),
            ("4242", "/"),
            ("bare", "/"),
            ("short", "/"),
        ] {
            assert_eq!(account(text).home, home, "{text}");
        }
    }

    #[test]
    fn user_names_that_are_unknown_say_what_to_do() {
        assert!(
            resolve(&"nobody".parse().unwrap(), PASSWD, GROUP)
                .unwrap_err()
                .contains("/etc/passwd")
        );
        assert!(
            resolve(&"app:wheel".parse().unwrap(), PASSWD, GROUP)
                .unwrap_err()
                .contains("/etc/group")
        );
    }
}
