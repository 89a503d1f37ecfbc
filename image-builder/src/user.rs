//! From a user as people write it to the numbers that the kernel knows.

use manifest::User;

/// Resolves `user`, `uid`, `user:group` or `uid:gid` in the image's own
/// `/etc/passwd` and `/etc/group` (OCI image specification, `config.User`).
pub(crate) fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
    let field = |index: usize| {
        let fields = entry.as_ref()?;
        fields.get(index)?.parse::<u32>().ok()
    };
    let uid = match field(2).or_else(|| user.parse().ok()) {
        Some(uid) => uid,
        None => {
            return Err(format!(
                "user `{user}` is not in the image's /etc/passwd: use one that is, or a number"
            ));
        }
    };
    let gid = match group_name {
        None => field(3).unwrap_or(0),
        Some(name) => find_group(name, group).ok_or_else(|| {
            format!("group `{name}` is not in the image's /etc/group: use one that is, or a number")
        })?,
    };
    Ok(User { uid, gid })
}

fn find_group(name: &str, group: &str) -> Option<u32> {
    let listed = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    listed.or_else(|| name.parse().ok())
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
                resolve(text, PASSWD, GROUP),
                Ok(User { uid, gid }),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_names_say_what_to_do() {
        assert!(
            resolve("nobody", PASSWD, GROUP)
                .unwrap_err()
                .contains("/etc/passwd")
        );
        assert!(
            resolve("app:wheel", PASSWD, GROUP)
                .unwrap_err()
                .contains("/etc/group")
        );
        assert!(resolve("", PASSWD, GROUP).is_err());
    }
}
