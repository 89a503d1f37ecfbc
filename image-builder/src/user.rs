//! From a user as people write it to the numbers that the kernel knows.

use manifest::{NameOrId, User, UserSource};

/// Resolves a user in the image's own `/etc/passwd` and `/etc/group` (OCI image
/// specification, `config.User`). A number need not be listed there.
pub(crate) fn resolve(source: &UserSource, passwd: &str, group: &str) -> Result<User, String> {
    let (uid, own_group) = match &source.user {
        NameOrId::Id(uid) => {
            let listed = passwd.lines().find(|line| number(line, 2) == Some(*uid));
            (*uid, listed.and_then(|line| number(line, 3)).unwrap_or(0))
        }
        NameOrId::Name(name) => {
            let listed = passwd
                .lines()
                .find(|line| line.split(':').next() == Some(name));
            listed
                .and_then(|line| Some((number(line, 2)?, number(line, 3)?)))
                .ok_or_else(|| format!("user `{name}` is not in the image's /etc/passwd: use one that is, or a number"))?
        }
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
    Ok(User { uid, gid })
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app\n";

    #[test]
    fn names_and_numbers() {
        for (text, uid, gid) in [
            ("app", 1000, 1001),
            ("1000", 1000, 1001),
            ("app:staff", 1000, 50),
            ("app:7", 1000, 7),
            ("4242", 4242, 0),
            ("4242:staff", 4242, 50),
            ("0:0", 0, 0),
        ] {
            assert_eq!(
                resolve(&text.parse().unwrap(), PASSWD, GROUP),
                Ok(User { uid, gid }),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_names_say_what_to_do() {
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
