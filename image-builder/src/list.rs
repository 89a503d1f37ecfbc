//! Lists in messages.

/// The first texts and how many more there are; `None` if there are none.
pub(crate) fn list(texts: impl IntoIterator<Item = String>, most: usize) -> Option<String> {
    let mut texts = texts.into_iter();
    let shown: Vec<_> = texts.by_ref().take(most).collect();
    match (shown.len(), texts.count()) {
        (0, _) => None,
        (_, 0) => Some(shown.join(", ")),
        (_, more) => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_the_first_and_a_count() {
        let listed = |count: usize| list((0..count).map(|number| number.to_string()), 2);
        assert_eq!(listed(0), None);
        assert_eq!(listed(1).as_deref(), Some("0"));
        assert_eq!(listed(2).as_deref(), Some("0, 1"));
        assert_eq!(listed(5).as_deref(), Some("0, 1 and 3 more"));
    }
}
